"""What an SNMP agent's values mean, and what may stand in hosts.yaml behind ``snmp``. In memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from zope.interface.verify import verifyClass

from distbal.errors import MonitorTrouble
from distbal.interfaces import IHostMonitor, IHostMonitorFactory, Target
from distbal.loads import CpuTimes
from distbal.monitors.answers import Trouble, silence
from distbal.monitors.snmp import SnmpKind, SnmpMonitor, SnmpOptions
from distbal.monitors.snmpaccess import Credentials
from distbal.monitors.snmpvalues import (
    CACHED,
    CPU_TIMES,
    FREE,
    LOAD,
    MEMORY,
    WRAP,
    Counters,
    Look,
    Value,
    busy,
    memory,
)
from distbal.monitors.watch import Assignment

# -- values


def times(*numbers: Value) -> dict[tuple[int, ...], Value]:
    return dict(zip(CPU_TIMES, numbers, strict=False))


def test_a_look() -> None:
    look = Look.parse({**times(1, 2, 3, 4, 5, 6, 7, 8), LOAD: 105})
    assert look == Look(CpuTimes(user=1, nice=2, system=3, idle=4, iowait=5, irq=6, softirq=7, steal=8), False, 1.05)


@pytest.mark.parametrize("missing", [None, b"12", -1, WRAP])
def test_what_is_not_there_is_unknown(missing: Value) -> None:
    assert Look.parse({**times(1, missing, 3, 4), LOAD: missing}) == Look()
    assert Look.parse({}) == Look()
    assert Look.parse(times(1, 2, 3, 4, missing)) == Look(CpuTimes(1, 2, 3, 4))  # as old agents have it


def test_all_zeros_are_none_yet() -> None:
    assert Look.parse(times(*[0] * 8)) == Look(None, fresh=True)


def test_memory() -> None:
    assert memory({MEMORY: 4 << 20, FREE: 1 << 20, CACHED: 512 << 10}) == {"memory_mb": 4096, "free_mb": 1536}
    assert memory({MEMORY: None, FREE: 1 << 20, CACHED: None}) == {"free_mb": 1024}
    assert memory({}) == {}


@pytest.mark.parametrize(
    ("rows", "told"),
    [([50, 100], (1.5, 2)), ([0], (0.0, 1)), ([], None), ([50, None], None), ([50, 101], None), ([-1], None), ([b"5"], None)],
)
def test_processors(rows: list[Value], told: object) -> None:
    assert busy(rows) == told


def idle(number: int) -> CpuTimes:
    return CpuTimes(user=10, nice=0, system=0, idle=number)


def test_counters_go_on_over_their_end() -> None:
    counters = Counters()
    assert counters.take(idle(WRAP - 100), 0.0) == idle(WRAP - 100)
    assert counters.take(idle(200), 3.0) == idle(WRAP + 200)
    assert counters.take(idle(300), 4.0) == idle(WRAP + 300)


def test_a_restart_is_no_step() -> None:
    counters = Counters()
    for before in (5000, WRAP // 2 + 5000):  # the second would be a long way forward
        counters = Counters()
        counters.take(CpuTimes(before, 0, before, before), 0.0)
        assert counters.take(CpuTimes(2, 0, 1, 3), 15.0) == CpuTimes(before, 0, before, before)
        assert counters.take(CpuTimes(3, 0, 1, 5), 30.0) == CpuTimes(before + 1, 0, before, before + 2)


def test_a_small_step_back_is_one() -> None:
    counters = Counters()
    counters.take(CpuTimes(0, 0, 0, 100, iowait=50), 0.0)
    assert counters.take(CpuTimes(0, 0, 0, 200, iowait=48), 1.0) == CpuTimes(0, 0, 0, 200, iowait=48)


def test_a_look_without_times_changes_nothing() -> None:
    counters = Counters()
    assert counters.take(None, 0.0) is None
    counters.take(idle(100), 1.0)
    assert counters.take(None, 2.0) == idle(100)
    assert counters.take(idle(300), 3.0) == idle(300)


@given(st.integers(0, WRAP - 1), st.lists(st.integers(0, 10_000), min_size=1, max_size=20))
def test_the_sum_of_all_steps_is_told(start: int, steps: list[int]) -> None:
    counters = Counters()
    total: CpuTimes | None = counters.take(idle(start), 0.0)
    for number in range(len(steps)):
        total = counters.take(idle((start + sum(steps[: number + 1])) % WRAP), float(number + 1))
    assert total == idle(start + sum(steps))


# -- options


def options(**given: Any) -> SnmpOptions:
    return SnmpOptions.model_validate(given)


V3: dict[str, Any] = {"version": 3, "user": "mon"}


def test_what_it_is_without_any() -> None:
    plain = options()
    assert (plain.port, plain.version, plain.interval, plain.timeout, plain.weight_by) == (161, "2c", 15, 5, "cpu")
    assert Credentials.of(plain) == Credentials("2c", community=b"public")


@pytest.mark.parametrize(
    ("written", "version"), [(3, "3"), ("3", "3"), ("v3", "3"), ("2c", "2c"), (2, "2c"), ("v2c", "2c"), ("SNMPv2c", "2c")]
)
def test_versions_as_people_write_them(written: object, version: str) -> None:
    given = {"user": "mon"} if version == "3" else {}
    assert options(version=written, **given).version == version


def test_a_user_who_signs_and_encrypts() -> None:
    hides = options(**V3, auth="SHA-256", auth_passphrase="authauth", privacy="AES-256", privacy_passphrase="privpriv")
    told = Credentials.of(hides)
    assert told == Credentials("3", b"", "mon", "sha256", b"authauth", "aes256", b"privpriv")
    assert told.level == 3


def test_what_has_no_passphrase_is_not_used() -> None:
    assert Credentials.of(options(**V3)) == Credentials("3", user="mon")
    signs = Credentials.of(options(**V3, auth_passphrase="authauth"))
    assert signs == Credentials("3", user="mon", auth="sha", auth_passphrase=b"authauth")
    assert (Credentials.of(options(**V3)).level, signs.level) == (1, 2)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"version": 1}, "1 is none of 2c, 3: it has no way to say that a value is missing"),
        ({"version": 2.5}, "2.5 is none of 2c, 3"),
        ({"version": True}, "true is none of 2c, 3"),
        ({"port": 0}, "0 is no port: 1 to 65535 is wanted"),
        ({"community": ""}, "nothing stands here: a community is a text, or file:/PATH of a file that holds it"),
        ({"community": None}, "community is missing: version 2c of the protocol needs one"),
        (
            {"community": 4711},
            "no text to YAML: a community is a text, or file:/PATH of a file that holds it; put it in quotes",
        ),
        ({"community": "file:secret"}, '"file:secret" names no file: file:/PATH is wanted, from the root on'),
        ({"user": "mon"}, "user belongs to version 3 of the protocol: write version: 3, or leave user out"),
        ({"version": 3}, "user is missing: version 3 of the protocol needs one"),
        ({"version": 3, "user": "x" * 33}, "is no user: SNMP's users have names of 1 to 32 characters"),
        (V3 | {"community": "public"}, "community belongs to version 2c of the protocol"),
        (V3 | {"auth": "sha"}, "auth_passphrase is missing: auth: sha does nothing without it"),
        (V3 | {"auth": "MD5"}, '"MD5" is none of sha, sha224, sha256, sha384, sha512: an agent that knows md5 knows sha too'),
        (V3 | {"privacy": "des"}, '"des" is none of aes, aes192, aes256: agents that know it know aes'),
        (V3 | {"privacy_passphrase": "privpriv"}, "auth_passphrase is missing: SNMP does not encrypt what is not signed"),
        (V3 | {"auth_passphrase": "authauth", "privacy": "aes"}, "privacy_passphrase is missing"),
        (V3 | {"auth_passphrase": "secret!"}, "7 characters are too few: a passphrase is a text of at least 8 characters"),
        ({"weight_by": "moon"}, '"moon" is none of cpu, loadavg'),
    ],
)
def test_mistakes(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        options(**given)
    (mistake,) = caught.value.errors()
    assert sentence in str(mistake["ctx"]["error"])
    assert "secret!" not in str(mistake["ctx"]["error"])


def test_secrets_are_not_shown() -> None:
    hides = options(**V3, auth_passphrase="authauth", privacy_passphrase="privpriv")
    shown = f"{hides!r} {hides} {Credentials.of(hides)!r} {options(community='letmein')!r} {hides.model_dump()}"
    assert not [secret for secret in ("authauth", "privpriv", "letmein") if secret in shown]


# -- files


def secret_file(path: Path, content: bytes, mode: int = 0o640) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return f"file:{path}"


def test_a_secret_in_a_file(tmp_path: Path) -> None:
    community = secret_file(tmp_path / "community", b"letmein\nand no more\n")
    assert Credentials.of(options(community=community)).community == b"letmein"
    assert str(tmp_path) not in repr(options(community=community))


@pytest.mark.parametrize(
    ("content", "mode", "trouble"),
    [
        (b"passphrase\n", 0o644, "is not asked: everybody may use the secret in {} (chmod o= {})"),
        (b"short\n", 0o600, "cannot be asked: in the first line of {}, 5 characters are too few"),
        (b"", 0o600, "cannot be asked: in the first line of {}, nothing stands here"),
        (b"passphrase\0\n", 0o600, "cannot be asked: in the first line of {}, there are characters in it"),
        (b"x" * 1_000_000, 0o600, "cannot be asked: in the first line of {}, 4096 characters are too many"),
    ],
)
def test_a_file_that_is_not_to_be_used(tmp_path: Path, content: bytes, mode: int, trouble: str) -> None:
    path = tmp_path / "secret"
    given = options(**V3, auth_passphrase=secret_file(path, content, mode))
    with pytest.raises(MonitorTrouble) as caught:
        Credentials.of(given)
    assert str(caught.value).startswith(trouble.format(path, path))
    assert "passphrase" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, trouble in ("none", "cannot be read: No such file or directory"), ("pipe", "is no file"):
        with pytest.raises(MonitorTrouble, match=f"cannot be asked: {tmp_path / name} {trouble}"):
            Credentials.of(options(community=f"file:{tmp_path / name}"))


# -- the kind


def test_it_is_what_the_contract_wants() -> None:
    verifyClass(IHostMonitorFactory, SnmpKind)
    verifyClass(IHostMonitor, SnmpMonitor)


def test_what_silence_may_mean() -> None:
    assert silence(Assignment(Target("alpha", "alpha", 3632), "snmp", SnmpKind(), options())) == Trouble(
        "did not answer within 5 s: is snmpd there, and does it know this community (or user and passphrases)?"
    )


@pytest.mark.parametrize(
    ("indication", "sentence"),
    [
        ("UnsupportedSecurityLevel", "does not let mon in like this (auth: sha, no privacy_passphrase)"),
        ("DecryptionError", "cannot read what mon says"),
        ("NotInTimeWindow", "does not agree with itself what time it is"),
        ("UnknownEngineID", "has another SNMP engine ID than a while ago"),
        ("SomethingNew", "cannot be asked: it is new"),
    ],
)
def test_refusals_in_words(indication: str, sentence: str) -> None:
    assert Credentials("3", user="mon", auth="sha").why_refused(indication, "it is new").startswith(sentence)


def test_errors_in_words() -> None:
    assert Credentials("2c").why_not_told("genErr") == "answers with an error: genErr"
    assert Credentials("2c").why_not_told("noAccess") == "does not let this community read anything"
