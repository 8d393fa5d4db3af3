"""Build Segment Anything models of all sizes, prompt them and train them."""
