"""Erasers whose edit is the solution of an equation: nothing is trained."""
