"""Attention to the pixels of a window in Triton, whose scores and weights are nowhere in memory.

score[k,p] = query[:,p] . key[:,window(p,k)] + asked[:,p] . positions[:,k], the first where `keyed`, the second where
`placed`; weight = softmax over k. Forward the softmax is kept as a running maximum and denominator, backward it is
exp(score - logsumexp). Tiles lie as in `triton_sums`: of the value `channels`, of queries and keys `d_tile`, of what is
asked of positions `e_tile`, each with `pixels`. Where one tile holds all of each, what belongs to a pixel is read
`once`. A sum over all pixels is made in parts, one for each program, which the caller adds: results are the same bits
each time. `logsumexp` and `delta`, the mean gradient of a pixel's weights, are `b g o rows columns` without gaps.
"""

import triton
import triton.language as tl


@triton.jit
def attend(
    query, key, asked, positions, value, made, logsumexp,
    g, o, d, e, s, h, w, rows, columns, before_h, before_w, s_blocks, p_blocks, d_blocks, e_blocks,
    query_b, query_g, query_o, query_d, query_h, query_w, key_b, key_g, key_d, key_h, key_w,
    asked_b, asked_g, asked_o, asked_e, asked_h, asked_w, positions_g, positions_e, positions_k,
    value_b, value_g, value_s, value_h, value_w, made_b, made_g, made_o, made_s, made_h, made_w,
    kh: tl.constexpr, kw: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
    dilation_h: tl.constexpr, dilation_w: tl.constexpr,
    keyed: tl.constexpr, placed: tl.constexpr, masked: tl.constexpr, once: tl.constexpr, last: tl.constexpr,
    wide: tl.constexpr, dtype: tl.constexpr,
    channels: tl.constexpr, pixels: tl.constexpr, d_tile: tl.constexpr, e_tile: tl.constexpr,
):  # fmt: skip
    """Sum weight * value over taps.

    Args:
        query: `b g o d rows columns`.
        key: `b g d h w`.
        asked: `b g o e rows columns`.
        positions: `g e k`.
        value: `b g s h w`.
        made: `b g o s rows columns`.
        masked: whether taps outside have no weight.
    """
    program = tl.program_id(0)
    channel = program % s_blocks * channels + tl.arange(0, channels)
    first = program % s_blocks == 0
    program = program // s_blocks
    pixel = program % p_blocks * pixels + tl.arange(0, pixels)
    program = program // p_blocks
    place = program.to(tl.int64) * (rows * columns)
    own, group, image = (program % o).to(tl.int64), (program // o % g).to(tl.int64), (program // (o * g)).to(tl.int64)
    d_unit, e_unit = tl.arange(0, d_tile), tl.arange(0, e_tile)
    channel = channel[None, :] if last else channel[:, None]
    d_unit = d_unit[None, :] if last else d_unit[:, None]
    e_unit = e_unit[None, :] if last else e_unit[:, None]
    pixel = pixel[:, None] if last else pixel[None, :]
    real, inside = channel < s, pixel < rows * columns
    y, x = pixel // columns, pixel % columns
    if wide:
        channel, d_unit, e_unit = channel.to(tl.int64), d_unit.to(tl.int64), e_unit.to(tl.int64)
        y, x = y.to(tl.int64), x.to(tl.int64)

    query += image * query_b + group * query_g + own * query_o
    key += image * key_b + group * key_g
    asked += image * asked_b + group * asked_g + own * asked_o
    positions += group * positions_g
    value += image * value_b + group * value_g
    from_query, from_asked = y * query_h + x * query_w, y * asked_h + x * asked_w
    if once and keyed:
        held_query = tl.load(query + (d_unit * query_d + from_query), mask=inside & (d_unit < d), other=0).to(dtype)
    if once and placed:
        held_asked = tl.load(asked + (e_unit * asked_e + from_asked), mask=inside & (e_unit < e), other=0).to(dtype)
    # finite, so that no difference of two infinities arises before a tap is inside
    highest = tl.full((pixels, 1) if last else (1, pixels), -1e38, dtype)
    denominator = tl.full((pixels, 1) if last else (1, pixels), 0, dtype)
    total = tl.full((pixels, channels) if last else (channels, pixels), 0, dtype)
    for tap_h in range(kh):
        row = y * stride_h - before_h + tap_h * dilation_h
        row_inside = (row >= 0) & (row < h) & inside
        for tap_w in range(kw):
            column = x * stride_w - before_w + tap_w * dilation_w
            there = (column >= 0) & (column < w) & row_inside
            score = tl.full((pixels, 1) if last else (1, pixels), 0, dtype)
            if keyed:
                from_key = row * key_h + column * key_w
                if once:
                    mask = there & (d_unit < d)
                    products = held_query * tl.load(key + (d_unit * key_d + from_key), mask=mask, other=0).to(dtype)
                else:
                    products = tl.full((pixels, d_tile) if last else (d_tile, pixels), 0, dtype)
                    for block in range(d_blocks):
                        number = block * d_tile + d_unit
                        mask = there & (number < d)
                        one = tl.load(query + (number * query_d + from_query), mask=mask, other=0)
                        other = tl.load(key + (number * key_d + from_key), mask=mask, other=0)
                        products += one.to(dtype) * other.to(dtype)
                score += tl.sum(products, 1 if last else 0, keep_dims=True)
            if placed:
                if once:
                    near = tl.load(positions + e_unit * positions_e, mask=e_unit < e, other=0).to(dtype)
                    products = held_asked * near
                else:
                    products = tl.full((pixels, e_tile) if last else (e_tile, pixels), 0, dtype)
                    for block in range(e_blocks):
                        number = block * e_tile + e_unit
                        one = tl.load(asked + (number * asked_e + from_asked), mask=inside & (number < e), other=0)
                        other = tl.load(positions + number * positions_e, mask=number < e, other=0)
                        products += one.to(dtype) * other.to(dtype)
                score += tl.sum(products, 1 if last else 0, keep_dims=True)
                positions += positions_k
            if masked:
                score = tl.where(there, score, float("-inf"))
            higher = tl.maximum(highest, score)
            kept, weight = tl.exp(highest - higher), tl.exp(score - higher)
            from_value = row * value_h + column * value_w
            each = tl.load(value + (channel * value_s + from_value), mask=there & real, other=0).to(dtype)
            total = total * kept + weight * each
            denominator = denominator * kept + weight
            highest = higher
    # the highest score adds 1, so that less means that no tap is inside
    denominator = tl.maximum(denominator, 1.0)
    made += image * made_b + group * made_g + own * made_o
    at = channel * made_s + (y * made_h + x * made_w)
    tl.store(made + at, (total / denominator).to(made.dtype.element_ty), mask=real & inside)
    if first:
        tl.store(logsumexp + place + pixel, (highest + tl.log(denominator)).to(logsumexp.dtype.element_ty), mask=inside)


@triton.jit
def query_gradient(
    query, key, asked, positions, value, slope, logsumexp, delta, made_query, made_asked,
    g, o, d, e, s, h, w, rows, columns, before_h, before_w, s_blocks, p_blocks, d_blocks, e_blocks, made_blocks,
    query_b, query_g, query_o, query_d, query_h, query_w, key_b, key_g, key_d, key_h, key_w,
    asked_b, asked_g, asked_o, asked_e, asked_h, asked_w, positions_g, positions_e, positions_k,
    value_b, value_g, value_s, value_h, value_w, slope_b, slope_g, slope_o, slope_s, slope_h, slope_w,
    made_query_b, made_query_g, made_query_o, made_query_d, made_query_h, made_query_w,
    made_asked_b, made_asked_g, made_asked_o, made_asked_e, made_asked_h, made_asked_w,
    kh: tl.constexpr, kw: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
    dilation_h: tl.constexpr, dilation_w: tl.constexpr,
    keyed: tl.constexpr, placed: tl.constexpr, masked: tl.constexpr, once: tl.constexpr, last: tl.constexpr,
    wide: tl.constexpr, dtype: tl.constexpr,
    channels: tl.constexpr, pixels: tl.constexpr, d_tile: tl.constexpr, e_tile: tl.constexpr,
):  # fmt: skip
    """Sum weight * (change - delta) * key, and likewise positions, over taps; change = sum over s of slope * value.

    As delta is the mean of the changes, known only behind the last tap, both summands of the difference are added up.

    Args:
        query, key, asked, positions, value, masked: as in `attend`.
        slope: `b g o s rows columns`.
        delta: written.
        made_query: `b g o d rows columns`.
        made_asked: `b g o e rows columns`.
        made_blocks: blocks of the longer of d and e, one for each program.
    """
    program = tl.program_id(0)
    made_block = program % made_blocks
    program = program // made_blocks
    pixel = program % p_blocks * pixels + tl.arange(0, pixels)
    program = program // p_blocks
    place = program.to(tl.int64) * (rows * columns)
    own, group, image = (program % o).to(tl.int64), (program // o % g).to(tl.int64), (program // (o * g)).to(tl.int64)
    channel, d_unit, e_unit = tl.arange(0, channels), tl.arange(0, d_tile), tl.arange(0, e_tile)
    channel = channel[None, :] if last else channel[:, None]
    d_unit = d_unit[None, :] if last else d_unit[:, None]
    e_unit = e_unit[None, :] if last else e_unit[:, None]
    pixel = pixel[:, None] if last else pixel[None, :]
    inside = pixel < rows * columns
    y, x = pixel // columns, pixel % columns
    if wide:
        channel, d_unit, e_unit = channel.to(tl.int64), d_unit.to(tl.int64), e_unit.to(tl.int64)
        y, x = y.to(tl.int64), x.to(tl.int64)

    query += image * query_b + group * query_g + own * query_o
    key += image * key_b + group * key_g
    asked += image * asked_b + group * asked_g + own * asked_o
    positions += group * positions_g
    value += image * value_b + group * value_g
    slope += image * slope_b + group * slope_g + own * slope_o
    from_query, from_asked = y * query_h + x * query_w, y * asked_h + x * asked_w
    from_slope = y * slope_h + x * slope_w
    d_made, e_made = made_block * d_tile + d_unit, made_block * e_tile + e_unit
    if once:
        held_slope = tl.load(slope + (channel * slope_s + from_slope), mask=inside & (channel < s), other=0).to(dtype)
    if once and keyed:
        held_query = tl.load(query + (d_unit * query_d + from_query), mask=inside & (d_unit < d), other=0).to(dtype)
    if once and placed:
        held_asked = tl.load(asked + (e_unit * asked_e + from_asked), mask=inside & (e_unit < e), other=0).to(dtype)
    level = tl.load(logsumexp + place + pixel, mask=inside, other=0).to(dtype)
    mean = tl.full((pixels, 1) if last else (1, pixels), 0, dtype)
    if keyed:
        query_sum = tl.full((pixels, d_tile) if last else (d_tile, pixels), 0, dtype)
        query_mean = tl.full((pixels, d_tile) if last else (d_tile, pixels), 0, dtype)
    if placed:
        asked_sum = tl.full((pixels, e_tile) if last else (e_tile, pixels), 0, dtype)
        asked_mean = tl.full((pixels, e_tile) if last else (e_tile, pixels), 0, dtype)
    for tap_h in range(kh):
        row = y * stride_h - before_h + tap_h * dilation_h
        row_inside = (row >= 0) & (row < h) & inside
        for tap_w in range(kw):
            column = x * stride_w - before_w + tap_w * dilation_w
            there = (column >= 0) & (column < w) & row_inside
            score = tl.full((pixels, 1) if last else (1, pixels), 0, dtype)
            if keyed:
                from_key = row * key_h + column * key_w
                seen = tl.load(key + (d_made * key_d + from_key), mask=there & (d_made < d), other=0).to(dtype)
                if once:
                    products = held_query * seen
                else:
                    products = tl.full((pixels, d_tile) if last else (d_tile, pixels), 0, dtype)
                    for block in range(d_blocks):
                        number = block * d_tile + d_unit
                        mask = there & (number < d)
                        one = tl.load(query + (number * query_d + from_query), mask=mask, other=0)
                        other = tl.load(key + (number * key_d + from_key), mask=mask, other=0)
                        products += one.to(dtype) * other.to(dtype)
                score += tl.sum(products, 1 if last else 0, keep_dims=True)
            if placed:
                near = tl.load(positions + e_made * positions_e, mask=e_made < e, other=0).to(dtype)
                if once:
                    products = held_asked * near
                else:
                    products = tl.full((pixels, e_tile) if last else (e_tile, pixels), 0, dtype)
                    for block in range(e_blocks):
                        number = block * e_tile + e_unit
                        one = tl.load(asked + (number * asked_e + from_asked), mask=inside & (number < e), other=0)
                        other = tl.load(positions + number * positions_e, mask=number < e, other=0)
                        products += one.to(dtype) * other.to(dtype)
                score += tl.sum(products, 1 if last else 0, keep_dims=True)
                positions += positions_k
            if masked:
                score = tl.where(there, score, float("-inf"))
            weight = tl.exp(score - level)
            from_value = row * value_h + column * value_w
            if once:
                mask = there & (channel < s)
                products = held_slope * tl.load(value + (channel * value_s + from_value), mask=mask, other=0).to(dtype)
            else:
                products = tl.full((pixels, channels) if last else (channels, pixels), 0, dtype)
                for block in range(s_blocks):
                    number = block * channels + channel
                    mask = there & (number < s)
                    one = tl.load(slope + (number * slope_s + from_slope), mask=mask, other=0)
                    other = tl.load(value + (number * value_s + from_value), mask=mask, other=0)
                    products += one.to(dtype) * other.to(dtype)
            change = weight * tl.sum(products, 1 if last else 0, keep_dims=True)
            mean += change
            if keyed:
                query_sum += change * seen
                query_mean += weight * seen
            if placed:
                asked_sum += change * near
                asked_mean += weight * near
    if made_block == 0:
        tl.store(delta + place + pixel, mean.to(delta.dtype.element_ty), mask=inside)
    if keyed:
        made_query += image * made_query_b + group * made_query_g + own * made_query_o
        at = d_made * made_query_d + (y * made_query_h + x * made_query_w)
        made = (query_sum - mean * query_mean).to(made_query.dtype.element_ty)
        tl.store(made_query + at, made, mask=inside & (d_made < d))
    if placed:
        made_asked += image * made_asked_b + group * made_asked_g + own * made_asked_o
        at = e_made * made_asked_e + (y * made_asked_h + x * made_asked_w)
        made = (asked_sum - mean * asked_mean).to(made_asked.dtype.element_ty)
        tl.store(made_asked + at, made, mask=inside & (e_made < e))


@triton.jit
def key_gradient(
    query, key, asked, positions, value, slope, logsumexp, delta, made_key, made_value,
    g, o, d, e, s, h, w, rows, columns, before_h, before_w, s_blocks, p_blocks, d_blocks, e_blocks, made_blocks,
    query_b, query_g, query_o, query_d, query_h, query_w, key_b, key_g, key_d, key_h, key_w,
    asked_b, asked_g, asked_o, asked_e, asked_h, asked_w, positions_g, positions_e, positions_k,
    value_b, value_g, value_s, value_h, value_w, slope_b, slope_g, slope_o, slope_s, slope_h, slope_w,
    made_key_b, made_key_g, made_key_d, made_key_h, made_key_w,
    made_value_b, made_value_g, made_value_s, made_value_h, made_value_w,
    kh: tl.constexpr, kw: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
    dilation_h: tl.constexpr, dilation_w: tl.constexpr,
    keyed: tl.constexpr, placed: tl.constexpr, once: tl.constexpr, last: tl.constexpr,
    wide: tl.constexpr, dtype: tl.constexpr,
    channels: tl.constexpr, pixels: tl.constexpr, d_tile: tl.constexpr, e_tile: tl.constexpr,
):  # fmt: skip
    """Sum weight * (change - delta) * query and weight * slope over all that see a pixel; change as for the query.

    Args:
        query, key, asked, positions, value: as in `attend`.
        slope: `b g o s rows columns`.
        made_key: `b g d h w`.
        made_value: `b g s h w`.
        made_blocks: blocks of the longer of d and s, one for each program.
    """
    program = tl.program_id(0)
    made_block = program % made_blocks
    program = program // made_blocks
    pixel = program % p_blocks * pixels + tl.arange(0, pixels)
    program = program // p_blocks
    group, image = (program % g).to(tl.int64), (program // g).to(tl.int64)
    channel, d_unit, e_unit = tl.arange(0, channels), tl.arange(0, d_tile), tl.arange(0, e_tile)
    channel = channel[None, :] if last else channel[:, None]
    d_unit = d_unit[None, :] if last else d_unit[:, None]
    e_unit = e_unit[None, :] if last else e_unit[:, None]
    pixel = pixel[:, None] if last else pixel[None, :]
    inside = pixel < h * w
    y, x = pixel // w, pixel % w
    if wide:
        channel, d_unit, e_unit = channel.to(tl.int64), d_unit.to(tl.int64), e_unit.to(tl.int64)
        y, x = y.to(tl.int64), x.to(tl.int64)

    query += image * query_b + group * query_g
    key += image * key_b + group * key_g
    asked += image * asked_b + group * asked_g
    positions += group * positions_g
    value += image * value_b + group * value_g
    slope += image * slope_b + group * slope_g
    logsumexp += program.to(tl.int64) * o * (rows * columns)
    delta += program.to(tl.int64) * o * (rows * columns)
    from_key, from_value = y * key_h + x * key_w, y * value_h + x * value_w
    d_made, s_made = made_block * d_tile + d_unit, made_block * channels + channel
    if keyed:
        key_sum = tl.full((pixels, d_tile) if last else (d_tile, pixels), 0, dtype)
    if once and keyed:
        held_key = tl.load(key + (d_unit * key_d + from_key), mask=inside & (d_unit < d), other=0).to(dtype)
        held_value = tl.load(value + (channel * value_s + from_value), mask=inside & (channel < s), other=0).to(dtype)
    value_sum = tl.full((pixels, channels) if last else (channels, pixels), 0, dtype)
    for tap_h in range(kh):
        row = y + before_h - tap_h * dilation_h
        row_inside = (row >= 0) & (row < rows * stride_h) & inside
        if stride_h > 1:
            row_inside &= row % stride_h == 0
            row = row // stride_h
        for tap_w in range(kw):
            column = x + before_w - tap_w * dilation_w
            there = (column >= 0) & (column < columns * stride_w) & row_inside
            if stride_w > 1:
                there &= column % stride_w == 0
                column = column // stride_w
            from_query, from_asked = row * query_h + column * query_w, row * asked_h + column * asked_w
            from_slope, place = row * slope_h + column * slope_w, row * columns + column
            query_at, asked_at, slope_at, logsumexp_at, delta_at = query, asked, slope, logsumexp, delta
            for _ in range(o):
                score = tl.full((pixels, 1) if last else (1, pixels), 0, dtype)
                at = slope_at + (s_made * slope_s + from_slope)
                above = tl.load(at, mask=there & (s_made < s), other=0).to(dtype)
                if keyed:
                    at = query_at + (d_made * query_d + from_query)
                    asks = tl.load(at, mask=there & (d_made < d), other=0).to(dtype)
                    if once:
                        products = held_key * asks
                    else:
                        products = tl.full((pixels, d_tile) if last else (d_tile, pixels), 0, dtype)
                        for block in range(d_blocks):
                            number = block * d_tile + d_unit
                            mask = there & (number < d)
                            one = tl.load(query_at + (number * query_d + from_query), mask=mask, other=0)
                            other = tl.load(key + (number * key_d + from_key), mask=mask, other=0)
                            products += one.to(dtype) * other.to(dtype)
                    score += tl.sum(products, 1 if last else 0, keep_dims=True)
                if placed:
                    products = tl.full((pixels, e_tile) if last else (e_tile, pixels), 0, dtype)
                    for block in range(e_blocks):
                        number = block * e_tile + e_unit
                        one = tl.load(asked_at + (number * asked_e + from_asked), mask=there & (number < e), other=0)
                        other = tl.load(positions + number * positions_e, mask=number < e, other=0)
                        products += one.to(dtype) * other.to(dtype)
                    score += tl.sum(products, 1 if last else 0, keep_dims=True)
                level = tl.load(logsumexp_at + place, mask=there, other=0).to(dtype)
                weight = tl.where(there, tl.exp(score - level), 0.0)
                value_sum += weight * above
                if keyed:
                    if once:
                        products = held_value * above
                    else:
                        products = tl.full((pixels, channels) if last else (channels, pixels), 0, dtype)
                        for block in range(s_blocks):
                            number = block * channels + channel
                            mask = there & (number < s)
                            one = tl.load(slope_at + (number * slope_s + from_slope), mask=mask, other=0)
                            other = tl.load(value + (number * value_s + from_value), mask=mask, other=0)
                            products += one.to(dtype) * other.to(dtype)
                    change = tl.sum(products, 1 if last else 0, keep_dims=True)
                    mean = tl.load(delta_at + place, mask=there, other=0).to(dtype)
                    key_sum += weight * (change - mean) * asks
                query_at += query_o
                asked_at += asked_o
                slope_at += slope_o
                logsumexp_at += rows * columns
                delta_at += rows * columns
            positions += positions_k
    made_value += image * made_value_b + group * made_value_g
    at = s_made * made_value_s + (y * made_value_h + x * made_value_w)
    tl.store(made_value + at, value_sum.to(made_value.dtype.element_ty), mask=inside & (s_made < s))
    if keyed:
        made_key += image * made_key_b + group * made_key_g
        at = d_made * made_key_d + (y * made_key_h + x * made_key_w)
        tl.store(made_key + at, key_sum.to(made_key.dtype.element_ty), mask=inside & (d_made < d))


@triton.jit
def positions_gradient(
    query, key, asked, positions, value, slope, logsumexp, delta, made,
    g, o, d, e, s, h, w, rows, columns, before_h, before_w, s_blocks, p_blocks, d_blocks, e_blocks, blocks_each, blocks,
    query_b, query_g, query_o, query_d, query_h, query_w, key_b, key_g, key_d, key_h, key_w,
    asked_b, asked_g, asked_o, asked_e, asked_h, asked_w, positions_g, positions_e, positions_k,
    value_b, value_g, value_s, value_h, value_w, slope_b, slope_g, slope_o, slope_s, slope_h, slope_w,
    made_part, made_g, made_e, made_k,
    kh: tl.constexpr, kw: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
    dilation_h: tl.constexpr, dilation_w: tl.constexpr,
    keyed: tl.constexpr, masked: tl.constexpr, last: tl.constexpr, wide: tl.constexpr, dtype: tl.constexpr,
    channels: tl.constexpr, pixels: tl.constexpr, d_tile: tl.constexpr, e_tile: tl.constexpr,
):  # fmt: skip
    """Sum weight * (change - delta) * asked over a part of all blocks of pixels, for one group and tap.

    Args:
        query, key, asked, positions, value, masked: as in `attend`.
        slope: `b g o s rows columns`.
        made: `part g e k`.
        blocks: blocks of pixels of all images and fan-outs o; blocks_each: how many of them make a part.
    """
    program = tl.program_id(0)
    e_block = program % e_blocks
    program = program // e_blocks
    k = program % (kh * kw)
    program = program // (kh * kw)
    group, part = (program % g).to(tl.int64), program // g
    channel, d_unit, e_unit = tl.arange(0, channels), tl.arange(0, d_tile), tl.arange(0, e_tile)
    channel = channel[None, :] if last else channel[:, None]
    d_unit = d_unit[None, :] if last else d_unit[:, None]
    e_unit = e_unit[None, :] if last else e_unit[:, None]
    if wide:
        channel, d_unit, e_unit = channel.to(tl.int64), d_unit.to(tl.int64), e_unit.to(tl.int64)

    query += group * query_g
    key += group * key_g
    asked += group * asked_g
    positions += group * positions_g + k * positions_k
    value += group * value_g
    slope += group * slope_g
    e_made = e_block * e_tile + e_unit
    down, along = k // kw * dilation_h - before_h, k % kw * dilation_w - before_w
    total = tl.full((pixels, e_tile) if last else (e_tile, pixels), 0, dtype)
    for place in range(part * blocks_each, tl.minimum((part + 1) * blocks_each, blocks)):
        pixel = place % p_blocks * pixels + tl.arange(0, pixels)
        pixel = pixel[:, None] if last else pixel[None, :]
        inside = pixel < rows * columns
        own, image = tl.cast(place // p_blocks % o, tl.int64), tl.cast(place // (p_blocks * o), tl.int64)
        number_of = ((image * g + group) * o + own) * (rows * columns)
        y, x = pixel // columns, pixel % columns
        if wide:
            y, x = y.to(tl.int64), x.to(tl.int64)
        row, column = y * stride_h + down, x * stride_w + along
        there = (row >= 0) & (row < h) & (column >= 0) & (column < w) & inside
        query_at, key_at = query + image * query_b + own * query_o, key + image * key_b
        asked_at, value_at = asked + image * asked_b + own * asked_o, value + image * value_b
        slope_at = slope + image * slope_b + own * slope_o
        from_asked = y * asked_h + x * asked_w
        products = tl.full((pixels, e_tile) if last else (e_tile, pixels), 0, dtype)
        for block in range(e_blocks):
            number = block * e_tile + e_unit
            one = tl.load(asked_at + (number * asked_e + from_asked), mask=inside & (number < e), other=0)
            other = tl.load(positions + number * positions_e, mask=number < e, other=0)
            products += one.to(dtype) * other.to(dtype)
        score = tl.sum(products, 1 if last else 0, keep_dims=True)
        if keyed:
            products = tl.full((pixels, d_tile) if last else (d_tile, pixels), 0, dtype)
            for block in range(d_blocks):
                number = block * d_tile + d_unit
                mask = there & (number < d)
                one = tl.load(query_at + (number * query_d + (y * query_h + x * query_w)), mask=mask, other=0)
                other = tl.load(key_at + (number * key_d + (row * key_h + column * key_w)), mask=mask, other=0)
                products += one.to(dtype) * other.to(dtype)
            score += tl.sum(products, 1 if last else 0, keep_dims=True)
        if masked:
            score = tl.where(there, score, float("-inf"))
        level = tl.load(logsumexp + number_of + pixel, mask=inside, other=0).to(dtype)
        weight = tl.exp(score - level)
        products = tl.full((pixels, channels) if last else (channels, pixels), 0, dtype)
        for block in range(s_blocks):
            number = block * channels + channel
            mask = there & (number < s)
            one = tl.load(slope_at + (number * slope_s + (y * slope_h + x * slope_w)), mask=mask, other=0)
            other = tl.load(value_at + (number * value_s + (row * value_h + column * value_w)), mask=mask, other=0)
            products += one.to(dtype) * other.to(dtype)
        change = tl.sum(products, 1 if last else 0, keep_dims=True)
        mean = tl.load(delta + number_of + pixel, mask=inside, other=0).to(dtype)
        mask = inside & (e_made < e)
        asks = tl.load(asked_at + (e_made * asked_e + from_asked), mask=mask, other=0).to(dtype)
        total += weight * (change - mean) * asks
    made += part.to(tl.int64) * made_part + group * made_g + k * made_k
    summed = tl.sum(total, 0 if last else 1, keep_dims=True)
    tl.store(made + e_made * made_e, summed.to(made.dtype.element_ty), mask=e_made < e)
