"""Kernels for guests: Debian's packages by name, unpacked into a cache, and any boot image by its path."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from harness.errors import HostError, InputError
from harness.process.command import run
from harness.process.operation import Operation

# The signed flavour for all machines: `cloud` has no 9p, and nothing can be shared with its guests.
PACKAGE = re.compile(r"linux-image-(\d+\.\d+(?:[.+-][a-z0-9]+)*?)-amd64")
OTHER_FLAVOURS = ("cloud", "rt", "dbg", "unsigned", "template")
FETCH_TIMEOUT_S = 900.0
HOST = "host"


class Kernel(Struct, frozen=True):
    """One kernel to boot; `host` is the one that runs here, which needs no guest."""

    name: str  # as the user said
    release: str  # as uname -r says
    image: Path | None = None
    modules: Path | None = None  # the directory modules.dep is in; None: all that a guest needs is built in

    def to_json(self) -> dict[str, str | None]:
        return {
            "name": self.name,
            "release": self.release,
            "image": None if self.image is None else str(self.image),
            "modules": None if self.modules is None else str(self.modules),
        }


def cache_directory(given: Path | None = None) -> Path:
    """--cache, else $OCI_HARNESS_CACHE, else oci-harness in the user's cache directory (XDG)."""
    if given is not None:
        return given.absolute()
    if own := os.environ.get("OCI_HARNESS_CACHE"):
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "oci-harness"


def release_of(image: Path) -> str:
    """The `uname -r` of a bzImage. Raises InputError.

    Documentation/arch/x86/boot.rst: "HdrS" at 0x202, at 0x20e the offset of the version's text, less 0x200.
    """
    try:
        with image.open("rb") as file:
            head = file.read(0x10000)
    except OSError as error:
        raise InputError(f"{image}: {error.strerror}; name a kernel's boot image (vmlinuz)") from None
    if head[0x202:0x206] != b"HdrS":
        raise InputError(f"{image}: no boot image of an x86 Linux (bzImage); name a vmlinuz, not a vmlinux")
    start = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    words = head[start : start + 128].partition(b"\0")[0].decode(errors="replace").split()
    if not words or start == 0x200:
        raise InputError(f"{image}: this boot image does not tell its version")
    return words[0]


def _version(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release))


def is_named(release: str, name: str) -> bool:
    """6.1.0-56-amd64 is `6.1`, `6.1.0-56` and `6.1.0-56-amd64`; 6.12 is not `6.1`."""
    return re.match(re.escape(name) + r"(?![0-9])", release) is not None


def cached(cache: Path) -> list[Kernel]:
    """The kernels that were fetched, oldest first."""
    found = []
    for directory in (cache / "kernels").glob("*/"):
        image, modules = directory / f"boot/vmlinuz-{directory.name}", directory / f"lib/modules/{directory.name}"
        if image.exists() and (modules / "modules.dep").exists():
            found.append(Kernel(directory.name, directory.name, image, modules))
    return sorted(found, key=lambda kernel: _version(kernel.release))


def _tool(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise HostError(f"no {name} on this host; apt-get install {package}")
    return found


def _must(what: str, operation: Operation) -> Operation:
    if operation.exit_status != 0:
        raise HostError(f"{what} failed (exit status {operation.exit_status}): {operation.message}")
    return operation


def packages() -> list[str]:
    """Releases of the kernel packages that apt knows, oldest first. Raises HostError without apt."""
    if platform.machine() != "x86_64":
        raise HostError(f"kernel packages are known for x86_64 only, and this is {platform.machine()}")
    search = [_tool("apt-cache", "apt"), "search", "--names-only", "^linux-image-[0-9].*-amd64$"]
    listed = _must("apt-cache search", run("apt-cache", search, timeout_s=60.0)).stdout.decode(errors="replace")
    found = set()
    for line in listed.splitlines():
        name = line.partition(" ")[0]
        if (match := PACKAGE.fullmatch(name)) and not set(OTHER_FLAVOURS) & set(re.split(r"[.+-]", match[1])):
            found.add(match[1])
    # `linux-image-6.12-amd64` is empty and asks for the newest of its line
    return sorted((f"{release}-amd64" for release in found if release.count(".") > 1), key=_version)


def fetch(name: str, cache: Path, note: Callable[[str], None] = lambda _: None) -> Kernel:
    """Download and unpack the newest package of that name; one that is in the cache already is taken from there.

    Nothing is installed. Raises InputError when there is none, HostError.
    """
    known = packages()
    fitting = [release for release in known if is_named(release, name)]
    if not fitting:
        lines = sorted({".".join(release.split(".")[:2]) for release in known}, key=_version)
        raise InputError(f"kernel {name}: no Debian package; there are {', '.join(lines) or 'none'} (apt-get update?)")
    release = fitting[-1]
    for kernel in cached(cache):
        if kernel.release == release:
            note(f"{release} is in {cache}")
            return Kernel(name, release, kernel.image, kernel.modules)
    kernels = cache / "kernels"
    apt_get, dpkg_deb, depmod = _tool("apt-get", "apt"), _tool("dpkg-deb", "dpkg"), _tool("depmod", "kmod")
    try:
        kernels.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=kernels) as work:
            note(f"downloading linux-image-{release}")
            download = ["/usr/bin/env", "-C", work, apt_get, "download", "-q", f"linux-image-{release}"]
            _must(f"apt-get download linux-image-{release}", run("download", download, timeout_s=FETCH_TIMEOUT_S))
            (package,) = Path(work).glob("*.deb")
            tree = Path(work) / release
            _must(
                f"dpkg-deb -x {package.name}", run("unpack", [dpkg_deb, "-x", str(package), str(tree)], timeout_s=300)
            )
            # the package's own script does this where it is installed
            _must("depmod", run("depmod", [depmod, "-b", str(tree), release], timeout_s=300))
            tree.rename(kernels / release)
    except OSError as error:
        raise HostError(f"{error.filename or kernels}: {error.strerror}; choose another place with --cache") from None
    return Kernel(
        name, release, kernels / release / f"boot/vmlinuz-{release}", kernels / release / "lib/modules" / release
    )


def find(name: str, cache: Path) -> Kernel:
    """A kernel for `--kernel`: `host`, a release or the beginning of one, or IMAGE[:MODULES]. Raises InputError."""
    if name == HOST:
        return Kernel(HOST, os.uname().release)
    if "/" in name:
        return _by_path(name)
    fitting = [kernel for kernel in cached(cache) if is_named(kernel.release, name)]
    if not fitting:
        raise InputError(f"--kernel {name}: not in {cache}; fetch it with: oci-harness kernels fetch {name}")
    return Kernel(name, fitting[-1].release, fitting[-1].image, fitting[-1].modules)


def _by_path(name: str) -> Kernel:
    path, _, given = name.partition(":")
    image = Path(path).absolute()
    release = release_of(image)
    if given:
        modules = Path(given).absolute()
        if (modules / release).is_dir():
            modules /= release
        if not (modules / "modules.dep").exists():
            raise InputError(f"--kernel {name}: no modules.dep in {modules}; run depmod, or name lib/modules/{release}")
        return Kernel(name, release, image, modules)
    # as a package has it: boot/vmlinuz-RELEASE beside lib/modules/RELEASE
    beside = image.parent.parent / "lib/modules" / release
    return Kernel(name, release, image, beside if (beside / "modules.dep").exists() else None)
