"""The manhole: the verbs over SSH, as commands and in a Python shell. It needs Twisted Conch, and is loaded where it is wanted.

What each file holds: ``authorized`` whose key opens it; ``hostkey`` its own key; ``transport`` a connection, up to the login;
``session`` what somebody asks for who is logged in; ``command`` one verb; ``shell`` the Python shell, with ``terminal`` and
``editor`` (a line that is typed), ``verbcalls`` (the verbs as functions) and ``completion``; ``factory`` makes all of it.
"""

from __future__ import annotations

from importlib.util import find_spec

#: what Conch needs beside Twisted, and the sentence for those who lack it
_LIBRARIES = ("cryptography", "bcrypt", "pyasn1")


def why_unavailable() -> str:
    """Why there can be no manhole here, for the user; "" where there can."""
    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        return f"the manhole needs {', '.join(missing)}: pip install 'distbal[ssh]'"
    return ""
