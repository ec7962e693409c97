"""The first thing: read the file, take what an earlier process left, and bind what is to be listened on.

Nothing is served yet, so that every mistake stops the start with a sentence. Where jobs of an earlier process are to go on,
less is a reason to stop: they go on by the file as it was last taken in, without a port that cannot be had, and without what
people decided where that cannot be read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from distbal import config, descriptors
from distbal.errors import ConfigError, DistbalError, describe
from distbal.handover import FILE_NOTE, left_sockets
from distbal.inheritance import Inheritance, inherited
from distbal.keeperwire import Role, room_within
from distbal.listeners import Opened, open_all
from distbal.logs import Logger
from distbal.process import warn_of_little_room
from distbal.saver import Kept, keep

_log = Logger()


@dataclass(frozen=True, slots=True)
class Prepared:
    """All is there that it takes to serve.

    :ivar loaded: the file.
    :ivar left: what an earlier process left, less what is in the following already.
    :ivar kept: what people decided before.
    :ivar opened: the listeners, bound.
    :ivar room: how many descriptors clients may take; ``crowd``: how many clients of each other port may be there at once.
    """

    loaded: config.Loaded
    left: Inheritance
    kept: Kept
    opened: list[Opened]
    room: int
    crowd: int


def prepare(path: str) -> Prepared:
    """Do all of that.

    :param path: of hosts.yaml.
    :raises DistbalError: it cannot be done, with every mistake in words; nothing is left open.
    """
    # before what an earlier process left comes in: it may be more than the usual limit
    limit = descriptors.raise_limit()
    left = inherited(os.environ)
    room = descriptors.room_for_clients(limit, less=len(left.descriptors))
    try:
        loaded = load(path, left)
        settings, goes_on = loaded.settings, left.ledger is not None
        kept = keep(settings.state, wanted=settings.state_wanted, lock=left.take(0, Role.LOCK), leniently=goes_on)
        try:
            opened = open_all(settings.listen, left_sockets(left), leniently=goes_on)
        except DistbalError:
            kept.close()
            raise
    except DistbalError:
        left.close()
        raise
    for mistake in loaded.warnings:
        _log.warn("{warning}", warning=describe(path, mistake))
    if left.channel is not None:
        # nobody is taken in whom a crash would lose: the keeper, which has the same limit, holds all that we have of clients
        room = max(1, min(room, room_within(limit)))
    warn_of_little_room(_log, loaded.settings, limit, room)
    return Prepared(loaded, left, kept, opened, room, descriptors.crowd(limit))


def load(path: str, left: Inheritance) -> config.Loaded:
    """Read the file; where that cannot be used, and jobs of an earlier process are to go on, as it was last taken in.

    :raises ConfigError: it cannot be used, and nothing is to go on.
    """
    try:
        return config.load(path)
    except ConfigError as error:
        text = None if left.ledger is None else left.ledger.read_notes().get(FILE_NOTE)
        if text is None:
            raise
        try:
            loaded = config.parsed(path, text.decode())
        except (ConfigError, UnicodeDecodeError):
            # what is wrong with the file is what can be mended
            raise error from None
        for mistake in error.mistakes:
            _log.error("{reason}", reason=describe(path, mistake))
        _log.error("{path} cannot be used: distbal goes on by what it said when it was last taken in", path=path)
        return loaded
