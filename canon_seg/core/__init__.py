"""Define poses without knowing what an image is: groups, turns, scorers, canonicalizers, frames."""
