"""Records become numbers, numbers become tables, figures and comparisons."""
