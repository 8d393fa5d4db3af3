"""Score poses by networks: their layers, training views, weights files and export."""
