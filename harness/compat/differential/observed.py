"""What a container really got, read from outside through /proc and its cgroup: one flat list of facts.

`KIND NAME` is a fact's name; values are texts without ids, inode numbers and paths of the run, so that equal is equal.
Refused: anything that would run in the container, or follow a link of its making.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from msgspec import to_builtins

from harness.cgroup.files import CgroupFiles
from harness.cgroup.hierarchy import Mount, parse_mountinfo, parse_proc_cgroup
from harness.errors import HarnessError
from harness.kernel import namespaces, shim
from harness.runtime.session import Session

Facts = dict[str, str]

_STATUS: Final = ("Uid", "Gid", "Groups", "Umask", "NoNewPrivs", "Seccomp", "SigBlk", "SigIgn", "CapInh", "CapPrm",
                  "CapEff", "CapBnd", "CapAmb")  # fmt: skip # a table is read by its columns
_CAPABILITIES: Final = {
    "CapInh": "inheritable", "CapPrm": "permitted", "CapEff": "effective", "CapBnd": "bounding", "CapAmb": "ambient"
}  # fmt: skip # a table is read by its columns
_ONE_LINE: Final = ("oom_score_adj", "personality", "timens_offsets", "uid_map", "gid_map", "setgroups", "attr/current")
# Settings of a cgroup, not its use; names of harness.cgroup's sections.
_LIMITS: Final = {
    "memory": ("limit_bytes", "soft_limit_bytes", "memsw_limit_bytes", "swap_limit_bytes", "high_bytes", "low_bytes",
               "min_bytes", "oom_kill_disable", "oom_group"),
    "cpu": ("shares", "weight", "quota_usec", "period_usec", "burst_limit_usec", "idle"),
    "pids": ("limit",),
    "io": ("limits", "weight"),
    "cpuset": ("cpus", "mems", "partition"),
    "hugetlb": ("pages",),
    "freezer": ("frozen",),
}  # fmt: skip # a table is read by its columns
# Further settings, as (controller, file).
_FILES: Final = (
    ("memory", "memory.swappiness"),
    ("memory", "memory.use_hierarchy"),
    ("memory", "memory.kmem.limit_in_bytes"),
    ("memory", "memory.kmem.tcp.limit_in_bytes"),
    ("devices", "devices.list"),
    ("cpu", "cpu.rt_runtime_us"),
    ("cpu", "cpu.rt_period_us"),
    ("net_cls", "net_cls.classid"),
)
_SYSCTLS: Final = ("kernel/hostname", "kernel/domainname")
_NUMBERED: Final = re.compile(r"(?<=:)\[\d+\]$")
_TABLE: Final = re.compile(r"^(.+?) {2,}(\S+) +(\S+)", re.MULTILINE)


def observe(session: Session, pid: int, names: Iterable[str], *, words: Mapping[str, str]) -> Facts:
    """Facts of a running process. `names`: sysctls to look at; `words`: {text of this run: what stands for it}.

    A fact that cannot be read is left out. Raises ProcessLookupError when the process is gone.
    """
    found: Facts = {}
    base = f"/proc/{pid}"
    _status(base, found)
    _process(base, pid, found)
    _namespaces(pid, found)
    _mounts(base, found)
    session.namespace.call(_cgroup, session, pid, found)
    _devices(base, found)
    _in_namespaces(base, {name.replace(".", "/") for name in names if name and ".." not in name}, found)
    return {name: worded(value, words) for name, value in found.items()}


def worded(text: str, words: Mapping[str, str]) -> str:
    """A text with what belongs to this run as the words that stand for it."""
    for known, word in words.items():
        text = text.replace(known, word)
    return text


def _read(path: str) -> str | None:
    try:
        return Path(path).read_bytes().decode(errors="backslashreplace")
    except ProcessLookupError:
        raise
    except OSError:
        return None


def _status(base: str, found: Facts) -> None:
    text = _read(f"{base}/status")
    if text is None:
        raise ProcessLookupError(base)
    lines = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    for name in _STATUS:
        value = lines.get(name, "").strip()
        if name in _CAPABILITIES:
            found[f"capabilities {_CAPABILITIES[name]}"] = value.lstrip("0") or "none"
        else:
            found[f"process {name}"] = " ".join(sorted(value.split(), key=int)) if name == "Groups" else value
    found["process Uid"], found["process Gid"] = (" ".join(lines[name].split()) for name in ("Uid", "Gid"))


def _process(base: str, pid: int, found: Facts) -> None:
    for name in _ONE_LINE:
        text = _read(f"{base}/{name}")
        if text is not None:
            found[f"process {name}"] = " ".join(text.replace("\0", "").split())
    for name, soft, hard in _TABLE.findall((_read(f"{base}/limits") or "").partition("\n")[2]):
        found[f"rlimit {name}"] = f"{soft} {hard}"
    entries = [entry for entry in (_read(f"{base}/environ") or "").split("\0") if entry]
    for entry in entries:
        name, _, value = entry.partition("=")
        known = found.get(f"environment {name}")
        found[f"environment {name}"] = value if known is None else f"{known} and {value}"
    found["environment (order)"] = " ".join(entry.partition("=")[0] for entry in entries)
    found["process arguments"] = (_read(f"{base}/cmdline") or "").replace("\0", " ").strip()
    fields = (_read(f"{base}/stat") or "").rpartition(")")[2].split()
    # proc_pid_stat(5): session is field 6, nice 19, policy 41; the state, field 3, is the first behind the command
    found["process session"] = "its own" if int(fields[3]) == pid else "another"
    found["process nice"], found["process policy"] = fields[16], fields[38]
    for number in os.listdir(f"{base}/fd"):  # noqa: PTH208 - names are all that is wanted
        found[f"descriptor {number}"] = _link(f"{base}/fd/{number}")
    found["process cwd"] = _link(f"{base}/cwd")


def _link(path: str) -> str:
    try:
        return _NUMBERED.sub("", os.readlink(path))
    except OSError:
        return "?"


def _namespaces(pid: int, found: Facts) -> None:
    theirs, own = namespaces.namespaces_of(pid), namespaces.namespaces_of(os.getpid())
    for kind, same in namespaces.shared(theirs, own).items():
        if same is not None and not kind.endswith("_for_children"):
            found[f"namespace {kind}"] = "the host's" if same else "new"


def _mounts(base: str, found: Facts) -> None:
    text = _read(f"{base}/mountinfo")
    if text is None:
        return
    mounts = parse_mountinfo(text, f"{base}/mountinfo")
    numbers: dict[str, int] = {}
    for mount in mounts:
        number = numbers[mount.mount_point] = numbers.get(mount.mount_point, 0) + 1
        place = mount.mount_point if number == 1 else f"{mount.mount_point} (number {number})"
        found[f"mount {place}"] = f"{mount.fstype} {mount.root}"
        found[f"mount {place} options"] = ",".join(sorted(mount.options))
        found[f"mount {place} propagation"] = _propagation(mount)
        if mount.fstype not in ("overlay", "cgroup", "cgroup2"):
            found[f"mount {place} data"] = ",".join(sorted(mount.super_options))
    found["mount (order)"] = " ".join(mount.mount_point for mount in mounts)


def _propagation(mount: Mount) -> str:
    return ",".join(sorted({each.partition(":")[0] for each in mount.optional})) or "private"


def _cgroup(session: Session, pid: int, found: Facts) -> None:
    text = _read(f"/proc/{pid}/cgroup")
    if text is None:
        return
    for line in parse_proc_cgroup(text):
        found[f"cgroup path of {','.join(line.controllers) or line.name or 'v2'}"] = line.path
    with contextlib.suppress(HarnessError, OSError), CgroupFiles.of_pid(session.layout, pid) as files:
        snapshot = files.snapshot()
        for section, names in _LIMITS.items():
            values = getattr(snapshot, section)
            for name in names:
                value = getattr(values, name)
                if value is not None:
                    found[f"cgroup {section}.{name}"] = _limit(to_builtins(value))
        for controller, file in _FILES:
            hierarchy = session.layout.hierarchy(controller)
            path = files.paths.get(controller)
            if hierarchy is not None and path is not None:
                content = _read(f"{hierarchy.mount_point}/{path}/{file}")
                if content is not None:
                    _setting(file, content, found)


def _setting(file: str, content: str, found: Facts) -> None:
    if file != "devices.list":
        found[f"cgroup {file}"] = content.strip()
        return
    for rule in content.splitlines():  # `c 1:3 rwm`: each rule a fact of its own
        what, _, access = rule.rpartition(" ")
        found[f"cgroup device {what}"] = access


def _limit(value: Any) -> str:
    if isinstance(value, dict):  # of huge pages and devices: what is limited
        return " ".join(f"{key}:{_limit(each)}" for key, each in sorted(value.items()) if "limit" in key or ":" in key
                        or isinstance(each, dict))  # fmt: skip # a table is read by its columns
    return str(value)


def _devices(base: str, found: Facts) -> None:
    """Nodes and links in the container's /dev, not below it: nothing of the container's is followed."""
    try:
        root = os.open(f"{base}/root", shim.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            dev = shim.open_beneath(root, "dev", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            os.close(root)
    except OSError:
        return
    try:
        for name in os.listdir(dev):  # noqa: PTH208 - a descriptor, no path
            with contextlib.suppress(OSError):
                status = os.lstat(name, dir_fd=dev)
                what = stat.filemode(status.st_mode)
                if stat.S_ISLNK(status.st_mode):
                    what = f"link to {os.readlink(name, dir_fd=dev)}"
                elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                    what += f" {os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
                found[f"device /dev/{name}"] = f"{what} {status.st_uid}:{status.st_gid}"
    finally:
        os.close(dev)


def _in_namespaces(base: str, names: set[str], found: Facts) -> None:
    """Sysctls as the process has them: /proc/sys shows those of the namespaces of whoever opens a file.

    In a thread that ends with it, for it stays in the namespaces (setns(2)).
    """

    def look() -> None:
        for kind in ("net", "ipc", "uts"):
            fd = os.open(f"{base}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                shim.setns(fd, shim.CLONE_FLAGS[kind])
            finally:
                os.close(fd)
        for name in (*_SYSCTLS, *sorted(names)):
            text = _read(f"/proc/sys/{name}")
            if text is not None:
                found[f"sysctl {name.replace('/', '.')}"] = " ".join(text.split())
        found["network lo"] = "up" if _read("/proc/thread-self/net/if_inet6") else "down"

    with ThreadPoolExecutor(max_workers=1) as thread, contextlib.suppress(OSError):
        thread.submit(look).result()


def changed_files(upper: Path, words: Mapping[str, str]) -> Facts:
    """What the runtime has made or changed in the rootfs: the upper layer of its overlay."""
    found: Facts = {}
    for directory, names, files in os.walk(upper):
        for name in (*names, *files):
            path = f"{directory}/{name}"
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                where = worded(path.removeprefix(str(upper)), words)
                found[f"rootfs {where}"] = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
    return found
