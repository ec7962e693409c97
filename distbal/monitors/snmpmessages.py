"""Messages of which pysnmp leaves the values to us: half of what a check costs would be its general reader's, value by value.

pysnmp still does all the rest: it writes and reads the message, signs, encrypts, finds the question to an answer. Only where it
would take the list of values apart, there stands ASN.1's ANY here, which is taken as it is. Of the forms that BER knows for the
list, only the one that agents use is understood: definite lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pyasn1.codec.ber.encoder import encode
from pyasn1.type import namedtype, univ
from pysnmp.proto import rfc1905
from pysnmp.proto.api import v2c
from pysnmp.proto.mpmod import rfc2576, rfc3412

from distbal.monitors.snmpvalues import Oid, Value

#: BER's tags: INTEGER, OCTET STRING, OBJECT IDENTIFIER and SEQUENCE; RFC 2578's Counter32, Gauge32, TimeTicks and Counter64
_INTEGER, _OCTETS, _OID, _SEQUENCE = 0x02, 0x04, 0x06, 0x30
_UNSIGNED = frozenset({0x41, 0x42, 0x43, 0x46})


class _Values(univ.Any):  # type: ignore[misc]
    """The list, in BER."""

    def clear(self) -> None:
        """What is done to the list of a new PDU, which is empty as it is."""


_EMPTY = _Values(b"\x30\x00")


def _pdu(base: Any) -> Any:
    """The same PDU with a list of values that is not looked into."""
    parts = [base.componentType[number] for number in range(3)]
    parts.append(namedtype.NamedType("variable-bindings", _EMPTY))
    return type(base.__name__, (base,), {"componentType": namedtype.NamedTypes(*parts)})


GetRequest, GetBulkRequest = _pdu(rfc1905.GetRequestPDU), _pdu(rfc1905.GetBulkRequestPDU)


class _Pdus(univ.Choice):  # type: ignore[misc]
    componentType = namedtype.NamedTypes(
        namedtype.NamedType("get-request", GetRequest()),
        namedtype.NamedType("get-bulk-request", GetBulkRequest()),
        namedtype.NamedType("response", _pdu(rfc1905.ResponsePDU)()),
        namedtype.NamedType("report", rfc1905.ReportPDU()),  # pysnmp's own business
    )


def _with(base: Any, number: int, name: str, part: Any) -> Any:
    """A sequence, or choice, with another type for one of its components."""
    parts = [base.componentType[other] for other in range(len(base.componentType))]
    parts[number] = namedtype.NamedType(name, part)
    return type(base.__name__, (base,), {"componentType": namedtype.NamedTypes(*parts)})


_ScopedPdu = _with(rfc3412.ScopedPDU, 2, "data", _Pdus())
_ScopedPduData = _with(rfc3412.ScopedPduData, 0, "plaintext", _ScopedPdu())


class Version3(rfc3412.SnmpV3MessageProcessingModel):  # type: ignore[misc]
    """pysnmp's version 3, with these PDUs."""

    SNMP_MSG_SPEC = _with(rfc3412.SNMPv3Message, 3, "msgData", _ScopedPduData())


class Version2c(rfc2576.SnmpV2cMessageProcessingModel):  # type: ignore[misc]
    """pysnmp's version 2c, with these PDUs."""

    SNMP_MSG_SPEC = _with(v2c.Message, 2, "data", _Pdus())


def get(oids: Sequence[Oid]) -> Any:
    """A question for these values."""
    question = GetRequest()
    v2c.apiPDU.set_defaults(question)
    return _with_names(question, oids)


def get_bulk(oid: Oid, rows: int) -> Any:
    """A question for so many values behind this one."""
    question = GetBulkRequest()
    v2c.apiBulkPDU.set_defaults(question)
    v2c.apiBulkPDU.set_non_repeaters(question, 0)
    v2c.apiBulkPDU.set_max_repetitions(question, rows)
    return _with_names(question, [oid])


def _with_names(question: Any, oids: Sequence[Oid]) -> Any:
    whole = rfc1905.GetRequestPDU()
    v2c.apiPDU.set_defaults(whole)
    v2c.apiPDU.set_varbinds(whole, [(v2c.ObjectIdentifier(oid), v2c.null) for oid in oids])
    question.setComponentByPosition(3, _Values(encode(whole.getComponentByPosition(3))))
    return question


def answers(answer: Any) -> list[tuple[Oid, Value]]:
    """The names and values of an answer; ValueError where they cannot be read."""
    kind, content, rest = _part(bytes(answer.getComponentByPosition(3)))
    if kind != _SEQUENCE or rest:
        raise ValueError("no list")
    told = []
    while content:
        kind, pair, content = _part(content)
        name_kind, name, value = _part(pair)
        if kind != _SEQUENCE or name_kind != _OID:
            raise ValueError("no name and value")
        kind, number, rest = _part(value)
        if rest:
            raise ValueError("more than a name and value")
        told.append((_oid(name), _value(kind, number)))
    return told


def _part(data: bytes) -> tuple[int, bytes, bytes]:
    """A tag of one byte, its content, and what follows."""
    if len(data) < 2:
        raise ValueError("the end comes early")
    length, begin = data[1], 2
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(data[2:begin], "big")
    if (begin == 2 and data[1] & 0x80) or begin + length > len(data):
        raise ValueError("a length without end, or beyond it")
    return data[0], data[begin : begin + length], data[begin + length :]


def _value(kind: int, content: bytes) -> Value:
    if kind == _INTEGER or kind in _UNSIGNED:
        if not 0 < len(content) <= 9:
            raise ValueError("no number")
        return int.from_bytes(content, "big", signed=kind == _INTEGER)
    return content if kind == _OCTETS else None


@lru_cache(1024)
def _oid(content: bytes) -> Oid:
    if not content or content[-1] & 0x80 or len(content) > 128:
        raise ValueError("no name")
    numbers, number = [], 0
    for byte in content:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return (first, numbers[0] - 40 * first, *numbers[1:])
