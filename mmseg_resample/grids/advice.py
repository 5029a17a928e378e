"""What to do about what an audit found, and the measurement that says so."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .track import TOLERANCE, Trace

if TYPE_CHECKING:
    from .audit import Audit

SHAPES, PYRAMID = "docs/results/align_corners_shapes", "docs/results/align_corners_pyramid_shapes"

Action = Literal["leave", "change", "cover", "deploy as trained"]


@dataclass(frozen=True)
class Advice:
    """One thing to do, or to leave.

    Attributes:
        action: in a word or two.
        text: what to do and why, with the number that stands behind it.
        report: folder of the report that the number is from; None where nothing was measured.
    """

    action: Action
    text: str
    report: str | None


_DRIFT = (
    "a drift is not learned away: it cost 4.8 points of mIoU on Shapes at 128 and 4.4 at 129, trained from scratch and "
    "tested as trained"
)
_CONSTANT = (
    "a constant shift is learned away: trained from scratch and tested as trained, exact resizes were 0.9 points of "
    "mIoU below align_corners=False on Shapes at stride 8, since they repeat the last features, and 0.5 below in a "
    "pyramid (three seeds)"
)
_OTHER_FLAG = "deployed with the other flag, the same weights lost 9.5 points of mIoU on Shapes at 128 and 8.7 at 129"


def advise(audit: "Audit") -> list[Advice]:
    """Say what to do about the findings of an audit; nothing where nothing was judged.

    A drift: change the flag or the size, or register and cover the image. A constant shift: leave it, if the network is
    trained from scratch and tested as trained. Weights that exist: never deploy them under another flag.
    """
    meetings = [meeting for meeting in audit.meetings if not meeting.pooled]
    wrong = [meeting for meeting in meetings if meeting.worst > TOLERANCE]
    if not meetings:
        return []
    found = []
    if any(meeting.drifts for meeting in wrong):
        found.append(Advice("change", f"{_remedy(audit)}: {_DRIFT}.", SHAPES))
    elif wrong:
        found.append(Advice("leave", f"Leave it as it is: {_CONSTANT}.", SHAPES))
    elif audit.now.repeats:
        found.append(
            Advice("cover", "Registered, but the outermost features repeat: pad='replicate' covers the image.", None)
        )
    if wrong and {"False", "True"} <= audit.passes.keys():
        found.append(
            Advice("deploy as trained", f"Test and deploy with the flag of the training: {_OTHER_FLAG}.", SHAPES)
        )
    return found


def _remedy(audit: "Audit") -> str:
    remedies = []
    constant = [key for key in ("False", "True") if key in audit.passes and not _drifts(audit.passes[key][0].trace)]
    if constant:
        remedies.append(f"align_corners={constant[0]}")
    if audit.fitting is not None and audit.fitting[0] != audit.sizes[0]:
        remedies.append("align_corners=True at " + "x".join(map(str, audit.fitting[0])))
    remedies.append("resize_policy=dict(exact=True, pad='replicate')")
    return "Change to " + " or ".join(remedies)


def _drifts(trace: Trace) -> bool:
    return any(meeting.drifts for meeting in trace.meetings if not meeting.pooled)
