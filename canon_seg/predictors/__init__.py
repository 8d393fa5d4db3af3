"""The ways in for users: predictors with the interfaces of the libraries that they know already."""
