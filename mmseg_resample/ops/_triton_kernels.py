# mypy: allow-untyped-defs
"""The kernels of ``_triton``, which makes the tables, allocates and launches.

The table of a bilinear axis holds the second neighbour before the first, (2, size), as ``_fused.Axis.table`` has it.
Its values are computed by the operations of ``_fused`` in their order, with the fused multiply-adds spelled out, so
that no compiler has anything to choose.

No atomics, and sums over fixed blocks: equal inputs give equal bits. Offsets of images and planes have 64 bits; those
inside a plane have them where ``WIDE`` says so and the tables are int64.
"""

import triton
import triton.language as tl


@triton.jit
def _block(blocks, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """Return the image or plane of this program, and its elements there."""
    program = tl.program_id(0)
    start = program % blocks
    if WIDE:
        start = start.to(tl.int64)
    return (program // blocks).to(tl.int64), start * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def _neighbours(index, weight, at, size, inside):
    second = tl.load(index + at, mask=inside, other=0)
    first = tl.load(index + size + at, mask=inside, other=0)
    far = tl.load(weight + at, mask=inside, other=0.0)
    near = tl.load(weight + size + at, mask=inside, other=0.0)
    return second, first, far, near


@triton.jit
def _mix(second, first, far, near):
    return tl.fma(first, near, second * far)


@triton.jit
def _widened(row, x1, x0, far, near, inside, COLUMNS: tl.constexpr):
    value = tl.load(row + x0, mask=inside, other=0.0).to(near.dtype)
    if COLUMNS:
        value = _mix(tl.load(row + x1, mask=inside, other=0.0).to(near.dtype), value, far, near)
    return value


@triton.jit
def _bilinear(
    image, width, y1, y0, fy, ny, x1, x0, fx, nx, inside, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Widen two rows, then mix them. ROWS, COLUMNS: whether this axis is resized, or only cropped and flipped."""
    value = _widened(image + y0 * width, x1, x0, fx, nx, inside, COLUMNS)
    if ROWS:
        value = _mix(_widened(image + y1 * width, x1, x0, fx, nx, inside, COLUMNS), value, fy, ny)
    return value


@triton.jit
def _one_more(value, best, total):
    """Add a class to a softmax: is it the largest, as ``argmax`` orders them, the largest, sum of exp(v - largest).

    The first of equal values is the largest, and NaN is above all.
    """
    better = (value > best) | ((value != value) & (best == best))
    ratio = tl.where(value == best, 1.0, tl.exp(-tl.abs(value - best)))  # infinities have no difference
    total = tl.where(better, total * ratio + 1.0, total + ratio)
    return better, tl.where(better, value, best), total


@triton.jit
def argmax(
    logits, labels, confidence,
    row_index, row_weight, column_index, column_weight,
    first_row_index, first_row_weight, first_column_index, first_column_weight,
    plane, width, middle_height, middle_width, out_height, out_width, pixels, blocks,
    CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    FIRST_ROWS: tl.constexpr, FIRST_COLUMNS: tl.constexpr, TWO: tl.constexpr, SIGMOID: tl.constexpr,
    THRESHOLD: tl.constexpr, CONFIDENCE: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Label a block of pixels. TWO: the tables ``first_*`` make the map that the others resize."""
    n, pixel = _block(blocks, BLOCK, WIDE)
    inside = pixel < pixels
    image = logits + n * CHANNELS * plane
    y1, y0, fy, ny = _neighbours(row_index, row_weight, pixel // out_width, out_height, inside)
    x1, x0, fx, nx = _neighbours(column_index, column_weight, pixel % out_width, out_width, inside)
    if TWO:  # the neighbours' neighbours
        y11, y10, fy1, ny1 = _neighbours(first_row_index, first_row_weight, y1, middle_height, inside)
        y01, y00, fy0, ny0 = _neighbours(first_row_index, first_row_weight, y0, middle_height, inside)
        x11, x10, fx1, nx1 = _neighbours(first_column_index, first_column_weight, x1, middle_width, inside)
        x01, x00, fx0, nx0 = _neighbours(first_column_index, first_column_weight, x0, middle_width, inside)

    dtype = row_weight.dtype.element_ty
    best = tl.full((BLOCK,), float("-inf"), dtype)
    total = tl.zeros((BLOCK,), dtype)
    label = tl.zeros((BLOCK,), tl.int32)
    for c in range(CHANNELS):
        if TWO:
            value = _bilinear(image, width, y01, y00, fy0, ny0, x01, x00, fx0, nx0, inside, FIRST_ROWS, FIRST_COLUMNS)
            if COLUMNS:
                other = _bilinear(
                    image, width, y01, y00, fy0, ny0, x11, x10, fx1, nx1, inside, FIRST_ROWS, FIRST_COLUMNS
                )
                value = _mix(other, value, fx, nx)
            if ROWS:
                below = _bilinear(
                    image, width, y11, y10, fy1, ny1, x01, x00, fx0, nx0, inside, FIRST_ROWS, FIRST_COLUMNS
                )
                if COLUMNS:
                    other = _bilinear(
                        image, width, y11, y10, fy1, ny1, x11, x10, fx1, nx1, inside, FIRST_ROWS, FIRST_COLUMNS
                    )
                    below = _mix(other, below, fx, nx)
                value = _mix(below, value, fy, ny)
        else:
            value = _bilinear(image, width, y1, y0, fy, ny, x1, x0, fx, nx, inside, ROWS, COLUMNS)
        better, best, total = _one_more(value, best, total)
        label = tl.where(better, c, label)
        image += plane

    if SIGMOID:
        probability = 1.0 / (1.0 + tl.exp(-best))
        label = (probability > THRESHOLD).to(tl.int32)
        certain = tl.where(label > 0, probability, 1.0 - probability)
    else:
        certain = (best - best) + 1.0 / total  # NaN where the largest is infinite
    at = n * pixels + pixel
    tl.store(labels + at, label, mask=inside)
    if CONFIDENCE:
        tl.store(confidence + at, certain, mask=inside)


@triton.jit
def _shares(
    target, class_weight, pixel_weight, at, inside, ignore_index,
    CHANNELS: tl.constexpr, KEPT: tl.constexpr, SHARE: tl.constexpr, WEIGHTED: tl.constexpr, SAMPLED: tl.constexpr,
    dtype: tl.constexpr,
):  # fmt: skip
    """Return label, whether it counts, its class weight, and ``own`` and ``scale`` of a pixel's loss

    ``own * (lse - v[label]) + scale * (sum(w) * lse - sum(w * v))``.
    """
    label = tl.load(target + at, mask=inside, other=0).to(tl.int64)
    counted = inside & (label != ignore_index)
    known = (label >= 0) & (label < CHANNELS)
    factor = counted.to(dtype)
    weight = factor
    if WEIGHTED:
        weight = tl.load(class_weight + label, mask=counted & known, other=0.0)
    if SAMPLED:
        factor = tl.load(pixel_weight + at, mask=counted, other=0.0).to(dtype)
    own = tl.where(known | (label == ignore_index), weight * factor * KEPT, float("nan"))  # raising had to wait
    return label, counted, weight, own, factor * SHARE


@triton.jit
def cross_entropy(
    logits, target, class_weight, class_sum, pixel_weight,
    row_index, row_weight, column_index, column_weight,
    losses, normalizers, float_sums, counts,
    plane, width, out_height, out_width, pixels, blocks, ignore_index,
    CHANNELS: tl.constexpr, KEPT: tl.constexpr, SHARE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    WEIGHTED: tl.constexpr, SAMPLED: tl.constexpr, LOSSES: tl.constexpr, NORMALIZERS: tl.constexpr,
    WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Compute losses of a block of pixels and their sums, (2, programs) each: loss, class weight; counted, correct.

    Args:
        normalizers: the logarithms of the softmax's denominators, which the gradient reads.
        KEPT, SHARE: ``1 - label_smoothing`` and ``label_smoothing / CHANNELS``.
    """
    n, pixel = _block(blocks, BLOCK, WIDE)
    inside = pixel < pixels
    at = n * pixels + pixel
    image = logits + n * CHANNELS * plane
    dtype: tl.constexpr = row_weight.dtype.element_ty
    y1, y0, fy, ny = _neighbours(row_index, row_weight, pixel // out_width, out_height, inside)
    x1, x0, fx, nx = _neighbours(column_index, column_weight, pixel % out_width, out_width, inside)
    label, counted, weight, own, scale = _shares(
        target, class_weight, pixel_weight, at, inside, ignore_index, CHANNELS, KEPT, SHARE, WEIGHTED, SAMPLED, dtype
    )

    best = tl.full((BLOCK,), float("-inf"), dtype)
    total = tl.zeros((BLOCK,), dtype)
    largest = tl.zeros((BLOCK,), tl.int32)
    at_label = tl.zeros((BLOCK,), dtype)
    pivot = tl.zeros((BLOCK,), dtype)  # the first class: sums of differences to it stay small
    every = tl.zeros((BLOCK,), dtype)
    for c in range(CHANNELS):
        value = _bilinear(image, width, y1, y0, fy, ny, x1, x0, fx, nx, inside, ROWS, COLUMNS)
        better, best, total = _one_more(value, best, total)
        largest = tl.where(better, c, largest)
        at_label = tl.where(label == c, value, at_label)
        if SHARE != 0.0:
            pivot = tl.where(c == 0, value, pivot)
            if WEIGHTED:
                every += (value - pivot) * tl.load(class_weight + c)
            else:
                every += value - pivot
        image += plane

    log_total = tl.log(total)
    loss = own * ((best - at_label) + log_total)
    if SHARE != 0.0:
        loss += scale * (tl.load(class_sum) * ((best - pivot) + log_total) - every)
    loss = tl.where(counted, loss, 0.0)
    if LOSSES:
        tl.store(losses + at, loss, mask=inside)
    if NORMALIZERS:
        tl.store(normalizers + at, best + log_total, mask=inside)
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    correct = counted & (largest == label)
    tl.store(float_sums + program, tl.sum(loss.to(tl.float64), 0))
    tl.store(float_sums + programs + program, tl.sum(weight.to(tl.float64), 0))
    tl.store(counts + program, tl.sum(counted.to(tl.int32), 0))
    tl.store(counts + programs + program, tl.sum(correct.to(tl.int32), 0))


@triton.jit
def cross_entropy_gradient(
    logits, target, class_weight, class_sum, pixel_weight, normalizers,
    row_index, row_weight, column_index, column_weight, receiving_index, receiving_weight, out,
    first_plane, plane, height, width, out_height, out_width, pixels, blocks, ignore_index,
    TAPS: tl.constexpr, CHANNELS: tl.constexpr, KEPT: tl.constexpr, SHARE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WEIGHTED: tl.constexpr, SAMPLED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum a block of columns of what one row of the logits receives from the resized rows that read it.

    Args:
        receiving_index, receiving_weight: (TAPS, height), the transposed table of the rows.
        out: (planes, height, out_width), of the planes (image, class) from ``first_plane`` on.
    """
    line, x = _block(blocks, BLOCK, False)
    y = line % height
    n = (first_plane + line // height) // CHANNELS
    c = (first_plane + line // height) % CHANNELS
    inside = x < out_width
    image = logits + (first_plane + line // height) * plane
    dtype: tl.constexpr = row_weight.dtype.element_ty
    x1, x0, fx, nx = _neighbours(column_index, column_weight, x, out_width, inside)
    received = tl.zeros((BLOCK,), dtype)
    for k in range(TAPS):
        share = tl.load(receiving_weight + k * height + y)
        if share != 0.0:
            row = tl.load(receiving_index + k * height + y)
            at = n * pixels + row * out_width + x
            y1, y0, fy, ny = _neighbours(row_index, row_weight, row, out_height, row >= 0)
            value = _bilinear(image, width, y1, y0, fy, ny, x1, x0, fx, nx, inside, ROWS, COLUMNS)
            label, counted, _, own, scale = _shares(
                target, class_weight, pixel_weight, at, inside, ignore_index,
                CHANNELS, KEPT, SHARE, WEIGHTED, SAMPLED, dtype,
            )  # fmt: skip
            probability = tl.exp(value - tl.load(normalizers + at, mask=inside, other=0.0))
            gradient = own * (probability - (label == c).to(dtype))
            if SHARE != 0.0:
                every = probability * tl.load(class_sum)
                if WEIGHTED:
                    every -= tl.load(class_weight + c)
                else:
                    every -= 1.0
                gradient += scale * every
            received += tl.where(counted, gradient, 0.0) * share
    tl.store(out + line * out_width + x, received, mask=inside)
