"""How one process image follows another: taking up what there was, and giving it away, in the order in which that is safe.

Before an upgrade, what cannot go on in another image is brought to an end while jobs go on: clients of Twisted endpoints
finish theirs, for at most :data:`DRAIN_TIME` seconds, monitors end what they ask, decisions reach the disk, people are let go.
Then all else stops at one point between two events, is written down, and is found there by the next image. As long as that has
not happened, everything can still go on as before (:meth:`Succession.go_on`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater

from distbal import handover, inheritance, overlay
from distbal.execing import UpgradeError
from distbal.handover import FILE_NOTE, TakenUp
from distbal.inheritance import HANDOVER
from distbal.keeperwire import Key, Role
from distbal.keeping import PATIENCE
from distbal.ledger import Ledger
from distbal.lending import Lending
from distbal.logs import Logger
from distbal.monitors.rounds import Rounds
from distbal.notebook import Notebook
from distbal.saver import Kept

#: seconds that clients of Twisted endpoints, whose connections cannot be handed on, have to finish their jobs
DRAIN_TIME = 300.0
#: seconds between two looks at them
LOOK = 0.1
#: seconds that clients of 5657 and 5658 have: a little more than 5658 gives anybody for a line
BRIEF_TIME = 5.5
#: seconds, in which nobody is served, that the keeper has to take what it was not handed yet
KEEPER_TIME = 0.3


class Succession:
    """What an upgrade needs of the service (upgrade.HandsOver), and what a start does with what was left.

    :param lending, monitors, kept: whose all of it is.
    :param noting: makes a notebook that writes by this, where those of these keys are there already.
    :param text: hosts.yaml as it was last taken in.
    :param conversations: how many are served now who are done in a moment.
    :param part: lets everybody go whose connection carries no job and cannot be handed on; each fires when it has gone.
    :param resume: begins again what ``prepare_to_hand_over`` ended.

    :ivar came: what was taken up at the start.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        lending: Lending,
        monitors: Rounds,
        kept: Kept,
        noting: Callable[[Callable[[str, bytes], None], Iterable[str]], Notebook],
        *,
        text: Callable[[], str],
        conversations: Callable[[], int],
        part: Callable[[], list[Deferred[Any]]],
        resume: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._lending = lending
        self._keeping = lending.keeping
        self._serving = lending.serving
        self._monitors = monitors
        self._kept = kept
        self._noting = noting
        self._notebook: Notebook | None = None
        self._text = text
        self._conversations = conversations
        self._part = part
        self._resume = resume
        #: closes what was made for the next image, where there is none
        self._made = contextlib.ExitStack()
        self.came = TakenUp()

    # -- taking up

    @property
    def goes_on(self) -> bool:
        """Whether there are clients or sessions of an earlier process: then nothing is a reason to end."""
        return self.came != TakenUp()

    def take_up(self) -> None:
        """Go on with what was left, if that is not so yet. All ports that lend are served by now."""
        lending, keeping = self._lending, self._keeping
        # what a person decided is kept elsewhere, and told already
        came = lending.take_up(anew={overlay.SOURCE})
        if came is not None:
            self.came = came
            left = lending.left
            how = f"upgraded from distbal {left.version}" if left.began == "upgrade" else "after a crash or a restart"
            self.log.info("{how}; taken up: {came}", how=how, came=came)
            if keeping is not None:
                handover.all_is_said(keeping.ledger)
        if keeping is not None:
            self.note_file()
            self._notebook = self._noting(keeping.ledger.note, keeping.ledger.read_notes())
            self._notebook.start()
            keeping.start()

    def terms_change(self) -> None:
        """The farm, or the terms by which it is lent, are about to change."""
        if self._notebook is not None:
            self._notebook.terms_change()

    def note_file(self) -> None:
        """Another file was taken in: the next process goes by that one, should the file be damaged by then."""
        if self._keeping is not None:
            self._keeping.ledger.note(FILE_NOTE, self._text().encode())

    def stop(self) -> None:
        """The service stops, as somebody wished: nothing goes on after it."""
        if self._notebook is not None:
            self._notebook.stop()
        if self._keeping is not None:
            self._keeping.stopping()
            self._keeping.stop()

    # -- giving away: upgrade.HandsOver

    def copy_of_the_ledger(self) -> tuple[int, int]:
        """Descriptors of a copy of the ledger's two files, which the caller closes; the service goes on."""
        book, _ = self._written()
        try:
            slots = copied(book.slots)
            try:
                return slots, copied(book.notes)
            except OSError:
                os.close(slots)
                raise
        finally:
            if self._keeping is None:
                book.close()

    def prepare_to_hand_over(self) -> Deferred[None]:
        """Fires when all that is left can be carried."""
        return Deferred.fromCoroutine(self._prepare())

    async def _prepare(self) -> None:
        serving = self._serving
        serving.pause_endpoints(True)
        ends = self._reactor.seconds() + DRAIN_TIME
        if waited_for := serving.carried_by_transports:
            self.log.info(
                "{count} clients of Twisted endpoints cannot be handed on: they have {time:g} s to finish",
                count=waited_for,
                time=DRAIN_TIME,
            )
        while serving.carried_by_transports and self._reactor.seconds() < ends:
            await deferLater(self._reactor, LOOK)
        if cut_off := serving.carried_by_transports:
            self.log.warn("{count} clients of Twisted endpoints have not finished: they are cut off", count=cut_off)
        await self._monitors.suspend()

    def saved(self) -> Deferred[str]:
        """Fires when all that was to be kept is on the disk: with why it is not, or ""."""
        return self._kept.saved()

    def take_leave(self) -> Deferred[None]:
        """Let those go whose connections carry no job; fires when they have gone."""
        return Deferred.fromCoroutine(self._take_leave())

    async def _take_leave(self) -> None:
        self._serving.pause_others(True)
        # a page of 5657 or a line of 5658 is done in a moment, and whoever has begun is not to be cut off
        ends = self._reactor.seconds() + BRIEF_TIME
        while self._conversations() and self._reactor.seconds() < ends:
            await deferLater(self._reactor, LOOK / 10)
        await DeferredList(self._part())

    def hand_over(self) -> tuple[dict[str, str], list[int]]:
        """Stop serving, and write everything down for the next image.

        :raises UpgradeError: that is not possible for now; :meth:`go_on`.
        :returns: variables of its environment, and the descriptors that it is to have.
        """
        loop, keeping = self._serving.loop, self._keeping
        if loop is not None:
            loop.pause_all()
        # whoever is told by this that the keeper has him may be gone, and is not to be written down
        self._all_is_held()
        book, given = self._written()
        # that may have moved the notes
        self._all_is_held()
        if self._kept.lock >= 0:
            given[0, Role.LOCK] = self._kept.lock
        channel = -1 if keeping is None or keeping.alone else keeping.fileno()
        alone, frozen = ("", False) if keeping is None else (keeping.alone, keeping.lets_nothing_go)
        table = inheritance.table(given, channel, self._reactor.seconds(), alone, frozen=frozen)
        self._made.callback(os.close, table)
        if keeping is None:
            self._made.callback(book.close)
        descriptors = [*given.values(), table, *([channel] if channel >= 0 else [])]
        return {HANDOVER: str(table)}, descriptors

    def _all_is_held(self) -> None:
        """What is not the keeper's by now would never be: the next image takes it for held."""
        if self._keeping is not None and not self._keeping.flushed(KEEPER_TIME):
            raise UpgradeError("the keeper takes nothing for the moment")

    def go_on(self) -> None:
        """Nothing comes of it: serve as before."""
        self._made.close()
        loop = self._serving.loop
        if loop is not None:
            loop.go_on()
        self._serving.pause_endpoints(False)
        self._serving.pause_others(False)
        self._resume()

    def leave(self) -> None:
        """End this process at once, and close nothing: another one is to take all of it up."""
        keeping = self._keeping
        if keeping is not None:
            if self._notebook is not None:
                self._notebook.write_all()
            # what it has not taken by then is lost: it waits for us longer than that
            keeping.flushed(PATIENCE)
        self.log.info("distbal leaves: where this is a restart, all goes on in the next process")
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(0)

    def _written(self) -> tuple[Ledger, dict[Key, int]]:
        """All accounts as they are now, and which descriptors go with them."""
        keeping = self._keeping
        if keeping is None:
            book, numbers = Ledger(), itertools.count(1)
            given = handover.hand_over(book, self._serving, lambda: next(numbers), kept=False)
        else:
            book = keeping.ledger
            given = handover.hand_over(book, self._serving, keeping.new_id, kept=True)
        book.note(FILE_NOTE, self._text().encode())
        (self._notebook or self._noting(book.note, ())).write_all()
        # what was noted may have moved them
        given[0, Role.LEDGER], given[0, Role.NOTES] = book.slots, book.notes
        return book, given


def copied(descriptor: int) -> int:
    """A copy of a memory file."""
    size = os.fstat(descriptor).st_size
    copy = os.memfd_create("distbal-copy", os.MFD_CLOEXEC)
    try:
        done = 0
        os.ftruncate(copy, size)
        while done < size:
            done += os.pwrite(copy, os.pread(descriptor, min(1 << 20, size - done), done), done)
    except BaseException:
        os.close(copy)
        raise
    return copy
