"""Bounds that were hit: what is held, queued or read for others is bounded everywhere, and here it is counted when that shows.

The log says it too, through :class:`distbal.complaints.Complaints`, which is given the bound's name.
"""

from __future__ import annotations

from collections import Counter

#: each bound that there is, by its name: what happens to whoever is one too many
BOUNDS: dict[str, str] = {
    "clients": "clients of 5656 and the proxy wait in the listen queue for a descriptor",
    "connections": "connections to a Unix socket wait in the listen queue for a descriptor",
    "status": "a client of 5657 is turned away: too many at once",
    "update": "a client of 5658 is turned away: too many at once",
    "update-line": "a client of 5658 is cut off: its line is too long, or does not end",
    "admin": "a caller of the admin socket is turned away, or makes room: too many at once",
    "admin-line": "a caller of the admin socket is cut off: its request is too long",
    "web": "a connection to the web port is turned away: too many at once",
    "web-request": "a connection to the web port is cut off: its request is too long",
    "web-streams": "a browser does not get the page's stream: too many at once",
    "web-slow": "a browser's stream is ended: it does not read",
    "manhole": "an SSH client is sent away, or makes room: too many at once",
    "manhole-session": "an SSH client does not get another session: too many on one connection",
    "manhole-unread": "an SSH client is cut off: it does not read what it asked for, or sends too much before its login",
    "log": "lines of the log are lost: they cannot be written",
}


class Bounds:
    """Counts.

    :ivar hits: since the start, by name: every bound is there.
    """

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.begin()

    def begin(self) -> None:
        """Count from 0: a daemon starts."""
        self.hits.clear()
        self.hits.update(dict.fromkeys(BOUNDS, 0))

    def hit(self, name: str) -> None:
        """One was hit; KeyError where there is none of that name."""
        if name not in self.hits:
            raise KeyError(name)
        self.hits[name] += 1


#: those of this process
bounds = Bounds()
