"""The verbs of live operation, done: each takes effect between two jobs, disturbs none, and answers with values that are JSON.

Whoever calls (the admin socket, SSH) makes a :class:`~distbal.verbs.Call` of words and says who it is. A verb that cannot be
done raises VerbError with a sentence, and has changed nothing. What people decide is kept apart from the file
(:mod:`distbal.decisions`): the farm that is served is what both of them make.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Protocol, cast

from pydantic import ValidationError
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from distbal import addresses, config, decisions, hostspec, logs, verbs
from distbal.changes import Change, Changes
from distbal.columns import many
from distbal.decisions import Decision, Decisions, Place
from distbal.errors import DistbalError
from distbal.execing import UpgradeError
from distbal.health import FULL_WEIGHT
from distbal.hosts import AdminState, Farm
from distbal.leases import LocalLeases
from distbal.model import HostModel
from distbal.overlay import NO_HOST, Overlay
from distbal.report import VERSION
from distbal.reporter import Reporter, each_host, each_job
from distbal.requests import Ticket
from distbal.spells import Spells, Steps, at_once, listed
from distbal.upgrade import Going
from distbal.verbs import Call, VerbError, shown

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Who:
    """Whoever calls.

    :ivar name: an account's name, or an SSH key's comment; ``where``: by which way (``admin socket``, ``ssh from 10.0.0.9``).
    """

    name: str
    where: str

    def __str__(self) -> str:
        return f"{self.name} ({self.where})"


class Daemon(Protocol):
    """What the verbs need of the daemon as a whole."""

    def serve(self, farm: Farm) -> None:
        """Serve this farm from now on: scheduler and monitors."""

    def reload_file(self) -> Deferred[tuple[list[str], list[str]]]:
        """Read the file again: why it was not taken in, nothing where it was; and then what is doubtful of it."""

    def export(self, made: Decisions) -> Deferred[str]:
        """The file as it would have to be."""

    def save(self, made: Decisions, changes: Changes) -> None:
        """Keep these, soon; later ones take the place of earlier ones."""

    def saved(self) -> Deferred[str]:
        """Fires when all that was to be kept is on the disk: with why it is not, or ""."""

    def log_jobs(self, each: bool) -> None:
        """Whether each job is logged."""

    def upgrade(self) -> Deferred[Going]:
        """Go on as other code; fires when that is about to begin, and fails with UpgradeError where it does not."""


class Admin:
    """Does the verbs.

    :param wall: seconds since 1970.
    :param spells: in which long answers are made for those who can wait; None: at once for all.
    :param made, changes: what was decided, and done, before the daemon started.

    :ivar overlay: the file, and what people decided.
    :ivar changes: who changed what.
    """

    log = logs.Logger()

    def __init__(
        self,
        daemon: Daemon,
        leases: LocalLeases,
        reporter: Reporter,
        wall: Callable[[], float],
        *,
        spells: Spells | None = None,
        made: Decisions = Decisions(),  # noqa: B008 (it is a value)
        changes: Changes | None = None,
    ) -> None:
        self.overlay = Overlay(leases, daemon.serve, made)
        self.changes = Changes() if changes is None else changes
        self.reporter = reporter
        self._daemon = daemon
        self._spells = spells
        self._leases = leases
        self._wall = wall

    def file_changed(self, farm: Farm) -> None:
        """The file was read; ``farm`` is what it says."""
        if self.overlay.file_changed(farm):
            self._daemon.save(self.overlay.decisions, self.changes)

    # -- calls

    def do(self, call: Call, who: Who) -> Answer | Deferred[Answer]:
        """Do what a call says, and note it where it changes something. All but reload, upgrade and export answer at once.

        :raises VerbError: it cannot be done; nothing has changed. A Deferred may fail with it.
        """
        answer = getattr(self, f"_{call.verb.name}")(who, **call.arguments)
        if not call.changes:
            return cast("Answer | Deferred[Answer]", answer)
        if isinstance(answer, Deferred):
            return answer.addCallback(self._note, call, who)
        return self._note(answer, call, who)

    def carry_out(self, call: Call, who: Who) -> Deferred[Answer]:
        """The same, for those who can wait: an answer to a change comes when it is kept, and says where it could not be."""
        if self._spells is not None and (steps := self._steps.get(call.verb.name)) is not None:
            return self._spells.do(steps(self, **call.arguments))
        done: Deferred[Answer] = maybeDeferred(self.do, call, who)  # type: ignore[call-overload]
        return done.addCallback(self._when_kept) if call.changes else done

    def reloaded_by(self, who: Who) -> None:
        """The file was taken in without a verb, and the log knows of it."""
        self._done_by(who, "reload", "the file was taken in")

    def upgraded_by(self, who: Who, what: str) -> None:
        """The same of an upgrade that is about to begin."""
        self._done_by(who, "upgrade", what)

    def _done_by(self, who: Who, verb: str, what: str) -> None:
        self.changes.add(Change(self._wall(), who.name, who.where, verb, (verb,), what))
        self._daemon.save(self.overlay.decisions, self.changes)

    def _note(self, answer: Answer, call: Call, who: Who) -> Answer:
        what = answer["text"]
        self.changes.add(Change(self._wall(), who.name, who.where, call.verb.name, call.words, what))
        self.log.info("{who}: {call}: {what}", who=who, call=call, what=what)
        self._daemon.save(self.overlay.decisions, self.changes)
        return answer

    def kept(self) -> Deferred[str]:
        """Fires when what was changed by now is kept: with "", or a warning where it could not be."""
        return self._daemon.saved().addCallback(lambda why_not: why_not and f"it holds until a restart, since {why_not}")

    def _when_kept(self, answer: Answer) -> Deferred[Answer]:
        warnings = answer.get("warnings", [])
        return self.kept().addCallback(lambda doubt: answer | {"warnings": [*warnings, doubt]} if doubt else answer)

    # -- the verbs that tell: each takes who asks, and the call's arguments by name

    def _status(self, _: Who) -> Answer:
        return {**self.reporter.status()}

    def _hosts(self, _: Who, patterns: tuple[str, ...]) -> Answer:
        return at_once(self._hosts_in_steps(patterns))

    def _hosts_in_steps(self, patterns: tuple[str, ...]) -> Steps[Answer]:
        wanted = (lambda name: any(fnmatchcase(name, like) for like in patterns)) if patterns else bool
        report = yield from self._hosts_like(wanted)
        if patterns and not report["hosts"]:
            raise VerbError(f"no host is called {' or '.join(map(shown, patterns))}; hosts alone lists them")
        return report

    def _show(self, _: Who, host: str) -> Answer:
        return at_once(self._show_in_steps(host))

    def _show_in_steps(self, host: str) -> Steps[Answer]:
        report = yield from self._hosts_like(lambda name: name == host)
        if not report["hosts"]:
            self.overlay.spec(host)
        return {"version": VERSION, "at": report["at"], "host": report["hosts"][0]}

    def _hosts_like(self, wanted: Callable[[str], bool]) -> Steps[Answer]:
        sight = self.reporter.sight()
        yield
        hosts = yield from listed(each_host(sight, wanted=wanted))
        return {"version": VERSION, "at": round(sight.snapshot.at + sight.epoch, 3), "hosts": hosts}

    def _queue(self, _: Who) -> Answer:
        status = self.reporter.status()
        return {"version": VERSION, "at": status["at"], "waiters": status["waiters"]}

    def _jobs(self, _: Who, limit: int) -> Answer:
        return at_once(self._jobs_in_steps(limit))

    def _jobs_in_steps(self, limit: int) -> Steps[Answer]:
        jobs, epoch, now = self.reporter.ended(limit), self.reporter.epoch, self.reporter.now
        found = yield from listed(each_job(jobs, epoch, now), 1)
        return {"version": VERSION, "at": round(now + epoch, 3), "jobs": found}

    #: the verbs whose answers may take long
    _steps: ClassVar[dict[str, Any]] = {"hosts": _hosts_in_steps, "show": _show_in_steps, "jobs": _jobs_in_steps}

    def _why(self, _: Who, job: int) -> Answer:
        report = self.reporter.job(job)
        if report is None:
            raise VerbError(
                f"nothing is known of a job {job}: it has not been given a host yet, or is forgotten; jobs lists the last"
            )
        return {"version": VERSION, "job": report}

    def _history(self, _: Who, limit: int) -> Answer:
        return {"version": VERSION, "changes": [asdict(change) for change in self.changes.last(limit)]}

    def _export(self, _: Who) -> Deferred[Answer]:
        def cannot(failure: Failure) -> Answer:
            if not isinstance(failure.value, DistbalError):
                failure.raiseException()
            raise VerbError(str(failure.value)) from failure.value

        exported = self._daemon.export(self.overlay.decisions)
        return exported.addCallbacks(lambda text: {"version": VERSION, "file": text}, cannot)

    # -- the verbs that change something

    def _drain(self, who: Who, host: str, why: str) -> Answer:
        return self._take_out(who, host, why, AdminState.DRAIN)

    def _down(self, who: Who, host: str, why: str) -> Answer:
        return self._take_out(who, host, why, AdminState.DOWN)

    def _take_out(self, who: Who, host: str, why: str, state: AdminState) -> Answer:
        self.overlay.spec(host)
        self.overlay.decide(self.overlay.decisions.with_(host, "admin", self._decision(who, state.value, why=why)))
        is_so = "is drained" if state is AdminState.DRAIN else "is down"
        return {"text": f"{host} {is_so}{f': {why}' if why else ''}{self._still_running(host)}"}

    def _up(self, who: Who, host: str) -> Answer:
        self.overlay.spec(host)
        before = self.overlay.decisions.get(host, "admin")
        self.overlay.decide(self.overlay.decisions.without(host, "admin"))
        verdicts = self._leases.scheduler.host(host).health.verdicts
        down = [f"{one.source} says so" + (f" ({one.reason})" if one.reason else "") for one in verdicts if not one.up]
        down += [f"{one.source} gives it weight 0" for one in verdicts if one.up and one.weight == 0]
        text = f"{host} is ready" if before is not None else f"{host} was ready already"
        return {"text": text + (f", and yet gets no jobs: {'; '.join(down)}" if down else "")}

    _ready = _up

    def _slots(self, who: Who, host: str, slots: int | None) -> Answer:
        of_file = self.overlay.of_file(host)
        if slots is None:
            if of_file is None:
                raise VerbError(f"{host} is not in the file, which says nothing of its slots")
            self.overlay.decide(self.overlay.decisions.without(host, "slots"))
            return {"text": f"{host} has {self.overlay.spec(host).slots} slots, as the file says"}
        self.overlay.spec(host)
        if of_file is not None and of_file.slots == slots and not of_file.auto:
            self.overlay.decide(self.overlay.decisions.without(host, "slots"))
            return {"text": f"{host} has {slots} slots, as the file says"}
        self.overlay.decide(self._with(who, host, "slots", slots))
        return {"text": f"{host} has {many(slots, 'slot')}{self._over(host)}"}

    def _weight(self, who: Who, host: str, weight: int | None) -> Answer:
        self.overlay.spec(host)
        if weight is None:
            self.overlay.decide(self.overlay.decisions.without(host, "weight"))
            return {"text": f"nobody sets a weight of {host} by hand{self._weighs(host)}"}
        self.overlay.decide(self.overlay.decisions.with_(host, "weight", self._decision(who, weight)))
        return {"text": f"{host} has weight {weight / FULL_WEIGHT:g}{self._weighs(host)}"}

    def _rank(self, who: Who, host: str, place: tuple[Any, str] | None) -> Answer:
        self.overlay.spec(host)
        if place is None:
            if self.overlay.of_file(host) is None:
                raise VerbError(f"{host} is not in the file, which gives it no place")
            self.overlay.decide(self.overlay.decisions.without(host, "rank"))
            return {"text": f"{host} stands where the file has it"}
        self.overlay.decide(self._with(who, host, "rank", self._place(host, *place)))
        return {"text": f"{host} stands {' '.join(place)}"}

    def _add(
        self,
        who: Who,
        host: str,
        slots: int,
        place: tuple[Any, str] | None,
        pools: tuple[str, ...] | None,
        address: str | None,
    ) -> Answer:
        name = hostspec.name_in(host) or host
        if name in self.overlay.names:
            raise VerbError(f"{name} is there already: slots, weight and rank change it")
        entry: dict[str, Any] = {"slots": slots}
        try:
            text = hostspec.parse(host)
            if text.slots is not None:
                raise VerbError(f"the slots stand by themselves: add {text.name}{text.options and ','}{text.options} {slots}")
            entry |= {"name": text.name, "options": text.options, "address": address}
            spec = config.spec_of(HostModel.model_validate(entry | ({} if pools is None else {"pools": list(pools)})), 0)
        except ValidationError as error:
            raise VerbError("; ".join(_sentence(details) for details in error.errors(include_url=False))) from None
        except ValueError as error:
            raise VerbError(str(error)) from None
        made = self.overlay.decisions.without(name, "there")
        place = None if place is None else (place[0], place[1])
        beside = None if place is None else self._place(name, *place)
        of_file = self.overlay.of_file(name)
        if of_file is None:
            made = made.with_(name, "there", self._decision(who, spec, file=False))
        elif (of_file.pools, of_file.options, of_file.address) != (spec.pools, spec.options, spec.address) and (
            pools is not None or text.options or address is not None
        ):
            raise VerbError(
                f"{name} is in the file with other pools, options or address: add {name} {of_file.slots} brings that back"
            )
        elif slots != of_file.slots or of_file.auto:
            made = made.with_(name, "slots", self._decision(who, slots, file=self.overlay.said(name, "slots", slots)))
        if beside is not None:
            made = made.with_(name, "rank", self._decision(who, beside, file=self.overlay.said(name, "rank", beside)))
        self.overlay.decide(made)
        where = " ".join(place) if place else "as the last" if of_file is None else "where the file has it"
        return {"text": f"{name} is in the farm, with {many(slots, 'slot')}, {where}"}

    def _remove(self, who: Who, host: str, now: bool) -> Answer:
        self.overlay.spec(host)
        if len(self.overlay.names) == 1:
            raise VerbError(f"{host} is the last host: without one nobody could be served; drain it, or add another first")
        made = self.overlay.decisions
        for key in decisions.KEYS:
            made = made.without(host, key)
        if self.overlay.of_file(host) is not None:
            made = made.with_(host, "there", self._decision(who, False, file=True))
        self.overlay.decide(made)
        if now:
            reason = f"{host} was removed by {who.name}"
            cut = self._leases.kick(self._at(host), reason)
            return {"text": f"{host} is removed; {many(cut, 'job')} cut"}
        return {"text": f"{host} is removed{self._still_running(host)}"}

    def _kick(self, who: Who, client: str) -> Answer:
        tickets = [ticket for ticket in self._leases.scheduler.tickets if _is(ticket, client)]
        if not tickets:
            raise VerbError(f"no client {shown(client)} has a slot or waits for one: status and hosts show who does")
        waiting = sum(ticket.lease is None for ticket in tickets)
        self._leases.kick(tickets, f"kicked by {who.name}")
        return {"text": f"{client}: {many(len(tickets) - waiting, 'job')} cut, {many(waiting, 'waiter')} sent away"}

    def _reload(self, _: Who) -> Deferred[Answer]:
        def read(told: tuple[list[str], list[str]]) -> Answer:
            if told[0]:
                raise VerbError("\n".join(["the file was not taken in, and nothing has changed:", *told[0]]))
            doubts = told[1] if self.overlay.names else [*told[1], NO_HOST]
            return {"text": "the file was taken in"} | ({"warnings": doubts} if doubts else {})

        return self._daemon.reload_file().addCallback(read)

    def _upgrade(self, who: Who) -> Deferred[Answer]:
        def going(going: Going) -> Answer:
            # what cannot be carried ends: whoever is there by way of it should not wonder
            ends = "; this connection ends with that" if who.where.startswith("ssh") else ""
            image = {**self.reporter.image}
            return {"text": f"{going}{ends}", "before": going.before, "after": going.after, "image": image}

        def cannot(failure: Failure) -> Answer:
            failure.trap(UpgradeError)  # type: ignore[no-untyped-call]
            reasons = str(failure.value).splitlines()
            if len(reasons) == 1:
                raise VerbError(f"not upgraded: {reasons[0]}")
            raise VerbError("\n".join(["not upgraded:", *reasons]))

        return self._daemon.upgrade().addCallbacks(going, cannot)

    def _log(self, _: Who, level: str | None) -> Answer:
        if level is not None:
            logs.threshold.set(level)
            self._daemon.log_jobs(level == "debug")
        return {
            "text": f"the log has {verbs.LEVELS[logs.threshold.name]} ({logs.threshold.name})",
            "level": logs.threshold.name,
        }

    # -- the inside

    def _decision(self, who: Who, value: Any, *, file: Any = None, why: str = "") -> Decision:
        return Decision(value, file, who.name, self._wall(), why)

    def _with(self, who: Who, host: str, key: str, value: Any) -> Decisions:
        return self.overlay.decisions.with_(host, key, self._decision(who, value, file=self.overlay.said(host, key, value)))

    def _place(self, host: str, side: Any, other: str) -> Place:
        if other == host:
            raise VerbError(f"{host} cannot stand {side} itself")
        self.overlay.spec(other)
        return Place(side, other)

    def _at(self, host: str) -> list[Ticket]:
        return [one for one in self._leases.scheduler.tickets if one.lease is not None and one.lease.host_name == host]

    def _still_running(self, host: str) -> str:
        number = len(self._at(host))
        return f"; {many(number, 'job')} still run{'s' if number == 1 else ''} there" if number else ""

    def _over(self, host: str) -> str:
        number = len(self._at(host))
        return self._still_running(host) if number > self._leases.scheduler.host(host).capacity else ""

    def _weighs(self, host: str) -> str:
        one = self._leases.scheduler.host(host)
        return f": {one.capacity} of its {many(one.spec.slots, 'slot')} may be lent"


def _is(ticket: Ticket, client: str) -> bool:
    """Whether that is this client: an ADDRESS, ADDRESS:PORT, or a number of its job, lease or place in the queue."""
    request = ticket.request
    if client.isascii() and client.isdigit():
        # a first attempt has no number but its own; of thousands of digits Python makes none
        return len(client) <= 20 and int(client) in (ticket.id, request.job or ticket.id)
    return bool(request.address) and client in (request.address, addresses.join(request.address, request.port))


def _sentence(details: Any) -> str:
    error = details.get("ctx", {}).get("error")
    return str(error) if error is not None else str(details["msg"])
