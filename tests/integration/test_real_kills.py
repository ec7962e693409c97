"""``kill -9`` of the daemon at 45 random moments, and in the very turn in which clients come: who sees it, and what is said."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from distbal.loop import MOST_ACCEPTED
from tests.integration.crowded import NEW_ONES, crowded
from tests.relayed import PHASES
from tests.rooms import Room

#: kills at random moments, and in a flood of clients
KILLS, FLOODS = 45, 6
#: clients that come at once
FLOOD = 400


def test_kills_in_a_flood(tmp_path: Path) -> None:
    """The one exception: who was accepted in the very turn of the kill may be closed, having been told nothing.

    The daemon says how many they were: it knows them by their accounts, of which it writes each as the first thing.
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
        assert all(closed <= MOST_ACCEPTED and closed <= lost + 1 for closed, lost in cut), cut
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
        for number in range(KILLS):
            scene = scenes[number % 3]
            scene.kill_in(scene.dice.uniform(0, 0.3), *(other for other in scenes if other is not scene))
            scene.relayed.begin(PHASES[number % len(PHASES)], 2)
            if number % 7 == 6:
                scene.relayed.finish()
                scene.agree()
        for scene in scenes:
            scene.relayed.finish()
            scene.agree()
            scene.all_end()
        cut, told = (sum(getattr(scene.crowd, name) for scene in scenes) for name in ("cut", "told"))
        print(f"{cut} clients were closed in {KILLS} kills, {told} were told a host")  # noqa: T201
        assert cut <= KILLS * NEW_ONES
