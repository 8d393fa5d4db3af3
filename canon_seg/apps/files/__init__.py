"""Segment files, folders, videos and webcams, and write pictures of what was found."""
