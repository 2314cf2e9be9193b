"""The Hydra config tree, found as pkg://erasebench.conf."""
