"""Metrics, one a file. Each scores images and reduces the scores to a number with an interval."""

from __future__ import annotations

if __name__ == "metrics":
    raise ImportError("import this package as erasebench.metrics (install the project with: pip install -e .)")
