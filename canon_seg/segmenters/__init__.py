"""Keep old names: prompts live in :mod:`canon_seg.sam.prompts`."""
