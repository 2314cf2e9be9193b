"""The embedded world and the tiny Stable Diffusion trained on it."""
