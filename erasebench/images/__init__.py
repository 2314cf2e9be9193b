"""A recipe becomes a picture."""
