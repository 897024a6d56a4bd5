"""The build backend: setuptools, after the shim's C is generated and the static payload is compiled."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - a backend offers all of setuptools' hooks

ROOT = Path(__file__).parent.parent
PROGRAMS = ROOT / "bundles" / "payload"


def build_programs() -> None:
    """Compile the static programs; the payload without a C library, so that its first instruction is its own."""
    compiler = os.environ.get("CC", "cc")
    flags = ["-Os", "-static", "-nostdlib", "-nostartfiles", "-ffreestanding", "-fno-stack-protector"]
    flags += ["-fno-asynchronous-unwind-tables", "-fno-pie", "-no-pie", "-Wall", "-Wextra", "-s"]
    flags += ["-Wl,--build-id=none", "-Wl,-z,noseparate-code"]
    subprocess.run([compiler, *flags, "-o", PROGRAMS / "payload", PROGRAMS / "payload.c"], check=True)
    flags = ["-Os", "-static", "-Wall", "-Wextra", "-s"]
    subprocess.run([compiler, *flags, "-o", PROGRAMS / "deny", PROGRAMS / "deny.c"], check=True)
    for name, more in (("calls", []), ("probe", ["-pthread"])):
        subprocess.run([compiler, *flags, *more, "-o", PROGRAMS / name, PROGRAMS / f"{name}.c"], check=True)


def _prepare() -> None:
    import build_shim

    build_shim.generate()
    build_programs()


def build_wheel(*args: Any, **kwargs: Any) -> str:
    _prepare()
    return build_meta.build_wheel(*args, **kwargs)


def build_editable(*args: Any, **kwargs: Any) -> str:
    _prepare()
    return build_meta.build_editable(*args, **kwargs)
