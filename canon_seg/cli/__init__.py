"""Provide the console commands, which are also scripts in demo/ and tools/."""
