"""Keep the old name of :mod:`canon_seg.sam.prompts`."""

from canon_seg.sam.prompts import Prompts

__all__ = ["Prompts"]
