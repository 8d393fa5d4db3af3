"""Canonicalize point clouds: poses of SO(3) in place of turns of the plane."""
