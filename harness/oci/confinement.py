"""Run a tool that works on data nobody vouches for where it can write to one directory only."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import HostError, InputError
from harness.kernel import shim
from harness.kernel.mounts import MountNamespace
from harness.process.command import Place, run

TIMEOUT_S = 600.0
_KEPT_FLAGS = {"nosuid": shim.MS_NOSUID, "nodev": shim.MS_NODEV, "noexec": shim.MS_NOEXEC}
# logrus of skopeo: level=fatal msg="..."; apex/log of umoci: a cross, then the text
_SAID = re.compile(r'level=(?:fatal|error) msg="((?:[^"\\]|\\.)*)"|\u2a2f (.+)')


class Confinement:
    """A private mount namespace in which all is read-only but `directory`, and tools of this host that run there.

    Raises HostError without root or where mounts are not allowed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        try:
            self._namespace = MountNamespace()
        except OSError as error:
            raise HostError(
                f"unpacking an image needs root and a mount namespace of its own: {error.strerror}"
            ) from None
        try:
            self._namespace.call(_seal, str(self.directory))
        except OSError as error:
            self._namespace.close()
            raise HostError(f"the root file system cannot be made read-only for umoci: {error.strerror}") from None

    def run(self, argv: Sequence[str], *, about: str) -> str:
        """Run a tool by its name, in the directory -> its stdout.

        Raises HostError when it is not installed, InputError with `about` and the tool's own words when it fails.
        """
        path = shutil.which(argv[0])
        if path is None:
            raise HostError(f"{argv[0]} is needed for images and not on this host: apt-get install {argv[0]}")
        env = (f"PATH={os.environ.get('PATH', os.defpath)}", f"HOME={self.directory}", f"TMPDIR={self.directory}")
        place = Place(mount_ns_fd=self._namespace.fd, cwd=str(self.directory))
        done = run(argv[0], [path, *argv[1:]], place=place, env=env, timeout_s=TIMEOUT_S)
        if done.timed_out:
            raise InputError(f"{about}: {argv[0]} did not end within {TIMEOUT_S:.0f} s")
        if done.exit_status != 0:
            raise InputError(f"{about}: {argv[0]} refuses it: {_said(done.stderr.decode(errors='replace'))}")
        return done.stdout.decode(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._namespace.close()


def _seal(directory: str) -> None:
    """In the namespace: `directory` as a mount of its own, everything else read-only."""
    shim.mount(directory, directory, flags=shim.MS_BIND)
    for line in Path("/proc/thread-self/mountinfo").read_text().splitlines():
        fields = line.split()
        target = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        if target == directory:
            continue
        flags = shim.MS_REMOUNT | shim.MS_BIND | shim.MS_RDONLY
        for option in fields[5].split(","):
            flags |= _KEPT_FLAGS.get(option, 0)
        # One that lies below another cannot be reached, neither by us nor by the tool.
        with contextlib.nullcontext() if target == "/" else contextlib.suppress(OSError):
            shim.mount(None, target, flags=flags)


def _said(stderr: str) -> str:
    found = _SAID.search(stderr)
    if found is not None:
        return (found[1] or found[2]).replace('\\"', '"').strip()
    lines = stderr.strip().splitlines()
    return lines[-1].strip() if lines else "it says nothing"
