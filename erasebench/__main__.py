"""``python -m erasebench`` is the command ``erasebench``."""

from __future__ import annotations

import sys

from erasebench.cli import main

if __name__ == "__main__":
    sys.exit(main())
