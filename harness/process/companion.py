"""A process of ours that runs beside others, until it is killed or this process ends."""

from __future__ import annotations

from collections.abc import Sequence

from harness.kernel import shim
from harness.process.children import Child, expecting_child
from harness.process.command import dev_null


def start(
    argv: Sequence[str],
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    *,
    extra_fds: Sequence[int] = (),
    env: tuple[str, ...] = (),
) -> Child:
    """Start `argv` (argv[0] an absolute path) with an empty environment; the caller kills it. Raises OSError.

    What is not given of 0, 1 and 2 is /dev/null; extra_fds become descriptors 3, 4, ... The kernel kills it when the
    thread that called this is gone (prctl(2), PR_SET_PDEATHSIG), on SIGKILL as well.
    """
    null = dev_null()
    fds = [null if fd is None else fd for fd in (stdin, stdout, stderr)]
    with expecting_child():
        spawned = shim.spawn(argv[0], argv, env, fds=[*fds, *extra_fds], flags=shim.SPAWN_PDEATHSIG)
        return Child(spawned.pid, spawned.pidfd)
