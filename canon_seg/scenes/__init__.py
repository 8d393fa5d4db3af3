"""Draw procedural scenes with COCO annotations, where there are no photographs."""
