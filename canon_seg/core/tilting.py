"""Describe how a frame lies, tilted, in another one: by which angle, and where the centres go."""

import math
from dataclasses import dataclass, replace

import torch

FILL = 114
"""Value of a canvas in all channels."""

FILL_TOLERANCE = 16
"""Of 255: what a plain fill differs from itself at most, after JPEG."""

_SIZE_TOLERANCE = 1e-3  # pixels: a canvas does not grow by a row for less than this


@dataclass(frozen=True)
class Tilting:
    """Hold a tilt from one frame into another, which shows some window of the tilted picture.

    >>> there = Tilting.expanding(30, (100, 200))
    >>> there.target
    (187, 224)
    >>> there.windowed(10, 20, 100, 150).inverse().target
    (100, 200)

    Attributes:
        degrees: counterclockwise.
        source, target: (height, width) in pixels of the two frames.
        source_centre, target_centre: (x, y) of one and the same point in the two frames, in pixels
            of the continuous frame.
        source_scale, target_scale: (x, y) pixels of the two frames that are as long as one pixel
            of the picture; 1 unless a frame was resized.
    """

    degrees: float
    source: tuple[int, int]
    target: tuple[int, int]
    source_centre: tuple[float, float]
    target_centre: tuple[float, float]
    source_scale: tuple[float, float] = (1.0, 1.0)
    target_scale: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def expanding(cls, degrees: float, source: tuple[int, int]) -> "Tilting":
        """Build the tilt about the centre onto a canvas that just holds the whole picture."""
        height, width = source
        cos, sin = cos_sin(degrees)
        target = (
            math.ceil(height * abs(cos) + width * abs(sin) - _SIZE_TOLERANCE),
            math.ceil(width * abs(cos) + height * abs(sin) - _SIZE_TOLERANCE),
        )
        return cls(degrees, source, target, (width / 2, height / 2), (target[1] / 2, target[0] / 2))

    def windowed(self, top: int, left: int, height: int, width: int) -> "Tilting":
        """Return the same tilt into a window of the target."""
        x, y = self.target_centre
        return replace(self, target=(height, width), target_centre=(x - left, y - top))

    def inverse(self) -> "Tilting":
        """Return the tilt back."""
        return Tilting(
            -self.degrees,
            self.target,
            self.source,
            self.target_centre,
            self.source_centre,
            self.target_scale,
            self.source_scale,
        )

    def between(self, source: tuple[int, int], target: tuple[int, int]) -> "Tilting":
        """Return the same tilt between the two frames after each was resized.

        >>> Tilting.expanding(0, (10, 20)).between((20, 20), (10, 40)).source_scale
        (1.0, 2.0)

        Args:
            source, target: (height, width) of the resized frames in pixels.
        """
        by = source[1] / self.source[1], source[0] / self.source[0]
        to = target[1] / self.target[1], target[0] / self.target[0]
        return replace(
            self,
            source=source,
            target=target,
            source_centre=_times(self.source_centre, by),
            target_centre=_times(self.target_centre, to),
            source_scale=_times(self.source_scale, by),
            target_scale=_times(self.target_scale, to),
        )

    def from_window(self, top: int, left: int, height: int, width: int) -> "Tilting":
        """Return the same tilt from a window of the source."""
        return self.inverse().windowed(top, left, height, width).inverse()


def _times(pair: tuple[float, float], factors: tuple[float, float]) -> tuple[float, float]:
    return pair[0] * factors[0], pair[1] * factors[1]


def cos_sin(degrees: float) -> tuple[float, float]:
    """Return cosine and sine of an angle in degrees."""
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))


def fill_colour(image: torch.Tensor) -> torch.Tensor:
    """Choose the colour of a canvas around an image.

    An image that lies on a plain canvas already gets more of the same. Else it is the middle grey
    around which networks normalise.

    Args:
        image: (3, H, W) tensor, values 0..255.

    Returns:
        (3,) int64 tensor.
    """
    corners = image[:, [0, 0, -1, -1], [0, -1, 0, -1]].double()
    if bool((corners.amax(dim=1) - corners.amin(dim=1) <= FILL_TOLERANCE).all()):
        return corners.mean(dim=1).round().long().cpu()
    return torch.full((3,), FILL)


def content_window(image: torch.Tensor, fill: "torch.Tensor") -> tuple[int, int, int, int]:
    """Find what is left of an image without rows and columns of pure fill at its edges.

    Args:
        image: (3, H, W) tensor, values 0..255.
        fill: (3,) the colour of the fill.

    Returns:
        (top, left, height, width) in pixels; all of the image where nothing but fill is in it.
    """
    # In integers, where a difference cannot wrap around.
    values = image if image.dtype.is_floating_point else image.to(torch.int16)
    differs = (values - fill.to(values).view(3, 1, 1)).abs().amax(dim=0) > FILL_TOLERANCE
    rows, columns = (differs.any(dim=axis).nonzero()[:, 0].tolist() for axis in (1, 0))
    if not rows:
        return 0, 0, int(image.shape[1]), int(image.shape[2])
    return rows[0], columns[0], rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
