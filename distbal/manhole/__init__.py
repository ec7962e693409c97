"""The manhole: the verbs over SSH, as commands and in a Python shell. It needs Twisted Conch, and is loaded where it is wanted.

What each file holds: ``authorized`` whose key opens it; ``hostkey`` its own key; ``transport`` a connection, up to the login;
``session`` what somebody asks for who is logged in; ``command`` one verb; ``shell`` the Python shell, with ``terminal`` and
``editor`` (a line that is typed), ``verbcalls`` (the verbs as functions) and ``completion``; ``factory`` makes all of it.
"""

from __future__ import annotations

from importlib import import_module


def why_unavailable() -> str:
    """Why there can be no manhole here, for the user; "" where there can."""
    try:
        import_module("distbal.manhole.factory")
    except ImportError as error:
        # a part of distbal that is missing is another matter
        if error.name is None or error.name.startswith("distbal"):
            raise
        return f"the manhole needs {error.name}, which is not installed: pip install 'distbal[ssh]'"
    return ""
