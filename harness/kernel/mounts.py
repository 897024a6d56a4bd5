"""A private mount namespace, held by a thread: what is mounted in it vanishes with this process, also on SIGKILL.

The namespace of the calling process is never changed. Commands enter the private one through `fd`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from harness.kernel import shim

T = TypeVar("T")
Answer = SimpleQueue[tuple[Any, BaseException | None]]
Job = tuple[Callable[..., Any], tuple[Any, ...], Answer]


class MountNamespace:
    """`fd` is the namespace (for setns(2)); `call` runs a function inside it.

    Raises OSError (EPERM) without CAP_SYS_ADMIN.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="mount-namespace", daemon=True)
        self._thread.start()
        try:
            self.fd: int = self.call(self._enter)
        except OSError:
            self._stop()
            raise

    @staticmethod
    def _enter() -> int:
        # unshare(2): CLONE_NEWNS implies CLONE_FS, so only this thread gets another root and working directory
        shim.unshare(shim.CLONE_FLAGS["mnt"])
        shim.mount(None, "/", flags=shim.MS_REC | shim.MS_SLAVE)
        return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, args, answer = job
            try:
                answer.put((function(*args), None))
            except BaseException as error:  # it is raised again in the caller's thread
                answer.put((None, error))

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run `function(*args)` in the namespace and return what it returns, or raise what it raises.

        Raises ValueError when the namespace is closed.
        """
        if not self._thread.is_alive():
            raise ValueError("the mount namespace is closed")
        answer: Answer = SimpleQueue()
        self._jobs.put((function, args, answer))
        result, error = answer.get()
        try:
            if error is not None:
                raise error
        finally:
            del error  # its traceback holds this frame: no cycle, the collector may be off
        returned: T = result
        return returned

    def _stop(self) -> None:
        self._jobs.put(None)
        self._thread.join()

    def close(self) -> None:
        """Let go of the namespace; its mounts vanish unless a container still lives in a copy of it."""
        if self._thread.is_alive():
            self._stop()
            os.close(self.fd)

    def __enter__(self) -> MountNamespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
