"""Load the models that come with the package, in one call each, without detectron2."""

from canon_seg.core.group import group_named
from canon_seg.errors import of_key
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.networks.build import load_scorer
from canon_seg.sam.loading import load_sam

CANONICALIZER = "canon_seg://canonicalizer_pretrained.pth"
ANY_ANGLE = "canon_seg://canonicalizer_so2.pth"
"""The embedded canonicalizer of any angle."""


def load_default_canonicalizer(image_format="RGB", weights=CANONICALIZER, passes=0, group=None):
    """Load an embedded canonicalizer, or that of a weights file.

    Args:
        image_format: "RGB" or "BGR", the channel order of the images that will be given.
        weights: a file that tools/train_net.py wrote, or "canon_seg://NAME":
            canonicalizer_gcnn.pth is faster and finds fewer poses than the default.
        passes: turns of an image that a pretrained network looks at, 0 for all or 1.
        group: name of the group of the poses, such as "C4", "C8", "SO2"; None for that of the file.

    Returns:
        :class:`canon_seg.images.canonicalizer.GroupCanonicalizer` in eval mode, on the CPU.

    Raises:
        InputError: naming the file, if it cannot be used, or serves no such group.
    """
    with of_key("group"):
        wanted = None if group is None else group_named(group)
    scorer = load_scorer(weights, image_format=image_format, passes=passes, group=wanted)
    return GroupCanonicalizer(scorer).eval()


def load_default_sam():
    """Load the embedded small `Sam`, for trying things out.

    Its config takes the single mask: predict with ``multimask_output=False``.

    Returns:
        segment_anything's `Sam` in eval mode, on the CPU.
    """
    return load_sam(key="load_default_sam")


def canonicalizer_or_default(canonicalizer, device):
    """Return ``canonicalizer``, or the embedded one on ``device`` where it is None.

    Raises:
        TypeError: if it is something else, such as another argument in its place.
    """
    if canonicalizer is None:
        return load_default_canonicalizer().to(device)
    if not hasattr(canonicalizer, "pose"):
        raise TypeError(
            f"canonicalizer is {canonicalizer!r}; give a canonicalizer or None, and all that "
            "follows it by name"
        )
    return canonicalizer
