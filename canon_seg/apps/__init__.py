"""Show what was found: the demo on files and videos, and the page in the browser."""
