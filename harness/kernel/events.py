"""Process events from the kernel's proc connector (drivers/connector/cn_proc.c): fork, exec, comm, exit."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from dataclasses import dataclass

from harness.errors import HostError

NETLINK_CONNECTOR = 11  # linux/netlink.h
CN_IDX_PROC = 1  # linux/connector.h; also the multicast group
SO_RCVBUFFORCE = 33  # asm-generic/socket.h; Python has no name for it
RECEIVE_BUFFER_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ProcessEvent:
    """One event. `what` is fork, exec, comm, exit, or another of the kernel's names in lower case."""

    what: str
    pid: int  # the thread group
    time_ns: int  # CLOCK_MONOTONIC
    parent: int | None = None  # of a fork
    comm: str | None = None


class ProcessEvents:
    """Collects events in a thread between `start` and `stop`; they are decoded at the end, so collecting costs little.

    As a context manager it starts and stops. Raises HostError where there is no proc connector: it needs CAP_NET_ADMIN
    and the initial pid namespace. pyroute2 knows the messages; its own socket reads them only inside an event loop.
    """

    def __init__(self) -> None:
        self.lost = 0  # times the kernel had to drop events (ENOBUFS)
        self._datagrams: list[bytes] = []
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_CONNECTOR)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
            self._socket.bind((0, CN_IDX_PROC))
            self._listen(True)
        except OSError as error:
            raise HostError(f"no process events here: {error.strerror or error}") from None
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._collect, name="process-events", daemon=True)

    def _listen(self, on: bool) -> None:
        from pyroute2.netlink import NLMSG_DONE
        from pyroute2.netlink.connector import cn_proc

        message = cn_proc.proc_event_control()
        message["header"]["type"] = NLMSG_DONE
        message["idx"], message["val"], message["len"] = cn_proc.CN_IDX_PROC, cn_proc.CN_VAL_PROC, 4
        message["action"] = cn_proc.PROC_CN_MCAST_LISTEN if on else cn_proc.PROC_CN_MCAST_IGNORE
        message.encode()
        self._socket.send(message.data)

    def _collect(self) -> None:
        events = self._socket.fileno()
        while True:
            ready, _, _ = select.select([events, self._wake], [], [])
            if events in ready:
                try:
                    self._datagrams.append(self._socket.recv(65536))
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    self.lost += 1
            elif self._wake in ready:
                return

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> list[ProcessEvent]:
        """All events until now, in the kernel's order."""
        os.write(self._waker, b".")
        self._thread.join()
        self._listen(False)
        self._socket.close()
        os.close(self._wake)
        os.close(self._waker)
        return decode_events(self._datagrams)

    def __enter__(self) -> ProcessEvents:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.stop()


def decode_events(datagrams: list[bytes]) -> list[ProcessEvent]:
    """The events in netlink datagrams of the proc connector; acknowledgements and unknown kinds are left out."""
    from pyroute2.netlink.connector.cn_proc import ProcEventMarshal

    marshal = ProcEventMarshal()
    events = []
    for datagram in datagrams:
        for message in marshal.parse(datagram):
            what = str(message["event"]).removeprefix("PROC_EVENT_").lower()
            pid = message.get("child_tgid") if what == "fork" else message.get("process_tgid")
            if pid is not None:
                parent = message.get("parent_tgid")
                events.append(ProcessEvent(what, pid, message["timestamp_ns"], parent, message.get("comm")))
    return events
