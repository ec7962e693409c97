"""Reports for examples, in few words: what a daemon would answer."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from distbal.report import Client, HostReport, InsideReport, State, StatusReport

NOW = 1764230000.0

#: text as it may come from outside: long, wide, combining, with control characters and half characters
texts = st.text(st.characters(codec=None), max_size=60) | st.sampled_from(
    ["\x1b[2J", "a\nb", "宽" * 30, "e\u0301" * 9, "\ud800", "\u202e"]
)


def client(address: str = "10.0.0.9", port: int = 4711, seconds: float = 3.0, number: int = 7, pool: str = "default") -> Client:
    return {"id": number, "address": address, "port": port, "pool": pool, "seconds": seconds}


def host(name: str = "newbb:3632", state: State = "ready", **others: Any) -> HostReport:
    report: dict[str, Any] = {
        "name": name,
        "state": state,
        "why": "",
        "rank": 0,
        "slots": 4,
        "capacity": 0 if state in ("down", "failing", "off", "drain") else 4,
        "weight": 1.0,
        "used": 0,
        "options": "",
        "address": "10.0.0.7:3632",
        "pools": ["default"],
        "jobs": 0,
        "seconds": 0.0,
        "failures": {},
        "sent": 0,
        "received": 0,
        "said": [],
        "monitors": [],
        "differs": [],
        "clients": [],
    }
    assert set(others) <= set(report)
    return report | others  # type: ignore[return-value]


def monitor(**others: Any) -> dict[str, Any]:
    report = {
        "source": "ssh",
        "kind": "ssh",
        "up": True,
        "weight": 0.5,
        "reason": "half of it is ours",
        "facts": {"load": 1.25, "cpus": 8},
        "at": NOW - 4,
        "took": 0.0123,
        "trouble": "",
        "checks": 20,
        "failed": 1,
        "troubled": 0,
        "late": 0,
        "bugs": 0,
        "paused_until": None,
    }
    assert set(others) <= set(report)
    return report | others


def inside(**others: Any) -> InsideReport:
    report: dict[str, Any] = {
        "bugs": {"connection": 0, "page": 0},
        "bounds": {"clients": 0, "web": 0},
        "room": 900,
        "lag": {"mean": 0.001, "most": 0.003, "minute": 0.012, "worst": 0.2},
        "log_lost": 0,
        "log_trouble": "",
        "keeper": None,
        "lost": 0,
    }
    assert set(others) <= set(report)
    return report | others  # type: ignore[return-value]


def status(*waiters: Client, **totals: Any) -> StatusReport:
    sums: dict[str, Any] = {"hosts": 3, "out": 1, "slots": 16, "capacity": 12, "used": 5}
    sums |= {"waiting": len(waiters), "longest_wait": max((one["seconds"] for one in waiters), default=0.0)} | totals
    return {
        "version": 1,
        "distbal": "1.2",
        "at": NOW,
        "started": NOW - 273 * 60,
        "policy": "fastest-first",
        "order": "fair",
        "totals": sums,  # type: ignore[typeddict-item]
        "counts": {"asked": 10, "granted": 8, "ended": 3, "withdrawn": 0, "refused": 0},
        "inside": inside(),
        "ports": {"balance": ["0.0.0.0:5656", "[::]:5656"], "admin": ["unix:/run/distbal/admin.sock"], "web": []},
        "image": {
            "version": "1.2",
            "pid": 812,
            "began": "start",
            "at": NOW - 273 * 60,
            "before": "",
            "taken_up": {},
            "trouble": "",
        },
        "waiters": list(waiters),
    }
