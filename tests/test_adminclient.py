"""The client of the admin socket: what it sends, and its sentence for everything that may be at the other end."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from distbal import adminclient
from distbal.adminclient import Connection, NoDaemonError, NotPermittedError, RefusedError
from distbal.errors import DistbalError, WireError


@contextmanager
def answering(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A socket where one connection is answered so, in a thread."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            answer(connection)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield str(path)
        finally:
            thread.join()


def says(text: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(text)

    return answer


def fails(path: Path, text: bytes) -> DistbalError:
    with answering(path, says(text)) as where, Connection(where) as daemon, pytest.raises(DistbalError) as caught:
        daemon.ask(["hosts"])
    return caught.value


def test_questions_follow_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            for line in lines:
                asked.append(json.loads(line))
                # both at once, in pieces that end in the middle
                connection.sendall(b'{"ok": true, "ans')
                connection.sendall(b'wer": {"number": %d}}\n' % len(asked))

    monkeypatch.delenv("SUDO_USER", raising=False)
    with answering(tmp_path / "s", answer) as where, Connection(where) as daemon:
        assert daemon.ask(["drain", "newbb", "fan bröken\udcff"]) == {"number": 1}
        monkeypatch.setenv("SUDO_USER", "alice")
        assert daemon.ask(["hosts"]) == {"number": 2}
    assert asked == [{"words": ["drain", "newbb", "fan bröken\udcff"]}, {"words": ["hosts"], "for": "alice"}]


def test_what_the_daemon_cannot_do(tmp_path: Path) -> None:
    error = fails(tmp_path / "a", b'{"ok": false, "error": "no host is called that", "usage": false}\n')
    assert isinstance(error, RefusedError)
    assert (str(error), error.usage) == ("no host is called that", False)
    error = fails(tmp_path / "b", b'{"ok": false, "error": "hosts?", "usage": true}\n')
    assert isinstance(error, RefusedError)
    assert error.usage


@pytest.mark.parametrize(
    "text",
    [
        b"SSH-2.0-OpenSSH_9.2\n",
        b"{}\n",
        b"[]\n",
        b"7\n",
        b'{"ok": true, "answer": []}\n',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b"\n",
    ],
)
def test_something_else_listens_there(text: bytes, tmp_path: Path) -> None:
    error = fails(tmp_path / "s", text)
    assert isinstance(error, WireError)
    assert "is not distbal's admin socket: it says" in str(error)


def test_it_closes(tmp_path: Path) -> None:
    assert str(fails(tmp_path / "a", b"")) == f"{tmp_path}/a closed without an answer; its log may say why"
    assert str(fails(tmp_path / "b", b'{"ok"')) == f"{tmp_path}/b broke off in its answer; its log may say why"


def test_an_answer_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adminclient, "LARGEST_ANSWER", 1 << 20)

    def answer(connection: socket.socket) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            while True:
                connection.sendall(b"x" * 65536)

    with answering(tmp_path / "s", answer) as where, Connection(where) as daemon:
        with pytest.raises(WireError, match="answers with more than 1 MiB"):
            daemon.ask(["hosts"])
        daemon.close()


def test_it_does_not_answer(tmp_path: Path) -> None:
    def answer(connection: socket.socket) -> None:
        while connection.recv(1000):
            pass

    with answering(tmp_path / "s", answer) as where, Connection(where, 0.1) as daemon:
        with pytest.raises(DistbalError) as caught:
            daemon.ask(["hosts"])
        daemon.close()
    assert str(caught.value) == (
        f"distbal at {where} did not answer within 0.1 s: it is stopped, or busy; its log may say with what"
    )


def _crowd(path: str, stack: ExitStack) -> None:
    for _ in range(10):
        stack.enter_context(Connection(path, 0.1))


def test_its_queue_is_full(tmp_path: Path) -> None:
    """As of a daemon that is stopped (SIGSTOP): the kernel takes connections until its queue is full."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        with ExitStack() as taken, pytest.raises(DistbalError, match="takes no connection: it is stopped, or busy"):
            _crowd(path, taken)


def test_nobody_is_there(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(NoDaemonError) as caught:
        Connection(str(path))
    assert str(caught.value) == f"there is no {path}: is distbal running, and does listen.admin in its hosts.yaml say so?"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    with pytest.raises(NoDaemonError, match=f"nobody listens on {path}: is distbal running"):
        Connection(str(path))
    with pytest.raises(DistbalError, match="path too long"):
        Connection("/" + "x" * 200)
    with pytest.raises(DistbalError, match=f"{tmp_path}: "):
        Connection(str(tmp_path))


def not_permitted(path: Path | str) -> str:
    """Nothing is forbidden to root, so that the error is made by hand; the socket's group is real."""
    error = adminclient._not_connected(str(path), PermissionError(13, "Permission denied"), 5)
    assert isinstance(error, NotPermittedError)
    return str(error)


def test_it_is_not_for_you(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0)
        if os.getuid() != 0:
            with pytest.raises(NotPermittedError, match=f"you may not connect to {path}: its mode keeps its group out"):
                Connection(str(path))
        else:
            os.chown(path, -1, 0)
            assert not_permitted(path) == f"you may not connect to {path}: only root may; use sudo"
            os.chown(path, -1, 54321)
            assert not_permitted(path) == (
                f"you may not connect to {path}: you are not in the group 54321 (usermod -aG 54321 YOU, and a new login),"
                " and sudo is another way"
            )
    assert not_permitted("/none").endswith(": ask whoever runs distbal, or use sudo")


def test_a_request_has_an_end(tmp_path: Path) -> None:
    with (
        answering(tmp_path / "s", lambda connection: None) as where,
        Connection(where) as daemon,
        pytest.raises(RefusedError, match="at most 64 KiB"),
    ):
        daemon.ask(["hosts", "x" * 70_000])


def test_where_the_socket_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTBAL_ADMIN", raising=False)
    assert adminclient.default_path() == "/run/distbal/admin.sock"
    monkeypatch.setenv("DISTBAL_ADMIN", "/elsewhere")
    assert adminclient.default_path() == "/elsewhere"
