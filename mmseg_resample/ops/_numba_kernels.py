# mypy: allow-untyped-defs
"""The kernels of ``_numba``: vectors for Numba, and two kernels built of them.

The work is laid out for vector units. ``LANES`` output pixels of one row that read consecutive source samples are a
*strip*: lane ``l`` interpolates between samples ``base + l`` and ``base + l + 1``. So a strip is read and, in the
gradient, written as whole vectors, whatever the ratio of the sizes. While the classes of a strip are visited its
maximum stays in registers.

All of it is one file because Numba renews its cache on disk when the file of a kernel changes, not when another does.
"""

import operator
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import factorial
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.core.caching import FunctionCache
from numba.core.cgutils import get_or_insert_function, ir  # ir is llvmlite's
from numba.extending import intrinsic, models, overload, register_jitable, register_model

LANES = 16  # float32: one register of AVX-512, two of AVX2, four of NEON
PAD = LANES + 2  # a row holds its first and its last sample twice, and room for the last strip to read


class Lanes(types.Type):
    """``LANES`` numbers as one LLVM vector, whose width is a promise and not up to the optimiser."""

    def __init__(self, dtype: types.Type) -> None:
        self.dtype = dtype
        super().__init__(f"Lanes({dtype}, {LANES})")


class Mask(types.Type):
    """``LANES`` truth values."""

    def __init__(self) -> None:
        super().__init__(f"Mask({LANES})")


_MASK = Mask()
_REAL = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}


def _vector(element: ir.Type) -> ir.VectorType:
    return ir.VectorType(element, LANES)


def _constant(element: ir.Type, value: float) -> ir.Constant:
    return ir.Constant(_vector(element), [ir.Constant(element, value)] * LANES)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, _vector(_REAL[lanes.dtype]))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, mask: Mask) -> None:
        super().__init__(manager, mask, _vector(ir.IntType(1)))


def _address(context: Any, builder: Any, array: types.Array, value: Any, index: Any) -> Any:
    pointer = builder.gep(context.make_array(array)(context, builder, value).data, [index])
    return builder.bitcast(pointer, _vector(_REAL[array.dtype]).as_pointer())


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """Load the lanes ``array[index : index + LANES]`` of a contiguous one-dimensional array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _address(context, builder, array, *args)
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return Lanes(array.dtype)(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, lanes: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _address(context, builder, array, *args[:2])
        builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@intrinsic
def spread(typing: Any, array: Any, number: Any) -> Any:
    """Put ``number`` into every lane, in the dtype of ``array``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        undefined = ir.Constant(_vector(_REAL[array.dtype]), ir.Undefined)
        one = builder.insert_element(undefined, args[1], ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(one, undefined, _constant(ir.IntType(32), 0))

    return Lanes(array.dtype)(array, array.dtype), generate


def _fma(builder: Any, *args: Any) -> Any:
    vector = args[0].type
    name = f"llvm.fma.v{LANES}f{32 if vector.element == ir.FloatType() else 64}"
    return builder.call(get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name), args)


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Compute a * b + c, rounded once."""
    return a(a, a, a), lambda context, builder, signature, args: _fma(builder, *args)


@intrinsic
def where(typing: Any, mask: Any, a: Any, b: Any) -> Any:
    return a(mask, a, a), lambda context, builder, signature, args: builder.select(*args)


def _define(symbol: Callable[..., Any], operands: type, emit: Callable[..., Any], result: types.Type | None) -> None:
    """Define ``symbol`` of two vectors of one type; ``result`` None is that type."""

    @intrinsic
    def operation(typing: Any, a: Any, b: Any) -> Any:
        return (result or a)(a, a), lambda context, builder, signature, args: emit(builder, *args)

    @overload(symbol, strict=False)
    def of_vectors(a: Any, b: Any) -> Any:
        if isinstance(a, operands) and a == b:
            return lambda a, b: operation(a, b)  # type: ignore[call-arg]
        return None


_define(operator.add, Lanes, ir.IRBuilder.fadd, None)
_define(operator.sub, Lanes, ir.IRBuilder.fsub, None)
_define(operator.mul, Lanes, ir.IRBuilder.fmul, None)
_define(operator.truediv, Lanes, ir.IRBuilder.fdiv, None)
_define(operator.or_, Mask, ir.IRBuilder.or_, None)
_define(operator.eq, Lanes, lambda builder, a, b: builder.fcmp_ordered("==", a, b), _MASK)
_define(operator.ne, Lanes, lambda builder, a, b: builder.fcmp_unordered("!=", a, b), _MASK)
_define(operator.gt, Lanes, lambda builder, a, b: builder.fcmp_ordered(">", a, b), _MASK)


class _Format(NamedTuple):
    """Constants of a floating point format for ``exp`` and ``log``."""

    integer: ir.Type
    mantissa: int  # bits
    root: int  # the bits of sqrt(1/2)
    lowest: float  # above log of the smallest normal number
    log2: tuple[float, float]  # log(2), the first part so short that whole numbers times it are exact
    exp_terms: int  # so many of the series leave less than a rounding
    log_terms: int


_FORMATS = {
    types.float32: _Format(ir.IntType(32), 23, 0x3F3504F3, -87.33, (0.693359375, -2.12194440e-4), 8, 5),
    types.float64: _Format(
        ir.IntType(64),
        52,
        0x3FE6A09E667F3BCD,
        -708.39,
        (6.93147180369123816490e-01, 1.90821492927058770002e-10),
        14,
        11,
    ),
}


@intrinsic
def exp(typing: Any, a: Any) -> Any:
    """Compute exp(a) for a <= 0; 0 where it would not be a normal number, NaN of NaN.

    With n the whole number next to a / log(2), exp(a) is exp(a - n log(2)) * 2**n.
    """
    real, form = _REAL[a.dtype], _FORMATS[a.dtype]
    shift = 1.5 * 2.0**form.mantissa  # rounds a number added to it, and holds the result in its lowest bits

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x = args[0]
        shifted = _fma(builder, x, _constant(real, 1 / sum(form.log2)), _constant(real, shift))
        n = builder.fsub(shifted, _constant(real, shift))
        for part in form.log2:
            x = _fma(builder, n, _constant(real, -part), x)
        power = _constant(real, 1 / factorial(form.exp_terms - 1))
        for k in reversed(range(form.exp_terms - 1)):
            power = _fma(builder, power, x, _constant(real, 1 / factorial(k)))
        integers = _vector(form.integer)
        exponent = builder.shl(builder.bitcast(shifted, integers), _constant(form.integer, form.mantissa))
        result = builder.bitcast(builder.add(builder.bitcast(power, integers), exponent), x.type)
        tiny = builder.fcmp_ordered("<", args[0], _constant(real, form.lowest))
        return builder.select(tiny, _constant(real, 0.0), result)

    return a(a), generate


@intrinsic
def log(typing: Any, a: Any) -> Any:
    """Compute log(a) for normal, positive a; NaN of NaN.

    With a = f * 2**n, f in [sqrt(1/2), sqrt(2)), and s = (f - 1) / (f + 1), log(f) is 2 artanh(s).
    """
    real, form = _REAL[a.dtype], _FORMATS[a.dtype]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _vector(form.integer))
        mantissa, one = _constant(form.integer, form.mantissa), _constant(real, 1.0)
        exponent = builder.ashr(builder.sub(bits, _constant(form.integer, form.root)), mantissa)
        n = builder.sitofp(exponent, args[0].type)
        f = builder.bitcast(builder.sub(bits, builder.shl(exponent, mantissa)), args[0].type)
        s = builder.fdiv(builder.fsub(f, one), builder.fadd(f, one))
        square = builder.fmul(s, s)
        series = _constant(real, 2 / (2 * form.log_terms - 1))
        for k in reversed(range(1, form.log_terms)):
            series = _fma(builder, series, square, _constant(real, 2 / (2 * k - 1)))
        result = _fma(builder, s, series, builder.fmul(n, _constant(real, form.log2[1])))
        result = _fma(builder, n, _constant(real, form.log2[0]), result)
        return builder.select(builder.fcmp_ordered("ord", args[0], args[0]), result, args[0])

    return a(a), generate


class _KernelCache(FunctionCache):
    """Numba's cache on disk. A damaged file in it is written anew; on a full disk each process compiles."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # whatever half a pickle, or another file, makes Numba raise
            _warn_of_cache(self.cache_path, "is damaged", error)
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _warn_of_cache(self.cache_path, "cannot be written to", error)


_warned: list[str] = []


def _warn_of_cache(path: str, problem: str, error: Exception) -> None:
    if not _warned:  # every kernel would say so, whatever filters there are
        _warned.append(path)
        warnings.warn(
            f"mmseg_resample: Numba's cache {path} {problem} ({type(error).__name__}: {error}), so kernels are "
            f"compiled, which takes seconds. The values are the same. NUMBA_CACHE_DIR names another folder.",
            stacklevel=2,
        )


def _compiled(kernel: Callable[..., Any], fastmath: Any = False) -> Callable[..., Any]:
    dispatcher: Any = njit(kernel, nogil=True, fastmath=fastmath)
    with suppress(RuntimeError):  # no folder for the cache that may be written to
        dispatcher._cache = _KernelCache(dispatcher.py_func)  # as `enable_caching` sets Numba's own
    return dispatcher


class Stage(NamedTuple):
    """One resize. Where an axis copies, the first neighbour is the value.

    Args:
        neighbours: (2, H) the second and the first source row of each output row.
        shares: (2, H) their weights.
        base: (S,) the padded source sample of lane 0 of each strip.
        pixels: (S * LANES,) the output column of each lane, or -1.
        far: (S * LANES,) the weight of sample ``base + l + 1``.
        near: (S * LANES,) the weight of sample ``base + l``.
        copies_rows: the rows have the size of the source.
        copies_columns: the columns have.
        width: of the output.
    """

    neighbours: np.ndarray
    shares: np.ndarray
    base: np.ndarray
    pixels: np.ndarray
    far: np.ndarray
    near: np.ndarray
    copies_rows: bool
    copies_columns: bool
    width: int


@register_jitable
def _slot(held, row, other):
    """Return which of two slots holds ``row``, or else may hold it without displacing ``other``."""
    if held[0] == row or held[1] == row:
        return 0 if held[0] == row else 1
    return 1 if held[0] == other else 0


@register_jitable
def _pad(rows, start, channels, width):
    """Repeat the first and the last of ``width`` samples of each class beside them."""
    for c in range(channels):
        at = start + c * (width + PAD)
        rows[at] = rows[at + 1]
        rows[at + width + 1] = rows[at + width]


@register_jitable
def _read(rows, start, image, i):
    """Copy row ``i`` of ``image``, (C, h, w), to ``rows[start:]``."""
    channels, _, width = image.shape
    for c in range(channels):
        at = start + c * (width + PAD) + 1
        for x in range(width):
            rows[at + x] = image[c, i, x]
    _pad(rows, start, channels, width)


@register_jitable
def _between(rows, at, near, far, copies):
    first = load(rows, at)
    if copies:
        return first
    return fma(first, near, load(rows, at + 1) * far)


@register_jitable
def _resized(rows, first, second, near, far, copies_columns, upper, lower, copies_rows):
    """Compute a strip of one class from samples at ``first`` and, in the other row, at ``second``."""
    value = _between(rows, first, near, far, copies_columns)
    if copies_rows:
        return value
    return fma(value, upper, _between(rows, second, near, far, copies_columns) * lower)


@register_jitable
def _visit(values, rows, first, second, stride, near, far, upper, lower, stage):
    """Write all classes of a strip to ``values``; return the largest, which NaN is, and its class, save for NaN."""
    best = _resized(rows, first, second, near, far, stage.copies_columns, upper, lower, stage.copies_rows)
    store(values, 0, best)
    index = spread(rows, 0)
    for c in range(1, len(values) // LANES):
        at = c * stride
        value = _resized(
            rows, first + at, second + at, near, far, stage.copies_columns, upper, lower, stage.copies_rows
        )
        store(values, c * LANES, value)
        better = (value > best) | (value != value)
        best = where(better, value, best)
        index = where(better, spread(rows, c), index)
    return best, index


@register_jitable
def _first_nan(values, lane, channels):
    for c in range(channels):
        if values[c * LANES + lane] != values[c * LANES + lane]:
            return c
    return 0


@register_jitable
def _middle_row(rows, start, image, stage, r, source, held, values):
    """Write row ``r`` of the first of two resizes to ``rows[start:]``; ``source`` holds two rows of ``image``."""
    channels, _, width = image.shape
    stride = width + PAD
    lower, upper = spread(source, stage.shares[0, r]), spread(source, stage.shares[1, r])
    second, first = stage.neighbours[0, r], stage.neighbours[1, r]
    for row, other in ((first, second), (second, first)):
        slot = _slot(held, row, other)
        if held[slot] != row:
            held[slot] = row
            _read(source, slot * channels * stride, image, row)
    a, b = _slot(held, first, second) * channels * stride, _slot(held, second, first) * channels * stride
    for strip in range(len(stage.base)):
        base = stage.base[strip]
        near, far = load(stage.near, strip * LANES), load(stage.far, strip * LANES)
        for c in range(channels):
            at = base + c * stride
            value = _resized(source, a + at, b + at, near, far, stage.copies_columns, upper, lower, stage.copies_rows)
            store(values, c * LANES, value)
        for lane in range(LANES):
            x = stage.pixels[strip * LANES + lane]
            if x >= 0:
                for c in range(channels):
                    rows[start + c * (stage.width + PAD) + 1 + x] = values[c * LANES + lane]
    _pad(rows, start, channels, stage.width)


@_compiled
def label(
    logits, middle, stage, two_steps, starts, labels, confidence, target, ignore_index, counts, first_band, stop, step
):
    """Compute bands ``range(first_band, stop, step)`` of the labels, and of every other output that has room.

    Returns whether ``target`` holds a label that is neither a class nor ignored.
    """
    _, channels, _, width = logits.shape
    source = np.zeros(2 * channels * (width + PAD) if two_steps else 0, logits.dtype)
    if two_steps:
        width = middle.width
    stride = width + PAD
    rows = np.zeros(2 * channels * stride, logits.dtype)
    values = np.empty(channels * LANES, logits.dtype)
    lanes = np.empty((3, LANES), logits.dtype)
    largest, winner, probability = lanes[0], lanes[1], lanes[2]
    held, held_source = np.empty(2, np.int64), np.empty(2, np.int64)
    classes = len(counts)
    wrong = False
    for band in range(first_band, stop, step):
        n, part = divmod(band, len(starts) - 1)
        held[:] = -1
        held_source[:] = -1
        for y in range(starts[part], starts[part + 1]):
            second, first = stage.neighbours[0, y], stage.neighbours[1, y]
            for row, other in ((first, second), (second, first)):
                slot = _slot(held, row, other)
                if held[slot] != row:
                    held[slot] = row
                    if two_steps:
                        _middle_row(rows, slot * channels * stride, logits[n], middle, row, source, held_source, values)
                    else:
                        _read(rows, slot * channels * stride, logits[n], row)
            a, b = _slot(held, first, second) * channels * stride, _slot(held, second, first) * channels * stride
            lower, upper = spread(rows, stage.shares[0, y]), spread(rows, stage.shares[1, y])
            for strip in range(len(stage.base)):
                base = stage.base[strip]
                near, far = load(stage.near, strip * LANES), load(stage.far, strip * LANES)
                best, index = _visit(values, rows, a + base, b + base, stride, near, far, upper, lower, stage)
                store(largest, 0, best)
                store(winner, 0, index)
                if confidence.size:
                    total = spread(rows, 0)
                    for c in range(channels):
                        total = total + exp(load(values, c * LANES) - best)
                    store(probability, 0, spread(rows, 1) / total)
                for lane in range(LANES):
                    x = stage.pixels[strip * LANES + lane]
                    if x < 0:
                        continue
                    seen = np.int64(winner[lane])
                    if largest[lane] != largest[lane]:
                        seen = _first_nan(values, lane, channels)
                    labels[n, y, x] = seen
                    if confidence.size:
                        confidence[n, y, x] = probability[lane]
                    if classes:
                        truth = np.int64(target[n, y, x])
                        if 0 <= truth < classes and truth != ignore_index:
                            counts[truth, seen] += 1
                        elif truth != ignore_index:
                            wrong = True
    return wrong


@register_jitable
def _hand_over(gradient, n, i, parts, start):
    """Add what source row ``i`` received in ``parts[start:]`` to ``gradient``, and forget it.

    One addition: of two bands that share a row, either may come first.
    """
    channels, width = gradient.shape[1], gradient.shape[3]
    stride = width + PAD
    for c in range(channels):
        near, far = start + c * stride, start + (channels + c) * stride
        parts[near + 1] += parts[near]
        parts[near + width] += parts[far + width]
        for x in range(width):
            gradient[n, c, i, x] += parts[near + x + 1] + parts[far + x]
    parts[start : start + 2 * channels * stride] = 0


@_compiled
def accumulate_loss(
    logits,
    stage,
    starts,
    target,
    ignore_index,
    weight,
    class_sum,
    smoothing,
    pixel_weight,
    gradient,
    losses,
    sums,
    counts,
    first_band,
    stop,
    step,
):
    """Compute bands ``range(first_band, stop, step)`` of the loss, and of every other output that has room.

    Args:
        sums: (bands, 2) float64, of the losses and of the class weights.
        counts: (bands, 3) int64: pixels that count, those whose largest logit is their label's, and those whose label
            is neither a class nor ignored.
    """
    _, channels, _, width = logits.shape
    stride = width + PAD
    block = channels * stride
    rows = np.zeros(2 * block, logits.dtype)
    parts = np.zeros(4 * block if gradient.size else 0, logits.dtype)  # by row and by near or far sample
    values = np.empty(channels * LANES, logits.dtype)
    lanes = np.empty((6, LANES), logits.dtype)
    labels, own, smooth, largest, winner, at_label = lanes[0], lanes[1], lanes[2], lanes[3], lanes[4], lanes[5]
    totals = np.empty(LANES, np.float64)
    held = np.empty(2, np.int64)
    zero = spread(rows, 0)
    kept = logits.dtype.type(1 - smoothing)
    shared = logits.dtype.type(smoothing / channels)
    for band in range(first_band, stop, step):
        n, part = divmod(band, len(starts) - 1)
        held[:] = -1
        totals[:] = 0
        weights, pixels, correct, wrong = 0.0, 0, 0, 0
        for y in range(starts[part], starts[part + 1]):
            second, first = stage.neighbours[0, y], stage.neighbours[1, y]
            for row, other in ((first, second), (second, first)):
                slot = _slot(held, row, other)
                if held[slot] != row:
                    if gradient.size and held[slot] >= 0:
                        _hand_over(gradient, n, held[slot], parts, slot * 2 * block)
                    held[slot] = row
                    _read(rows, slot * block, logits[n], row)
            slots = _slot(held, first, second), _slot(held, second, first)
            a, b = slots[0] * block, slots[1] * block
            lower, upper = spread(rows, stage.shares[0, y]), spread(rows, stage.shares[1, y])
            for strip in range(len(stage.base)):
                strip_pixels = 0
                for lane in range(LANES):
                    labels[lane], own[lane], smooth[lane] = -1, 0, 0
                    x = stage.pixels[strip * LANES + lane]
                    if x < 0:
                        continue
                    truth = np.int64(target[n, y, x])
                    if truth == ignore_index:
                        continue
                    if not 0 <= truth < channels:
                        wrong += 1
                        continue
                    factor = pixel_weight[n, y, x] if pixel_weight.size else logits.dtype.type(1)
                    labels[lane], own[lane], smooth[lane] = truth, weight[truth] * factor * kept, factor * shared
                    weights += weight[truth]
                    strip_pixels += 1
                pixels += strip_pixels
                if not strip_pixels:
                    if losses.size:
                        for lane in range(LANES):
                            x = stage.pixels[strip * LANES + lane]
                            if x >= 0:
                                losses[n, y, x] = 0
                    continue

                base = stage.base[strip]
                near, far = load(stage.near, strip * LANES), load(stage.far, strip * LANES)
                best, index = _visit(values, rows, a + base, b + base, stride, near, far, upper, lower, stage)
                store(largest, 0, best)
                store(winner, 0, index)
                for lane in range(LANES):
                    at_label[lane] = 0
                    if labels[lane] < 0:
                        continue
                    truth = np.int64(labels[lane])
                    at_label[lane] = values[truth * LANES + lane] - largest[lane]
                    if largest[lane] != largest[lane]:
                        winner[lane] = _first_nan(values, lane, channels)
                    correct += winner[lane] == labels[lane]

                # A pixel's loss is own * (lse - v[label]) + smooth * (sum(w) * lse - sum(w * v)).
                total, every = zero, zero
                for c in range(channels):
                    value = load(values, c * LANES) - best
                    if smoothing:
                        every = fma(value, spread(rows, weight[c]), every)
                    value = exp(value)
                    store(values, c * LANES, value)
                    total = total + value
                truth_lanes, own_lanes, smooth_lanes = load(labels, 0), load(own, 0), load(smooth, 0)
                counted = truth_lanes > spread(rows, -1)
                lse = log(total)
                loss = own_lanes * (lse - load(at_label, 0))
                if smoothing:
                    loss = loss + smooth_lanes * (spread(rows, class_sum) * lse - every)
                loss = where(counted, loss, zero)  # an ignored pixel may hold anything
                store(largest, 0, loss)
                for lane in range(LANES):
                    totals[lane] += largest[lane]
                if losses.size:
                    for lane in range(LANES):
                        x = stage.pixels[strip * LANES + lane]
                        if x >= 0:
                            losses[n, y, x] = largest[lane]
                if not gradient.size:
                    continue
                scale = fma(smooth_lanes, spread(rows, class_sum), own_lanes) / total
                aa, ab, ba, bb = near * upper, far * upper, near * lower, far * lower
                for c in range(channels):
                    g = load(values, c * LANES) * scale
                    if smoothing:
                        g = g - smooth_lanes * spread(rows, weight[c])
                    g = g - where(truth_lanes == spread(rows, c), own_lanes, zero)
                    g = where(counted, g, zero)
                    at = 2 * a + base + c * stride
                    store(parts, at, fma(g, aa, load(parts, at)))
                    store(parts, at + block, fma(g, ab, load(parts, at + block)))
                    at = 2 * b + base + c * stride
                    store(parts, at, fma(g, ba, load(parts, at)))
                    store(parts, at + block, fma(g, bb, load(parts, at + block)))
        if gradient.size:
            for slot in range(2):
                if held[slot] >= 0:
                    _hand_over(gradient, n, held[slot], parts, slot * 2 * block)
        sums[band, 0], sums[band, 1] = totals.sum(), weights
        counts[band, 0], counts[band, 1], counts[band, 2] = pixels, correct, wrong


@register_jitable
def _mix(to, x, index, weight, o):
    """Write the rows ``index[:, o]`` of ``x``, (rows, length), by weight to ``to``."""
    taps, length = index.shape[0], x.shape[1]
    if taps == 2:
        a, b, wa, wb = x[index[0, o]], x[index[1, o]], weight[0, o], weight[1, o]
        for i in range(length):
            to[i] = wa * a[i] + wb * b[i]
        return
    for low in range(0, length, 1024):  # stays in the nearest cache
        part = to[low : low + 1024]
        for k in range(0, taps, 4):
            a, b = x[index[k, o], low:], x[index[k + 1, o], low:]
            c, d = x[index[k + 2, o], low:], x[index[k + 3, o], low:]
            wa, wb, wc, wd = weight[k, o], weight[k + 1, o], weight[k + 2, o], weight[k + 3, o]
            if k == 0:
                for i in range(len(part)):
                    part[i] = wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i]
            else:
                for i in range(len(part)):
                    part[i] += wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i]


@_compiled
def blend(x, out, channels, rows, row_weights, columns, column_weights, start, stop, step):
    """Mix samples along both axes: ``out[y, x] = sum_jk v[j, y] w[k, x] * input[rows[j, y], columns[k, x]]``.

    ``x`` is (N, H, W * channels), ``out`` (N, H', W', channels). Rows ``start`` to ``stop`` of all N * H' are computed.
    Taps are two, or a multiple of four.
    """
    height, width = out.shape[1], out.shape[2]
    row = np.empty(x.shape[2], x.dtype)
    pixels = row.reshape(-1, channels)
    for job in range(start, stop, step):
        n, y = job // height, job % height
        _mix(row, x[n], rows, row_weights, y)
        for column in range(width):
            _mix(out[n, y, column], pixels, columns, column_weights, column)


# --- warps ------------------------------------------------------------------------------------------------------------


@register_jitable
def _cell(position, n, border):
    """Return the sample left of ``position``, the share of the next one, and 1 if ``position`` counts there, else 0."""
    u, moves = np.float64(position), 1
    if border:
        if not u > 0:  # nor where it is no number
            u, moves = 0.0, 0
        elif u >= n - 1:
            u, moves = np.float64(n - 1), 0
    elif not -1 < u < n:
        return -2, 0.0, 0
    left = np.floor(u)
    return int(left), u - left, moves


@_compiled
def warp(x, columns, rows, out, border, start, stop, step):
    """Read ``x``, (N, H, W, C), between samples: ``out[n, i, j]`` at ``rows[n, i, j]`` and ``columns[n, i, j]``.

    Beyond the outermost samples these are repeated with ``border``, else there is 0. Rows ``start`` to ``stop`` of all
    N * H' are computed.
    """
    height, width, channels = x.shape[1:]
    cast = x.dtype.type
    for job in range(start, stop, step):
        n, i = job // out.shape[1], job % out.shape[1]
        for j in range(out.shape[2]):
            top, down, _ = _cell(rows[n, i, j], height, border)
            left, right, _ = _cell(columns[n, i, j], width, border)
            to = out[n, i, j]
            if 0 <= top < height - 1 and 0 <= left < width - 1:
                a, b, c, d = x[n, top, left], x[n, top, left + 1], x[n, top + 1, left], x[n, top + 1, left + 1]
                wa, wb = cast((1 - down) * (1 - right)), cast((1 - down) * right)
                wc, wd = cast(down * (1 - right)), cast(down * right)
                for k in range(channels):
                    to[k] = wa * a[k] + wb * b[k] + wc * c[k] + wd * d[k]
                continue
            to[:] = 0
            for corner in range(4):
                y, z = top + corner // 2, left + corner % 2
                if 0 <= y < height and 0 <= z < width:
                    share = cast((down if corner // 2 else 1 - down) * (right if corner % 2 else 1 - right))
                    source = x[n, y, z]
                    for k in range(channels):
                        to[k] += share * source[k]


@partial(_compiled, fastmath={"reassoc", "contract"})  # sums over channels become vectors
def warp_gradients(x, columns, rows, grad, grad_x, grad_columns, grad_rows, border, start, stop, step):
    """Add the gradient of ``warp`` to ``grad_x`` and write those of its positions: images ``start`` to ``stop``."""
    height, width, channels = x.shape[1:]
    cast = x.dtype.type
    for n in range(start, stop, step):
        for i in range(grad.shape[1]):
            for j in range(grad.shape[2]):
                top, down, moves_down = _cell(rows[n, i, j], height, border)
                left, right, moves_right = _cell(columns[n, i, j], width, border)
                above = grad[n, i, j]
                by_row, by_column = 0.0, 0.0
                for corner in range(4):
                    y, z = top + corner // 2, left + corner % 2
                    if 0 <= y < height and 0 <= z < width:
                        vertical = down if corner // 2 else 1 - down
                        horizontal = right if corner % 2 else 1 - right
                        share, source, to = cast(vertical * horizontal), x[n, y, z], grad_x[n, y, z]
                        product = cast(0)
                        for k in range(channels):
                            to[k] += share * above[k]
                            product += source[k] * above[k]
                        by_row += product * (horizontal if corner // 2 else -horizontal)
                        by_column += product * (vertical if corner % 2 else -vertical)
                grad_rows[n, i, j], grad_columns[n, i, j] = by_row * moves_down, by_column * moves_right
