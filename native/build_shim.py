"""The cffi build of the shim: declares native/shim.h to cffi and generates the C of the extension module."""

from __future__ import annotations

import re
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
GENERATED = HERE / "generated" / "_shim.c"

MOUNT_FLAGS = ("BIND", "NODEV", "NOEXEC", "NOSUID", "PRIVATE", "RDONLY", "REC", "REMOUNT")
MOUNT_FLAGS += ("SHARED", "SLAVE", "UNBINDABLE")

# Their values come from the compiler.
CONSTANTS = {
    "OH_CGROUP_SUPER_MAGIC": "CGROUP_SUPER_MAGIC",
    "OH_CGROUP2_SUPER_MAGIC": "CGROUP2_SUPER_MAGIC",
    "OH_TMPFS_MAGIC": "TMPFS_MAGIC",
    "OH_OVERLAYFS_SUPER_MAGIC": "OVERLAYFS_SUPER_MAGIC",
    "OH_O_PATH": "O_PATH",
    **{f"OH_{name}": name for name in ("POLLIN", "POLLPRI", "POLLERR", "POLLHUP")},
    **{f"OH_{name}": name for name in ("CLD_EXITED", "CLD_KILLED", "CLD_DUMPED")},
    **{
        f"OH_CLONE_{name}": f"CLONE_{name}"
        for name in ("NEWCGROUP", "NEWIPC", "NEWNET", "NEWNS", "NEWPID", "NEWTIME", "NEWUSER", "NEWUTS")
    },
    **{f"OH_MS_{name}": f"MS_{name}" for name in MOUNT_FLAGS},
    "OH_MNT_DETACH": "MNT_DETACH",
}
HEADERS = (
    "fcntl.h",
    "linux/magic.h",
    "poll.h",
    "sched.h",
    "signal.h",
    "sys/mount.h",
)


def declarations() -> str:
    """shim.h as cffi wants it: no preprocessor, constants left to the compiler (`...`)."""
    header = (HERE / "shim.h").read_text()
    own = re.findall(r"^#define (OH_[A-Z0-9_]+) \d", header, re.MULTILINE)
    body = re.sub(r"^#.*$", "", header, flags=re.MULTILINE)
    return body + "".join(f"#define {name} ...\n" for name in [*own, *CONSTANTS])


def ffi_builder() -> FFI:
    ffi = FFI()
    ffi.cdef(declarations())
    source = "#define _GNU_SOURCE\n"
    source += "".join(f"#include <{name}>\n" for name in HEADERS)
    source += "#ifndef CLONE_NEWTIME\n#define CLONE_NEWTIME 0x00000080\n#endif\n"
    source += '#include "shim.h"\n'
    source += "".join(f"#define {ours} {theirs}\n" for ours, theirs in CONSTANTS.items())
    ffi.set_source("harness.kernel._shim", source, py_limited_api=True)
    return ffi


def generate() -> Path:
    """Write the C of the extension module where pyproject.toml expects it; untouched when nothing changed."""
    GENERATED.parent.mkdir(exist_ok=True)
    ffi_builder().emit_c_code(str(GENERATED))
    return GENERATED


if __name__ == "__main__":
    print(generate())
