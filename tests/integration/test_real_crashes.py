"""``kill -9`` of the daemon under its keeper, again and again: no lease, place, session or byte is lost.

The one exception is looked for too: a client that was accepted in the very turn of the kill, and was told nothing, may be
closed.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.integration.crowded import NEW_ONES, Scene, crowded
from tests.relayed import FREE, PHASES, Sizes
from tests.rooms import Room

#: kills of a full daemon, and of one where clients come and go all the time: 50 together
FULL, BUSY = 5, 45
#: bytes of the long transfer, each way; and how often the daemon is killed meanwhile
LONG, KILLS = 210_000_000, 10


def killed(scene: Scene, after: float, *others: Scene) -> None:
    """Kill it in so many seconds, and wait for the next one; clients come and go all the time, those of others too."""
    end = scene.room.now() + after
    scene.meanwhile(lambda: scene.room.now() >= end, "the moment", *others)
    before = scene.daemon.kill()
    assert before
    scene.meanwhile(lambda: scene.daemon.pid not in (0, before), "another daemon", *others)


def test_kills_of_a_full_daemon(tmp_path: Path) -> None:
    """With 2,000 clients and 200 sessions in every phase. Those that wait keep their order and age, leases their numbers."""
    with crowded(tmp_path, supervised=True) as scene:
        scene.crowd.tolerant = True
        for number in range(FULL):
            before = scene.sight()
            if number == FULL - 1:
                scene.begin_connecting()
            killed(scene, scene.dice.uniform(0, 0.2))
            scene.relayed.deaf.open_up()
            scene.agree()
            scene.same(before)
        assert scene.crowd.cut <= FULL * NEW_ONES
        scene.all_end()


def test_kills_at_random_moments(tmp_path: Path) -> None:
    """Clients come and go, sessions begin and end. Three daemons at once, so that one serves while another is killed."""
    with ExitStack() as stack:
        room = stack.enter_context(Room())
        scenes = []
        for number in range(3):
            (directory := tmp_path / str(number)).mkdir()
            scenes.append(stack.enter_context(crowded(directory, supervised=True, clients=200, seed=number, room=room)))
        for scene in scenes:
            scene.crowd.tolerant = True
        for number in range(BUSY):
            scene = scenes[number % 3]
            killed(scene, scene.dice.uniform(0, 0.3), *(other for other in scenes if other is not scene))
            scene.relayed.begin(PHASES[number % len(PHASES)], 2)
            if number % 7 == 6:
                scene.relayed.finish()
                scene.agree()
        for scene in scenes:
            scene.relayed.finish()
            scene.agree()
            scene.all_end()
        cut, told = (sum(getattr(scene.crowd, name) for scene in scenes) for name in ("cut", "told"))
        print(f"{cut} clients were closed in {BUSY} kills, {told} were told a host")  # noqa: T201
        assert cut <= BUSY * NEW_ONES


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
