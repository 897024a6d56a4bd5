"""Process events from the kernel's proc connector (drivers/connector/cn_proc.c): fork, exec, comm, exit."""

from __future__ import annotations

import errno
import os
import secrets
import select
import socket
import struct
import threading
import time
from collections.abc import Iterable

from msgspec import Struct

from harness.errors import HostError

NETLINK_CONNECTOR = 11  # linux/netlink.h
CN_IDX_PROC = 1  # linux/connector.h; also the multicast group
SO_RCVBUFFORCE = 33  # asm-generic/socket.h; Python has no name for it
ANSWER_S = 0.5  # it comes before send returns
RECEIVE_BUFFER_BYTES = 8 * 1024 * 1024
SEQUENCE = 1 << 32  # messages are counted in a u32, for each CPU on its own
NO_CPU = SEQUENCE - 1  # of an acknowledgement, which is no event
# struct nlmsghdr, struct cn_msg and the head of struct proc_event (linux/netlink.h, connector.h, cn_proc.h): the
# message's seq and ack, then what, cpu and timestamp_ns
MESSAGE = struct.Struct("=16x8xII4xIIQ")
# a fork: parent's task and thread group, child's task and thread group; the others: task, thread group, more
IDS = struct.Struct("=4I")
KINDS = {
    0x1: "fork",
    0x2: "exec",
    0x4: "uid",
    0x40: "gid",
    0x80: "sid",
    0x100: "ptrace",
    0x200: "comm",
    0x40000000: "coredump",
    0x80000000: "exit",
}


class Batch(Struct, frozen=True):
    """What the kernel has sent, as it came, so that taking it costs little."""

    datagrams: tuple[bytes, ...]
    overrun: bool  # the kernel had to drop something


class ProcessEvent(Struct, frozen=True):
    """One event. `what` is fork, exec, comm, exit, or another of the kernel's names in lower case."""

    what: str
    pid: int  # the thread group
    time_ns: int  # CLOCK_MONOTONIC
    parent: int | None = None  # of a fork: the thread group of the new task's parent
    comm: str | None = None
    thread: int | None = None  # the task; other than `pid` for a thread that is no leader


class ProcessEvents:
    """Collects events, either in a thread between `start` and `stop`, or in the socket's buffer until it is drained.

    They are decoded at the end, so collecting costs little. As a context manager it starts and stops the thread.
    Raises HostError where there is no proc connector: it needs CAP_NET_ADMIN and the initial pid namespace.
    pyroute2 makes the message that asks for them; its own socket reads them only inside an event loop.
    """

    def __init__(self, buffer_bytes: int = RECEIVE_BUFFER_BYTES) -> None:
        self.lost = 0  # events that the kernel had to drop; at least that many, when the last ones are among them
        self._datagrams: list[bytes] = []
        self._overrun = False
        self._unseen = 0  # of `lost`: known by an overrun only, whose gap has not shown yet
        self._sequence: dict[int, int] = {}  # {CPU: number of its last message}
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_CONNECTOR)
        except OSError as error:
            raise HostError(f"no process events here: {error.strerror or error}") from None
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
            self._socket.bind((0, CN_IDX_PROC))
            self._socket.setblocking(False)
            number = secrets.randbits(31)
            self._listen(True, number)
            self._expect_answer(number)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer_bytes)
        except OSError as error:
            self._socket.close()
            raise HostError(f"no process events here: {error.strerror or error}") from None
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._collect, name="process-events", daemon=True)

    def _expect_answer(self, number: int) -> None:
        """The connector answers in the initial pid and user namespace only (cn_proc_mcast_ctl).

        The answer goes to all listeners, as the events do, so it is known by its number alone.
        """
        deadline = time.monotonic() + ANSWER_S
        while True:
            self._receive()
            for datagram in self._datagrams:
                if len(datagram) >= MESSAGE.size and MESSAGE.unpack_from(datagram)[1:3] == (number + 1, 0):
                    return
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._socket], [], [], left)[0]:
                raise OSError(errno.EPERM, "the proc connector does not answer outside of the initial pid namespace")

    def _listen(self, on: bool, number: int = 0) -> None:
        from pyroute2.netlink import NLMSG_DONE
        from pyroute2.netlink.connector import cn_proc

        message = cn_proc.proc_event_control()
        message["header"]["type"] = NLMSG_DONE
        message["idx"], message["val"], message["len"] = cn_proc.CN_IDX_PROC, cn_proc.CN_VAL_PROC, 4
        message["ack"] = number
        message["action"] = cn_proc.PROC_CN_MCAST_LISTEN if on else cn_proc.PROC_CN_MCAST_IGNORE
        message.encode()
        self._socket.send(message.data)

    def _receive(self) -> None:
        while True:
            try:
                self._datagrams.append(self._socket.recv(65536))
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._overrun = True

    def _collect(self) -> None:
        events = self._socket.fileno()
        while True:
            ready, _, _ = select.select([events, self._wake], [], [])
            if events in ready:
                self._receive()
            elif self._wake in ready:
                return

    def drain(self) -> Batch:
        """What has come since the last call, undecoded; for use without the thread.

        It must fit into the socket's buffer: about one event in a KiB.
        """
        self._receive()
        batch = Batch(tuple(self._datagrams), self._overrun)
        self._datagrams.clear()
        self._overrun = False
        return batch

    def decode(self, batch: Batch) -> list[ProcessEvent]:
        """The events of a batch in the kernel's order; batches come in their own order. `lost` grows accordingly."""
        events, missing = decode_events(batch.datagrams, self._sequence)
        if missing:
            self.lost += max(0, missing - self._unseen)
            self._unseen = 0
        if batch.overrun:  # its own gap shows with the next event of that CPU, mostly in a later batch
            self.lost += 1
            self._unseen += 1
        return events

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> list[ProcessEvent]:
        """All events until now, in the kernel's order."""
        if self._thread.is_alive():
            os.write(self._waker, b".")
            self._thread.join()
        try:
            self._listen(False)
            return self.decode(self.drain())
        finally:
            self._socket.close()
            os.close(self._wake)
            os.close(self._waker)

    def __enter__(self) -> ProcessEvents:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket.fileno() >= 0:
            self.stop()


def decode_events(datagrams: Iterable[bytes], sequence: dict[int, int] | None = None) -> tuple[list[ProcessEvent], int]:
    """(the events in netlink datagrams of the proc connector, how many are missing between them).

    Acknowledgements and unknown kinds are left out. `sequence` has each CPU's last number, and is brought up to date.
    Not with pyroute2's parser: it raises for a command name that is not UTF-8, and anybody may have one.
    """
    last = {} if sequence is None else sequence
    events = []
    missing = 0
    for datagram in datagrams:
        if len(datagram) < MESSAGE.size:
            continue
        number, _, kind, cpu, time_ns = MESSAGE.unpack_from(datagram)
        if cpu == NO_CPU:
            continue
        if cpu in last:
            missing += (number - last[cpu] - 1) % SEQUENCE
        last[cpu] = number
        what = KINDS.get(kind)
        if what is None or len(datagram) < MESSAGE.size + IDS.size:
            continue
        first, second, third, fourth = IDS.unpack_from(datagram, MESSAGE.size)
        if what == "fork":
            events.append(ProcessEvent(what, fourth, time_ns, second, None, third))
        else:
            name = datagram[MESSAGE.size + 8 : MESSAGE.size + 24].partition(b"\0")[0] if what == "comm" else None
            comm = None if name is None else name.decode(errors="backslashreplace")
            events.append(ProcessEvent(what, second, time_ns, None, comm, first))
    return events, missing
