"""An audit in words, and offsets as texts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .layout import Offset
from .track import TOLERANCE, Meeting, Resize

if TYPE_CHECKING:
    from .audit import Audit
    from .coverage import Uncovered
    from .forward_pass import ForwardPass


VARIANTS = {"config": "as configured", "False": "align_corners=False", "True": "align_corners=True", "exact": "exact"}
"""Names of the variants of an audit."""


def describe(audit: "Audit") -> str:
    """Say the verdict in words."""
    size = "x".join(map(str, audit.sizes[0]))
    sentences = ["Judged where the weights look, not where layers put features."] if audit.weights else []
    if audit.policy is not None:
        sentences += _under_policy(audit, audit.policy)
    flagged: list[str] = [key for key in ("False", "True") if key in audit.passes]
    for key in flagged or ["config"] * (audit.policy is None):
        final = audit.passes[key][0].final
        name = f"align_corners={key}" if flagged else "The prediction"
        without = "Without it, " if audit.policy is not None and key == "False" else ""
        if final is not None or audit.now.predicts:
            sentences.append(f"{without}{name} {_final_in_words(final)} at {size}.")
    inner = [m for m in audit.now.misregistered if not m.pooled]
    pooled = [m for m in audit.now.misregistered if m.pooled]
    if inner and audit.policy is None:
        sentences.append(
            f"Inside the network, features meet up to {inner[0].worst:.4g} px apart"
            f" ({_place(inner[0])}); the same offset everywhere can be learned away, a drift cannot."
        )
    if pooled:
        sentences.append(
            f"Pooled bins, {pooled[0].spacing:.4g} px wide, are {pooled[0].worst:.4g} px off; "
            f"only half-pixel fits them."
        )
    if audit.fitting is not None and "True" in audit.passes:
        fit, fitted = audit.fitting
        off = [m for m in fitted.trace.meetings if m.worst > TOLERANCE and not m.pooled]
        if not off:
            bins = " but for pooled bins" if fitted.worst > TOLERANCE else ""
            sentences.append(f"align_corners=True is exact at {fit[0]}x{fit[1]}{bins}.")
    if audit.hard_coded:
        total = len(audit.now.trace.resizes)
        sentences.append(f"{len(audit.hard_coded)} of {total} resizes are hard-coded and ignore the config's flag.")
    if not audit.now.predicts:
        sentences.append(_no_prediction(audit.now))
    if audit.policy is None:
        sentences += _exact_resizes(audit)
    if audit.unreachable:
        sentences.append(
            f"{len(audit.unreachable)} resize(s) cannot be changed by a policy ({_listed(audit.unreachable)})."
        )
    for moved in audit.labels:
        if max(abs(moved.y), abs(moved.x)) > 0.05:
            sentences.append(
                f"In the training pipeline, {moved.transform} puts labels {moved.x:+.2g} px right and "
                f"{moved.y:+.2g} px below the image; AlignedResize does not."
            )
    if audit.now.trace.unknown:
        sentences.append(
            f"{len(audit.now.trace.unknown)} operator(s) could not be followed; what depends on them is not judged."
        )
    return " ".join(sentences)


def _exact_resizes(audit: "Audit") -> list[str]:
    """Say what exact resizes would register, what they would leave, and whether the image is covered."""
    exact, sentences = audit.exact, []
    if audit.now.worst < TOLERANCE:
        if audit.now.trace.meetings:
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
    return sentences + _coverage(audit, exact.repeats, "exact resizes")


def _under_policy(audit: "Audit", policy: str) -> list[str]:
    """Say what a policy does: what it registers, what it leaves, and whether the image is covered."""
    if audit.now.worst < TOLERANCE:
        said = f"{policy} registers everything"
    else:
        worst = max(audit.now.trace.meetings, key=lambda m: m.worst)
        said = f"{policy} leaves features up to {worst.worst:.4g} px apart ({_place(worst)})"
    if audit.padded is not None:
        said += f", with {'x'.join(map(str, audit.sizes[0]))} padded to {'x'.join(map(str, audit.padded))}"
    return [f"{said}.", *(_coverage(audit, audit.now.repeats, "resizes") or ["Features reach the border."])]


def _coverage(audit: "Audit", repeated: "Sequence[Uncovered]", who: str) -> list[str]:
    """Say what is read beyond the features, and which size mends it."""
    if not repeated:
        return []
    sides = {
        "above": max(entry.y.pixels_before for entry in repeated),
        "below": max(entry.y.pixels_after for entry in repeated),
        "on the left": max(entry.x.pixels_before for entry in repeated),
        "on the right": max(entry.x.pixels_after for entry in repeated),
    }
    places = " and ".join(f"{pixels:.4g} px {side}" for side, pixels in sides.items() if pixels > TOLERANCE)
    cover = "" if audit.covering is None else f"; {audit.covering[0]}x{audit.covering[1]} covers the image"
    return [f"Features do not reach the border: {who} repeat the outermost over the last {places}{cover}."]


def _no_prediction(audited: "ForwardPass") -> str:
    """Say why nothing is compared with the labels."""
    size = "x".join(map(str, audited.size))
    grids = [(name, output.grid) for name, output in audited.outputs.items() if output.grid is not None]
    if not grids:
        return f"No output has the size of the input, {size}, or a position: nothing is compared with labels."
    name, finest = max(grids, key=lambda output: output[1].size)
    which = f", of {name!r}," if name else ""
    largest = "x".join(map(str, finest.size))
    return f"The largest output{which} is {largest}, not the {size} of the input: nothing is compared with labels."


def _listed(resizes: Sequence[Resize]) -> str:
    return ", ".join(dict.fromkeys(f"{resize.mode} in {resize.path or 'the model'}" for resize in resizes))


def _place(meeting: Meeting) -> str:
    return f"{meeting.op} in {meeting.path or 'the model'}"


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
    return f"{'drifts' if final.drifts else 'reads'} {' and '.join(parts)}"


def in_pixels(offset: Offset | None) -> str:
    """Write ``-3.5`` for a constant, ``0 .. -7`` for a drift."""
    if offset is None:
        return "-"
    if abs(offset.drift) < TOLERANCE and abs(offset.middle - offset.first) < TOLERANCE:
        return f"{offset.first + 0:.4g}"
    return f"{offset.first + 0:.3g} .. {offset.last:.3g}"
