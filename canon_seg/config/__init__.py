"""Hold the project's own config keys, and find what a config names: files and devices."""
