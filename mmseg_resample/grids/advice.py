"""What to do about what an audit found, and the measurement that says so."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .evidence import as_shifts
from .track import TOLERANCE, Meeting, Trace

if TYPE_CHECKING:
    from .audit import Audit

SHAPES, STRIDES = "docs/results/align_corners_shapes", "docs/results/exact_pad_strides_shapes"
SIZES, MARGIN = "docs/results/exact_pad_sizes_pyramid_shapes", "docs/results/pad_margin_pyramid_shapes"
LOOK, PHOTOS = "docs/results/where_weights_look_camvid_lite0", "docs/results/flag_and_size_camvid_lite0"

Action = Literal["leave", "change", "cover", "register", "measure", "pad alike", "deploy as trained"]


@dataclass(frozen=True)
class Advice:
    """One thing to do, or to leave.

    Attributes:
        action: in a word or two.
        text: what to do and why, with the number that stands behind it.
        reports: folders of the reports that the numbers are from; empty where nothing was measured.
    """

    action: Action
    text: str
    reports: tuple[str, ...] = ()


_FIX = "resize_policy=dict(exact=True, pad='replicate')"
_DRIFT = (
    "a drift is not learned away: it cost 4.8 points of mIoU on Shapes at 128 and 4.4 at 129, trained from scratch, "
    "and 1.1 and 1.3 on CamVid at even and odd sizes, from ImageNet weights"
)
_GAINS = {
    16: "3.8 points of mIoU above align_corners=False at 128, where the finest features have stride 16 (median of "
    "eight seeds), 14.7 within 4 px of the border and 0.7 from 16 px inwards",
    8: "1.0 points of mIoU above align_corners=False at 128, where the finest features have stride 8, 5.5 within 4 px "
    "of the border and -0.2 from 16 px inwards",
}
_NO_GAIN = (
    "a constant shift is learned away, and where the finest features have stride 4, exact resizes on a covered image "
    "were -0.1 points of mIoU from align_corners=False on Shapes at 128, shown to be within 0.5"
)
_PRETRAINED = (
    "such weights may look elsewhere than layers put features. On CamVid, exact resizes by the layers lost 0.6 points "
    "of mIoU to a flag that was wrong by the layers and right by the weights. --weights own measures where they look"
)
_BY_WEIGHTS = (
    "on CamVid, from ImageNet weights, that was 1.0 and 1.4 points of mIoU above align_corners=False, where that "
    "was off"
)
_RIGHT = "there, exact resizes by the weights were -0.3 points of mIoU from align_corners=False on CamVid, undecided"
_NEAR = 1.0  # input pixels, about what is left of the measurement of a coarse level
_DEEP = 32  # coarsest stride at which it was measured
_OTHER_FLAG = (
    "with the other one, weights of the flag that suits the size lost 9.5 points of mIoU on Shapes at 128 and 8.7 at "
    "129, and 2.2 and 1.5 on CamVid at even and odd sizes; 10.1 and 9.2 there in a runtime that resizes asymmetrically"
)
_ALIKE = (
    "with 17 pixels of padding in training and one in a test, weights were 4.1 and 3.7 points of mIoU below "
    "align_corners=False on Shapes, all at the border, and with the same padding not"
)
_MARGIN = "such weights then lost 0.1 points, without it 3.9"


def advise(audit: "Audit") -> list[Advice]:
    """Say what to do about the findings of an audit; nothing where nothing was judged.

    A drift: change the flag or the size, or register and cover the image. A constant shift, or features that end inside
    the image: register and cover where the finest features are coarse, else leave it, if the network is trained from
    scratch and tested as trained. Where padding is advised and strides are large: keep it alike. Weights that exist:
    never deploy them under another flag. Pretrained ones: measure where they look.
    """
    meetings = [meeting for meeting in audit.meetings if not meeting.pooled]
    wrong = [meeting for meeting in meetings if meeting.worst > TOLERANCE]
    if not meetings:
        return []
    found = []
    stride = _finest(audit)
    gain = next((text for least, text in _GAINS.items() if stride >= least), None)
    if audit.weights:
        found += _look(audit, wrong)
    elif any(meeting.drifts for meeting in wrong):
        found.append(Advice("change", f"{_remedy(audit)}: {_DRIFT}.", (SHAPES, PHOTOS)))
    elif (wrong or audit.now.repeats) and gain is not None and _begins_on_a_pixel(audit):
        found.append(Advice("cover", f"Train it with {_FIX}: on Shapes that was {gain}.", (STRIDES,)))
    elif wrong and gain is None:
        found.append(Advice("leave", f"Leave it as it is: {_NO_GAIN}.", (STRIDES,)))
    elif not wrong and audit.now.repeats:
        found.append(
            Advice("cover", "Registered, but the outermost features repeat: pad='replicate' covers the image.")
        )
    coarsest = max((max(level.stride) for level in audit.levels if level is not None), default=0.0)
    if coarsest >= _DEEP and any("pad=" in advice.text for advice in found):
        alike = f"Train and deploy at sizes with the same rest by {coarsest:g}: at strides up to 32, {_ALIKE}"
        found.append(Advice("pad alike", f"{alike}.", (SIZES,)))
        found.append(Advice("pad alike", f"Or set pad_margin={coarsest:g} too: {_MARGIN}.", (MARGIN,)))
    if wrong and {"False", "True"} <= audit.passes.keys():
        found.append(
            Advice(
                "deploy as trained", f"Test and deploy with the flag of the training: {_OTHER_FLAG}.", (SHAPES, PHOTOS)
            )
        )
    if wrong and audit.pretrained and not audit.weights:
        found.append(Advice("measure", f"It begins with {audit.pretrained}: {_PRETRAINED}.", (PHOTOS, LOOK)))
    return found


def _look(audit: "Audit", wrong: list[Meeting]) -> list[Advice]:
    """Say what to do about features that lie apart where the weights look."""
    if not any(meeting.worst > _NEAR for meeting in wrong):
        return [
            Advice("leave", f"Leave it: features meet within {_NEAR:g} px where these weights look; {_RIGHT}.", (LOOK,))
        ]
    shifts = ", ".join(f"({y:g}, {x:g})" for y, x in as_shifts(audit.weights))
    fix = f"{_FIX.removesuffix(')')}, level_shifts=[{shifts}])"
    return [
        Advice("register", f"To register features where these weights look, train with {fix}: {_BY_WEIGHTS}.", (LOOK,))
    ]


def _finest(audit: "Audit") -> float:
    """Return the stride of the features that labels are predicted from; of the finest level where that is unknown."""
    final = audit.final
    if final is not None and final.site is not None:
        source = audit.resizes[final.site].source
        if source is not None:
            return max(source.stride)
    return min((max(level.stride) for level in audit.levels if level is not None), default=0.0)


def _begins_on_a_pixel(audit: "Audit") -> bool:
    """Tell whether the features are those of odd kernels, which is what was measured."""
    return all(max(level.offset) < 0.5 for level in audit.levels if level is not None)


def _remedy(audit: "Audit") -> str:
    remedies = []
    constant = [key for key in ("False", "True") if key in audit.passes and not _drifts(audit.passes[key][0].trace)]
    if constant:
        remedies.append(f"align_corners={constant[0]}")
    if audit.fitting is not None and audit.fitting[0] != audit.sizes[0]:
        remedies.append("align_corners=True at " + "x".join(map(str, audit.fitting[0])))
    remedies.append(_FIX)
    return "Change to " + " or ".join(remedies)


def _drifts(trace: Trace) -> bool:
    return any(meeting.drifts for meeting in trace.meetings if not meeting.pooled)
