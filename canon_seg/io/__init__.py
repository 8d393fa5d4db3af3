"""Write files whole or not at all, and read weights as weights only."""
