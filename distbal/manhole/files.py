"""Files with keys in them: opened without waiting, and looked at before they are read."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def opened(path: str) -> Iterator[tuple[int, os.stat_result]]:
    """A file's descriptor, and what there is to know of it.

    :raises OSError: it cannot be opened, or is none.
    """
    # a pipe without a writer would be waited for
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a file")
        yield descriptor, status
    finally:
        os.close(descriptor)
