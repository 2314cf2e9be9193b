"""erasebench: measure how well a text-to-image model forgets a concept, and what it costs the rest.

Start with ``erasebench run``; ``erasebench --help`` lists the commands.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
