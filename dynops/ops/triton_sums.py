"""Local sums in Triton: a program holds some pixels of some channels in registers and goes over the taps.

A tile of features is `channels pixels`, or `pixels channels` where channels lie side by side in memory (`last`), so
that neighbouring threads read neighbouring numbers; what is known of pixels alone is a tile whose other axis has size
1. A block of channels is `whole` where there are as many as it has places. Every number is the sum of one program, in
one order: results are the same bits each time. Offsets within an image's group are of 32 bits unless they are `wide`;
all others are added to pointers, in 64.
"""

import triton
import triton.language as tl


@triton.jit
def sum_taps(
    kernel, value, made,
    g, kept, summed, s, h, w, rows, columns, before_h, before_w, s_blocks, p_blocks,
    kernel_b, kernel_g, kernel_kept, kernel_summed, kernel_k, kernel_h, kernel_w,
    value_b, value_g, value_c, value_s, value_h, value_w,
    made_b, made_g, made_c, made_s, made_h, made_w,
    kh: tl.constexpr, kw: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
    dilation_h: tl.constexpr, dilation_w: tl.constexpr,
    seen: tl.constexpr, whole: tl.constexpr, last: tl.constexpr, wide: tl.constexpr, dtype: tl.constexpr,
    channels: tl.constexpr, pixels: tl.constexpr,
):  # fmt: skip
    """Sum kernel * value over taps and `summed`: of the pixels that each sees, or of those that it is `seen` by.

    Args:
        kernel: `b g kept summed k` on the grid of the sum, which is that of `made`, or of `value` where it is `seen`.
        value: `b g summed s h w`.
        made: `b g kept s rows columns`.
    """
    program = tl.program_id(0)
    channel = program % s_blocks * channels + tl.arange(0, channels)
    program = program // s_blocks
    own = (program % kept).to(tl.int64)
    program = program // kept
    pixel = program % p_blocks * pixels + tl.arange(0, pixels)
    program = program // p_blocks
    group, image = (program % g).to(tl.int64), (program // g).to(tl.int64)
    channel = channel[None, :] if last else channel[:, None]
    pixel = pixel[:, None] if last else pixel[None, :]
    real, inside = channel < s, pixel < rows * columns
    y, x = pixel // columns, pixel % columns
    if wide:
        channel, y, x = channel.to(tl.int64), y.to(tl.int64), x.to(tl.int64)

    kernel += image * kernel_b + group * kernel_g + own * kernel_kept
    value += image * value_b + group * value_g
    top = y + before_h if seen else y * stride_h - before_h
    left = x + before_w if seen else x * stride_w - before_w
    weighs = y * kernel_h + x * kernel_w
    total = tl.full((pixels, channels) if last else (channels, pixels), 0, dtype)
    for _ in range(summed):
        tap = kernel
        plane = value + channel * value_s
        for tap_h in range(kh):
            row = top - tap_h * dilation_h if seen else top + tap_h * dilation_h
            row_inside = (row >= 0) & (row < h * stride_h if seen else row < h) & inside
            if seen and stride_h > 1:
                row_inside &= row % stride_h == 0
                row = row // stride_h
            line = row * value_h
            for tap_w in tl.static_range(kw):
                column = left - tap_w * dilation_w if seen else left + tap_w * dilation_w
                there = (column >= 0) & (column < w * stride_w if seen else column < w) & row_inside
                if seen and stride_w > 1:
                    there &= column % stride_w == 0
                    column = column // stride_w
                if seen:
                    weighs = row * kernel_h + column * kernel_w
                weight = tl.load(tap + weighs, mask=there, other=0).to(dtype)
                each = tl.load(plane + (line + column * value_w), mask=there if whole else there & real, other=0)
                total += weight * each.to(dtype)
                tap += kernel_k
        kernel += kernel_summed
        value += value_c
    made += image * made_b + group * made_g + own * made_c
    at = channel * made_s + (y * made_h + x * made_w)
    tl.store(made + at, total.to(made.dtype.element_ty), mask=inside if whole else inside & real)


@triton.jit
def sum_channels(
    slope, value, made,
    num_b, num_g, g, o, i, s, h, w, rows, columns, before_h, before_w, s_blocks, p_blocks,
    slope_b, slope_g, slope_c, slope_s, slope_h, slope_w,
    value_b, value_g, value_c, value_s, value_h, value_w,
    made_b, made_g, made_o, made_i, made_k,
    kh: tl.constexpr, kw: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
    dilation_h: tl.constexpr, dilation_w: tl.constexpr,
    once: tl.constexpr, tap_rows: tl.constexpr, whole: tl.constexpr, last: tl.constexpr, wide: tl.constexpr,
    dtype: tl.constexpr, channels: tl.constexpr, pixels: tl.constexpr,
):  # fmt: skip
    """Sum slope * value over channels, for `tap_rows` rows of taps, and over images and groups that share a kernel.

    Args:
        slope: `b g o s rows columns`.
        value: `b g i s h w`.
        made: `b g o i k rows columns`, its rows one behind the other.
        num_b: images that are summed over, 1 where each has a kernel of its own; num_g: likewise.
        g: groups that have a kernel of their own.
        once: whether there is one block of channels and nothing else to sum over: then the slope is read once.
    """
    program = tl.program_id(0)
    pixel = program % p_blocks * pixels + tl.arange(0, pixels)
    program = program // p_blocks
    tap_blocks = (kh + tap_rows - 1) // tap_rows
    first = program % tap_blocks * tap_rows
    program = program // tap_blocks
    own, summed = (program // i % o).to(tl.int64), (program % i).to(tl.int64)
    program = program // (o * i)
    group, image = (program % g).to(tl.int64), (program // g).to(tl.int64)
    channel = tl.arange(0, channels)
    channel = channel[None, :] if last else channel[:, None]
    pixel = pixel[:, None] if last else pixel[None, :]
    inside = pixel < rows * columns
    y, x = pixel // columns, pixel % columns
    if wide:
        channel, y, x = channel.to(tl.int64), y.to(tl.int64), x.to(tl.int64)

    slope += image * slope_b + group * slope_g + own * slope_c
    value += image * value_b + group * value_g + summed * value_c
    made += image * made_b + group * made_g + own * made_o + summed * made_i + first.to(tl.int64) * kw * made_k
    sees_from = y * slope_h + x * slope_w
    if once:
        mask = inside if whole else inside & (channel < s)
        each = tl.load(slope + (channel * slope_s + sees_from), mask=mask, other=0).to(dtype)
    top, left = y * stride_h - before_h, x * stride_w - before_w
    for tap_h in range(first, tl.minimum(first + tap_rows, kh)):
        row = top + tap_h * dilation_h
        row_inside = (row >= 0) & (row < h) & inside
        for tap_w in tl.static_range(kw):
            column = left + tap_w * dilation_w
            there = (column >= 0) & (column < w) & row_inside
            sees = row * value_h + column * value_w
            if once:
                mask = there if whole else there & (channel < s)
                total = each * tl.load(value + (channel * value_s + sees), mask=mask, other=0).to(dtype)
            else:
                total = tl.full((pixels, channels) if last else (channels, pixels), 0, dtype)
                slope_b_at, value_b_at = slope, value
                for _ in range(num_b):
                    slope_at, value_at = slope_b_at, value_b_at
                    for _ in range(num_g):
                        for block in range(s_blocks):
                            number = block * channels + channel
                            mask = there if whole else there & (number < s)
                            one = tl.load(slope_at + (number * slope_s + sees_from), mask=mask, other=0)
                            other = tl.load(value_at + (number * value_s + sees), mask=mask, other=0)
                            total += one.to(dtype) * other.to(dtype)
                        slope_at += slope_g
                        value_at += value_g
                    slope_b_at += slope_b
                    value_b_at += value_b
            total = tl.sum(total, 1 if last else 0, keep_dims=True)
            tl.store(made + pixel, total.to(made.dtype.element_ty), mask=inside)
            made += made_k
