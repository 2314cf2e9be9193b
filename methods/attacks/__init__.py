"""Attacks: what brings an erased concept back."""
