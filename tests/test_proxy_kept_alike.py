"""With a keeper, spliced sessions do all that they do without: the tests of those are run again, with one."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet import reactor

from distbal.keeping import Keeping
from distbal.ledger import Ledger
from tests import (
    test_proxy_ends,
    test_proxy_marks,
    test_proxy_servers,
    test_proxy_sessions,
    test_proxy_slow,
    test_proxy_stops,
    test_proxy_unheard,
)
from tests.keepers import Holder
from tests.proxies import RELAYS, House

_MODULES = (
    test_proxy_ends,
    test_proxy_marks,
    test_proxy_servers,
    test_proxy_sessions,
    test_proxy_slow,
    test_proxy_stops,
    test_proxy_unheard,
)
#: they count what the reactor looks at, and the keeper's side is among that
_NOT_THESE = ("test_the_end_leaves_nothing_in_whatever_state",)


@pytest.fixture(autouse=True)
def with_a_keeper(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each house has one."""
    made: list[tuple[Keeping, Holder]] = []

    def keeping() -> Keeping:
        holder = Holder()
        channel = holder.channel()
        channel.setblocking(False)
        made.append((Keeping(reactor, channel, Ledger(), lambda: None), holder))
        return made[-1][0]

    monkeypatch.setattr(House, "keepings", staticmethod(keeping))
    yield
    for one, holder in made:
        one.flush()
        one.stop()
        holder.close()
        one.ledger.close()


def _spliced_alone(test: Callable[..., Any]) -> Callable[..., Any]:
    """The same test, for sessions that are spliced."""
    marks = []
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "parametrize" and "relay" in str(mark.args[0]) and mark.args[1] == list(RELAYS):
            marks.append(pytest.mark.parametrize("relay", ["spliced"]).mark)
        else:
            marks.append(mark)
    copy = types.FunctionType(test.__code__, test.__globals__, test.__name__, test.__defaults__, test.__closure__)
    copy.__dict__.update(test.__dict__)
    copy.__kwdefaults__ = test.__kwdefaults__
    copy.pytestmark = marks  # type: ignore[attr-defined]
    return copy


for _module in _MODULES:
    for _name, _test in vars(_module).items():
        if _name.startswith("test_") and isinstance(_test, types.FunctionType) and _name not in _NOT_THESE:
            globals()[f"{_name}_{_module.__name__.rpartition('_')[2]}"] = _spliced_alone(_test)
