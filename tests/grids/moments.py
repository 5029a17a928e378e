"""An oracle of positions: the mass and the first moments of every tensor, sent through the operators themselves.

``Moments`` runs a real network. Beside every storage it keeps three others: mass, moment along y and moment along x,
which the operators' linear forms carry on: weights are uniform, activations and normalisations pass, maxima are means,
attention stays at its queries. ``moment / mass`` is where an element looks. Linear forms are means, so that a mass
below 1 tells that padding was read, or a sample repeated: positions are exact where the mass is 1. Nothing here is
shared with the package but what it is compared with.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.weak import WeakIdKeyDictionary

_RESAMPLES = ("resample", "numba_resample")  # of this package

TIGHT = 1e-3  # input pixels, where no border was read
MANY = 16  # channels, or other entries that no position depends on, that are compared
LOOSE = 0.3  # of the spacing of evidence, in the middle of an axis of which no sample is free of the border


def _names(text):
    return frozenset(text.split())


PASS = _names("""
    clone _to_copy alias detach _softmax _log_softmax _safe_softmax native_layer_norm native_group_norm
    contiguous native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training native_dropout
    lift_fresh copy _native_batch_norm_legit_functional rrelu_with_noise _prelu_kernel hardswish_ bernoulli
    cumsum _fused_rms_norm _unsafe_view view reshape _reshape_alias lift_fresh_copy view_as_real _conj
""")
STRUCTURE = _names("""
    flip index_select index gather repeat pixel_shuffle pixel_unshuffle im2col constant_pad_nd slice_scatter
    select_scatter index_put index_put_ scatter scatter_ unfold take_along_dim copy_ zero_ fill_ triu tril
    expand_copy index_copy index_add _unsafe_index diagonal as_strided masked_select masked_fill masked_fill_
    scatter_add scatter_add_ index_copy_ index_add_ channel_shuffle rot90 unsafe_split split_copy
""")
MEANS = _names("mean sum amax amin max min prod std var logsumexp norm linalg_vector_norm var_mean std_mean")
NOTHING = _names("""
    argmax argmin any all zeros_like ones_like empty_like full_like new_zeros new_ones new_empty new_full
    rand_like randn_like equal _local_scalar_dense item eq ne lt le gt ge isnan isinf new_empty_strided
    empty_strided nonzero logical_not logical_and logical_or count_nonzero one_hot bucketize searchsorted
    resize_ set_ allclose as_strided_ bernoulli_ uniform_ normal_ argsort _is_all_true bitwise_not is_nonzero
""")


def short(func):
    return func._schema.name.split("::")[1]


@dataclass
class Findings:
    """Counts of what was compared, and what did not agree."""

    networks: int = 0
    tensors: int = 0
    loose: int = 0
    meetings: int = 0
    finals: int = 0
    errors: list = field(default_factory=list)
    excused: Counter = field(default_factory=Counter)
    said: Counter = field(default_factory=Counter)

    def __str__(self):
        return (
            f"{self.networks} networks, {self.tensors} tensors ({self.loose} of them in the middle alone), "
            f"{self.meetings} meetings, {self.finals} predictions; "
            f"{len(self.errors)} silent errors; said: {dict(self.said)}; behind what was said: {dict(self.excused)}"
        )


class Moments(TorchDispatchMode):
    """Carries mass and moments through a network and compares them with a tracker that runs outside of it.

    >>> with Tracker() as tracker, Moments(tracker, findings) as moments:
    ...     moments.start(image)
    ...     network(image)
    """

    def __init__(self, tracker, findings, name=""):
        super().__init__()
        self.tracker, self.findings, self.name = tracker, findings, name
        self._held = {}
        self._tainted = WeakIdKeyDictionary()
        self._tainted_storages = {}
        self._sources = []
        self._weights = WeakIdKeyDictionary()
        self._chosen = {}
        self._slack = 0.0
        self._uneven = 0.0  # of samples that are repeated, where they are compared on average
        self._count = 0

    def start(self, image):
        self.tracker.start(image)
        height, width = self.size = tuple(image.shape[2:])
        with _disable_current_modes():
            y = torch.arange(height, dtype=torch.float64)[:, None].expand(image.shape)
            x = torch.arange(width, dtype=torch.float64).expand(image.shape)
            self._keep(image, torch.stack([torch.ones_like(y), y, x]))

    # --- companions by storage: views and writes need no rule ---------------------------------------------------------

    def of(self, tensor):
        """Return (3, *shape): mass, moment along y, along x; None where nothing comes from the image."""
        held = self._held.get(tensor.untyped_storage()._cdata) if tensor.layout == torch.strided else None
        if held is None:
            return None
        flat = held[1]
        return flat.as_strided((3, *tensor.shape), (flat.stride(0), *tensor.stride()), tensor.storage_offset())

    def _keep(self, tensor, companion):
        storage = tensor.untyped_storage()
        if storage._cdata not in self._held:
            numel = max(storage.nbytes() // tensor.element_size(), 1)
            self._held[storage._cdata] = (StorageWeakRef(storage), torch.zeros(3, numel, dtype=torch.float64))
        self.of(tensor).copy_(companion.expand(3, *tensor.shape))
        self._count += 1
        if self._count % 64 == 0:
            self._held = {key: value for key, value in self._held.items() if not value[0].expired()}

    # --- dispatch -----------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = list(_tensors((args, kwargs)))
        with _disable_current_modes():  # the tracker follows the network alone
            companions = {id(x): self.of(x) for x in tensors}
            carried = [x for x in tensors if companions[id(x)] is not None and _alive(companions[id(x)])]
            # What a write in place reads is there before it runs.
            before = {id(x): companions[id(x)].clone() for x in carried} if func._schema.is_mutable else companions
        met = len(self.tracker.trace.meetings)
        said = self._said()
        out = func(*args, **kwargs)
        writes = func._schema.is_mutable
        if not carried and not (writes and any(companions[id(x)] is not None for x in tensors)):
            return out
        outputs = [x for x in (out if isinstance(out, (list, tuple)) else [out]) if isinstance(x, Tensor)]
        with _disable_current_modes():
            self._sources = carried
            if outputs and not self._is_view(outputs[0], tensors, writes):
                self._carry(func, args, kwargs, outputs, before, carried, met)
            if self._said() > said or any(self._is_tainted(x) for x in self._sources):
                for x in outputs:
                    self._taint(x, writes)
            if any(x in self._weights for x in self._sources) and "mm" not in short(func):
                for x in outputs:
                    self._weights[x] = True  # of attention: queries times keys
            for x in outputs:
                if x.is_floating_point() and x not in self._weights:
                    self._compare(short(func), x)
        return out

    def _said(self):
        return len(self.tracker.trace.notes) + len(self.tracker.trace.unknown)

    def _is_tainted(self, tensor):
        """Tell whether something was said of the tensor, or of what it comes from."""
        return tensor in self._tainted or tensor.untyped_storage()._cdata in self._tainted_storages

    def _taint(self, tensor, written):
        self._tainted[tensor] = True
        if written:  # and so is everything that looks at the same memory
            self._tainted_storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage()

    def _is_view(self, out, tensors, writes):
        return not writes and any(
            x.layout == torch.strided and x.untyped_storage()._cdata == out.untyped_storage()._cdata for x in tensors
        )

    def _carry(self, func, args, kwargs, outputs, companions, carried, met):
        name, out = short(func), outputs[0]
        bare = name.rstrip("_")
        named = _named(func, args, kwargs)
        if name in NOTHING:
            return
        if bare == "scatter" and any(m.op == "scatter" for m in self.tracker.trace.meetings[met:]):
            companion = self._scattered(named, companions, out)
        elif name in STRUCTURE:
            companion = self._through(func, args, kwargs, companions)
        elif name in PASS or bare in PASS:
            companion = companions[id(carried[0])]
        elif name in ("cat", "stack", "concat"):
            companion = self._cat(func, name, args, kwargs, companions, out, met)
        elif bare in MEANS and "other" not in named:
            companion = _mean(companions[id(carried[0])], named.get("dim"), out)
        elif name == "roll":
            companion = _rolled(companions[id(carried[0])], named["shifts"], named["dims"])
            self._slack = max(self._slack, self._uneven)  # how long an axis of repeated samples is
        elif name in ("topk", "sort", "median", "kthvalue", "cummax", "cummin"):
            if len(outputs) < 2:
                return
            index, dim = outputs[1], named.get("dim", -1) % max(carried[0].ndim, 1)
            numbers = self.tracker.points.numbers(index)
            if numbers is not None:
                self._chosen[numbers.choice] = index.movedim(dim, -1).flatten()[: index.shape[dim]].clone()
            index = index if index.ndim == carried[0].ndim else index.unsqueeze(dim)
            companion = companions[id(carried[0])].gather(1 + dim, index.expand(3, *index.shape))
            companion = companion.reshape(3, *out.shape)
        elif "pad" in name and name not in STRUCTURE:  # padding repeats samples where nominal positions go on
            companion = F.pad(companions[id(carried[0])], list(named["padding"]))
        elif "convolution" in name:
            companion = self._convolution(named, companions, out)
        elif "adaptive" in name:
            companion = _adaptive(companions[id(carried[0])], out)
        elif "pool" in name:
            axes = len(named["kernel_size"])
            companion = _window(
                companions[id(carried[0])],
                *(_per_axis(named.get(key), axes, default) for key, default in
                  (("kernel_size", 1), ("stride", named["kernel_size"]), ("padding", 0), ("dilation", 1))),
                out,
            )  # fmt: skip
        elif "upsample" in name or name in _RESAMPLES:
            companion = self._resize(func, args, kwargs, named, companions, carried[0], out)
        elif "grid_sampler" in name:
            companion = self._sampled(func, args, kwargs, named, companions)
        elif name in ("mm", "bmm", "addmm", "baddbmm", "mv", "dot", "addbmm", "matmul", "linear"):
            companion = self._product(named, companions, out)
        elif "scaled_dot_product" in name:
            query = companions.get(id(named["query"]))
            companion = None if query is None else _mean(query, [-1], keepdim=True)
        elif name == "col2im":
            ones = {key: torch.ones_like(c) for key, c in companions.items()}
            companion = self._through(func, args, kwargs, companions) / self._through(func, args, kwargs, ones)
        elif _pointwise(func, named):
            companion = self._meet(name, list(_tensors((args, kwargs))), companions, carried, out, met)
        else:
            raise NotImplementedError(f"the oracle has no linear form of {func}")
        if companion is not None:
            self._keep(out, companion)
            for other in outputs[1:]:  # values and indices, output and statistics
                if other.shape == out.shape and other.is_floating_point() and name in ("unbind",):
                    self._keep(other, companion)

    def _through(self, func, args, kwargs, companions):
        """Run a linear operator on mass and moments; tensors that have none count as zero."""

        def part(i):
            def swap(x):
                if isinstance(x, (list, tuple)):
                    return type(x)(swap(y) for y in x) if isinstance(x, list) else [swap(y) for y in x]
                if not isinstance(x, Tensor) or not x.is_floating_point():
                    return x
                companion = companions.get(id(x))
                return torch.zeros(x.shape, dtype=torch.float64) if companion is None else companion[i].clone()

            named = {key: swap(value) for key, value in _named(func, args, kwargs).items()}
            for key in ("value", "src"):  # constants that are written or padded have no mass
                if isinstance(named.get(key), (int, float)):
                    named[key] = 0.0
            positional = [named.pop(a.name) for a in func._schema.arguments if not a.kwarg_only and a.name in named]
            result = func(*positional, **named)
            return result[0] if isinstance(result, (list, tuple)) else result

        return torch.stack([part(i) for i in range(3)])

    # --- linear forms -------------------------------------------------------------------------------------------------

    def _convolution(self, named, companions, out):
        source = companions.get(id(named["input"] if "input" in named else named["self"]))
        if source is None:
            return None
        weight, axes = named["weight"], out.ndim - 2
        groups = int(named.get("groups", 1))
        stride, padding, dilation = (
            _per_axis(named.get(key), axes, default)
            for key, default in (("stride", 1), ("padding", 0), ("dilation", 1))
        )
        grouped = source.unflatten(2, (groups, -1))
        mixed = _mean(grouped, [2])  # (3, N, groups, ...): dimension 2 of what is behind the leading 3
        kernel = weight.shape[2:]
        if named.get("transposed"):
            result = _transposed(mixed, kernel, stride, padding, dilation, out)
        else:
            result = _window(mixed, kernel, stride, padding, dilation, out)
        return result.repeat_interleave(out.shape[1] // groups, 2)

    def _resize(self, func, args, kwargs, named, companions, source, out):
        companion = self._through(func, args, kwargs, companions)
        name, axes = short(func), out.ndim - 2
        for axis in range(axes):
            n, size = source.shape[2 + axis], out.shape[2 + axis]
            if name in _RESAMPLES:
                scale, offset = named["scale"][axis], named["offset"][axis]
            elif named.get("align_corners"):
                scale, offset = (n - 1) / max(size - 1, 1), 0.0
            else:
                factors = named.get("scale_factors") or [named.get(k) for k in ("scales_h", "scales_w")[-axes:]]
                scale = 1 / factors[axis] if factors[axis] else n / size
                offset = scale / 2 - 0.5
            reads = scale * torch.arange(size, dtype=torch.float64) + offset
            cubic = "cubic" in name or "cubic" in str(named.get("kernel", ""))
            reach = (2 if cubic else 1) * scale - 1e-9 - 0.5 if name.endswith("aa") and scale > 1 else float(cubic)
            if "nearest" in name or "nearest" in str(named.get("kernel", "")):
                reach = -1.0
                if Fraction(n, size).limit_denominator(2) != Fraction(n, size) or scale != n / size:
                    # No short window of outputs repeats the same samples equally often.
                    part = 0.5 if size < 16 or n < 8 else 0.6 * scale
                    self._uneven = max(self._uneven, part * _step(companions[id(source)], 2 + axis))
            cut = (reads < reach - 1e-6) | (reads > n - 1 - reach + 1e-6)
            # Scaling leaves the position as it is and tells that a sample was repeated.
            companion = companion * torch.where(cut, 0.5, 1.0).reshape(-1, *[1] * (axes - 1 - axis))
            if name.endswith("aa"):  # discrete triangles are not centred exactly
                self._slack = max(self._slack, 0.04 * scale * _step(companions[id(source)], 2 + axis))
            if scale != int(scale):
                self._slack = max(self._slack, _ripple(companions[id(source)], 2 + axis))
            if cubic:  # a = -0.75 does not reproduce a ramp between samples
                self._slack = max(self._slack, 0.12 * _step(companions[id(source)], 2 + axis))
        return companion

    def _sampled(self, func, args, kwargs, named, companions):
        # A grid that is data displaces; where it reads is told by its values.
        if companions.get(id(named["input"])) is None:
            return None
        plain = {id(named["input"]): companions[id(named["input"])]}
        self._slack = max(self._slack, *(_ripple(plain[id(named["input"])], axis) for axis in (2, 3)))
        grid = named["grid"].double()
        values = dict(named, grid=grid)
        parts = []
        for i in range(3):
            values["input"] = plain[id(named["input"])][i]
            values["padding_mode"] = 0
            zeros = func(*values.values())
            values["padding_mode"] = named["padding_mode"]
            real = func(*values.values())
            if i == 0:
                cut = torch.where(zeros < 1 - 1e-6, 0.5, 1.0)
            parts.append(real)
        return torch.stack(parts) * cut

    def _product(self, named, companions, out):
        names = ("mat1", "batch1", "self", "input"), ("mat2", "batch2", "vec", "tensor", "other", "weight")
        left, right = (next(named[n] for n in options if n in named) for options in names)
        a, b = companions.get(id(left)), companions.get(id(right))
        if a is not None and "weight" in named:
            return _mean(a, [a.ndim - 2], keepdim=True)
        rows = None if a is None or not _alive(a) else _mean(a, [left.ndim - 1], keepdim=True)
        columns = None
        if b is not None and _alive(b):
            columns = _mean(b, [max(right.ndim - 2, 0)], keepdim=right.ndim > 1)
            if right.ndim == 1:
                columns = columns.unsqueeze(-1)
        if rows is not None and right.ndim == 1:
            rows = rows.squeeze(-1)
        if rows is None or columns is None:
            return rows if columns is None else columns
        if right.ndim > 1 and _varies(rows, rows.ndim - 2) and _varies(columns, columns.ndim - 1):
            self._weights[out] = True
        if _varies(rows, rows.ndim - 2 if right.ndim > 1 else rows.ndim - 1) or not _varies(columns, columns.ndim - 1):
            return rows
        return columns

    def _scattered(self, named, companions, out):
        """Compare what was sampled at chosen points with the map that it is written to; the map's positions stay."""
        meeting = self.tracker.trace.meetings[-1]
        source, kept = companions[id(named["src"])], companions[id(named["self"])]
        index, dim = named["index"], named["dim"] % out.ndim
        there = kept.gather(1 + dim, index.expand(3, *index.shape))
        free = (source[0] > 1 - 1e-6) & (there[0] > 1 - 1e-6)
        for axis, offset in enumerate((meeting.y, meeting.x)):
            claimed = _along(_expected(self.tracker.of(out), self._chosen)[axis], offset).expand(out.shape)
            off = source[1 + axis] - there[1 + axis] - claimed.gather(dim, index)
            if free.any() and float(off[free].abs().max()) > TIGHT + self._slack:
                self._error("meeting:scatter", f"axis {axis}: off by {float(off[free].abs().max()):.3f}", out)
        self.findings.meetings += 1
        return kept

    # --- meetings -----------------------------------------------------------------------------------------------------

    def _cat(self, func, name, args, kwargs, companions, out, met):
        named = _named(func, args, kwargs)
        tensors = [x for x in named["tensors"] if x.numel()]
        index = named["dim"] % out.ndim
        pieces = []
        for x in tensors:
            companion = companions.get(id(x))
            companion = torch.zeros(3, *x.shape, dtype=torch.float64) if companion is None else companion.clone()
            pieces.append(companion.unsqueeze(1 + index) if name == "stack" else companion)
        if len(self.tracker.trace.meetings) > met:
            layout = self.tracker.of(out)
            expected = _expected(layout, self._chosen, smooth=True)
            narrow = [e.select(index, 0).unsqueeze(index) for e in expected]
            ok = self._judge_meeting("cat", [_some(p, layout) for p in pieces], layout, narrow, tensors, out)
            pieces = [p if keep else p * 0 for p, keep in zip(pieces, ok, strict=True)]
            self._sources = [x for x, keep in zip(tensors, ok, strict=True) if keep and self.tracker.of(x).spatial]
        some = [_some(p, self.tracker.of(out)) for p in pieces]
        ripples = [max(_ripple(p, i) for i in range(out.ndim)) for p in some if _alive(p)]
        if ripples and max(ripples) - min(ripples) > TIGHT:  # how much of each the next layer takes is for it to learn
            self._slack = max(self._slack, max(ripples) / 4)
        return torch.cat(pieces, 1 + index)

    def _meet(self, name, tensors, companions, carried, out, met):
        shaped = [
            companions[id(x)].reshape(3, *[1] * (out.ndim - x.ndim), *x.shape).expand(3, *out.shape) for x in carried
        ]
        if len(shaped) == 1:
            return shaped[0]
        layout = self.tracker.of(out)
        placed = [i for i, x in enumerate(carried) if self.tracker.of(x).spatial]
        if not placed or not layout.spatial:
            return shaped[0]
        if len(placed) == 1:
            self._sources = [carried[placed[0]]]
            return shaped[placed[0]]
        recorded = len(self.tracker.trace.meetings) > met
        claims = _expected(layout, self._chosen, smooth=True)
        operands = [carried[i] for i in placed]
        some = {i: _some(shaped[i], layout) for i in placed}
        ok = self._judge_meeting(name, list(some.values()), layout, claims, operands, out, recorded)
        good = [i for i, keep in zip(placed, ok, strict=True) if keep] or placed[:1]
        # Of those that agree, the one that has read the border least.

        def off(i):
            found = [_profile(some[i], claims[axis], axis) for axis in (0, 1)]
            return round(sum(_off(*f) for f in found if f is not None), 3)

        best = min(good, key=lambda i: (self._is_tainted(carried[i]), off(i), -float(some[i][0].sum())))
        self._sources = [carried[best]]
        result = shaped[best]
        for axis in (0, 1):  # rows of one operand and columns of another span a plane
            if not any(d.moves_along(axis) for d in self.tracker.of(carried[best]).dims):
                for i in good:
                    if any(d.moves_along(axis) for d in self.tracker.of(carried[i]).dims):
                        other = shaped[i]
                        mass = torch.minimum(result[0], other[0])
                        ratios = [x / y[0].clamp(min=1e-9) for x, y in ((result[1], result), (result[2], result))]
                        ratios[axis] = other[1 + axis] / other[0].clamp(min=1e-9)
                        result = torch.stack([mass, ratios[0] * mass, ratios[1] * mass])
                        self._sources = [*self._sources, carried[i]]
                        break
        return result

    def _judge_meeting(self, name, pieces, layout, expected, tensors, out, recorded=True):
        """Compare a recorded meeting with how far its operands lie from what the result counts on."""
        meeting = self.tracker.trace.meetings[-1] if recorded else None
        claimed = 0.0 if meeting is None else meeting.worst
        agrees, matches, compared = [], [], False
        for piece, tensor in zip(pieces, tensors, strict=True):
            own = self.tracker.of(tensor)
            good = matching = True
            for axis in (0, 1):
                offset = None if meeting is None else (meeting.y, meeting.x)[axis]
                if not all(any(d.moves_along(axis) for d in x.dims) for x in (layout, own)):
                    matching &= offset is None
                    continue
                tolerance = self._tolerance(layout, axis) + self._uneven
                found = _profile(piece, expected[axis], axis, whole=True)
                if found is None:
                    tolerance = self._tolerance(layout, axis, loose=True) + self._uneven
                    found = _middle(piece, expected[axis], axis, self.size)
                    if found is None:
                        continue
                else:
                    compared = True
                off = _off(found[0], 0.0)  # phases or taps meet what is the same for all of them
                good &= off <= (tolerance if claimed <= TIGHT else min(tolerance, max(TIGHT, claimed / 2)))
                if off > claimed + tolerance:
                    self._error(f"meeting:{name}", f"axis {axis}: measured {off:.3f}, recorded {meeting}", out)
                if offset is not None:
                    exact = _profile(piece, expected[axis] + _along(expected[axis], offset), axis, whole=True)
                    matching &= exact is None or _off(exact[0], 0.0) <= tolerance
            agrees.append(good)
            matches.append(matching)
        if compared:
            self.findings.meetings += 1
            if meeting is not None and not any(matches):
                self._error(f"meeting:{name}", f"no operand lies at {meeting.y} {meeting.x}", out)
        if not any(agrees) and not self._slack and not self._uneven:
            self._error(f"meeting:{name}", "the result is at none of its operands", out)
        return agrees if any(agrees) else matches if name == "cat" else [True] * len(agrees)

    # --- comparison ---------------------------------------------------------------------------------------------------

    def _tolerance(self, layout, axis, loose=False):
        native = layout.native[axis] if layout.native[axis] < 1e9 else 1.0
        return TIGHT + self._slack + (LOOSE * max(native, 1.0) if loose else 0.0)

    def _compare(self, name, out):
        companion = self.of(out)
        if companion is None or not _alive(companion) or out.ndim == 0:
            return
        layout = self.tracker.of(out)
        every = _expected(layout, self._chosen)
        companion = _some(companion, layout)
        for axis in (0, 1):
            moving = [d for d in layout.dims if d.moves_along(axis)]
            if not moving:
                if self._moves(companion, axis):
                    self._error(f"lost:{name}", f"axis {axis} of {tuple(out.shape)}", out)
                continue
            expected = every[axis]
            found = _profile(companion, expected, axis)
            loose = found is None
            if loose:
                found = _middle(companion, expected, axis, self.size)
                if found is None:
                    continue
            offsets = found[0]
            phased = any(atom.phases for d in moving for part in d.parts for atom in part)
            off = float(found[0].abs().max()) + found[1] if phased else _off(*found)  # one by one, or on average
            if axis == 0:
                self.findings.tensors += 1
                self.findings.loose += loose
            if off > self._tolerance(layout, axis, loose) + (0.0 if phased and not loose else self._uneven):
                few = [round(float(v), 3) for v in offsets[:4]]
                self._error(f"position:{name}", f"axis {axis} of {tuple(out.shape)}: off by {off:.3f} {few}", out)
                # Everything behind it would be off, too.
                layout = None
                break

    def _moves(self, companion, axis):
        """Tell whether positions differ from element to element beyond what borders do."""
        mass = companion[0]
        free = _free(mass)
        if int(free.sum()) < 2:
            return False
        position = (companion[1 + axis] / mass)[free]
        return float(position.max() - position.min()) > 0.5

    def _error(self, kind, what, out):
        if any(self._is_tainted(x) for x in [out, *self._sources]):
            self.findings.excused[kind.split(":")[0]] += 1
        else:
            self.findings.errors.append((kind, self.name, self.tracker.path, what))
            raise Silent(kind, self.name, what)


class Silent(Exception):
    """Something that is wrong without a word; what follows from it is not looked at."""


# --- helpers ----------------------------------------------------------------------------------------------------------


def _tensors(values):
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))


def _named(func, args, kwargs):
    named = {}
    for i, argument in enumerate(func._schema.arguments):
        if i < len(args):
            named[argument.name] = args[i]
        elif argument.name in kwargs:
            named[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            named[argument.name] = argument.default_value
    return named


def _pointwise(func, named):
    if torch.Tag.pointwise in func.tags:
        return True
    packet = getattr(torch.ops.aten, short(func).rstrip("_"), None)
    if short(func).rstrip("_") in ("hardswish", "hardsigmoid", "relu6", "mish", "softplus", "silu"):
        return True
    return packet is not None and any(torch.Tag.pointwise in getattr(packet, o).tags for o in packet.overloads())


def _per_axis(value, axes, default):
    value = default if value is None or (isinstance(value, (list, tuple)) and not value) else value
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return [int(v) for v in (values * axes if len(values) == 1 else values)]


def _free(mass):
    """Tell where no border was read; kernels with negative weights make more of what has read one, too."""
    return (mass - 1).abs() < 1e-6


def _alive(companion):
    return companion[0].numel() > 0 and float(companion[0].max()) > 1e-12


def _some(companion, layout):
    """Leave out entries of long dimensions that no position depends on, as channels; the first and the last stay."""
    for i, dim in enumerate(layout.dims):
        if not dim.placed and companion.shape[1 + i] > MANY:
            index = torch.linspace(0, companion.shape[1 + i] - 1, MANY).round().long()
            companion = companion.index_select(1 + i, index)
    return companion


def _mean(companion, dims, out=None, keepdim=None):
    """Average over dimensions (of the tensor, without the leading 3), of the entries that come from the image."""
    rank = companion.ndim - 1
    if dims is None or dims == []:
        dims = list(range(rank))
    dims = [dims] if isinstance(dims, int) else list(dims)
    axes = sorted({1 + d % rank for d in dims})
    if keepdim is None:
        keepdim = out is not None and out.ndim == rank
    others = [i for i in range(rank) if i + 1 not in axes]
    alive = (companion[0] > 1e-12).amax(others, keepdim=True).sum() if others else (companion[0] > 1e-12).sum()
    return companion.sum(axes, keepdim=keepdim) / max(int(alive), 1)


def _window(companion, kernel, stride, padding, dilation, out):
    """Average windows of real samples; what hangs over the border is missing in the mass."""
    axes = len(kernel)
    pads = []
    for i in reversed(range(axes)):
        n, size = companion.shape[companion.ndim - axes + i], out.shape[out.ndim - axes + i]
        needed = (size - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1
        pads += [padding[i], max(needed - n - padding[i], 0)]
    flat = F.pad(companion.reshape(-1, 1, *companion.shape[-axes:]), pads)
    weight = torch.full((1, 1, *kernel), 1 / prod(kernel), dtype=torch.float64)
    conv = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    result = conv(flat, weight, stride=stride, dilation=dilation)
    crop = (..., *(slice(0, out.shape[out.ndim - axes + i]) for i in range(axes)))
    result = result[crop]
    return result.reshape(*companion.shape[:-axes], *result.shape[2:])


def _transposed(companion, kernel, stride, padding, dilation, out):
    """Average over the inputs that write an output: as many as there were without a border."""
    axes = len(kernel)
    conv = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
    weight = torch.ones((1, 1, *kernel), dtype=torch.float64)
    margin = [dilation[i] * (kernel[i] - 1) // stride[i] + 2 for i in range(axes)]
    flat = companion.reshape(-1, 1, *companion.shape[-axes:])
    around = [m for i in reversed(range(axes)) for m in (margin[i], margin[i] + 2)]
    crop = (
        ...,
        *(slice(m * s + p, m * s + p + out.shape[out.ndim - axes + i])
          for i, (m, s, p) in enumerate(zip(margin, stride, padding, strict=True))),
    )  # fmt: skip
    written = conv(F.pad(flat, around), weight, stride=stride, dilation=dilation)[crop]
    count = conv(F.pad(torch.ones_like(flat[:1]), around, value=1.0), weight, stride=stride, dilation=dilation)[crop]
    result = written / count.clamp(min=1)
    return result.reshape(*companion.shape[:-axes], *result.shape[2:])


def _adaptive(companion, out):
    pool = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
    axes = 2 if companion.ndim >= 4 else 1
    size = out.shape[-axes:]
    flat = companion.reshape(-1, *companion.shape[-axes - 1 :])
    return pool[axes - 1](flat, tuple(size)).reshape(3, *out.shape)


def _rolled(companion, shifts, dims):
    """Roll; what leaves at one end enters at the other as if the axis went on there."""
    for shift, dim in zip(shifts, dims, strict=True):
        axis = 1 + dim % (companion.ndim - 1)
        n = companion.shape[axis]
        shift %= n
        position = torch.where(_free(companion[:1]), companion[1:] / companion[:1].clamp(min=0.1), torch.nan)
        steps = position.narrow(axis, 1, n - 1) - position.narrow(axis, 0, n - 1)
        span = n * torch.stack([line.nanmean().nan_to_num() for line in steps]).reshape(2, *[1] * (companion.ndim - 1))
        back = shift > n // 2  # a roll to the left by n - shift
        companion = companion.roll(shift, axis)
        part = companion.narrow(axis, shift, n - shift) if back else companion.narrow(axis, 0, shift)
        part[1:] += (span if back else -span) * part[:1]
    return companion


def _varies(companion, dim):
    """Tell whether positions move along one dimension of a companion."""
    if companion.shape[dim] < 2:
        return False
    mass = companion[:1].clamp(min=1e-12)
    position = torch.where(companion[:1] > 1e-9, companion[1:] / mass, torch.nan)
    difference = position.narrow(dim, 1, companion.shape[dim] - 1) - position.narrow(dim, 0, companion.shape[dim] - 1)
    return bool((difference.abs() > 0.05).any())


def _step(companion, dim):
    """Return the spacing of samples along one dimension, of those that have a position."""
    lines = _steps(companion[1:] / companion[:1].where(companion[:1] > 1e-9, torch.nan), dim)
    return max((float(line[line.isfinite()].abs().median()) for line in lines if line.isfinite().any()), default=0.0)


def _steps(position, dim):
    """Return from one sample to the next along one dimension."""
    n = position.shape[1 + dim]
    return position.narrow(1 + dim, 1, n - 1) - position.narrow(1 + dim, 0, n - 1)


def _ripple(companion, dim):
    """Return how far positions lie from even spacing along one dimension, where samples are repeated."""
    n = companion.shape[1 + dim]
    if n < 3:
        return 0.0
    position = torch.where(_free(companion[:1]), companion[1:] / companion[:1].clamp(min=0.1), torch.nan)
    steps = position.narrow(1 + dim, 1, n - 1) - position.narrow(1 + dim, 0, n - 1)
    return max(_spread(line) for line in steps)


def _spread(steps):
    steps = steps[torch.isfinite(steps)]
    return float(steps.max() - steps.min()) / 2 if steps.numel() and float(steps.max() - steps.min()) > TIGHT else 0.0


def _expected(layout, chosen, smooth=False):
    """Return the positions that the tracker claims, per axis a tensor that broadcasts to the shape; nan: none."""
    rank = len(layout.dims)
    totals = []
    for axis in (0, 1):
        total = torch.zeros([1] * rank, dtype=torch.float64)
        for i, dim in enumerate(layout.dims):
            if dim.placed:
                line = _line(dim, axis, smooth) if dim.choice is None else _chosen_line(dim, axis, chosen)
                line = line[:1] if len(line) > 1 and bool((line == line[0]).all()) else line
                total = total + line.reshape([-1 if j == i else 1 for j in range(rank)])
        totals.append(total)
    return totals


def _chosen_line(dim, axis, chosen):
    """Return the positions along an axis of the points that were chosen when the network ran."""
    return _line(replace(dim, choice=None), axis, False)[chosen[dim.choice]]


def _along(expected, offset):
    """Return a recorded offset at every claimed position: from its first to its last."""
    finite = expected[~expected.isnan()]
    low, high = float(finite.min()), float(finite.max())
    turned = float(expected.flatten()[0]) > float(expected.flatten()[-1])
    first, last = (offset.last, offset.first) if turned else (offset.first, offset.last)
    return first + (last - first) * (expected - low) / max(high - low, 1e-9)


def _line(dim, axis, smooth):
    """Return what a dimension adds to positions; nothing is claimed of parts that stay while others move."""
    moves = any(atom.step[axis] for part in dim.parts for atom in part)
    lines = []
    for part in dim.parts:
        line = torch.zeros(1, dtype=torch.float64)
        if (
            smooth and len(part) == 2 and part[0].spatial and not part[1].placed
        ):  # repeated: on average over the repetitions
            times = part[1].size
            at = (torch.arange(part[0].size * times, dtype=torch.float64) + 0.5) / times - 0.5
            lines.append(part[0].origin[axis] + part[0].step[axis] * at)
            continue
        for atom in part:
            at = torch.arange(atom.size, dtype=torch.float64)
            if atom.phases and not smooth:
                at += torch.tensor(atom.phases, dtype=torch.float64)[torch.arange(atom.size) % len(atom.phases)]
            own = atom.origin[axis] + atom.step[axis] * at
            line = (line[:, None] + own).flatten()
        lines.append(line if not moves or any(atom.step[axis] for atom in part) else line * torch.nan)
    return torch.cat(lines)


def _profile(companion, expected, axis, whole=False):
    """Return how far off positions are where no border was read: on average by claimed position, and at most from it.

    None where less than two positions are free of the border. ``whole``: where everything at a position is.
    """
    mass, moment = companion[0], companion[1 + axis]
    if not whole:
        free = _free(mass) & ~expected.isnan()
        worst = torch.where(free, moment / mass - expected, 0.0).abs().max()
        if float(worst) < TIGHT / 2:
            low, high = (torch.where(free, expected, end) for end in (torch.inf, -torch.inf))
            return (worst[None], 0.0) if float(high.max() - low.min()) > 1e-4 else None
    kept = [i for i in range(mass.ndim) if expected.shape[i] > 1 or mass.ndim == 1]
    order = [i for i in range(mass.ndim) if i not in kept] + kept
    rows = [t.permute(order).reshape(-1, *(mass.shape[i] for i in kept)) for t in (mass, moment)]
    where = expected.expand([mass.shape[i] if i in kept else 1 for i in range(mass.ndim)])
    where = where.permute(order).reshape(1, -1)
    mass, moment = (t.reshape(t.shape[0], -1) for t in rows)
    free = _free(mass) & ~where.isnan()
    off = torch.where(free, moment / mass.clamp(min=0.1) - where, 0.0)
    if whole and float(off.abs().max()) < TIGHT / 2:
        count = free.sum(0)
        at = where[0, (count == count.max()) & (count > 0)]
        return (off.abs().amax()[None], 0.0) if len(at) > 1 and float(at.max() - at.min()) > 1e-4 else None
    total, count = off.sum(0), free.sum(0)
    values, inverse = torch.unique((where[0].nan_to_num() * 1e4).round(), return_inverse=True)
    if len(values) < len(inverse):
        total = torch.zeros(len(values), dtype=torch.float64).index_add_(0, inverse, total)
        count = torch.zeros(len(values), dtype=torch.int64).index_add_(0, inverse, count)
    else:
        total, count = total[values_order(inverse)], count[values_order(inverse)]
    if whole:
        count = torch.where(count == count.max(), count, 0)
    mean = total / count.clamp(min=1)
    if int((count > 0).sum()) < 2:
        return None
    apart = torch.where(free, (off - mean[inverse]).abs(), 0.0)
    spread = float(apart.max())
    if spread > TIGHT and len(values) == len(inverse):  # rows that repeat samples in their own ways
        order = values_order(inverse)
        return torch.zeros(2), _worst_row(off[:, order], free[:, order])
    return mean[count > 0], spread


def _worst_row(off, free):
    """Return how far off the worst row is, each judged by the window that suits it."""
    rows = free.sum(1) >= min(8, free.shape[1])
    if not rows.any():
        return 0.0
    off, free = torch.where(free, off, 0.0)[rows], free[rows].double()
    best = (off.abs() * free).amax(1)
    sums, counts = (F.pad(t.cumsum(1), (1, 0)) for t in (off, free))
    for window in range(2, min(33, off.shape[1] // 2 + 1)):
        complete = counts[:, window:] - counts[:, :-window] == window
        means = torch.where(complete, (sums[:, window:] - sums[:, :-window]).abs() / window, 0.0).amax(1)
        best = torch.where(complete.any(1), torch.minimum(best, means), best)
    return float(best.max())


def values_order(inverse):
    """Return the permutation that sorts what ``torch.unique`` has told the ranks of."""
    order = torch.empty_like(inverse)
    order[inverse] = torch.arange(len(inverse))
    return order


def _middle(companion, expected, axis, size):
    """Return the same for what is claimed to be nearest to the middle of the image, borders read or not."""
    mass = companion[0]
    centre = (size[axis] - 1) / 2
    expected = expected.expand(mass.shape)
    distance = (expected - centre).abs().nan_to_num(torch.inf)
    chosen = (distance <= distance.min() + 1e-6) & (mass > 0.95)
    if not chosen.any():
        return None
    off = companion[1 + axis][chosen] / mass[chosen] - expected[chosen]
    return off.mean()[None], 0.0


def _off(offsets, spread):
    """Return how far off a profile is: the least over windows, since what repeats samples is right on average."""
    n = len(offsets)
    best = float(offsets.abs().max())
    if best < TIGHT:
        return best + spread
    total = torch.cat([torch.zeros(1, dtype=torch.float64), offsets.cumsum(0)])
    for window in range(2, min(33, n // 2 + 1) if n > 3 else n + 1):
        means = (total[window:] - total[:-window]) / window
        best = min(best, float(means.abs().max()))
    return best + spread
