"""The notebook: what changes is noted within a second, in short turns, and what cannot be noted or read harms nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from distbal import checked, notebook
from distbal.access import AccessList
from distbal.activity import Activity, Bin
from distbal.carried import CarriedHost, CarriedTicket, CarriedTotals
from distbal.evidence import Account
from distbal.health import Verdict
from distbal.history import History
from distbal.hosts import AdminState, Farm, HostSpec
from distbal.leases import LocalLeases
from distbal.monitors.slots import Slots
from distbal.notebook import LAST_ATTEMPTS, MOST_NOTES, MOST_WRONG, TURN, TURNS, Notebook, read_notes
from distbal.outcomes import Outcome
from distbal.requests import Lease, Request, Ticket
from distbal.scheduler import Scheduler
from distbal.standing import UNKNOWN
from distbal.takeup import Carried
from distbal.termsnote import TERMS_NOTE, CarriedTerms, read_terms
from distbal.waits import BOUNDS
from tests.support import LoggedErrors

A_ROUND = [TURN] * (TURNS + 1)


class Client:
    """Takes what it is given."""

    lease: Lease

    def granted(self, lease: Lease) -> None:
        self.lease = lease

    def refused(self, ticket: Ticket, reason: str) -> None:
        raise AssertionError(reason)

    def lost(self, lease: Lease, reason: str) -> None:
        raise AssertionError(reason)


class Book:
    """A notebook on hosts of 2 slots each, and the notes that it put.

    :ivar put: how often each key was.
    :ivar broken: keys that cannot be put.
    """

    def __init__(self, hosts: int = 3, noted: tuple[str, ...] = (), terms: CarriedTerms | None = None) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.farm = Farm(tuple(HostSpec(f"h{number}", 2, number) for number in range(hosts)))
        self.leases = LocalLeases(Scheduler(self.farm), self.clock)
        self.slots = Slots(self.leases)
        self.activity = Activity()
        self.notes: dict[str, bytes] = dict.fromkeys(noted, b"{}")
        self.put: list[str] = []
        self.broken: set[str] = set()
        self.book = Notebook(
            self.leases,
            self.take,
            self.clock,
            slots=self.slots,
            activity=self.activity,
            began=17.5,
            terms=None if terms is None else lambda: terms,
            noted=noted,
        )

    def take(self, key: str, data: bytes) -> None:
        if key in self.broken:
            raise OSError("no room")
        self.put.append(key)
        if data:
            self.notes[key] = data
        else:
            self.notes.pop(key, None)

    def turns(self, number: int = TURNS + 1) -> list[str]:
        """So many turns: the keys that were put."""
        self.put.clear()
        self.clock.pump([TURN] * number)
        return sorted(self.put)

    def job(self, client: str = "10.0.0.9") -> Lease:
        taker = Client()
        self.leases.ask(Request(client, 4711, client), taker)
        return taker.lease

    def note(self, key: str) -> Any:
        return json.loads(self.notes[key])


@pytest.fixture
def book() -> Iterator[Book]:
    """One that has begun, and noted what there is."""
    made = Book()
    made.book.start()
    made.turns()
    yield made
    made.book.stop()


def test_at_first_all_hosts_are_noted_and_then_what_changes(book: Book) -> None:
    assert sorted(book.notes) == ["host/h0", "host/h1", "host/h2", "totals"]
    assert book.turns() == []
    lease = book.job()
    assert book.turns() == ["host/h0", "totals"]
    assert book.note("host/h0")["leases"] == 1
    assert book.note("totals")["granted"] == 1
    book.leases.release(lease, Outcome.CLOSED)
    assert book.turns() == ["history", "host/h0", "totals"]
    assert book.note("history")[0]["host"] == "h0"
    assert book.turns() == []


def test_a_verdict_that_decides_something_is_noted_at_once(book: Book) -> None:
    def says(up: bool, weight: int | None = None) -> list[str]:
        book.put.clear()
        book.leases.report("h1", "tcp", up=up, weight=weight, ttl=30)
        return list(book.put)

    assert says(up=False) == ["host/h1"]
    assert book.note("host/h1")["verdicts"][0]["up"] is False
    book.clock.advance(0.01)
    assert says(up=False) == [], "it was renewed: that is for the next round"
    assert book.turns() == ["host/h1"]
    assert says(up=True) == ["host/h1"]
    assert says(up=True, weight=500) == ["host/h1"]
    book.put.clear()
    book.leases.forget("h1", "tcp")
    assert book.put == ["host/h1"]
    assert book.note("host/h1")["verdicts"] == []
    book.leases.forget("elsewhere", "tcp")
    book.book.said("elsewhere")
    assert book.put == ["host/h1"]


def test_a_host_that_is_gone_is_noted_no_more(book: Book) -> None:
    lease = book.job()
    book.turns()
    book.leases.configure(Farm(book.farm.hosts[2:]))
    assert book.turns() == ["host/h0", "host/h1", "host/h2"], "one drains, one left, and one has another place"
    assert book.note("host/h0")["removed"]
    assert not book.note("host/h2")["removed"]
    assert sorted(book.notes) == ["host/h0", "host/h2", "totals"]
    book.leases.release(lease, Outcome.CLOSED)
    assert "host/h0" in book.turns()
    assert sorted(book.notes) == ["history", "host/h2", "totals"]


def test_a_host_that_leaves_while_it_stands_in_line_is_not_noted() -> None:
    book = Book(hosts=20)
    book.book.start()
    assert sorted(book.notes) == ["host/h18", "host/h19", "totals"]
    book.leases.configure(Farm(book.farm.hosts[:1]))
    assert book.turns() == ["host/h0", "host/h18", "host/h19"], "the last two are dropped"
    assert sorted(book.notes) == ["host/h0", "totals"]
    book.book.stop()


def test_what_an_earlier_process_noted_of_hosts_that_are_gone_is_dropped() -> None:
    book = Book(hosts=1, noted=("host/gone", "host/h0", "others"))
    book.book.start()
    book.turns()
    assert sorted(book.notes) == ["host/h0", "others", "totals"]
    book.book.stop()


def test_of_many_hosts_a_turn_notes_a_few() -> None:
    hosts = 20 * MOST_NOTES
    book = Book(hosts=hosts)
    book.book.start()
    assert len(book.put) == MOST_NOTES + 1, "and the totals"
    for _ in range(19):
        assert len(book.turns(1)) == MOST_NOTES
    assert len(book.notes) == hosts + 1
    book.turns(2 * TURNS)
    book.job()
    book.put.clear()
    book.leases.set_admin("h999", AdminState.DRAIN, "fan broken")
    assert book.put == ["host/h999"], "what a person decides is noted at once"
    assert (book.note("host/h999")["admin"], book.note("host/h999")["decided"]) == ("drain", "fan broken")
    assert book.turns(TURNS) == ["host/h0", "totals"]
    book.book.stop()


def test_the_terms_are_noted_as_long_as_all_hosts_are_noted_as_they_are(logged_errors: LoggedErrors) -> None:
    book = Book(hosts=3 * MOST_NOTES, terms=CarriedTerms(Farm(()), "{name}", AccessList.parse(["any"])))
    book.book.start()
    while len([key for key in book.notes if key.startswith("host/")]) < 3 * MOST_NOTES:
        assert TERMS_NOTE not in book.notes
        book.turns(1)
    book.turns()
    assert read_terms(book.note(TERMS_NOTE)).reply == "{name}"
    assert TERMS_NOTE not in book.turns(), "once"
    book.book.terms_change()
    book.leases.configure(Farm(book.farm.hosts[1:]))
    assert TERMS_NOTE not in book.notes
    book.turns(2 * TURNS + 1)
    assert TERMS_NOTE in book.notes
    assert "host/h0" not in book.notes
    book.broken.add("host/h1")
    book.leases.set_admin("h1", AdminState.DOWN)
    assert TERMS_NOTE not in book.notes, "what is noted of a host is not so"
    book.turns(2 * TURNS)
    assert TERMS_NOTE not in book.notes
    book.broken.clear()
    book.turns(2 * TURNS + 1)
    assert TERMS_NOTE in book.notes
    assert book.note("host/h1")["admin"] == "down"
    book.book.stop()
    assert len(logged_errors.flush()) == 1


def test_everything_is_written_before_another_process_takes_over() -> None:
    book = Book(hosts=3 * MOST_NOTES)
    book.book.start()
    book.activity.look(1000.0, 1, 0)
    for _ in range(LAST_ATTEMPTS + 20):
        book.leases.release(book.job(), Outcome.CLOSED)
    book.turns()
    assert len(book.note("history")) == LAST_ATTEMPTS
    assert book.note("activity")["looks"] == 1
    book.activity.look(1001.0, 1, 0)
    lease = book.job()
    book.book.write_all()
    assert len([key for key in book.notes if key.startswith("host/")]) == 3 * MOST_NOTES
    assert book.note("host/h0")["leases"] == 1
    assert len(book.note("history")) == LAST_ATTEMPTS + 20
    assert book.note("activity")["looks"] == 2
    assert lease.host_name == "h0"
    book.book.stop()
    book.book.stop()
    assert book.leases.said is None


def test_what_cannot_be_noted_is_told_once_and_tried_again(logged_errors: LoggedErrors) -> None:
    book = Book()
    book.broken = {"host/h0", "totals"}
    book.book.start()
    book.turns(3 * TURNS)
    assert [str(event["error"]) for event in logged_errors.flush()] == ["no room"]
    assert sorted(book.notes) == ["host/h1", "host/h2"]
    book.leases.report("h0", "tcp", up=False)
    assert logged_errors.flush() == []
    book.broken.clear()
    book.turns()
    assert sorted(book.notes) == ["host/h0", "host/h1", "host/h2", "totals"]
    book.broken.add("host/h2")
    book.leases.report("h2", "tcp", up=False)
    assert len(logged_errors.flush()) == 1, "that is another time"
    book.book.stop()


def test_a_bug_ends_no_turn_but_its_own(logged_errors: LoggedErrors, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book()
    book.book.start()
    book.turns()

    def fails(host: object) -> dict[str, object]:
        raise LookupError("a bug")

    for broken, told in (("host_note", 1), ("_gist", 1), ("_gist", 0)):
        with monkeypatch.context() as patched:
            patched.setattr(notebook, broken, fails)
            book.leases.report("h1", "tcp", up=told == 0)
            book.job()
            assert book.turns(3 * TURNS) != []
            assert len(logged_errors.flush()) == told
        book.turns()
    assert book.note("host/h1")["verdicts"][0]["up"] is True
    assert book.note("host/h0")["leases"] == 2
    book.book.stop()


def test_a_bug_in_a_turn_is_not_its_last(logged_errors: LoggedErrors, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book()
    book.book.start()
    book.turns()
    book.job()
    with monkeypatch.context() as patched:
        patched.setattr(book.slots, "kept_average", None)
        assert book.turns(3 * TURNS) == ["totals"]
        assert len(logged_errors.flush()) == 1
    assert book.turns() == ["host/h0"]
    book.book.stop()


# -- the other end


def test_a_new_process_reads_what_the_old_one_noted() -> None:
    old = Book()
    old.book.start()
    old.slots.average("h0")
    held = [old.job() for _ in range(3)]
    old.leases.release(held.pop(), Outcome.CLOSED)
    old.slots.sample()
    old.activity.look(1000.0, 2, 0)
    old.leases.report("h2", "tcp", up=False, ttl=60)
    old.book.write_all()
    old.book.stop()

    read = read_notes(old.notes | {"other": b"not for us", "ledger/host/": b"{"})
    assert read.wrong == []
    assert {host.spec.name for host in read.hosts} == {"h0", "h1", "h2"}
    assert read.totals.granted == 3
    assert read.activity.hour() == old.activity.hour()
    new = Book()
    new.clock.advance(6)
    new.leases.scheduler.history.take_up(read.history)
    assert new.leases.scheduler.history.jobs() == old.leases.scheduler.history.jobs()
    clients = [Client() for _ in held]
    tickets = [
        CarriedTicket(lease.id, lease.ticket.request, lease.ticket.asked, lease.host_name, lease.granted) for lease in held
    ]
    taken = new.leases.take_up(Carried(list(zip(tickets, clients, strict=True)), read.hosts, read.totals))
    assert taken.grants == []
    assert not new.leases.scheduler.host("h2").up
    new.clock.advance(55)
    assert new.leases.scheduler.host("h2").up, "the timer is set for what expires"
    read.give_averages(new.slots, ["h0", "h1", "nobody"], 1006.0)
    before = old.slots.average("h0")
    assert before < new.slots.average("h0") < 2.0, "two ran meanwhile"
    assert new.slots.kept_average("h1") is None


def test_waiters_are_told_what_the_take_up_gave_them() -> None:
    new = Book(hosts=1)
    clients = [Client(), Client()]
    request = Request("10.0.0.9", 1, "10.0.0.9")
    taken = new.leases.take_up(
        Carried([(CarriedTicket(number, request, 990.0), clients[number - 1]) for number in (1, 2)]),
    )
    assert [grant.id for grant in taken.grants] == [1, 2]
    assert not hasattr(clients[0], "lease")
    new.leases.deliver(taken.grants)
    assert [client.lease for client in clients] == taken.grants


@pytest.mark.parametrize(
    ("key", "data", "words"),
    [
        ("totals", b"", "Expecting value"),
        ("totals", b"\xff\xfe\xfd", "codec"),
        ("totals", b"[" * 200_000, "it is nested too deeply"),
        ("history", b"{}", "a list of 100000 attempts at most is wanted, not {}"),
        ("activity", b"3", "a mapping is wanted, not 3"),
        ("host/a", b'{"name": "b", "slots": 1, "rank": 0, "address": ["b", 1]}', "it is about 'b'"),
        (
            "host/a",
            b'{"name": "a", "slots": 1, "rank": 0, "address": ["a", 1], "average": [1]}',
            "average: a number and a time",
        ),
        ("host/a", b'{"name": "a", "slots": 1, "rank": 0, "address": ["a", 1], "average": [NaN, 1]}', "average: a number, 0"),
        ("host/a", b'{"name": "a", "slots": 1' + b"0" * 5000 + b"}", "host/a"),
    ],
)
def test_a_note_that_cannot_be_read_is_left_out_with_a_sentence(key: str, data: bytes, words: str) -> None:
    good = {"host/h": b'{"name": "h", "slots": 1, "rank": 0, "address": ["h", 1]}'}
    read = read_notes({key: data} | good)
    assert [host.spec.name for host in read.hosts] == ["h"]
    (wrong,) = read.wrong
    assert wrong.startswith(f"the note '{key}' is left out: ")
    assert words in wrong
    assert read.totals == CarriedTotals()


def test_a_note_that_is_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, "MOST_BYTES", 10)
    assert read_notes({"totals": b'{"asked": 3}'}).wrong == [
        "the note 'totals' is left out: it has 12 bytes, and 10 at most are read"
    ]
    assert len(read_notes({f"host/{number}": b"" for number in range(99)}).wrong) == MOST_WRONG


@given(st.dictionaries(st.sampled_from(["totals", "history", "activity", "host/a", "x"]), st.binary(max_size=30)))
def test_any_bytes_are_read_or_left_out(notes: dict[str, bytes]) -> None:
    read = read_notes(notes)
    assert len(read.wrong) <= len(notes)
    History().take_up(read.history)


# -- versions

#: as the first version that keeps notes wrote them: every later one has to understand it
FIRST = {
    "host/snookles:3632": b'{"name":"snookles:3632","slots":3,"rank":0,"options":",lzo","address":["10.0.0.7",3632],'
    b'"pools":["default","arm"],"auto":true,"position":0,"admin":"ready","decided":"","verdicts":[{"source":"ssh","up":true,'
    b'"at":5000.0,"weight":500,"reason":"half of it is ours","expires":5030.0},{"source":"connect","up":false,"at":5011.5,'
    b'"reason":"refused connections","expires":5016.5,"then":{"source":"connect","up":true,"at":5016.5,"weight":1,'
    b'"reason":"on trial: one job at a time; it refused connections","expires":5076.5}}],"leases":0,"granted":2,"held":1.5,'
    b'"evidence":{"pause":5.0,"failed":5011.5,"without":["10.0.0.9"],"sent":300,"received":60,"connected":1,'
    b'"connecting":0.25,"failures":{"refused":1}}}',
    "host/box": b'{"name":"box","slots":2,"rank":1,"options":"","address":["10.0.0.8",3632],"pools":["default"],"auto":false,'
    b'"position":1,"admin":"drain","decided":"fan broken","verdicts":[],"leases":1,"granted":1,"held":0.0,'
    b'"average":[0.08,5011.5]}',
    "totals": b'{"asked":4,"granted":3,"ended":2,"withdrawn":0,"refused":0,"waits":{"bounds":[0.01,0.03,0.1,0.3,1.0,3.0,10.0,'
    b'30.0,60.0,120.0,300.0,600.0],"counts":[0,0,1,0,0,0,0,0,0,0,0,0,0],"seconds":0.0625}}',
    "history": b'[{"lease":1764231010123456,"host":"snookles:3632","address":"10.0.0.9","port":4711,"asked":5000.0,'
    b'"granted":5000.0,"ended":5001.5,"outcome":"answered","waited":false},{"lease":1764231010123457,"host":"box",'
    b'"address":"10.0.0.9","port":4711,"key":"a build","pool":"arm","exclude":["snookles:3632"],"job":1764231010123456,'
    b'"since":5000.0,"only":"box","asked":5000.0,"granted":5011.5,"ended":5011.5,"outcome":"refused","waited":true}]',
    "activity": b'{"width":10.0,"bins":[[500,1.0,1,0.0,0]],"number":501,"looks":1,"active":2,"waiting":1,"most_active":2,'
    b'"most_waiting":1}',
}


def test_the_notes_of_the_first_version_are_understood() -> None:
    read = read_notes(FIRST)
    assert read.wrong == []
    trial = Verdict("connect", True, 5016.5, 1, "on trial: one job at a time; it refused connections", 5076.5)
    assert read.hosts == [
        CarriedHost(
            HostSpec("snookles:3632", 3, 0, ",lzo", ("10.0.0.7", 3632), ("default", "arm"), auto=True),
            verdicts=(
                Verdict("ssh", True, 5000.0, 500, "half of it is ours", 5030.0),
                Verdict("connect", False, 5011.5, None, "refused connections", 5016.5, trial),
            ),
            account=Account(5.0, 5011.5, frozenset({"10.0.0.9"}), 300, 60, 1, 0.25, {"refused": 1}),
            granted=2,
            held=1.5,
        ),
        CarriedHost(HostSpec("box", 2, 1, address=("10.0.0.8", 3632)), 1, AdminState.DRAIN, "fan broken", leases=1, granted=1),
    ]
    assert read.averages == {"box": (0.08, 5011.5)}
    assert read.totals == CarriedTotals(4, 3, 2, 0, 0, BOUNDS, (0, 0, 1, *[0] * 10), 0.0625)
    assert read.activity.hour() == [Bin(500, 1.0, 1, 0.0, 0), Bin(501, 2.0, 2, 1.0, 1)]
    history = History()
    history.take_up(read.history)
    (job,) = history.jobs()
    assert (job.id, job.address, job.port, job.pool) == (1764231010123456, "10.0.0.9", 4711, "default")
    first, second = job.attempts
    assert (first.lease, first.host, first.asked, first.granted, first.ended, first.outcome, first.waited) == (
        *(1764231010123456, "snookles:3632", 5000.0, 5000.0, 5001.5, Outcome.ANSWERED, None),
    )
    assert second.request == Request(
        *("10.0.0.9", 4711, "a build", "arm", ("snookles:3632",), 1764231010123456, 5000.0, "box"),
    )
    assert (second.outcome, second.waited) == (Outcome.REFUSED, UNKNOWN)


def test_when_counting_began_is_noted() -> None:
    old = Book()
    old.book.write_all()
    assert read_notes(old.notes).totals.since == 17.5
    # an earlier version did not say
    assert read_notes({"totals": b'{"asked": 3, "granted": 0}'}).totals.since is None
    assert read_notes({"totals": b'{"since": "yesterday"}'}).wrong
