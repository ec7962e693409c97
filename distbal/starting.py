"""What comes before the daemon can serve everybody: read the file, find what people decided, bind what is to be listened on.

At an ordinary start nothing is served yet, so that every mistake stops it with a sentence. Where jobs of an earlier process are
to go on, less is a reason to stop: they go on by the file as it was last taken in, without a port that cannot be had, and
without what people decided where that cannot be read. They may be served already (lending.py): then the file is taken in as by
a reload.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from distbal import config
from distbal.errors import ConfigError, DistbalError, describe
from distbal.handover import FILE_NOTE, left_sockets
from distbal.inheritance import Inheritance
from distbal.keeperwire import Role
from distbal.lending import Lending
from distbal.listeners import open_all
from distbal.logs import Logger
from distbal.notebook import Notes, read_notes
from distbal.process import warn_of_little_room
from distbal.saver import Kept, keep

_log = Logger()
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Prepared:
    """All is there that it takes to serve.

    :ivar loaded: the file.
    :ivar kept: what people decided before.
    :ivar lending: with the listeners, bound.
    """

    loaded: config.Loaded
    kept: Kept
    lending: Lending


def prepare(
    reactor: Any, path: str, left: Inheritance, lending: Lending | None, *, limit: int, room: int, verbose: bool
) -> Prepared:
    """Do all of that.

    :param path: of hosts.yaml.
    :param left: what an earlier process left.
    :param lending: what lends already; None where nothing does.
    :param limit: how many descriptors there may be, and ``room``: those that clients may take.
    :param verbose: log each job.
    :raises DistbalError: it cannot be done, with every mistake in words; nothing is left open, unless it is served already.
    """
    if lending is not None:
        ready = _behind(path, lending)
    else:
        try:
            ready = _first(reactor, path, left, room, verbose=verbose)
        except DistbalError:
            left.close()
            raise
    for mistake in ready.loaded.warnings:
        _log.warn("{warning}", warning=describe(path, mistake))
    warn_of_little_room(_log, ready.loaded.settings, limit, room)
    return ready


def _first(reactor: Any, path: str, left: Inheritance, room: int, *, verbose: bool) -> Prepared:
    book = left.ledger
    noted = {} if book is None else book.read_notes()
    loaded = load(path, noted.get(FILE_NOTE))
    settings, goes_on = loaded.settings, book is not None
    kept = keep(settings.state, wanted=settings.state_wanted, lock=left.take(0, Role.LOCK), leniently=goes_on)
    try:
        opened = open_all(settings.listen, left_sockets(left), leniently=goes_on)
    except DistbalError:
        kept.close()
        raise
    notes = Notes() if book is None else read_notes(noted)
    return Prepared(loaded, kept, Lending(reactor, left, notes, opened, room=room, verbose=verbose))


def _behind(path: str, lending: Lending) -> Prepared:
    loaded = load(path, lending.file, lending.meanwhile)
    settings = loaded.settings
    kept = keep(settings.state, wanted=settings.state_wanted, lock=lending.lock, leniently=True)
    lending.take_in(settings.listen)
    return Prepared(loaded, kept, lending)


def _at_once(work: Callable[[], _Result]) -> _Result:
    return work()


def load(
    path: str, noted: bytes | None, do: Callable[[Callable[[], config.Loaded]], config.Loaded] = _at_once
) -> config.Loaded:
    """Read the file; where that cannot be used, and jobs of an earlier process are to go on, as it was last taken in.

    :param noted: as that process noted it; None where nothing is to go on.
    :param do: does what takes long.
    :raises ConfigError: it cannot be used, and nothing is to go on.
    """
    try:
        return do(lambda: config.load(path))
    except ConfigError as error:
        if noted is None:
            raise
        try:
            loaded = do(lambda: config.parsed(path, noted.decode()))
        except (ConfigError, UnicodeDecodeError):
            # what is wrong with the file is what can be mended
            raise error from None
        for mistake in error.mistakes:
            _log.error("{reason}", reason=describe(path, mistake))
        _log.error("{path} cannot be used: distbal goes on by what it said when it was last taken in", path=path)
        return loaded
