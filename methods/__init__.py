"""Erasers, one a file. Each turns a pipeline and a task into an edit."""

from __future__ import annotations

if __name__ == "methods":
    raise ImportError("import this package as erasebench.methods (install the project with: pip install -e .)")
