"""Asks SNMP agents, by pysnmp. All of this runs in the asyncio loop's thread, and is imported there: that takes a while.

pysnmp's ``hlapi`` is one layer too high here. Below it are the primitives of RFC 3412 (``send_pdu`` and
``release_state_information``), with which a question that nobody waits for any more leaves nothing behind; with the layer above
it stays until its timeout, and a host stays in its tables for good. What else has to be known of pysnmp 7:

- an engine takes 80 ms to make, so all hosts with the same credentials share one. The same user with two passphrases in one
  engine spoils both, so other credentials get another.
- what it knows of an agent's clock it forgets 300 s after *each* answer, so that from the sixth minute on every question is
  first refused and then asked again (:class:`_UserSecurity`).
- it takes datagrams from anybody, and what does not parse may raise anything (:class:`_Guarded`).
- it drops what an agent says under a new name (engine ID), as one does that was installed anew: :data:`_NotUnderstood`.
- its timers go by the wall clock, so what has to be in time is timed here.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pyasn1.type import univ
from pysnmp.carrier.asyncio.dgram.udp import DOMAIN_NAME as UDP
from pysnmp.carrier.asyncio.dgram.udp import UdpAsyncioTransport
from pysnmp.carrier.asyncio.dgram.udp6 import DOMAIN_NAME as UDP6
from pysnmp.carrier.asyncio.dgram.udp6 import Udp6AsyncioTransport
from pysnmp.carrier.asyncio.dispatch import AsyncioDispatcher
from pysnmp.entity import config
from pysnmp.entity.engine import SnmpEngine
from pysnmp.error import PySnmpError
from pysnmp.proto import errind
from pysnmp.proto.api import v2c
from pysnmp.proto.error import StatusInformation
from pysnmp.proto.secmod.base import AbstractSecurityModel
from pysnmp.proto.secmod.rfc3414.service import SnmpUSMSecurityModel

from distbal.errors import MonitorTrouble
from distbal.lookup import Place
from distbal.monitors import snmpmessages
from distbal.monitors.snmpaccess import Credentials
from distbal.monitors.snmpvalues import Oid, Value

#: seconds after which a question without an answer is sent again: UDP loses some
AGAIN = 2.0
#: bytes of a datagram; a question of ours has an answer of some hundred
MOST_BYTES = 4096
#: datagrams of a host that do not answer a question before no more are looked at
MOST_RUBBISH = 4
#: times that an agent may want something of the protocol said first: its name (engine ID), its clock
MOST_TIMES = 4
#: rows of a table in one answer, and altogether
ROWS, MOST_ROWS = 64, 2048

#: seconds from one look at pysnmp's caches to the next, the most that it allows; and how many of these are EXPIRY seconds
TICK = 10.0
EXPIRY_TICKS = int(300 / TICK)

_AUTH = {
    "": config.USM_AUTH_NONE,
    "sha": config.USM_AUTH_HMAC96_SHA,
    "sha224": config.USM_AUTH_HMAC128_SHA224,
    "sha256": config.USM_AUTH_HMAC192_SHA256,
    "sha384": config.USM_AUTH_HMAC256_SHA384,
    "sha512": config.USM_AUTH_HMAC384_SHA512,
}
#: the longer keys as net-snmp makes them (draft-blumenthal-aes-usm-04), not as Cisco does
_PRIVACY = {
    "": config.USM_PRIV_NONE,
    "aes": config.USM_PRIV_CFB128_AES,
    "aes192": config.USM_PRIV_CFB192_AES_BLUMENTHAL,
    "aes256": config.USM_PRIV_CFB256_AES_BLUMENTHAL,
}
#: what an agent answers to before it answers the question
_PRELIMINARY = (errind.unknownEngineID, errind.notInTimeWindow)


class Engine:
    """pysnmp's engine for one set of credentials, and its sockets. It is made in the loop's thread."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._loop = asyncio.get_running_loop()
        self._transports: dict[Oid, _Guarded] = {}
        self._opening = asyncio.Lock()
        self._questions: dict[tuple[Oid, ...], Any] = {}
        #: how often an address has turned out to be another agent's than before
        self._agents: Counter[Any] = Counter()
        self.snmp = SnmpEngine(maxMessageSize=MOST_BYTES)
        self.snmp.message_processing_subsystems.update({1: snmpmessages.Version2c(), 3: snmpmessages.Version3()})
        self.snmp.security_models[_UserSecurity.SECURITY_MODEL_ID] = _UserSecurity()
        dispatcher = AsyncioDispatcher(loop=self._loop)
        dispatcher.set_timer_resolution(TICK)
        self.snmp.register_transport_dispatcher(dispatcher)
        if credentials.version == "3":
            config.add_v3_user(
                self.snmp,
                credentials.user,
                _AUTH[credentials.auth],
                credentials.auth_passphrase or None,
                _PRIVACY[credentials.privacy],
                credentials.privacy_passphrase or None,
            )
            # message processing model, security model, and whom they know by what name at which security level
            self.model: tuple[Any, ...] = 3, 3, univ.OctetString(credentials.user), credentials.level
        else:
            config.add_v1_system(self.snmp, "distbal", credentials.community, transportTag=b"", securityName="distbal")
            self.model = 1, 2, univ.OctetString("distbal"), 1

    def close(self) -> None:
        """Let go of all sockets."""
        self.snmp.close_dispatcher()

    async def get(self, place: Place, oids: tuple[Oid, ...]) -> dict[Oid, Value]:
        """Ask for these values.

        It asks again every :data:`AGAIN` seconds, for as long as nobody cancels it.

        :param oids: the same ones again and again, as the question is kept.
        :raises MonitorTrouble: the agent does not let us in, or answers what cannot be understood, or we cannot ask.
        """
        question = self._questions.get(oids)
        if question is None:
            question = self._questions[oids] = snmpmessages.get(oids)
        values = await self._answer(place, question)
        if [oid for oid, _ in values] != list(oids):
            raise MonitorTrouble("answers other questions than those it is asked")
        return dict(values)

    async def column(self, place: Place, oid: Oid) -> list[Value]:
        """Ask for all values of a column of a table, at most :data:`MOST_ROWS`; raises as :meth:`get` does."""
        rows: list[Value] = []
        last = oid
        while len(rows) < MOST_ROWS:
            answers = await self._answer(place, snmpmessages.get_bulk(last, ROWS))
            for name, value in answers:
                if name[: len(oid)] != oid or name <= last or value is None:
                    return rows  # the end of the column, or of all; or nonsense
                rows.append(value)
                last = name
            if not answers:
                break
        return rows

    async def _answer(self, place: Place, question: Any) -> list[tuple[Oid, Value]]:
        """The values of the answer to a question."""
        domain, transport = await self._transport(place[0])
        for _ in range(MOST_TIMES):
            # what pysnmp knows of the agent, by this; the last part is only for that
            address = (*place[1], self._agents[place])
            try:
                problem, answer = await _Asking(self, domain, transport, address, question).outcome()
            except _NotUnderstood:
                self._agents[place] += 1
                raise
            if problem is None:
                return self._values(question, answer)
            indication = problem.get("errorIndication")
            if indication not in _PRELIMINARY:
                break
        raise MonitorTrouble(self._credentials.why_refused(type(indication).__name__, str(indication)))

    def _values(self, question: Any, answer: Any) -> list[tuple[Oid, Value]]:
        api = v2c.apiPDU
        status = int(api.get_error_status(answer))
        if status:
            raise MonitorTrouble(self._credentials.why_not_told(api.get_error_status(answer).prettyPrint()))
        if api.get_request_id(answer) != api.get_request_id(question):
            raise MonitorTrouble("answers other questions than those it is asked")
        try:
            return snmpmessages.answers(answer)
        except ValueError as problem:
            raise MonitorTrouble(f"answers what cannot be read: {problem}") from problem

    async def _transport(self, family: int) -> tuple[Oid, _Guarded]:
        """The socket for such addresses, opened with the first of them."""
        domain, kind = (UDP6, _GuardedUdp6) if family == socket.AF_INET6 else (UDP, _GuardedUdp)
        transport = self._transports.get(domain)
        if transport is None:
            async with self._opening:
                transport = self._transports.get(domain)
                if transport is None:
                    transport = await self._open(domain, kind(loop=self._loop), family)
        return domain, transport

    async def _open(self, domain: Oid, transport: _Guarded, family: int) -> _Guarded:
        try:
            await self._loop.create_datagram_endpoint(lambda: transport, family=family)
        except OSError as problem:
            raise MonitorTrouble(f"cannot be asked by this machine: {_words(problem)}") from problem
        self.snmp.transport_dispatcher.register_transport(domain, transport)
        self._transports[domain] = transport
        return transport


def _words(problem: Exception) -> str:
    return str(getattr(problem, "strerror", None) or problem)


class _NotUnderstood(MonitorTrouble):
    """Something came that pysnmp makes nothing of. Next time we ask as if for the first time: for its name, its clock."""


class _Asking:
    """A question on its way, sent as often as it takes.

    :ivar address: where to, and the number of the agent there.
    :ivar rubbish: datagrams of the host that brought no answer.
    """

    def __init__(self, engine: Engine, domain: Oid, transport: _Guarded, address: tuple[Any, ...], question: Any) -> None:
        self._engine = engine
        self._domain, self._transport, self.address = domain, transport, address
        self._question = question
        self._handles: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self.future: asyncio.Future[tuple[Any, Any]] = asyncio.get_running_loop().create_future()
        self.rubbish = 0

    async def outcome(self) -> tuple[Any, Any]:
        """What is wrong, a pysnmp StatusInformation, or None; and the answer, a PDU."""
        self._transport.expect(self)
        try:
            self._send()
            return await self.future
        finally:
            self._transport.forget(self)
            if self._timer is not None:
                self._timer.cancel()
            for handle in self._handles:
                self._engine.snmp.message_dispatcher.release_state_information(self._engine.snmp, handle, self._engine.model[0])

    def _send(self) -> None:
        self._timer = self.future.get_loop().call_later(AGAIN, self._again)
        snmp = self._engine.snmp
        try:
            handle = snmp.message_dispatcher.send_pdu(
                *(snmp, self._domain, self.address, *self._engine.model, None, b"", 1, self._question, True),
                *(float("inf"), self._told, None),
            )
        except StatusInformation as problem:
            self._tell((problem, None))
        except PySnmpError as problem:
            self._fail(MonitorTrouble(f"cannot be asked: {str(problem)[-150:]}"))
        else:
            self._handles.append(handle)
            if self._transport.problem is not None:
                self._fail(MonitorTrouble(f"cannot be asked by this machine: {_words(self._transport.problem)}"))

    def _again(self) -> None:
        if self.rubbish:
            self._fail(_NotUnderstood("answers, but not what an SNMP agent would with these credentials"))
        else:
            self._send()

    def _told(self, *arguments: Any) -> None:
        """The process_response_pdu of RFC 3412: ..., the PDU, what was wrong, the handle, our own None."""
        *_, answer, problem, _, _ = arguments
        self._tell((problem, answer))

    def _tell(self, result: tuple[Any, Any]) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def _fail(self, problem: MonitorTrouble) -> None:
        if not self.future.done():
            self.future.set_exception(problem)


class _Guarded(asyncio.DatagramProtocol):
    """A UDP socket of pysnmp's that only hears whom it has asked, and survives what it hears.

    :ivar problem: why the last datagram could not be sent, if so.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)  # type: ignore[call-arg]
        self._asking: dict[tuple[Any, ...], list[_Asking]] = {}
        self.problem: Exception | None = None

    def expect(self, asking: _Asking) -> None:
        """Listen to this host, for a question."""
        self._asking.setdefault(asking.address[:-1], []).append(asking)

    def forget(self, asking: _Asking) -> None:
        """The question is over."""
        others = self._asking[asking.address[:-1]]
        others.remove(asking)
        if not others:
            del self._asking[asking.address[:-1]]

    def datagram_received(self, datagram: bytes, address: tuple[Any, ...]) -> None:
        waiting = [one for one in self._asking.get(address, ()) if not one.future.done()]
        if len(datagram) <= MOST_BYTES and any(one.rubbish < MOST_RUBBISH for one in waiting):
            with suppress(Exception):  # whatever it was that pysnmp stumbled over, it is no answer
                self._callback_function(self, waiting[-1].address, datagram)  # type: ignore[attr-defined]
        if all(not one.future.done() for one in waiting):
            for one in waiting:
                one.rubbish += 1

    def normalize_address(self, address: Sequence[Any]) -> Any:
        """The address itself; all of it, as pysnmp would lose the interface of a link-local one."""
        return self.ADDRESS_TYPE(address[:-1])  # type: ignore[attr-defined]

    def send_message(self, datagram: bytes, address: tuple[Any, ...]) -> None:
        self.problem = None
        super().send_message(datagram, address)  # type: ignore[misc]

    def error_received(self, exc: Exception) -> None:
        self.problem = exc


class _GuardedUdp(_Guarded, UdpAsyncioTransport):  # type: ignore[misc]
    pass


class _GuardedUdp6(_Guarded, Udp6AsyncioTransport):  # type: ignore[misc]
    pass


class _UserSecurity(SnmpUSMSecurityModel):  # type: ignore[misc]
    """The user-based security model of RFC 3414, which forgets agents' clocks only now and then.

    As pysnmp has it, each answer says that the clock is to be forgotten 300 s later, and no later answer takes that back. Here
    the time of its caches stands still, and takes :data:`EXPIRY_TICKS` steps at once in place of one every two of these: all
    that was due meanwhile is forgotten in one go.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ticks = 0

    def receive_timer_tick(self, engine: Any, now: float) -> None:
        self._ticks += 1
        if self._ticks % (2 * EXPIRY_TICKS) == 0:
            for _ in range(EXPIRY_TICKS):
                super().receive_timer_tick(engine, now)
            # what it notes of a message serves while that is looked at; some that are refused it does not strike out
            AbstractSecurityModel.__init__(self)
