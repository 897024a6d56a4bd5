"""Look at a running container for what it was asked to be: in the kernel's files of its init, and from inside."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct, field

from harness.cgroup.hierarchy import Layout, cgroup_paths, parse_mountinfo
from harness.compat import feature_cases as cases
from harness.errors import HarnessError
from harness.kernel import namespaces
from harness.oci.vocabulary import CAPABILITIES
from harness.runtime.container import Container
from harness.runtime.session import Session

KINDS = {"mount": "mnt", "network": "net"}  # names of the runtime-spec that are not the kernel's
LIMIT_BYTES = 256 * 1024


class Seen(Struct, frozen=True):
    """Whether it shows; None: it cannot be looked at for this runtime or on this host, and `text` says why."""

    shows: bool | None
    text: str | None = None


class Sight(Struct):
    """What is looked at more than once is read once."""

    session: Session
    container: Container
    marks: Path
    listener: socket.socket
    told: dict[str, str] = field(default_factory=dict)  # {command: what it printed inside}

    @property
    def pid(self) -> int:
        if self.container.init is None:
            raise ProcessLookupError("the container has no init")
        return self.container.init.pid

    @property
    def inside_only(self) -> bool:
        """Whether init is a sandbox of the runtime's, so that the host's kernel does not show the container."""
        return not self.container.client.runtime.dialect.uses_host_cgroups

    def run_inside(self, commands: Sequence[str]) -> None:
        """Run all commands in one exec; what each printed goes into `told`."""
        wanted = list(dict.fromkeys(commands))
        if not wanted:
            return
        marker = f"@{os.urandom(4).hex()}@"
        script = "\n".join(f"echo '{marker}'\n( {command} )" for command in wanted)
        done = self.container.exec("/bin/sh", "-c", script, timeout_s=self.session.timeout_s)
        parts = done.stdout.decode(errors="replace").split(f"{marker}\n")[1:]
        self.told.update(zip(wanted, parts, strict=False))

    def look(self, see: cases.See) -> Seen:
        """Never raises for what is not there."""
        try:
            match see:
                case cases.Shell():
                    if see.run not in self.told:
                        return Seen(False, f"`{see.run}` could not be run inside")
                    return _matched(see.matches, self.told[see.run], f"`{see.run}`")
                case cases.Hook():
                    return self._hook(see.of)
                case cases.Listener():
                    return self._listener()
            if self.inside_only:
                return Seen(None, "the host's kernel does not see into this runtime's containers")
            return self._look_from_outside(see)
        except (OSError, HarnessError) as error:
            return Seen(False, str(error))

    def _look_from_outside(self, see: cases.See) -> Seen:
        match see:
            case cases.Namespace():
                return self._namespace(see.of)
            case cases.Proc():
                pattern = see.matches.replace("${run}", re.escape(self.session.workspace.cgroup))
                return _matched(pattern, self._proc(see.file), f"/proc/INIT/{see.file}")
            case cases.Link():
                leads_to = os.readlink(f"/proc/{self.pid}/{see.file}")
                return _matched(see.matches, leads_to, f"/proc/INIT/{see.file}")
            case cases.Mount():
                return self._mount(see)
            case cases.Cgroup():
                return self._cgroup(see)
            case cases.Capability():
                return self._capability(see)
            case cases.Rlimit():
                title, value = cases.RLIMITS[see.of]
                return _matched(rf"^{title} +{value} +{value}\b", self._proc("limits"), "/proc/INIT/limits")
        raise AssertionError(see)

    def _proc(self, file: str) -> str:
        with open(f"/proc/{self.pid}/{file}", "rb") as opened:
            return opened.read(LIMIT_BYTES).decode(errors="replace")

    def _namespace(self, of: str) -> Seen:
        kind = KINDS.get(of, of)
        same = namespaces.shared(namespaces.namespaces_of(self.pid), namespaces.namespaces_of(os.getpid()))[kind]
        return Seen(same is False, None if same is False else f"init is in our own {of} namespace")

    def _mount(self, see: cases.Mount) -> Seen:
        found = [m for m in parse_mountinfo(self._proc("mountinfo")) if m.mount_point == see.at]
        if not found:
            return Seen(False, f"there is no mount at {see.at}")
        mount = found[-1]
        propagation = {each.partition(":")[0] for each in mount.optional}
        words = {*mount.options, *mount.super_options, *propagation}
        missing = [word for word in see.has if word not in words]
        left = [word for word in see.lacks if word in {*mount.options, *propagation}]
        if see.propagation is not None:
            wanted = {"shared": "shared", "slave": "master", "unbindable": "unbindable"}.get(see.propagation)
            if (wanted is None and propagation) or (wanted is not None and wanted not in propagation):
                missing.append(see.propagation)
        if not missing and not left:
            return Seen(True)
        shown = ",".join([*mount.options, *sorted(propagation)])
        return Seen(False, f"{see.at} is {shown}")

    def _cgroup(self, see: cases.Cgroup) -> Seen:
        layout: Layout = self.session.layout
        paths = self.session.namespace.call(cgroup_paths, self.pid, layout)
        controller = see.controller if see.controller in paths or see.controller != "io" else "blkio"
        if controller not in paths:
            return Seen(False, f"init is in no cgroup of {see.controller}")
        hierarchy, path = paths[controller]
        file = see.v1 if hierarchy.version == 1 else see.v2
        if file is None:
            return Seen(None, f"cgroup v{hierarchy.version} has no such file")
        full = Path(hierarchy.mount_point) / path / file
        try:
            text = self.session.namespace.call(full.read_text)
        except FileNotFoundError:
            return Seen(None, f"this kernel has no {file}")
        return _matched(see.matches, text, file)

    def _capability(self, see: cases.Capability) -> Seen:
        found = re.search(rf"^{see.set}:\s+([0-9a-f]+)$", self._proc("status"), re.MULTILINE)
        held = int(found[1], 16) if found else 0
        shows = bool(held >> CAPABILITIES.index(see.name) & 1)
        return Seen(shows, None if shows else f"{see.set} is {held:x}")

    def _hook(self, of: str) -> Seen:
        """Its mark is the state that the runtime has given it on its stdin."""
        mark = self.marks / of
        if not mark.exists():
            return Seen(False, f"the {of} hook did not run")
        return _matched('"ociVersion"', mark.read_text(errors="replace"), f"the {of} hook's stdin")

    def _listener(self) -> Seen:
        try:
            connection, _ = self.listener.accept()
        except BlockingIOError:
            return Seen(False, "nobody has connected to the agent's socket")
        with connection:
            connection.settimeout(1.0)
            _, fds, _, _ = socket.recv_fds(connection, 65536, 8)
        for fd in fds:
            os.close(fd)
        return Seen(bool(fds), None if fds else "no descriptor was sent to the agent")


def _matched(pattern: str, text: str, where: str) -> Seen:
    if re.search(pattern, text, re.MULTILINE):
        return Seen(True)
    shown = text.strip().splitlines()
    return Seen(
        False, f"{where}: {shown[0][:80] if len(shown) == 1 else f'no {pattern}'}" if shown else f"{where}: empty"
    )
