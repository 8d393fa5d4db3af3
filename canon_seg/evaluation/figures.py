"""Write figures beside results, whose loss costs nothing else."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from canon_seg.errors import warn
from canon_seg.io.files import write_atomically


def save_figure(path: "str | Path", draw: Callable[[], Figure], dpi: int = 120) -> list[Path]:
    """Draw a figure and write it, whole or not at all; warn where that fails.

    Args:
        path: of the picture, in the format of its suffix.
        draw: function that makes the figure.
        dpi: pixels per inch.

    Returns:
        list of the path, or an empty one where there is no picture: the results come first, and are
        not lost for a picture.
    """
    path = Path(path)
    try:
        with write_atomically(path) as temporary:
            draw().savefig(temporary, dpi=dpi)
    # Fonts, layouts, files that have gone, a full disk: whatever it is, it costs the picture alone.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        warn(f"{path}: the picture could not be made ({reason}); the results are written")
        return []
    return [path]
