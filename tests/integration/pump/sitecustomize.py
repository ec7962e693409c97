"""What Debian 12's distcc-pump lacks under its own Python, for tests; its directory is put on PYTHONPATH.

The include server's module in C is from before Python 3.10, and four of its functions do nothing there but raise SystemError
(https://github.com/distcc/distcc/issues/454): every file is then preprocessed where the client is, and protocol 3 never spoken.
Here these four are written in Python. Where they work nothing is changed, and in any other Python neither.
"""

from __future__ import annotations

import os


def compressed(text: str) -> bytes:
    """LZO1X, in its simplest form: all of it is one literal run, and then the mark of the end."""
    data = text.encode()
    length, end = len(data), b"\x11\x00\x00"
    if not length:
        return end
    if length <= 238:
        return bytes([17 + length]) + data + end
    zeros, rest = divmod(length - 3 - 15 - 1, 255)
    return b"\x00" + bytes(zeros) + bytes([rest + 1]) + data + end


def _repair() -> None:
    try:
        import distcc_pump_c_extensions as extensions  # type: ignore[import-not-found]
    except ImportError:
        return
    try:
        extensions.OsPathExists("/")
    except SystemError:
        extensions.OsPathExists = os.path.exists
        extensions.OsPathIsFile = os.path.isfile
        extensions.Realpath = os.path.realpath
        extensions.CompressLzo1xAlloc = compressed


_repair()
