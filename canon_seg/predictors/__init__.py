"""Provide predictors with the interfaces of the libraries that users know already."""
