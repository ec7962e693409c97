"""``kill -9`` of the daemon at 39 random moments, while clients come and go, and sessions begin and end."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.integration.crowded import crowded
from tests.relayed import PHASES
from tests.rooms import Room

#: of 50; test_real_crashes.py has the others
KILLS = 39


def test_kills_at_random_moments(tmp_path: Path) -> None:
    """Clients come and go, sessions begin and end. Three daemons at once, so that one serves while another is killed."""
    with ExitStack() as stack:
        room = stack.enter_context(Room())
        scenes = []
        for number in range(3):
            (directory := tmp_path / str(number)).mkdir()
            scenes.append(stack.enter_context(crowded(directory, supervised=True, clients=200, seed=number, room=room)))
        for scene in scenes:
            scene.crowd.tolerant = scene.relayed.tolerant = True
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
        reset = sum(scene.relayed.cut for scene in scenes)
        lost = sum(scene.daemon.lost for scene in scenes)
        print(  # noqa: T201
            f"in {KILLS} kills {cut} clients were closed and {reset} sessions reset, {lost} by the daemons' account;"
            f" {told} clients were told a host"
        )
        assert cut + reset <= lost + KILLS
