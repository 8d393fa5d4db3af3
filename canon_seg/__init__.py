"""Canonicalization for segmenters: turn an image upright, segment it, turn the result back."""

__version__ = "0.1.0"
