"""A process of ours that runs beside others, until it is killed or this process ends."""

from __future__ import annotations

from collections.abc import Sequence

from harness.kernel import shim
from harness.process.children import Child, expecting_child
from harness.process.command import dev_null


def start(argv: Sequence[str], stdin: int | None = None, stdout: int | None = None) -> Child:
    """Start `argv` (argv[0] an absolute path) with an empty environment; the caller kills it. Raises OSError."""
    null = dev_null()
    fds = [null if stdin is None else stdin, null if stdout is None else stdout, null]
    with expecting_child():
        spawned = shim.spawn(argv[0], argv, (), fds=fds, flags=shim.SPAWN_PDEATHSIG)
        return Child(spawned.pid, spawned.pidfd)
