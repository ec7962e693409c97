"""``python -m distbal``: the same as ``distbal``."""

from __future__ import annotations

import sys

from distbal.cli import main

if __name__ == "__main__":
    sys.exit(main())
