"""Trained erasers: new weights by gradient descent."""
