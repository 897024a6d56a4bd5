"""Can this node execute a file: an ELF's machine and interpreter, or the interpreter of a script."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from msgspec import Struct

from harness.diagnosis.node.finding import Evidence, Finding
from harness.diagnosis.node.tree import Tree

HEAD_BYTES = 64 * 1024
_PT_INTERP = 3
# elf(5), e_machine and byte order -> what `uname -m` says on a machine that runs it
MACHINES = {
    (3, "<"): "i386",
    (20, ">"): "ppc",
    (21, "<"): "ppc64le",
    (21, ">"): "ppc64",
    (22, ">"): "s390x",
    (40, "<"): "arm",
    (62, "<"): "x86_64",
    (183, "<"): "aarch64",
    (243, "<"): "riscv64",
    (258, "<"): "loongarch64",
    (8, ">"): "mips",
    (8, "<"): "mipsel",
}
# what a kernel of this machine can be built to run beside its own
ALSO = {"x86_64": ("i386",), "aarch64": ("arm",), "ppc64": ("ppc",), "mips64": ("mips",)}
_ALIASES = {"amd64": "x86_64", "arm64": "aarch64", "i686": "i386", "i586": "i386", "armv7l": "arm", "armv8l": "arm"}


class Elf(Struct, frozen=True):
    """What the headers say. `interpreter` is None for a static binary."""

    machine: str  # as uname -m has it; "machine 42" if unknown here
    interpreter: str | None


def parse_elf(data: bytes) -> Elf:
    """The head of an ELF file. Raises ValueError: no ELF, or a damaged one."""
    if data[:4] != b"\x7fELF" or len(data) < 52:
        raise ValueError("no ELF file" if data[:4] != b"\x7fELF" else f"an ELF file of only {len(data)} bytes")
    if data[4] not in (1, 2) or data[5] not in (1, 2):
        raise ValueError(f"an ELF file of class {data[4]}, byte order {data[5]}")
    wide, order = data[4] == 2, "<" if data[5] == 1 else ">"
    try:
        (number,) = struct.unpack_from(f"{order}H", data, 18)
        (table,) = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", data, 32 if wide else 28)
        size, count = struct.unpack_from(f"{order}HH", data, 54 if wide else 42)
        interpreter = None
        for index in range(count):
            at = table + index * size
            (kind,) = struct.unpack_from(f"{order}I", data, at)
            if kind == _PT_INTERP:
                layout = (f"{order}Q", 8, 32) if wide else (f"{order}I", 4, 16)
                (offset,) = struct.unpack_from(layout[0], data, at + layout[1])
                (length,) = struct.unpack_from(layout[0], data, at + layout[2])
                name = data[offset : offset + length]
                if len(name) < length:
                    raise ValueError("its interpreter's name lies beyond its beginning")
                interpreter = os.fsdecode(name.rstrip(b"\0"))
    except struct.error:
        raise ValueError("a damaged ELF file: its headers lead beyond its end") from None
    return Elf(MACHINES.get((number, order), f"machine {number}"), interpreter)


def machine_of(tree: Tree) -> tuple[str, str] | None:
    """(uname -m of the node, where that is from); None: a copy that does not tell."""
    if tree.live:
        return os.uname().machine, "uname -m"
    for path in ("/proc/sys/kernel/arch", "/uname", "/sos_commands/kernel/uname_-a", "/uname.txt"):
        words = (tree.read(path) or "").split()
        known = {*MACHINES.values(), *_ALIASES}
        machine = next((word for word in words if word in known), None)
        if machine is not None:
            return _ALIASES.get(machine, machine), path
    return None


def executable(tree: Tree, path: str, what: str, cause: str | None = None) -> Iterator[Finding]:
    """What keeps the node from executing a file of its tree. `what` names it in messages; `cause`: of every finding
    where given, as for a runtime, whose own trouble is another than a container's command."""
    data = tree.read_bytes(path, HEAD_BYTES)
    status = tree.status(path)
    if data is None or status is None:
        if status is None:
            yield Finding(
                "executable-missing",
                "error",
                f"{what}: {path} does not exist",
                cause or "exec-not-found",
                f"Install {path}, or correct the name.",
                (Evidence(path, "no such file"),),
            )
        return
    if not status.st_mode & 0o111:
        yield Finding(
            "not-executable",
            "error",
            f"{what}: {path} has no x bit (mode {status.st_mode & 0o7777:04o})",
            cause or "exec-permission-denied",
            f"chmod 0755 {path}",
            (Evidence(f"stat {path}", f"mode {status.st_mode & 0o7777:04o}"),),
        )
    if data[:2] == b"#!":
        yield from _script(tree, path, what, data, cause)
        return
    try:
        elf = parse_elf(data)
    except ValueError as error:
        yield Finding(
            "not-an-executable",
            "error",
            f"{what}: {path} is {error} and no script",
            cause or "exec-format-error",
            "Install it again, or write #!/bin/sh as its very first bytes.",
            (Evidence(path, f"begins with {data[:8]!r}"),),
        )
        return
    yield from _machine(tree, path, what, elf, cause)
    if elf.interpreter is not None and not tree.exists(elf.interpreter):
        yield Finding(
            "interpreter-missing",
            "error",
            f"{what}: {path} needs the loader {elf.interpreter}, which does not exist",
            cause or "missing-interpreter",
            "Install the C library that it was linked with (glibc or musl), or take a static binary.",
            (Evidence(path, f"PT_INTERP {elf.interpreter}"),),
        )


def _machine(tree: Tree, path: str, what: str, elf: Elf, cause: str | None) -> Iterator[Finding]:
    told = machine_of(tree)
    if told is None:
        if not tree.live:
            tree.miss("machine", "no output of uname in this tree; compared with this host's")
        told = os.uname().machine, "uname -m on this host"
    machine, source = told
    machine = _ALIASES.get(machine, machine)
    if elf.machine in (machine, *ALSO.get(machine, ())):
        return
    emulator = next(
        (
            name
            for name in tree.entries("/proc/sys/fs/binfmt_misc")
            if name == f"qemu-{elf.machine}" and (tree.read(f"/proc/sys/fs/binfmt_misc/{name}") or "").startswith("en")
        ),
        None,
    )
    yield Finding(
        "wrong-machine",
        "error" if emulator is None else "info",
        f"{what}: {path} is for {elf.machine}, the node is {machine}"
        + (f"; {emulator} of binfmt_misc emulates it" if emulator else ""),
        cause or "exec-format-error",
        f"Install or pull the {machine} build, or register qemu-user for {elf.machine} with flag F.",
        (Evidence(path, f"ELF {elf.machine}"), Evidence(source, machine)),
    )


def _script(tree: Tree, path: str, what: str, data: bytes, cause: str | None) -> Iterator[Finding]:
    line = os.fsdecode(data.split(b"\n", 1)[0])
    # binfmt_script(5): the name ends at a blank or the line's end; a carriage return is a part of it
    interpreter = line[2:].strip(" \t").split(" ")[0].split("\t")[0]
    if interpreter and not tree.exists(interpreter):
        stray = " (the line ends with a carriage return)" if interpreter.endswith("\r") else ""
        shown = interpreter.rstrip("\r")
        yield Finding(
            "interpreter-missing",
            "error",
            f"{what}: the script {path} needs {shown}, which does not exist{stray}",
            cause or "missing-interpreter",
            "dos2unix the script." if stray else f"Install {shown}, or name an interpreter that is there.",
            (Evidence(f"{path}:1", line.replace("\r", "\\r")),),
        )
