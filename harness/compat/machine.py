"""One virtual machine: virtme-ng plans it (qemu's arguments, an initramfs with the modules), it is started here.

Started here and not by virtme-ng, so that the kernel kills qemu with the thread that runs it, and results have a
socket of their own.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import shutil
import socket
import sys
from pathlib import Path
from typing import Literal

from msgspec import Struct

from harness.compat.initramfs import PORT, Script, archive
from harness.compat.kernels import Kernel
from harness.errors import HostError
from harness.process import companion
from harness.process.children import Child
from harness.process.command import run

Accelerator = Literal["kvm", "tcg"]
MEMORY = "2G"
PLAN_TIMEOUT_S = 120.0
# Of the host's programs that a guest needs: command, Debian package.
PROGRAMS = (
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("modprobe", "kmod"),
    ("busybox", "busybox-static"),
)
# Emulation pays for every switch of page tables, every page cleared, every vector instruction: what guards against
# attacks is left out, and nothing that a runtime meets (mitigations=off, init_on_alloc=0). A program that is always at
# the same addresses (norandmaps) is translated once and not at every start: a third off every cell. Of Debian's
# security modules TOMOYO and BPF have no policy and look at every file all the same: without them, and without the
# self-tests of ciphers, a guest is faster by a fifteenth.
QUICK = "mitigations=off init_on_alloc=0 nowatchdog tsc=reliable norandmaps cryptomgr.notests"
QUICK += " lsm=landlock,lockdown,yama,integrity,apparmor"
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def _search_path() -> str:
    own = Path(sys.executable).parent
    return ":".join(dict.fromkeys([str(own), *os.environ.get("PATH", "").split(":"), *SBIN]))


def missing() -> list[str]:
    """What this host lacks for guests, one line each; none: they can be started."""
    if platform.machine() != "x86_64":
        return [f"guests need x86_64, and this is {platform.machine()}"]
    path = _search_path()
    lines = [
        f"no {program}: apt-get install {package}"
        for program, package in PROGRAMS
        if shutil.which(program, path=path) is None
    ]
    if shutil.which("virtme-run", path=path) is None:
        lines.append("no virtme-ng: pip install 'oci-harness[guests]'")
    return lines


def require() -> None:
    """Raises HostError with all that is missing."""
    if lines := missing():
        raise HostError(f"no guest can be started here: {'; '.join(lines)}")


def accelerators(asked: str) -> list[Accelerator]:
    """What to try, in order, for `auto`, `kvm` or `tcg`."""
    if asked == "tcg":
        return ["tcg"]
    usable = os.access("/dev/kvm", os.R_OK | os.W_OK)
    if asked == "kvm":
        if not usable:
            raise HostError("/dev/kvm cannot be opened here; use --accel tcg")
        return ["kvm"]
    return ["kvm", "tcg"] if usable else ["tcg"]


class Machine(Struct):
    """A running qemu. `channel` is the other end of the guest's port; it ends when qemu does."""

    process: Child
    channel: socket.socket
    console: Path  # what the guest's serial console and qemu itself have said
    accelerator: Accelerator

    def console_tail(self, limit_bytes: int = 4000) -> str:
        try:
            data = self.console.read_bytes()
        except OSError:
            return ""
        return data[-limit_bytes:].decode(errors="replace").replace("\r", "").strip()

    def close(self) -> None:
        self.channel.close()
        with contextlib.suppress(TimeoutError):
            self.process.kill()


def _module_tree(kernel: Kernel, directory: Path) -> Path:
    """boot/ and lib/modules/ side by side, which is where virtme-ng looks; returns the image's path there."""
    (directory / "boot").mkdir(parents=True)
    image = directory / "boot" / f"vmlinuz-{kernel.release}"
    image.symlink_to(kernel.image or "")
    if kernel.modules is not None:
        (directory / "lib/modules").mkdir(parents=True)
        (directory / "lib/modules" / kernel.release).symlink_to(kernel.modules)
    return image


def plan(kernel: Kernel, directory: Path, accelerator: Accelerator, cpus: int) -> tuple[list[str], bytes]:
    """qemu's arguments as virtme-ng would start it, and the initramfs it made. Raises HostError."""
    image = _module_tree(kernel, directory / "kernel")
    initramfs = directory / "virtme-initramfs"
    path = _search_path()
    command = [shutil.which("virtme-run", path=path) or "virtme-run", "--kimg", str(image), "--root", "/"]
    command += ["--mods", "auto" if kernel.modules else "none", "--memory", MEMORY, "--cpus", str(cpus)]
    command += ["--force-9p", "--force-initramfs", "--disable-monitor", "--show-command", "--dry-run"]
    command += ["--save-initramfs", str(initramfs)]
    command += ["--disable-kvm"] if accelerator == "tcg" else []
    environment = (f"PATH={path}", f"TMPDIR={directory}", f"HOME={directory}", f"XDG_CACHE_HOME={directory}")
    planned = run("virtme-run", command, env=environment, timeout_s=PLAN_TIMEOUT_S)
    words = shlex.split(planned.stdout.decode(errors="replace"))
    if planned.exit_status != 0 or not initramfs.exists() or "-append" not in words:
        raise HostError(f"virtme-ng cannot plan a guest with {kernel.release}: {planned.message or 'no command'}")
    made = initramfs.read_bytes()
    initramfs.unlink()
    return words, made


def start(kernel: Kernel, script: Script, directory: Path, accelerator: Accelerator, cpus: int) -> Machine:
    """Boot a guest; `directory` is new and holds its console. The calling thread must live as long as the guest.

    It runs on one of its `cpus` until more are brought up (/sys/devices/system/cpu/cpuN/online).

    Raises HostError, OSError.
    """
    words, initramfs = plan(kernel, directory, accelerator, cpus)
    own = directory / "initramfs"
    # each archive begins at a multiple of four
    own.write_bytes(initramfs + bytes(-len(initramfs) % 4) + archive(script.files()))
    words[words.index("-append") + 1] = _command_line(accelerator, systemd=script.systemd_root is not None)
    words[words.index("-initrd") + 1] = str(own)
    words += ["-no-reboot"]
    if accelerator == "tcg":
        # All CPUs in one thread, as only one is up most of the time: two threads need atomic instructions, and those a
        # tenth more time. Without five-level page tables, whose every walk is a loop here, and without the promise that
        # `rep movsb` is fast, which the kernel and the C library believe.
        words += ["-accel", "tcg,thread=single,tb-size=512", "-cpu", "max,-la57,-erms,-fsrm"]
        # No second thread that is told of each request through an event descriptor, and looks at those of two times 31
        # ports that nobody uses: a sixth of all time.
        words += ["-global", "virtio-9p-pci.ioeventfd=off", "-global", "virtio-blk-pci.ioeventfd=off"]
        words += ["-global", "virtio-serial-pci.ioeventfd=off", "-global", "virtio-serial-pci.max_ports=2"]
    words += ["-device", "virtio-serial-pci", "-chardev", f"socket,id={PORT},fd=3"]
    words += ["-device", f"virtserialport,name={PORT},chardev={PORT}"]
    # a disk of zeros, for what limits I/O
    words += ["-blockdev", "driver=null-co,node-name=zeros,size=67108864,read-zeroes=on"]
    words += ["-device", "virtio-blk,drive=zeros"]
    ours, theirs = socket.socketpair()
    console = directory / "console"
    with theirs, console.open("wb") as log:
        try:
            process = companion.start(
                words,
                stdout=log.fileno(),
                stderr=log.fileno(),
                extra_fds=[theirs.fileno()],
                env=("PATH=/usr/bin:/bin",),
            )
        except OSError as error:
            ours.close()
            raise HostError(f"{words[0]} cannot be started: {error.strerror}") from None
    return Machine(process, ours, console, accelerator)


def _command_line(accelerator: Accelerator, *, systemd: bool) -> str:
    words = ["console=ttyS0", "quiet", "loglevel=4", "panic=-1", "oops=panic", "maxcpus=1"]
    words += [QUICK] if accelerator == "tcg" else []
    if systemd:
        words += ["systemd.show_status=0", "systemd.unified_cgroup_hierarchy=1", "systemd.mask=getty.target"]
        words += ["systemd.mask=serial-getty@ttyS0.service", "systemd.mask=systemd-udevd.service"]
    return " ".join(words)
