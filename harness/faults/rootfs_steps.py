"""Changes inside a root file system: one function for each step of the schema. Run in the bundle's mount namespace."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from harness.errors import HostError
from harness.faults import schema
from harness.oci.rootfs import find_busybox, payload_binary

ELF_MACHINE = 18  # offset of e_machine (elf(5))
FOREIGN_MACHINES = (b"\xf7\x00", b"\x08\x00")  # BPF, MIPS: one of them is not this host's


def _inside(rootfs: Path, path: str, *, follow: bool) -> Path:
    """The path in the rootfs. Raises HostError where a link of the rootfs leads out of it: that is the host's."""
    full = rootfs / path.lstrip("/")
    reached = full.resolve() if follow else full.parent.resolve() / full.name
    if not reached.is_relative_to(rootfs.resolve()):
        raise HostError(f"{path} leads out of the root file system, to {reached}")
    return full


def _binary(step: schema.CopyBinary) -> bytes:
    source = payload_binary() if step.of == "payload" else find_busybox()
    if source is None:
        raise HostError("no static busybox on this host; install busybox-static")
    data = source.read_bytes()
    match step.damage:
        case "truncated":
            return data[:40]  # within the ELF header
        case "empty":
            return b""
        case "foreign-machine":
            other = next(code for code in FOREIGN_MACHINES if code != data[ELF_MACHINE : ELF_MACHINE + 2])
            return data[:ELF_MACHINE] + other + data[ELF_MACHINE + 2 :]
        case "missing-loader":
            return with_interpreter(data, "/lib/no-such-loader.so.1")
    return data


def with_interpreter(elf: bytes, loader: str) -> bytes:
    """A 64-bit little-endian ELF whose first program header is made a PT_INTERP that names `loader`."""
    import struct

    (table,) = struct.unpack_from("<Q", elf, 32)
    name = loader.encode() + b"\0"
    offset = len(elf)
    header = struct.pack("<IIQQQQQQ", 3, 4, offset, offset, offset, len(name), len(name), 1)
    size, count = struct.unpack_from("<HH", elf, 54)
    headers = bytearray(elf[table : table + size * count])
    # PT_GNU_STACK (0x6474e551) or the last header gives way; the segments to load stay
    kinds = [struct.unpack_from("<I", headers, index * size)[0] for index in range(count)]
    victim = kinds.index(0x6474E551) if 0x6474E551 in kinds else count - 1
    headers[victim * size : (victim + 1) * size] = header
    return elf[:table] + bytes(headers) + elf[table + len(headers) :] + name


def apply(step: schema.RootfsStep, rootfs: Path) -> None:
    """Raises OSError, HostError."""
    path = _inside(rootfs, step.path, follow=isinstance(step, (schema.Write, schema.MakeDirectory, schema.ChangeMode)))
    match step:
        case schema.Write():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes.fromhex(step.hex) if step.hex else step.text.encode())
            path.chmod(step.mode)
        case schema.CopyBinary():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_bytes(_binary(step))
            path.chmod(step.mode)
        case schema.MakeDirectory():
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(step.mode)
        case schema.ChangeMode():
            path.chmod(step.mode)
        case schema.ChangeOwner():
            os.lchown(path, step.uid, step.gid)
        case schema.Link():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.symlink_to(step.target)
        case schema.Remove():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def describe(step: schema.RootfsStep) -> str:
    """The step as a person would type it, relative to the rootfs."""
    match step:
        case schema.Write():
            return f"write {step.path} (mode {step.mode:04o})"
        case schema.CopyBinary():
            damage = "" if step.damage == "none" else f", {step.damage}"
            return f"put {step.of} at {step.path}{damage}"
        case schema.MakeDirectory():
            return f"mkdir -m {step.mode:04o} {step.path}"
        case schema.ChangeMode():
            return f"chmod {step.mode:04o} {step.path}"
        case schema.ChangeOwner():
            return f"chown {step.uid}:{step.gid} {step.path}"
        case schema.Link():
            return f"ln -s {step.target} {step.path}"
        case _:
            return f"rm -r {step.path}"
