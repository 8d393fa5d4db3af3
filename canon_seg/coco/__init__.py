"""Read, check, turn and encode COCO data sets and their masks."""
