"""Classify images behind a canonicalizer: turned copies of one image get one answer."""
