"""Caption the pictures of the demo: the pose in words, and all turns in a row."""

from canon_seg.apps.drawing import add_caption, fit, side_by_side
from canon_seg.core.group import C4

UNCLEAR = "NOT CLEAR (UNCERTAIN vote may help)"
"""What is said of a pose that is less likely than all others together."""
COLUMN = 512  # px, longer side of each image in the picture of four turns


def captioned(found):
    """Caption the picture of a :class:`canon_seg.apps.files.segment.Segmentation` with its pose."""
    return add_caption(found.picture, [f"{describe(found.pose)}, {found}"])


def draw_turns(turned):
    """Put the pictures of the four turns of one image in a row, each with what was found."""
    columns = []
    for turn, found in zip(C4.elements, turned, strict=True):
        lines = [f"turned by {turn.degrees:.0f}°", describe(found.pose), str(found)]
        columns.append(add_caption(fit(found.picture, COLUMN), lines))
    return side_by_side(columns)


def describe(pose, degrees="°"):
    """Say the pose in words; a terminal may not have the degree sign."""
    uncertain = {
        "keep": ", uncertain: left as given",
        "gate": ", hardly likelier: left as given",
        "vote": f", uncertain: {1 + len(pose.others)} poses vote",
    }
    said = uncertain.get(pose.policy, "" if pose.is_clear else f", {UNCLEAR}")
    return f"pose {pose.turn.described(degrees)}, probability {pose.probability:.3f}{said}"
