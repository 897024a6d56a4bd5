"""Drive OCI runtimes directly: build a bundle, call create, start, state, kill and delete, and know what happened.

    from harness import Session, find_runtime

    runc = find_runtime("runc")
    with Session("auto", [runc]) as session, session.container(runc, "pause") as container:
        container.start()
        print(container.state().status, container.operations[0].duration_ns)

What is imported is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.version import VERSION as __version__  # noqa: N811 - the name that Python's tools look for

if TYPE_CHECKING:
    from harness.bench.run import run_bench
    from harness.oci.bundle import Bundle, create_bundle
    from harness.runtime.container import Container
    from harness.runtime.discovery import Runtime, find_runtime, find_runtimes
    from harness.runtime.session import Session

_HOMES = {
    "Bundle": "harness.oci.bundle",
    "Container": "harness.runtime.container",
    "Runtime": "harness.runtime.discovery",
    "Session": "harness.runtime.session",
    "create_bundle": "harness.oci.bundle",
    "find_runtime": "harness.runtime.discovery",
    "find_runtimes": "harness.runtime.discovery",
    "run_bench": "harness.bench.run",
}

__all__ = [
    "Bundle",
    "Container",
    "Runtime",
    "Session",
    "__version__",
    "create_bundle",
    "find_runtime",
    "find_runtimes",
    "run_bench",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
