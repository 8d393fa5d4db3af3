"""What the demo is made of: inputs, segmentation, drawing, videos, results."""
