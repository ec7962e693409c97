"""All that lends: who has a slot, who waits, by which ports they come; no file, no page, and no person.

A new image of the daemon lends before it knows more (:func:`lend_at_once`): clients of the process before, and those who came
meanwhile, wait for nothing but this. What it takes is in the notes of that process: the hosts, as people had decided about
them, the terms, the listening sockets. The rest of the daemon is loaded and the file is read beside that
(:meth:`Lending.meanwhile`), and is then taken in as a reload would take it in.

So what is imported here is little: neither what reads the file, nor what shows or changes anything.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable, Collection
from typing import Any, TypeVar, cast

from twisted.internet.interfaces import IReactorTime

from distbal import handover, loop
from distbal.checked import values
from distbal.complaints import Complaints
from distbal.handover import FILE_NOTE, TakenUp, TakingUp, left_sockets
from distbal.hosts import AdminState, Farm
from distbal.inheritance import Inheritance
from distbal.keeperwire import Role
from distbal.keeping import Keeping
from distbal.leases import LocalLeases
from distbal.ledger import Ledger
from distbal.listeners import Left, Opened, open_all, same_place, sort_out, spec_of, words
from distbal.listenspec import Listener
from distbal.logs import Logger
from distbal.lookup import Lookup, SystemResolver
from distbal.notebook import Notes, read_notes
from distbal.ports import Replies, Terms
from distbal.proxy.port import Proxy
from distbal.scheduler import Scheduler
from distbal.serving import LISTENER_NOTE, Serving
from distbal.termsnote import TERMS_NOTE, read_terms

#: seconds for which work in a thread may keep us waiting after each call of the system; Python's own 5 ms are long for a client
TAKES_TURNS = 0.0002
_Result = TypeVar("_Result")


class Lending:
    """What lends.

    :param reactor: whichever twistd chose; its clock must never go back.
    :param left: what the process before left.
    :param notes: those of its ledger.
    :param opened: the listeners, bound; those that do not lend are served later.
    :param room: how many descriptors clients may take.
    :param verbose: log each job.

    :ivar leases: where slots come from.
    :ivar keeping: to the keeper; None where there is none.
    :ivar terms: what clients meet; whoever knows them sets them before :meth:`start`.
    :ivar serving: what is listened on.
    :ivar makers: by the kind of listener, what speaks there, but for those that lend; the composition fills it in.
    :ivar ports_changed: called when it may have turned out by which ports it is reached.
    :ivar leave: called when the keeper wants this process to end, and the next one to go on.
    :ivar early: it lends by what the process before noted, before the file was read.
    :ivar file: hosts.yaml as it was last taken in, as the process before noted it; None where it did not.
    :ivar lock: of that process's directory of decisions, a descriptor; -1 for none.
    """

    log = Logger()

    leave: Callable[[], None]

    def __init__(
        self, reactor: Any, left: Inheritance, notes: Notes, opened: list[Opened], *, room: int, verbose: bool = False
    ) -> None:
        self.left = left
        self.notes = notes
        self.early = False
        self.file: bytes | None = None
        self.lock = -1
        clock = cast("IReactorTime", reactor)
        # microseconds since 1970: greater than any number that an earlier process can have given out
        self.leases = LocalLeases(Scheduler(Farm(()), first_id=time.time_ns() // 1000), clock)
        self.keeping = self._keep(reactor, left)
        self.complain = Complaints(self.log, clock.seconds)
        self.terms = Terms()
        self.lookup = Lookup(clock, SystemResolver(reactor))
        self.proxy = Proxy(clock, self.lookup, self.keeping)
        self.makers: dict[str, Callable[[], Any]] = {}
        self.ports_changed: Callable[[], None] | None = None
        self.serving = Serving(
            reactor,
            self.leases,
            self.terms,
            self.complain,
            self.proxy,
            self.makers,
            self._changed,
            opened,
            room=room,
            log_jobs=verbose,
            keeping=self.keeping,
        )
        self._came: TakenUp | None = None
        self._taken_up = False
        #: those that were opened when the others were served already
        self._new: list[Opened] = []

    def _keep(self, reactor: Any, left: Inheritance) -> Keeping | None:
        if left.channel is None and not left.alone:
            return None
        book = left.ledger or Ledger()
        keeping = Keeping(reactor, left.channel, book, lambda: self.leave(), left.alone, frozen=left.frozen)  # noqa: PLW0108
        keeping.keeper = left.keeper
        keeping.not_below(left.last_id)
        return keeping

    def _changed(self) -> None:
        if self.ports_changed is not None:
            self.ports_changed()

    # -- the beginning

    def start(self) -> list[str]:
        """Serve those who want a slot, as far as they are not served yet; why some cannot be, as far as it shows at once."""
        if self.early:
            return self.serving.serve([one for one in self._new if one.spec.lends])
        return self.serving.start()

    def take_up(self, *, anew: Collection[str] = ()) -> TakenUp | None:
        """Go on with what was left, once. All ports that lend are served by now, and nobody has been accepted.

        :param anew: see :class:`~distbal.handover.TakingUp`.
        :returns: what there was; None where there was no process before.
        """
        if self._taken_up:
            return self._came
        self._taken_up = True
        left, keeping = self.left, self.keeping
        book = left.ledger
        if book is not None:
            self._came = TakingUp(left, book, self.notes, self.serving, anew)()
            if keeping is None:
                book.close()
                left.ledger = None
        elif left.descriptors and keeping is not None:
            # without accounts nobody knows what these are
            self.log.error(
                "{count} descriptors that the keeper held are none that can be taken up", count=len(left.descriptors)
            )
        if keeping is not None:
            if book is None:
                keeping.hold_ledger()
            handover.settle(left, keeping)
        left.close()
        return self._came

    # -- before the rest is there

    def meanwhile(self, work: Callable[[], _Result]) -> _Result:
        """Do in a thread what takes long, and lend here until it is done; what it raises is raised."""
        hot_loop = self.serving.loop
        if hot_loop is None:
            return work()
        done: list[_Result] = []
        failed: list[BaseException] = []
        waits, ends = os.pipe2(os.O_CLOEXEC)

        def do() -> None:
            try:
                done.append(work())
            except BaseException as error:  # noqa: BLE001 (it is raised where it was asked for)
                failed.append(error)
            finally:
                os.close(ends)

        poll = select.poll()
        poll.register(waits, 0)
        poll.register(hot_loop.fileno(), select.POLLIN)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(TAKES_TURNS)
        thread = threading.Thread(target=do, name="distbal-loads", daemon=True)
        try:
            thread.start()
            while not any(descriptor == waits for descriptor, _ in poll.poll()):
                hot_loop.doRead()
            thread.join()
        finally:
            sys.setswitchinterval(interval)
            os.close(waits)
        if failed:
            raise failed[0]
        return done[0]

    def take_in(self, specs: Collection[Listener]) -> None:
        """Listen where the file says, as a reload would; what cannot be had is done without.

        Where a socket can stay what it is, and is only served in another way, whoever waits in it waits on.
        """
        serving, specs = self.serving, list(specs)
        kept, gone, wanted = sort_out(serving.opened, specs)
        changed = [one for one in gone if any(same_place(one.spec, spec) for spec in wanted)]
        for one in gone:
            if one not in changed:
                one.close()
        self._new = open_all(wanted, Left([(words(one.spec), one.release()) for one in changed]), leniently=True)
        serving.opened = sorted([*kept, *self._new], key=lambda one: specs.index(one.spec))
        # the keeper has these before it lets go of what they come in the place of
        serving.hold(self._new)
        for one in changed:
            if one.closed is not None:
                one.closed()


def lend_at_once(reactor: Any, left: Inheritance, *, room: int, verbose: bool) -> Lending | None:
    """Serve those who hold or want slots, by what the process before noted; None where that does not say all that it takes.

    :param left: what that process left.
    :param room: how many descriptors clients may take.
    :param verbose: log each job.
    """
    book = left.ledger
    if book is None or not loop.available:
        return None
    noted = book.read_notes()
    try:
        terms = read_terms(values(noted.get(TERMS_NOTE, b"null")))
        for key, said in noted.items():
            if key.startswith(LISTENER_NOTE):
                spec_of(said.decode())
    except ValueError:
        # the file is read first, as at any start: another version noted other things, or the farm had just changed
        return None
    notes = read_notes(noted)
    if notes.wrong:
        return None
    # should this come to nothing, the process after this one reads the file first
    book.note(TERMS_NOTE, b"")
    lending = Lending(reactor, left, notes, left_sockets(left).opened(), room=room, verbose=verbose)
    lending.early = True
    lending.file = noted.get(FILE_NOTE)
    lending.lock = left.take(0, Role.LOCK)
    lending.terms.replies = Replies(terms.reply)
    lending.terms.allow_clients = terms.allow
    _lend_hosts(lending.leases, notes, terms.farm)
    lending.serving.start()
    lending.take_up()
    return lending


def _lend_hosts(leases: LocalLeases, notes: Notes, farm: Farm) -> None:
    """The farm as it was lent, and what people had decided about its hosts."""
    hosts = sorted((host for host in notes.hosts if not host.removed), key=lambda host: host.position)
    leases.configure(Farm(tuple(host.spec for host in hosts), farm.policy, farm.order, farm.wait))
    for host in hosts:
        if host.admin is not AdminState.READY:
            leases.set_admin(host.spec.name, host.admin, host.decided)
