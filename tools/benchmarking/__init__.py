"""What the canonicalizer costs, beside what others cost, in one run: see tools/benchmark.py."""
