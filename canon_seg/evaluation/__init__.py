"""Evaluate COCO on turned images, with what it needs: prompts, modes, the sweep, its report."""
