"""Find the sample photographs that come with scikit-image; nothing is downloaded."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

# Title, file, and the box x0, y0, x1, y1 around something in it, edges in pixels.
_PHOTOGRAPHS = (
    ("Astronaut", "astronaut.png", (352, 0, 482, 290)),
    ("Cat", "chelsea.png", (100, 20, 430, 299)),
    ("Coffee", "coffee.png", (170, 15, 420, 285)),
    ("Rocket", "rocket.jpg", (300, 120, 345, 400)),
)


@dataclass(frozen=True)
class Photograph:
    """Name a photograph and something in it.

    Attributes:
        title: what it shows, in a word.
        path: of its file.
        box: x0, y0, x1, y1 around something in it, edges in pixels.
    """

    title: str
    path: Path
    box: tuple[int, int, int, int]


def sample_photographs() -> list[Photograph]:
    """List the sample photographs that are there: none where scikit-image is not installed."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        return []
    folder = Path(spec.origin).parent / "data"
    found = [Photograph(title, folder / name, box) for title, name, box in _PHOTOGRAPHS]
    return [photograph for photograph in found if photograph.path.is_file()]
