"""Adapters: small layers beside the network's own, put in while images are sampled."""
