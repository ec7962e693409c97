"""The list of values in an SNMP message, read without pysnmp: the same as pysnmp reads, and no more than there is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pysnmp")

from pyasn1.codec.ber.encoder import encode
from pysnmp.proto import rfc1905
from pysnmp.proto.api import v2c

from distbal.monitors import snmpmessages
from distbal.monitors.snmpvalues import Oid, Value


class Answer:
    """What pysnmp hands on: a PDU with the list in its fourth place."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def getComponentByPosition(self, place: int) -> bytes:
        assert place == 3
        return self._content


def read(content: bytes) -> list[tuple[Oid, Value]]:
    return snmpmessages.answers(Answer(content))


def written(pairs: list[tuple[Oid, Any]]) -> bytes:
    """By pysnmp."""
    pdu = v2c.ResponsePDU()
    v2c.apiPDU.set_defaults(pdu)
    v2c.apiPDU.set_varbinds(pdu, [(v2c.ObjectIdentifier(oid), value) for oid, value in pairs])
    return bytes(encode(pdu.getComponentByPosition(3)))


oids = st.tuples(st.just(1), st.just(3), *[st.integers(0, 2**32 - 1)] * 4)
values = st.one_of(
    st.integers(-(2**31), 2**31 - 1).map(lambda number: (v2c.Integer32(number), number)),
    st.integers(0, 2**32 - 1).map(lambda number: (v2c.Counter32(number), number)),
    st.integers(0, 2**32 - 1).map(lambda number: (v2c.Gauge32(number), number)),
    st.integers(0, 2**64 - 1).map(lambda number: (v2c.Counter64(number), number)),
    st.binary(max_size=300).map(lambda text: (v2c.OctetString(text), text)),
    st.sampled_from(
        [(rfc1905.noSuchObject, None), (rfc1905.noSuchInstance, None), (rfc1905.endOfMibView, None), (v2c.null, None)]
    ),
)


@given(st.lists(st.tuples(oids, values), max_size=20))
def test_what_pysnmp_writes_is_read(pairs: list[tuple[Oid, tuple[Any, Value]]]) -> None:
    content = written([(oid, value) for oid, (value, _) in pairs])
    assert read(content) == [(oid, plain) for oid, (_, plain) in pairs]


@given(st.data())
def test_a_part_of_it_is_refused(data: st.DataObject) -> None:
    content = written([((1, 3, 6, 1), v2c.Counter32(4711)), ((2, 999, 3), v2c.OctetString(b"x" * 200))])
    with pytest.raises(ValueError):
        read(content[: data.draw(st.integers(0, len(content) - 1))])


@given(st.binary(max_size=200))
def test_rubbish_is_refused_or_read(content: bytes) -> None:
    for bytes_ in content, b"\x30" + bytes([len(content) & 0x7F]) + content[:127]:
        try:
            assert isinstance(read(bytes_), list)
        except ValueError as problem:
            assert str(problem)  # noqa: PT017 (whichever of the two it is)


@pytest.mark.parametrize(
    "content",
    [
        b"\x30\x80\x00\x00",  # a length without end
        b"\x30\x84\xff\xff\xff\xff",  # one of 4 GB
        b"\x30\x00\x00",  # more behind it
        b"\x30\x07\x30\x05\x06\x01\x2b\x02\x00",  # a number without bytes
        b"\x30\x07\x30\x05\x06\x01\xab\x05\x00",  # a name without end
        b"\x30\x06\x30\x04\x06\x00\x05\x00",  # no name
        b"\x30\x09\x30\x07\x06\x01\x2b\x05\x00\x05\x00",  # two values
        b"\x30\x06\x04\x04\x06\x00\x05\x00",  # no pair
    ],
)
def test_wrong_ones(content: bytes) -> None:
    with pytest.raises(ValueError):
        read(content)
