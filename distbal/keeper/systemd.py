"""What systemd is told (sd_notify(3)), and what it keeps while the whole unit restarts (systemd.io/FILE_DESCRIPTOR_STORE).

Its descriptor store is for a few: inside PID 1 each new descriptor is compared with all that are stored. So what is held goes
into the queue of a pair of sockets, as packets nobody has read yet, and systemd stores the pair. Both ends, since an end whose
other is closed would be thrown away (POLLHUP). What the keeper knows besides goes into a memfd.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import select
import socket
import stat
from typing import TYPE_CHECKING, NamedTuple

from distbal.keeper import channel
from distbal.keeperwire import MAX_DESCRIPTORS, Give, from_keeper, give

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from distbal.keeper.holding import Holdings
    from distbal.keeperwire import Key

#: the name that what is stored has
NAME = "distbal"
#: the first descriptor that systemd passes: sd_listen_fds(3), SD_LISTEN_FDS_START
FIRST = 3
#: descriptors that it passes, at most
MOST = 4096
#: how long systemd may take to read a message, and all of them, in seconds
PATIENCE = 5.0
#: bytes of what the keeper knows besides, at most
LONGEST = 16 << 20


class Systemd:
    """What may be said to systemd, by the environment that it made; nothing where there is none.

    :ivar watchdog: how often it wants to hear that all is well, in seconds; None: not at all. Half of what it would stand.
    :ivar stores: whether it keeps descriptors for this unit. systemd since 254 says so by itself ($FDSTORE); where it is older,
        the unit says it: ``Environment=DISTBAL_FDSTORE=1``.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._environment = environment
        address = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the zero byte of an abstract address
        self._address = {"/": address, "@": "\0" + address[1:]}.get(address[:1])
        self.watchdog: float | None = None
        # a $WATCHDOG_PID that is another process's is one that we were not meant to inherit
        if self._address and environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            with contextlib.suppress(KeyError, ValueError):
                self.watchdog = int(environment["WATCHDOG_USEC"]) / 2e6 or None
        stores = environment.get("FDSTORE") or environment.get("DISTBAL_FDSTORE") or "0"
        self.stores = bool(self._address) and stores.isdigit() and int(stores) > 0

    def tell(self, *lines: str, descriptors: Sequence[int] = (), patience: float = 0.0) -> bool:
        """Send one message.

        :param patience: for how long to wait where systemd has not read the last ones yet, in seconds.
        :returns: whether it was sent; nothing depends on most of them.
        """
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(patience)
                sock.connect(self._address)
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
                sock.sendmsg(["\n".join(line.replace("\n", " ") for line in lines).encode(errors="replace")], rights)
        except OSError:
            return False
        return True

    def barrier(self) -> bool:
        """Wait until systemd has read all that it was told: sd_notify_barrier(3).

        :returns: whether it has.
        """
        reading, writing = os.pipe()
        try:
            try:
                sent = self.tell("BARRIER=1", descriptors=[writing], patience=PATIENCE)
            finally:
                os.close(writing)
            poll = select.poll()
            poll.register(reading, 0)
            return sent and bool(poll.poll(PATIENCE * 1000))
        finally:
            os.close(reading)

    def store(self, holdings: Holdings, state: bytes) -> int:
        """Let systemd keep all that is held.

        :param state: what :meth:`take_up` gives back with it.
        :returns: how many of the descriptors it has now.
        :raises OSError: it has none of them.
        """
        sockets: list[socket.socket] = []
        stored = 0
        memory = memory_of(state)
        try:
            keys = holdings.keys()
            for start in range(0, len(keys), MAX_DESCRIPTORS):
                some = keys[start : start + MAX_DESCRIPTORS]
                if not _queue(sockets, some, [holdings.descriptor(key) or 0 for key in some]):
                    break
                stored += len(some)
            kept = [memory, *[sock.fileno() for sock in sockets]]
            for start in range(0, len(kept), MAX_DESCRIPTORS):
                some_kept = kept[start : start + MAX_DESCRIPTORS]
                if not self.tell("FDSTORE=1", f"FDNAME={NAME}", descriptors=some_kept, patience=PATIENCE):
                    raise OSError(errno.ENOTCONN, "systemd cannot be told")
            if not self.barrier():
                raise OSError(errno.ETIMEDOUT, f"systemd has not taken them within {PATIENCE:g} s")
        finally:
            os.close(memory)
            for sock in sockets:
                sock.close()
        return stored

    def take_up(self) -> Stored | None:
        """What systemd kept; None where it kept nothing. It forgets it, and other sockets that it opened are left in place."""
        names, environment = [], self._environment
        if environment.get("LISTEN_PID") == str(os.getpid()):
            said = environment.get("LISTEN_FDS", "")
            number = min(int(said), MOST) if said.isdigit() else 0
            names = environment.get("LISTEN_FDNAMES", "unknown").split(":")[:number]
            names += ["unknown"] * (number - len(names))
        ours = [FIRST + index for index, name in enumerate(names) if name == NAME]
        # systemd passes the sockets that it opened first
        others = names[: ours[0] - FIRST] if ours else names
        for name in ("LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"):
            environment.pop(name, None)
        if others:
            environment.update(
                {"LISTEN_FDS": str(len(others)), "LISTEN_FDNAMES": ":".join(others), "LISTEN_PID": str(os.getpid())}
            )
        if not ours:
            return None
        stored = Stored(b"", [], [])
        for descriptor in ours:
            os.set_inheritable(descriptor, False)
            stored = _unpack(descriptor, stored)
        self.tell("FDSTOREREMOVE=1", f"FDNAME={NAME}", patience=PATIENCE)
        return stored


class Stored(NamedTuple):
    """What systemd kept.

    :ivar state: what was given to :meth:`Systemd.store`; empty where it is lost.
    """

    state: bytes
    keys: list[Key]
    descriptors: list[int]


def memory_of(state: bytes) -> int:
    """A memfd with this in it, which can be read from its start."""
    memory = os.memfd_create("distbal-keeper", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(memory), "wb") as file:
            file.write(state)
        os.lseek(memory, 0, os.SEEK_SET)
    except BaseException:
        os.close(memory)
        raise
    return memory


def read_memory(memory: int) -> bytes:
    """All that is in a memfd."""
    size = min(os.fstat(memory).st_size, LONGEST)
    return os.pread(memory, size, 0)


def _queue(sockets: list[socket.socket], keys: list[Key], descriptors: list[int]) -> bool:
    """Put one packet into the queue of the last pair, or of a new one; whether it could be."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    for fresh in (False, True):
        if fresh:
            sockets.extend(channel.pair())
        if sockets:
            try:
                sockets[-2].sendmsg([give(keys)], rights, socket.MSG_DONTWAIT)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                    return False
            else:
                return True
    return False


def _unpack(descriptor: int, stored: Stored) -> Stored:
    """Add what is in one stored descriptor, and close it."""
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        state = read_memory(descriptor)
        os.close(descriptor)
        return stored._replace(state=state)
    keys, descriptors = list(stored.keys), list(stored.descriptors)
    with socket.socket(fileno=descriptor) as sock:
        size = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
        while True:
            try:
                packet, ancillary, _, _ = sock.recvmsg(1 << 16, size, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
            except OSError:
                break  # BlockingIOError: no more
            came = array.array("i", b"".join(data for _, _, data in ancillary))
            if not packet:
                break
            said = from_keeper(packet)
            if isinstance(said, Give):
                # as many as could be received
                keys += said.keys[: len(came)]
                descriptors += came
    return Stored(stored.state, keys, descriptors)
