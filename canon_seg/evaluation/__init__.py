"""COCO evaluation on turned images, and what it needs: prompts, modes, the sweep, its report."""
