"""The same network under each pixel model: as configured, with either flag, and with every resize exact."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from mmengine.config import Config

from .audit import Audit, audit, audit_exact, build_fake, with_align_corners
from .fake import fake_tensors
from .layout import Offset
from .pipeline import LabelOffset, label_offsets
from .track import TOLERANCE, Meeting, Site


@dataclass
class Comparison:
    """Audits of one config at several sizes.

    Args:
        name: the config.
        sizes: input sizes (h, w); the first is the one the findings are reported at.
        audits: variant (``"config"``, ``"False"``, ``"True"``, ``"exact"``) to audits, one per size. A flag that the
            model's heads do not take is missing.
        hard_coded: resizes that keep their flag whatever the config says.
        labels: how far the training pipeline's resizes move labels against the image.
        fitting: for an odd-kernel backbone, the nearest size at which ``True`` is exact, and its audit.
    """

    name: str
    sizes: list[tuple[int, int]]
    audits: dict[str, list[Audit]]
    hard_coded: list[Site] = field(default_factory=list)
    labels: list[LabelOffset] = field(default_factory=list)
    fitting: tuple[tuple[int, int], Audit] | None = None

    @property
    def now(self) -> Audit:
        return self.audits["config"][0]

    @property
    def exact(self) -> Audit:
        return self.audits["exact"][0]


def compare(cfg: Config, name: str, sizes: Sequence[tuple[int, int]], flags: bool = True) -> Comparison:
    """Audit ``cfg`` at ``sizes`` as it stands and exact and, with ``flags``, with ``align_corners`` False and True."""
    audits: dict[str, list[Audit]] = {}
    labels = label_offsets(cfg)
    with fake_tensors():
        model = build_fake(cfg)
        audits["config"] = [audit(model, size) for size in sizes]
        audits["exact"] = [audit_exact(model, size) for size in sizes]
        result = Comparison(name, list(sizes), audits, labels=labels)
        if not flags:
            return result
        for value in (False, True):
            try:
                flagged = build_fake(with_align_corners(cfg, value))
            except TypeError:  # heads of mask classification have no flag
                return result
            audits[str(value)] = [audit(flagged, size) for size in sizes]
        size = _size_for_true(result.now)
        if size is not None:
            with suppress(RuntimeError):  # networks that fix their inner sizes cannot take this one
                result.fitting = (size, audit(flagged, size))
    false, true = (audits[key][0].trace.resizes for key in ("False", "True"))
    result.hard_coded = [
        a.site
        for a, b in zip(false, true, strict=True)
        if a.align_corners is not None and a.align_corners == b.align_corners
    ]
    return result


def input_size(cfg: Config) -> tuple[int, int]:
    """(h, w) that a config trains at: its crop, else that of its preprocessor, else 512x1024."""
    size = cfg.get("crop_size") or (cfg.model.get("data_preprocessor") or {}).get("size") or (512, 1024)
    if isinstance(size, int):
        return size, size
    height, width = size
    return height, width


def _size_for_true(audited: Audit) -> tuple[int, int] | None:
    """The nearest ``n * stride + 1``, if the backbone's features sit on multiples of their stride."""
    levels = [level for level in audited.levels if level is not None]
    if not levels or any(offset != 0 for level in levels for offset in level.offset):
        return None
    stride = int(max(max(level.stride) for level in levels))
    height, width = (max(round((n - 1) / stride), 1) * stride + 1 for n in audited.size)
    return height, width


def describe(comparison: Comparison) -> str:
    """The verdict in words."""
    size = "x".join(map(str, comparison.sizes[0]))
    sentences = []
    flagged: list[str] = [key for key in ("False", "True") if key in comparison.audits]
    for key in flagged or ["config"]:
        final = comparison.audits[key][0].final
        name = f"align_corners={key}" if flagged else "The prediction"
        sentences.append(f"{name} {_final_in_words(final)} at {size}.")
    inner = [m for m in comparison.now.misregistered if not m.pooled]
    pooled = [m for m in comparison.now.misregistered if m.pooled]
    if inner:
        sentences.append(
            f"Inside the network, features meet up to {inner[0].worst:.4g} px apart"
            f" ({_place(inner[0])}); the same offset everywhere can be learned away, a drift cannot."
        )
    if pooled:
        sentences.append(
            f"Pooled bins, {pooled[0].spacing:.4g} px wide, are {pooled[0].worst:.4g} px off; "
            f"only half-pixel fits them."
        )
    if comparison.fitting is not None and "True" in comparison.audits:
        fit, audited = comparison.fitting
        off = [m for m in audited.trace.meetings if m.worst > TOLERANCE and not m.pooled]
        if not off:
            bins = " but for pooled bins" if audited.worst > TOLERANCE else ""
            sentences.append(f"align_corners=True is exact at {fit[0]}x{fit[1]}{bins}.")
    if comparison.hard_coded:
        total = len(comparison.now.trace.resizes)
        sentences.append(
            f"{len(comparison.hard_coded)} of {total} resizes are hard-coded and ignore the config's flag."
        )
    exact = comparison.exact
    if comparison.now.final is None:
        sentences.append("The prediction is not judged.")
    elif comparison.now.worst < TOLERANCE:
        sentences.append("Everything is registered as it stands.")
    elif exact.worst < TOLERANCE:
        sentences.append(
            f"Exact resizes ({len(exact.maps)} of {len(exact.trace.resizes)} changed) register everything."
        )
    else:
        left = [m for m in exact.trace.meetings if m.worst > TOLERANCE]
        worst = max(left, key=lambda m: m.worst)
        sentences.append(
            f"Exact resizes leave {len(left)} meeting(s) that no resize can repair, {worst.worst:.4g} px at most "
            f"({_place(worst)})."
        )
    for moved in comparison.labels:
        if max(abs(moved.y), abs(moved.x)) > 0.05:
            sentences.append(
                f"In the training pipeline, {moved.transform} puts labels {moved.x:+.2g} px right and "
                f"{moved.y:+.2g} px below the image; AlignedResize does not."
            )
    if comparison.now.trace.unknown:
        sentences.append(
            f"{len(comparison.now.trace.unknown)} operator(s) could not be followed; "
            f"what depends on them is not judged."
        )
    return " ".join(sentences)


def _place(meeting: Meeting) -> str:
    return f"{meeting.op} in {meeting.path or 'the segmentor'}"


def _final_in_words(final: Meeting | None) -> str:
    if final is None or (final.y is None and final.x is None):
        return "could not be followed to the labels"
    if final.worst < TOLERANCE:
        return "is registered with the labels"
    parts = []
    constant = [o for o in (final.y, final.x) if o is not None and abs(o.drift) < TOLERANCE]
    if final.y is not None and final.x is not None and len(constant) == 2 and abs(final.y.shift - final.x.shift) < 1e-6:
        direction = "up and left" if final.y.shift < 0 else "down and right"
        return f"reads {abs(final.y.shift):.4g} px {direction} of the labels everywhere"
    for axis, offset, (before, after) in (("y", final.y, ("up", "down")), ("x", final.x, ("left", "right"))):
        if offset is None:
            continue
        if abs(offset.drift) < TOLERANCE:
            parts.append(f"{abs(offset.shift):.4g} px {before if offset.shift < 0 else after}")
        else:
            parts.append(f"from {offset.first:+.3g} to {offset.last:+.3g} px along {axis}")
    drifts = any(o is not None and abs(o.drift) >= TOLERANCE for o in (final.y, final.x))
    return f"{'drifts' if drifts else 'reads'} {' and '.join(parts)}"


def in_pixels(offset: Offset | None) -> str:
    """``-3.5`` for a constant, ``0 .. -7`` for a drift."""
    if offset is None:
        return "-"
    if abs(offset.drift) < TOLERANCE and abs(offset.middle - offset.first) < TOLERANCE:
        return f"{offset.first + 0:.4g}"
    return f"{offset.first + 0:.3g} .. {offset.last:.3g}"
