"""Measure what the canonicalizer costs, beside what others cost: see tools/benchmark.py."""
