"""Containers that stay alive while others are measured, made and removed as their wanted number changes."""

from __future__ import annotations

import contextlib
import itertools
import resource
from collections.abc import Callable
from types import TracebackType
from typing import Self

from harness.bench.lifecycle import Bench
from harness.bench.plan import Turn
from harness.errors import HarnessError, HostError
from harness.process.command import Stdio, dev_null
from harness.runtime.container import Container
from harness.runtime.discovery import Runtime
from harness.runtime.failures import check
from harness.runtime.session import Session

SPARE_DESCRIPTORS = 256  # for all but the pidfd of each container


class Live:
    """As a context manager: on exit none is left. The cheapest of the runtimes keeps them, with recipe pause."""

    def __init__(self, session: Session, runtimes: list[Runtime], on_change: Callable[[int], None] = lambda _: None):
        self._session = session
        self._runtimes = runtimes
        self._on_change = on_change
        self._containers: list[Container] = []
        self._serial = itertools.count()
        self._runtime: Runtime | None = None

    @property
    def runtime(self) -> str | None:
        """The name of the runtime that keeps them; None while there never were any."""
        return self._runtime.name if self._runtime else None

    def _cheapest(self) -> Runtime:
        """The one whose second lifecycle is the shortest; the first warms the page cache."""
        if self._runtime is None:
            bench = Bench(self._session, self._session.template("pause"), "kill")
            times: list[tuple[int, int]] = []
            for place, runtime in enumerate(self._runtimes):
                samples = [bench.run(runtime, Turn(runtime.name, 0, 20_000_000 + 2 * place + i)) for i in range(2)]
                whole = samples[1].stages.get("whole_ns")
                if whole is not None:
                    times.append((whole, place))
            if not times:
                raise HostError("no runtime here can keep containers alive: none ran recipe pause")
            self._runtime = self._runtimes[min(times)[1]]
        return self._runtime

    def adjust(self, count: int) -> None:
        """Make or remove containers until there are `count`. Raises HostError, OperationError."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if count + SPARE_DESCRIPTORS > soft:
            raise HostError(
                f"{count} live containers need as many descriptors, and the limit is {soft}: "
                f"ulimit -n {count + SPARE_DESCRIPTORS}"
            )
        while len(self._containers) < count:
            self._add(self._cheapest())
        while len(self._containers) > count:
            self._remove()

    def _add(self, runtime: Runtime) -> None:
        name = f"live{next(self._serial)}"
        stdio = Stdio(stdout=dev_null(), stderr=dev_null())
        container = self._session.container(runtime, self._session.template("pause"), name, stdio=stdio)
        self._containers.append(container)
        check(container.create())
        check(container.start())
        self._on_change(len(self._containers))

    def _remove(self) -> None:
        """The plain way: clean_up looks through all processes of the host for one that was never deleted."""
        container = self._containers.pop()
        try:
            with contextlib.suppress(HarnessError, OSError):
                check(container.kill())
                container.wait(10.0)
                check(container.delete())
        finally:
            container.clean_up()
        self._on_change(len(self._containers))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        while self._containers:
            self._remove()
