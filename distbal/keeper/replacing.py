"""New code of the keeper itself: what it knows is written into memory, and exec starts the new code in the same process.

Descriptors and the daemon outlive an exec; what they are has to be told. A trial in another process comes before it: the new
code reads what it would be told, and says whether it understands.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any, NamedTuple

from distbal.keeper.child import Life, ended, interpreter, spawn
from distbal.keeper.past import Past
from distbal.keeper.systemd import memory_of, read_memory

#: where the new code finds the descriptor of that memory
VARIABLE = "DISTBAL_KEEPER_STATE"
#: what is written; a version that is not known is refused in the trial
VERSION = 1
#: seconds that a trial may take
TRIAL = 20.0
#: bytes of what a trial said that are repeated
LONGEST = 500


class State(NamedTuple):
    """All that the keeper knows. Times are seconds of the monotonic clock where nothing else is said.

    :ivar held: id, role and descriptor of each thing.
    :ivar channel: the descriptor of the channel to the daemon; None for none.
    :ivar life: the daemon that runs; None for none.
    :ivar start: when the next one is to be started; None where one runs.
    :ivar past: of the daemons before.
    :ivar signals: that have come and are not dealt with.
    """

    held: list[tuple[int, int, int]]
    channel: int | None
    life: Life | None
    start: float | None
    past: Past
    signals: list[int]


def write(state: State) -> bytes:
    """The state as bytes that :func:`read` understands."""
    content = state._asdict() | {"version": VERSION, "life": state.life and state.life._asdict(), "past": state.past._asdict()}
    return json.dumps(content).encode()


def read(text: bytes) -> State:
    """The state that an earlier code, or the one of before a restart of the unit, has written.

    :raises ValueError: it is not understood.
    """
    try:
        content: dict[str, Any] = json.loads(text)
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']!r} of the keeper's state is not known, only {VERSION}")
        known = {name: content[name] for name in State._fields}
        known["life"] = known["life"] and Life(**{name: known["life"][name] for name in Life._fields})
        known["past"] = Past(**{name: known["past"][name] for name in Past._fields})
        known["held"] = [(int(number), int(role), int(descriptor)) for number, role, descriptor in content["held"]]
        return State(**known)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the keeper's state is not understood: {type(error).__name__}: {error}") from error


class Trial(NamedTuple):
    """A trial that runs.

    :ivar said: memory that its output goes to.
    :ivar deadline: when it will have taken too long.
    :ivar late: whether it has, and was killed.
    """

    pid: int
    said: int
    deadline: float
    late: bool = False

    def words(self, status: int) -> str:
        """What it said, the last of it, in one line, and where that is nothing how it ended; its memory is closed.

        :param status: of waitpid(2).
        """
        said = read_memory(self.said)[-LONGEST:].decode(errors="replace")
        os.close(self.said)
        if self.late:
            return f"it takes more than {TRIAL:g} s"
        return " / ".join(line.strip() for line in said.splitlines() if line.strip()) or f"it {ended(status)}"


def start_trial(state: State, now: float) -> Trial:
    """Let the code that is installed now read a state, in a process of its own.

    :raises OSError: it cannot be started.
    """
    memory, said = memory_of(write(state)), os.memfd_create("distbal-trial", os.MFD_CLOEXEC)
    os.set_inheritable(memory, True)
    try:
        pid = spawn([*interpreter("distbal.keeper"), "--trial"], {VARIABLE: str(memory)}, said)
    except OSError:
        os.close(said)
        raise
    finally:
        os.close(memory)
    return Trial(pid, said, now + TRIAL)


def state_of_before() -> State | None:
    """The state that the code before this one has left; None where there was none. What it describes is not inherited further.

    :raises ValueError: it is not understood.
    """
    number = os.environ.pop(VARIABLE, "")
    if not number.isdigit():
        return None
    memory = int(number)
    try:
        return read(read_memory(memory))
    finally:
        os.close(memory)


def inherited(descriptor: int) -> socket.socket:
    """A socket of the code before this one; it is not inherited further."""
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


def exec_new_code(state: State, arguments: list[str]) -> None:
    """Go on as the code that is installed now; signals have to be blocked. It returns only by raising.

    :param arguments: those of ``distbal supervise``.
    :raises OSError: it could not be done, and everything is as before, as it is after any other error.
    """
    memory = memory_of(write(state))
    descriptors = [memory, *[descriptor for _, _, descriptor in state.held]]
    descriptors += [] if state.channel is None else [state.channel]
    try:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, True)
        command = [*interpreter("distbal.keeper"), *arguments]
        os.execve(command[0], command, os.environ | {VARIABLE: str(memory)})  # noqa: S606  # no shell is wanted
    except BaseException:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        os.close(memory)
        raise
