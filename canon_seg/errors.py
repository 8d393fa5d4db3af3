"""How bad input reaches the user: one exception, one way for scripts to end on it."""

import sys


class InputError(ValueError):
    """Something that the user gave cannot be used.

    The message names the file or the config key, what was wrong with it, and what to do.
    """


def without_detectron2(what):
    """The message for something that needs detectron2 where there is none."""
    return (
        f"{what} needs detectron2, which is not on PyPI under its own name: build the official one "
        "from its repository, or run canon-seg-install-detectron2"
    )


def run_main(main):
    """Run a script's ``main`` and end the process as a command-line user expects.

    Args:
        main: function without arguments; its return value becomes the exit status.

    An :class:`InputError` is printed to stderr as one line and ends with status 2; an interrupt
    ends with status 130. Any other exception is a defect and keeps its traceback.
    """
    try:
        sys.exit(main())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
