"""``kill -9`` of the daemon under its keeper, again and again: no lease, place, session or byte is lost."""

from __future__ import annotations

import time
from pathlib import Path

from distbal.loop import BATCH, MOST_ACCEPTED
from tests.integration.crowded import crowded
from tests.relayed import FREE, Sizes

#: kills of a full daemon, and in a flood of so many clients; test_real_kills.py has the other 39 of 50
FULL, FLOODS, FLOOD = 5, 6, 400
#: bytes of the long transfer, each way; and how often the daemon is killed meanwhile
LONG, KILLS = 210_000_000, 10


def test_kills_of_a_full_daemon(tmp_path: Path) -> None:
    """With 2,000 clients and 200 sessions in every phase. Those that wait keep their order and age, leases their numbers."""
    with crowded(tmp_path, supervised=True) as scene:
        scene.crowd.tolerant = scene.relayed.tolerant = True
        for _ in range(FULL):
            before = scene.sight()
            scene.begin_connecting()
            scene.kill_in(scene.dice.uniform(0, 0.2))
            scene.relayed.let_connect()
            scene.agree()
            scene.same(before)
        assert scene.crowd.cut + scene.relayed.cut <= scene.daemon.lost + FULL
        scene.all_end()


def test_kills_in_a_flood(tmp_path: Path) -> None:
    """The one exception: who was accepted in the very turn of the kill may be closed, having been told nothing.

    The daemon says how many they were: it knows them by their accounts, which it writes first of all. So it may lack one.
    """
    with crowded(tmp_path, supervised=True, clients=100, seed=9) as scene:
        scene.crowd.tolerant = True
        cut = []
        for _ in range(FLOODS):
            # one that is killed before it has served for a second is started again after a pause, which grows
            scene.room.spend(1.0)
            pid, before = scene.daemon.pid, scene.crowd.cut
            scene.crowd.come(FLOOD)
            # not a turn of the room: what the daemon does in these moments nobody sees
            time.sleep(scene.dice.uniform(0, 0.002))
            scene.daemon.kill()
            scene.room.until(lambda pid=pid: scene.daemon.pid not in (0, pid), "another daemon")  # type: ignore[misc]
            scene.agree()
            cut.append((scene.crowd.cut - before, scene.reports.status()["inside"]["lost"]))
            scene.crowd.leave(scene.crowd.waiting)
            scene.agree()
        print(f"closed, and lost by the daemon's account, a kill: {cut}")  # noqa: T201
        assert all(closed <= min(lost + 1, BATCH + MOST_ACCEPTED) for closed, lost in cut), cut
        scene.all_end()


def test_a_long_transfer(tmp_path: Path) -> None:
    """210 MB each way at once, whose daemon is killed ten times on the way: the same bytes."""
    with crowded(tmp_path, supervised=True, clients=20) as scene:
        (session,) = scene.relayed.begin(FREE, 1, Sizes(LONG, LONG))
        for number in range(1, KILLS + 1):
            mark = LONG * number // (KILLS + 1)

            def reached(mark: int = mark) -> bool:
                return session.client.got >= mark or bool(scene.relayed.faults)

            scene.room.until(reached, f"byte {mark}")
            scene.check()
            assert not session.over
            before = scene.daemon.kill()
            scene.room.until(lambda before=before: scene.daemon.pid not in (0, before), "another daemon")  # type: ignore[misc]
            # a daemon that is killed before it has served for a second is started again after a pause, which grows
            session.stand_still()
            scene.reports.status()
            scene.room.spend(1.1)
            session.go_on()
        scene.room.until(lambda: session.over or bool(scene.relayed.faults), "the end of the transfer")
        scene.check()
        assert session.client.got == LONG
        scene.all_end()
