"""What single values of config.json may be, as tables: known words, number ranges, text forms, absolute paths.

Patterns are those of pointer.select. Source: runtime-spec config.md and config-linux.md at 1.3.0, and the kernel where
a comment says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from harness.oci.document import describe
from harness.oci.finding import Finding, Severity, error
from harness.oci.pointer import select


def _prefixed(prefix: str, words: str) -> tuple[str, ...]:
    return tuple(prefix + word for word in words.split())


NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")

# getrlimit(2)
RLIMITS = _prefixed(
    "RLIMIT_", "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK"
)

# capabilities(7), up to CAP_CHECKPOINT_RESTORE of Linux 5.9
CAPABILITIES = _prefixed(
    "CAP_",
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
    "PERFMON BPF CHECKPOINT_RESTORE",
)

_ACTIONS = _prefixed("SCMP_ACT_", "KILL KILL_PROCESS KILL_THREAD TRAP ERRNO TRACE ALLOW LOG NOTIFY")

# libseccomp 2.6.0
_ARCHITECTURES = _prefixed(
    "SCMP_ARCH_",
    "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X "
    "PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB",
)

PROPAGATIONS = ("shared", "slave", "private", "unbindable")
_RECURSIVE_PROPAGATIONS = ("rshared", "rslave", "rprivate", "runbindable")  # not in the spec; runc and crun take them


class Words(Struct, frozen=True):
    """Places that hold one of some words."""

    pattern: str
    allowed: tuple[str, ...]
    severity: Severity = "error"


WORDS = (
    Words("/linux/namespaces/*/type", NAMESPACES),
    Words("/process/rlimits/*/type", RLIMITS),
    # The spec wants a warning, no error, of a runtime that cannot map a name.
    Words("/process/capabilities/*/*", CAPABILITIES, "warning"),
    Words(
        "/process/scheduler/policy",
        _prefixed("SCHED_", "OTHER FIFO RR BATCH ISO IDLE DEADLINE"),
    ),
    Words(
        "/process/scheduler/flags/*",
        _prefixed(
            "SCHED_FLAG_", "RESET_ON_FORK RECLAIM DL_OVERRUN KEEP_POLICY KEEP_PARAMS UTIL_CLAMP_MIN UTIL_CLAMP_MAX"
        ),
    ),
    Words("/process/ioPriority/class", ("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE")),
    Words("/linux/devices/*/type", ("c", "b", "u", "p")),
    Words("/linux/resources/devices/*/type", ("a", "c", "b")),
    Words("/linux/rootfsPropagation", (*PROPAGATIONS, *_RECURSIVE_PROPAGATIONS)),
    Words("/linux/rootfsPropagation", PROPAGATIONS, "warning"),
    Words("/linux/personality/domain", ("LINUX", "LINUX32")),
    Words("/linux/seccomp/defaultAction", _ACTIONS),
    Words("/linux/seccomp/syscalls/*/action", _ACTIONS),
    Words("/linux/seccomp/architectures/*", _ARCHITECTURES),
    Words(
        "/linux/seccomp/flags/*",
        _prefixed("SECCOMP_FILTER_FLAG_", "TSYNC LOG SPEC_ALLOW WAIT_KILLABLE_RECV"),
    ),
    Words(
        "/linux/seccomp/syscalls/*/args/*/op",
        _prefixed("SCMP_CMP_", "NE LT LE EQ GE GT MASKED_EQ"),
    ),
    Words(
        "/linux/memoryPolicy/mode",
        _prefixed("MPOL_", "DEFAULT BIND INTERLEAVE WEIGHTED_INTERLEAVE PREFERRED PREFERRED_MANY LOCAL"),
    ),
    Words(
        "/linux/memoryPolicy/flags/*",
        ("MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"),
    ),
)


class Range(Struct, frozen=True):
    """Places that hold an integer from `low` to `high` (None: no upper end), or one of `special`."""

    pattern: str
    low: int
    high: int | None
    unit: str = ""
    special: tuple[int, ...] = ()
    severity: Severity = "error"


RANGES = (
    Range("/process/oomScoreAdj", -1000, 1000),  # proc_pid_oom_score_adj(5)
    Range("/process/scheduler/nice", -20, 19),  # sched(7)
    Range("/process/ioPriority/priority", 0, 7),
    Range("/hooks/*/*/timeout", 1, None, "seconds"),
    Range("/linux/uidMappings/*/size", 1, None),
    Range("/linux/gidMappings/*/size", 1, None),
    Range("/mounts/*/uidMappings/*/size", 1, None),
    Range("/mounts/*/gidMappings/*/size", 1, None),
    Range("/linux/devices/*/fileMode", 0, 0o777, "decimal: 438 is rw-rw-rw-", severity="warning"),
    Range("/linux/timeOffsets/*/nanosecs", 0, 999_999_999, "nanoseconds"),  # time_namespaces(7)
    Range("/linux/resources/memory/limit", 0, None, "bytes", (-1,)),
    Range("/linux/resources/memory/reservation", 0, None, "bytes", (-1,)),
    Range("/linux/resources/memory/swap", 0, None, "bytes", (-1,)),
    Range("/linux/resources/memory/kernel", 0, None, "bytes", (-1,)),
    Range("/linux/resources/memory/kernelTCP", 0, None, "bytes", (-1,)),
    Range("/linux/resources/memory/swappiness", 0, 100),
    # The kernel clamps shares to 2..262144 (kernel/sched/sched.h MIN_SHARES, MAX_SHARES); 0 means unset to runtimes.
    Range("/linux/resources/cpu/shares", 2, 262_144, special=(0,), severity="warning"),
    # kernel/sched/core.c: quota and period from 1 ms, period to 1 s; 0 means unset to runtimes.
    Range("/linux/resources/cpu/quota", 1_000, None, "us", (-1, 0)),
    Range("/linux/resources/cpu/period", 1_000, 1_000_000, "us", (0,)),
    Range("/linux/resources/cpu/idle", 0, 1),
    Range("/linux/resources/pids/limit", 0, None, "tasks", (-1,)),
    Range("/linux/seccomp/syscalls/*/args/*/index", 0, 5),  # seccomp(2): six arguments
)


class Form(Struct, frozen=True):
    """Places that hold text which matches `regex` as a whole; `wanted` says so in words."""

    pattern: str
    regex: re.Pattern[str]
    wanted: str
    severity: Severity = "error"


_LIST = re.compile(r"([0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?")
_LIST_WORDS = "a list such as 0-3,7"
_NUMBER = r"(0|[1-9][0-9]{0,8})"  # SemVer has no end, but no release needs ten digits
_SEMVER = re.compile(  # semver.org 2.0.0, items 2, 9 and 10
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}"
    r"(-(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)
_ABSOLUTE = re.compile(r"/.*", re.DOTALL)
_ABSOLUTE_WORDS = "an absolute path; let it start with /"

FORMS = (
    Form("/ociVersion", _SEMVER, "a SemVer 2.0.0 version such as 1.0.2"),
    Form("/root/path", re.compile(r".+", re.DOTALL), "a path; write rootfs"),
    Form("/process/cwd", _ABSOLUTE, _ABSOLUTE_WORDS),
    Form("/process/args/0", re.compile(r".+", re.DOTALL), "the program to run"),
    Form("/process/env/*", re.compile(r"[^=]+=.*", re.DOTALL), "NAME=VALUE"),
    Form("/process/execCPUAffinity/initial", _LIST, _LIST_WORDS),
    Form("/process/execCPUAffinity/final", _LIST, _LIST_WORDS),
    Form("/mounts/*/destination", re.compile(r".+", re.DOTALL), "a path; write where to mount"),
    # config.md: relative is deprecated, and taken as relative to /.
    Form("/mounts/*/destination", re.compile(r"(/.*)?", re.DOTALL), _ABSOLUTE_WORDS, "warning"),
    Form("/hooks/*/*/path", _ABSOLUTE, _ABSOLUTE_WORDS),
    Form("/linux/namespaces/*/path", re.compile(r"(/.*)?", re.DOTALL), _ABSOLUTE_WORDS),
    Form("/linux/devices/*/path", _ABSOLUTE, _ABSOLUTE_WORDS),
    Form("/linux/maskedPaths/*", _ABSOLUTE, _ABSOLUTE_WORDS),
    Form("/linux/readonlyPaths/*", _ABSOLUTE, _ABSOLUTE_WORDS),
    Form("/linux/resources/devices/*/access", re.compile(r"[rwm]*"), "letters of rwm"),
    Form("/linux/resources/cpu/cpus", _LIST, _LIST_WORDS),
    Form("/linux/resources/cpu/mems", _LIST, _LIST_WORDS),
    Form("/linux/memoryPolicy/nodes", _LIST, _LIST_WORDS),
    Form("/linux/resources/hugepageLimits/*/pageSize", re.compile(r"[1-9][0-9]*[KMG]B"), "a size such as 2MB"),
    Form("/linux/intelRdt/memBwSchema", re.compile(r"MB:[^\n]*"), "one line that starts with MB:"),
    Form("/linux/intelRdt/schemata/*", re.compile(r"[^\n]*"), "one line without a line break"),
    Form("/linux/cgroupsPath", re.compile(r".+", re.DOTALL), "a path; leave it out for the default", "warning"),
    Form(
        "/linux/cgroupsPath",
        re.compile(r"(?!(.*/)?\.\.(/|\Z)).*", re.DOTALL),
        "a path without ..; runtimes disagree on what it means",
        "warning",
    ),
)

# A NUL ends the text for the kernel, so runtimes refuse it or cut the rest off.
NO_NUL = (
    "/root/path",
    "/hostname",
    "/domainname",
    "/process/cwd",
    "/process/args/*",
    "/process/env/*",
    "/mounts/*/destination",
    "/mounts/*/source",
    "/mounts/*/options/*",
    "/hooks/*/*/path",
    "/linux/cgroupsPath",
)


def vocabulary_findings(document: dict[str, Any]) -> Iterator[Finding]:
    """Findings of all tables. Values of a wrong type are passed over: they are shape_problems."""
    seen: set[str] = set()
    for finding in _all(document):
        if finding.pointer not in seen:  # a softer row after a harder one says nothing new
            seen.add(finding.pointer)
            yield finding


def _all(document: dict[str, Any]) -> Iterator[Finding]:
    for words in WORDS:
        for pointer, text in select(document, words.pattern, str):
            if text not in words.allowed:
                message = f"{describe(text)} is not known; known are {', '.join(words.allowed)}"
                yield Finding(pointer, message, words.severity)
    for span in RANGES:
        for pointer, number in select(document, span.pattern, int):
            if number not in span.special and not _within(number, span):
                yield Finding(pointer, f"{number} is out of range; {_range_words(span)}", span.severity)
    for form in FORMS:
        for pointer, text in select(document, form.pattern, str):
            if not form.regex.fullmatch(text):
                yield Finding(pointer, f"{describe(text)} must be {form.wanted}", form.severity)
    for pattern in NO_NUL:
        for pointer, text in select(document, pattern, str):
            if "\0" in text:
                yield error(pointer, f"{describe(text)} holds a NUL character; take it out")


def _within(number: int, span: Range) -> bool:
    return number >= span.low and (span.high is None or number <= span.high)


def _range_words(span: Range) -> str:
    ends = f"at least {span.low}" if span.high is None else f"from {span.low} to {span.high}"
    special = "".join(f", or {number}" for number in span.special)
    return f"it must be {ends}{special}" + (f" ({span.unit})" if span.unit else "")
