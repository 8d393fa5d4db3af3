"""Load the models that come with the package, in one call each, without detectron2."""

from canon_seg.config.assets import resolve_asset
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.networks.scorer import NetworkScorer
from canon_seg.networks.weights import load_canonicalizer
from canon_seg.sam.loading import load_sam

CANONICALIZER = "canon_seg://canonicalizer_gcnn.pth"


def load_default_canonicalizer(image_format="RGB"):
    """Load the embedded canonicalizer.

    Args:
        image_format: "RGB" or "BGR", the channel order of the images that will be given.

    Returns:
        :class:`canon_seg.images.canonicalizer.GroupCanonicalizer` in eval mode, on the CPU.
    """
    network, input_size = load_canonicalizer(resolve_asset(CANONICALIZER))
    return GroupCanonicalizer(
        NetworkScorer(network, input_size=input_size, image_format=image_format)
    ).eval()


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
