"""What a command's output goes to: a terminal with a width and perhaps colours, or a file or a program, that have neither."""

from __future__ import annotations

import io
import os
import shutil
import sys
from typing import Any


def kind() -> tuple[int | None, bool]:
    """Columns of the terminal that is written to, None where it is none; and whether it is to have colours (no-color.org)."""
    if not sys.stdout.isatty():
        return None, False
    return shutil.get_terminal_size().columns, not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write(text: str) -> None:
    """Write to stdout; what its encoding has no sign for is spelt out."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stdout.write(text)


def write_json(value: Any) -> None:
    """Write a value for programs."""
    import json

    write(json.dumps(value, indent=1) + "\n")
