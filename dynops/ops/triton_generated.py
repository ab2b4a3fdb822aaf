"""Local sums in Triton whose kernel is generated where it is needed and never stored.

K[b,g,k,p] = bias[g,k] + sum over r of weight[g,k,r] * hidden[b,r,p]. Tiles lie as in `triton_sums`; one of the hidden
context is `width pixels` or `pixels width`. A sum over all pixels is made in parts, one for each program, which the
caller adds: results are the same bits each time.
"""

import triton
import triton.language as tl


@triton.jit
def generate_and_sum(
    hidden, weight, bias, value, made,
    g, r, s, h, w, rows, columns, before_h, before_w, s_blocks, p_blocks, r_blocks,
    hidden_b, hidden_r, hidden_h, hidden_w, weight_g, weight_k, weight_r, bias_g, bias_k,
    value_b, value_g, value_s, value_h, value_w, made_b, made_g, made_s, made_h, made_w,
    kh: tl.constexpr, kw: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
    dilation_h: tl.constexpr, dilation_w: tl.constexpr,
    seen: tl.constexpr, once: tl.constexpr, last: tl.constexpr, wide: tl.constexpr, dtype: tl.constexpr,
    channels: tl.constexpr, pixels: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Sum generated kernel * value over taps: of the pixels that each sees, or of those that it is `seen` by.

    Args:
        hidden: `b r` on the grid of the sum, which is that of `made`, or of `value` where it is `seen`.
        weight: `g k r`.
        bias: `g k`.
        value: `b g s h w`.
        made: `b g s rows columns`.
        once: whether the hidden context of all taps is read once: it is one block, and each pixel's own.
    """
    program = tl.program_id(0)
    channel = program % s_blocks * channels + tl.arange(0, channels)
    program = program // s_blocks
    pixel = program % p_blocks * pixels + tl.arange(0, pixels)
    program = program // p_blocks
    group, image = (program % g).to(tl.int64), (program // g).to(tl.int64)
    unit = tl.arange(0, width)
    channel = channel[None, :] if last else channel[:, None]
    unit = unit[None, :] if last else unit[:, None]
    pixel = pixel[:, None] if last else pixel[None, :]
    real, inside = channel < s, pixel < rows * columns
    y, x = pixel // columns, pixel % columns
    if wide:
        channel, unit, y, x = channel.to(tl.int64), unit.to(tl.int64), y.to(tl.int64), x.to(tl.int64)

    hidden += image * hidden_b
    weight += group * weight_g
    bias += group * bias_g
    value += image * value_b + group * value_g
    top = y + before_h if seen else y * stride_h - before_h
    left = x + before_w if seen else x * stride_w - before_w
    from_hidden = y * hidden_h + x * hidden_w
    if once:
        held = tl.load(hidden + (unit * hidden_r + from_hidden), mask=inside & (unit < r), other=0).to(dtype)
    total = tl.full((pixels, channels) if last else (channels, pixels), 0, dtype)
    for tap_h in range(kh):
        row = top - tap_h * dilation_h if seen else top + tap_h * dilation_h
        row_inside = (row >= 0) & (row < h * stride_h if seen else row < h) & inside
        if seen and stride_h > 1:
            row_inside &= row % stride_h == 0
            row = row // stride_h
        for tap_w in range(kw):
            column = left - tap_w * dilation_w if seen else left + tap_w * dilation_w
            there = (column >= 0) & (column < w * stride_w if seen else column < w) & row_inside
            if seen and stride_w > 1:
                there &= column % stride_w == 0
                column = column // stride_w
            if seen:
                from_hidden = row * hidden_h + column * hidden_w
            if once:
                products = held * tl.load(weight + unit * weight_r, mask=unit < r, other=0).to(dtype)
            else:
                products = tl.full((pixels, width) if last else (width, pixels), 0, dtype)
                for block in range(r_blocks):
                    number = block * width + unit
                    own = tl.load(weight + number * weight_r, mask=number < r, other=0).to(dtype)
                    each = tl.load(hidden + (number * hidden_r + from_hidden), mask=there & (number < r), other=0)
                    products += own * each.to(dtype)
            generated = tl.sum(products, 1 if last else 0, keep_dims=True) + tl.load(bias).to(dtype)
            each = tl.load(value + (channel * value_s + (row * value_h + column * value_w)), mask=there & real, other=0)
            total += generated * each.to(dtype)
            weight += weight_k
            bias += bias_k
    made += image * made_b + group * made_g
    tl.store(made + (channel * made_s + (y * made_h + x * made_w)), total.to(made.dtype.element_ty), mask=real & inside)


@triton.jit
def hidden_gradient(
    weight, slope, value, made,
    g, r, s, h, w, rows, columns, before_h, before_w, s_blocks, p_blocks, r_blocks,
    weight_g, weight_k, weight_r, slope_b, slope_g, slope_s, slope_h, slope_w,
    value_b, value_g, value_s, value_h, value_w, made_b, made_r, made_h, made_w,
    kh: tl.constexpr, kw: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
    dilation_h: tl.constexpr, dilation_w: tl.constexpr,
    once: tl.constexpr, last: tl.constexpr, wide: tl.constexpr, dtype: tl.constexpr,
    channels: tl.constexpr, pixels: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Sum weight * the kernel's gradient over groups and taps, where that gradient is sum over s of slope * value.

    Args:
        weight: `g k r`.
        slope: `b g s rows columns`.
        value: `b g s h w`.
        made: `b r rows columns`.
        once: whether there is one block of channels: the slope of a group is then read once.
    """
    program = tl.program_id(0)
    unit = program % r_blocks * width + tl.arange(0, width)
    program = program // r_blocks
    pixel = program % p_blocks * pixels + tl.arange(0, pixels)
    image = (program // p_blocks).to(tl.int64)
    channel = tl.arange(0, channels)
    channel = channel[None, :] if last else channel[:, None]
    unit = unit[None, :] if last else unit[:, None]
    pixel = pixel[:, None] if last else pixel[None, :]
    inside = pixel < rows * columns
    y, x = pixel // columns, pixel % columns
    if wide:
        channel, unit, y, x = channel.to(tl.int64), unit.to(tl.int64), y.to(tl.int64), x.to(tl.int64)

    slope += image * slope_b
    value += image * value_b
    sees_from = y * slope_h + x * slope_w
    total = tl.full((pixels, width) if last else (width, pixels), 0, dtype)
    for _ in range(g):
        tap = weight
        if once:
            at = channel * slope_s + sees_from
            held = tl.load(slope + at, mask=inside & (channel < s), other=0).to(dtype)
        for tap_h in range(kh):
            row = y * stride_h - before_h + tap_h * dilation_h
            row_inside = (row >= 0) & (row < h) & inside
            for tap_w in range(kw):
                column = x * stride_w - before_w + tap_w * dilation_w
                there = (column >= 0) & (column < w) & row_inside
                sees = row * value_h + column * value_w
                if once:
                    at = channel * value_s + sees
                    products = held * tl.load(value + at, mask=there & (channel < s), other=0).to(dtype)
                else:
                    products = tl.full((pixels, channels) if last else (channels, pixels), 0, dtype)
                    for block in range(s_blocks):
                        number = block * channels + channel
                        mask = there & (number < s)
                        one = tl.load(slope + (number * slope_s + sees_from), mask=mask, other=0)
                        other = tl.load(value + (number * value_s + sees), mask=mask, other=0)
                        products += one.to(dtype) * other.to(dtype)
                own = tl.load(tap + unit * weight_r, mask=unit < r, other=0).to(dtype)
                total += own * tl.sum(products, 1 if last else 0, keep_dims=True)
                tap += weight_k
        weight += weight_g
        slope += slope_g
        value += value_g
    made += image * made_b
    at = unit * made_r + (y * made_h + x * made_w)
    tl.store(made + at, total.to(made.dtype.element_ty), mask=(unit < r) & inside)


@triton.jit
def weight_gradient(
    hidden, slope, value, made,
    b, g, r, s, h, w, rows, columns, before_h, before_w, s_blocks, p_blocks, r_blocks, blocks_each,
    hidden_b, hidden_r, hidden_h, hidden_w, slope_b, slope_g, slope_s, slope_h, slope_w,
    value_b, value_g, value_s, value_h, value_w, made_part, made_g, made_k,
    kh: tl.constexpr, kw: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
    dilation_h: tl.constexpr, dilation_w: tl.constexpr,
    last: tl.constexpr, wide: tl.constexpr, dtype: tl.constexpr,
    channels: tl.constexpr, pixels: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Sum hidden * the kernel's gradient over a part of all images' blocks of pixels, for one group and tap.

    Args:
        hidden: `b r rows columns`.
        slope: `b g s rows columns`.
        value: `b g s h w`.
        made: `part g k r+1`, the gradient of the bias behind that of the weights.
    """
    program = tl.program_id(0)
    r_block = program % r_blocks
    program = program // r_blocks
    k = program % (kh * kw)
    program = program // (kh * kw)
    group, part = (program % g).to(tl.int64), program // g
    channel, unit = tl.arange(0, channels), r_block * width + tl.arange(0, width)
    channel = channel[None, :] if last else channel[:, None]
    unit = unit[None, :] if last else unit[:, None]
    if wide:
        channel, unit = channel.to(tl.int64), unit.to(tl.int64)

    slope += group * slope_g
    value += group * value_g
    down, along = k // kw * dilation_h - before_h, k % kw * dilation_w - before_w
    total = tl.full((pixels, width) if last else (width, pixels), 0, dtype)
    alone = tl.full((pixels, 1) if last else (1, pixels), 0, dtype)
    for place in range(part * blocks_each, tl.minimum((part + 1) * blocks_each, b * p_blocks)):
        pixel = place % p_blocks * pixels + tl.arange(0, pixels)
        pixel = pixel[:, None] if last else pixel[None, :]
        y, x = pixel // columns, pixel % columns
        if wide:
            y, x = y.to(tl.int64), x.to(tl.int64)
        row, column = y * stride_h + down, x * stride_w + along
        there = (row >= 0) & (row < h) & (column >= 0) & (column < w) & (pixel < rows * columns)
        image = tl.cast(place // p_blocks, tl.int64)
        products = tl.full((pixels, channels) if last else (channels, pixels), 0, dtype)
        for block in range(s_blocks):
            number = block * channels + channel
            mask = there & (number < s)
            at = number * slope_s + (y * slope_h + x * slope_w)
            one = tl.load(slope + image * slope_b + at, mask=mask, other=0)
            at = number * value_s + (row * value_h + column * value_w)
            other = tl.load(value + image * value_b + at, mask=mask, other=0)
            products += one.to(dtype) * other.to(dtype)
        own = tl.sum(products, 1 if last else 0, keep_dims=True)
        at = unit * hidden_r + (y * hidden_h + x * hidden_w)
        total += own * tl.load(hidden + image * hidden_b + at, mask=there & (unit < r), other=0).to(dtype)
        alone += own
    made += part.to(tl.int64) * made_part + group * made_g + k * made_k
    summed = tl.sum(total, 0 if last else 1, keep_dims=True)
    tl.store(made + unit, summed.to(made.dtype.element_ty), mask=unit < r)
    if r_block == 0:
        tl.store(made + r, tl.sum(alone).to(made.dtype.element_ty))
