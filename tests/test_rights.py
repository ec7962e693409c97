"""What others on this machine may do with distbal's files, and it refuses to go by: each with what would mend it.

Beside these: the manhole's two files in test_manhole_keys.py, the keys of ssh in test_monitor_ssh_keys.py, what snmp reads in
test_monitor_snmp_values.py, hosts.yaml in test_monitorconfig.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import HostnameAddress, IPv4Address, UNIXAddress
from twisted.internet.endpoints import quoteStringArgument

from distbal.access import AccessList
from distbal.decisions import Decisions
from distbal.endpointkeys import private_key
from distbal.errors import DistbalError, ListenError, MonitorTrouble
from distbal.listeners import Opened
from distbal.listenspec import Listener, parse
from distbal.monitors.sshlink import MOST_KNOWN_HOSTS, Files, _as_known_hosts
from distbal.ports import peer_of_transport
from distbal.saver import keep
from distbal.state import StateFile
from tests.services import Lines


@pytest.mark.parametrize("mode", [0o777, 0o702, 0o1777])
def test_a_state_directory_in_which_everybody_may_write(tmp_path: Path, mode: int) -> None:
    """What somebody drained would be free again, by whoever writes another file there."""
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(mode)
    words = f"everybody may write in the state directory {state}, and so undo what people decided: chmod o-w {state}"
    words += ", or name a new directory in it"
    with pytest.raises(DistbalError) as caught:
        keep(str(state), wanted=True)
    assert str(caught.value) == words
    with Lines() as lines:
        # nobody asked for this one
        kept = keep(str(state), wanted=False)
    assert lines.of("warn") == [f"{words}; decisions hold until a restart"]
    kept.close()
    state.chmod(0o770)
    keep(str(state), wanted=True).close()


def test_a_state_that_everybody_may_write(tmp_path: Path) -> None:
    state = StateFile(str(tmp_path))
    state.save(Decisions(), [])
    Path(state.path).chmod(0o666)
    with pytest.raises(DistbalError) as caught:
        state.load()
    words = f"everybody may write {state.path}: see that it says what people decided, and then chmod 600 {state.path}"
    assert str(caught.value) == words
    Path(state.path).chmod(0o640)
    assert state.load() == (Decisions(), [])


def test_a_known_hosts_that_everybody_may_write(tmp_path: Path) -> None:
    """Whoever writes it can be any host."""
    known = tmp_path / "known_hosts"
    known.touch()
    known.chmod(0o606)
    with pytest.raises(MonitorTrouble) as caught:
        Files().read(str(known), MOST_KNOWN_HOSTS, _as_known_hosts)
    assert str(caught.value) == f"cannot be told from an impostor: everybody may write {known} (chmod o-w {known})"
    known.chmod(0o644)
    assert Files().read(str(known), MOST_KNOWN_HOSTS, _as_known_hosts).kinds("box", 22) == []


@pytest.mark.parametrize("kind", ["web", "proxy"])
def test_a_tls_key_that_everybody_may_read(tmp_path: Path, kind: str) -> None:
    key = tmp_path / "key.pem"
    key.write_text("a key")
    at = f"ssl:0:privateKey={key}:certKey={key}"
    for mode in (0o644, 0o602):
        key.chmod(mode)
        with pytest.raises(ListenError) as caught:
            Opened(Listener(kind, parse(at)))
        assert str(caught.value) == f"cannot listen on {at}: everybody may read its private key {key}: chmod o= {key}"
    key.chmod(0o640)
    Opened(Listener(kind, parse(at)))


@pytest.mark.parametrize(
    ("description", "path"),
    [
        ("ssl:443", "server.pem"),
        ("ssl:port=443:certKey=c.pem", "server.pem"),
        ("ssl:443:/etc/key.pem:c.pem", "/etc/key.pem"),
        ("haproxy:ssl:443:privateKey=/etc/key.pem", "/etc/key.pem"),
        (r"ssl:443:privateKey=/etc/a\:b\\c.pem", r"/etc/a:b\c.pem"),
        ("tcp:443:interface=privateKey", None),
        ("haproxy:tcp:443", None),
        ("systemd:domain=INET:index=0", None),
    ],
)
def test_where_the_key_of_an_endpoint_is(description: str, path: str | None) -> None:
    assert private_key(description) == path


@given(st.text(min_size=1, max_size=60))
def test_any_path_of_a_key_is_found(path: str) -> None:
    quoted = quoteStringArgument(path)  # type: ignore[no-untyped-call]
    assert private_key(f"ssl:443:privateKey={quoted}:certKey=/etc/c.pem") == path


@given(st.text(max_size=80))
def test_any_endpoint_has_a_key_or_none(description: str) -> None:
    found = private_key(description)
    assert found is None or isinstance(found, str)


def test_who_has_no_address_is_let_in_by_its_file_or_by_nothing() -> None:
    """Third parties' endpoints have addresses of their own kinds: that nothing is known of one lets nobody in."""
    everybody, private = AccessList.parse(["any"]), AccessList.parse(["loopback", "private"])
    assert peer_of_transport(UNIXAddress("/run/socket")) == ("", 0)
    assert peer_of_transport(IPv4Address("TCP", "10.0.0.7", 4711)) == ("10.0.0.7", 4711)
    for address in (HostnameAddress(b"box.invalid", 4711), object()):
        host, _ = peer_of_transport(address)  # type: ignore[arg-type]
        assert host == "?"
        assert everybody.allows(host)
        assert not private.allows(host)
