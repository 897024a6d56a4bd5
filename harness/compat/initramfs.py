"""The first program of a guest: an /init that makes a root out of the host's files, copied in memory on write.

It takes the place of the one in virtme-ng's initramfs (a later archive wins, Documentation/driver-api/early-userspace/
buffer-format.rst): with no udev a guest is up in 4 s of emulation in place of 15, and `cache=loose` keeps what was read
over 9p, so that a runtime's binary is not fetched again for every exec. Nothing of the host can be written to.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from msgspec import Struct

PORT = "oci-harness"  # name of the virtio-serial port that results go through
GUEST = "run/oci-harness-guest"  # in the guest's root: what init leaves for the agent
LOWER_ROOT = "guest-root"  # where the root that systemd runs in is seen from the agent's

# Where the host's files are, and what of the memory file system in front of them is written.
_COMMON = """#!/bin/sh
B=/bin/busybox
$B mkdir -p /proc /sys /dev /host /rw
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
stuck() { echo "oci-harness guest: $1"; $B poweroff -f; }
. /modules/load_all.sh
mount -t 9p -o ro,version=9p2000.L,trans=virtio,access=any,msize=512000,cache=loose /dev/root /host \\
    || stuck "cannot mount the host's files over 9p"
mount -t proc proc /host/proc
# bfq: the scheduler that I/O weights are for
$B chroot /host /sbin/modprobe -d "$MODULE_ROOT" -a overlay virtio_console virtio_blk bfq
umount /host/proc
mount -t tmpfs -o mode=755 rw /rw
overlay() {
    $B mkdir -p "/rw/$2/upper" "/rw/$2/work"
    mount -t overlay -o "lowerdir=$1,upperdir=/rw/$2/upper,workdir=/rw/$2/work" root "$3" || stuck "no overlay of $1"
}
# A /proc that is left mounted here, out of sight, would let a user namespace mount one where it must not
# (fs/namespace.c, mnt_already_visible).
leave() { for d in /proc /sys /dev /host /rw; do umount -l "$d"; done; }
modules() {
    [ -z "$MODULES" ] && return
    $B mkdir -p "$1/lib/modules/$($B uname -r)"
    mount -o bind "/host$MODULES" "$1/lib/modules/$($B uname -r)"
}
"""

_DIRECT = """
overlay /host root /newroot
bring /newroot
modules /newroot
cd /newroot
mount -t proc -o nosuid,noexec,nodev proc proc
mount -t sysfs -o nosuid,noexec,nodev sys sys
mount -t devtmpfs -o mode=755,nosuid dev dev
$B mkdir -p dev/pts dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666,nosuid,noexec devpts dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev shm dev/shm
mount -t tmpfs -o mode=755,nosuid,nodev run run
mount -t securityfs securityfs sys/kernel/security
mount -t tracefs tracefs sys/kernel/tracing
mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate cgroup2 sys/fs/cgroup
for link in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
    $B ln -s "${link#*:}" "dev/${link%%:*}"
done
$B mkdir -p "$GUEST"
$B cp /bin/busybox /agent.sh "$GUEST/"
$B ip link set lo up
$B hostname oci-harness-guest
# as systemd leaves them for its services, but for nofile's soft limit
ulimit -n 1024
ulimit -H -n 524288
leave
exec switch_root /newroot "/$GUEST/busybox" sh -c "/$GUEST/busybox sh /$GUEST/agent.sh; /$GUEST/busybox poweroff -f"
"""

_SYSTEMD = """
overlay "/host$SYSTEMD_ROOT" root /newroot
overlay /host files /newroot/mnt
bring /newroot/mnt
modules /newroot
modules /newroot/mnt
cd /newroot
mount -t tmpfs -o mode=755,nosuid,nodev run run
$B mkdir -p "$GUEST" run/systemd/system/multi-user.target.wants
$B cp /bin/busybox /enter.sh /agent.sh "$GUEST/"
: > etc/fstab
cat > run/systemd/system/oci-harness.service <<END
[Unit]
Wants=dbus.socket
After=dbus.socket basic.target
[Service]
ExecStart=/$GUEST/busybox unshare -m /$GUEST/busybox sh /$GUEST/enter.sh
ExecStopPost=/$GUEST/busybox poweroff -f
StandardOutput=tty
TTYPath=/dev/ttyS0
LimitNOFILE=1024:524288
TasksMax=infinity
END
$B ln -s ../oci-harness.service run/systemd/system/multi-user.target.wants/
leave
exec switch_root /newroot /lib/systemd/systemd
"""

# PID 1's own root has systemd and little else. The agent gets the host's files as its root, with the guest's /proc,
# /sys, /dev and /run in them: the same runtimes, the same Python, and the sockets of this systemd.
_ENTER = """
/$GUEST/busybox mount --make-rprivate /
cd /mnt
for d in proc sys dev run; do /$GUEST/busybox mount --rbind "/$d" "/mnt/$d"; done
/$GUEST/busybox mkdir -p "/mnt/$LOWER_ROOT"
/$GUEST/busybox pivot_root . "$LOWER_ROOT"
/$GUEST/busybox mkdir -p "/$GUEST/bin"
printf '#!/%s/busybox sh\nexec /%s/busybox chroot /%s /sbin/apparmor_parser "$@"\n' "$GUEST" "$GUEST" "$LOWER_ROOT" \\
    > "/$GUEST/bin/apparmor_parser"
/$GUEST/busybox chmod 755 "/$GUEST/bin/apparmor_parser"
exec /$GUEST/busybox chroot . "/$GUEST/busybox" sh "/$GUEST/agent.sh"
"""


class Script(Struct, frozen=True):
    """What a guest is to do; paths are those of the host."""

    argv: tuple[str, ...]  # the agent
    environment: tuple[tuple[str, str], ...]
    working_directory: str
    modules: Path | None  # lib/modules/RELEASE
    systemd_root: Path | None = None  # the root in which systemd is PID 1; None: no systemd
    brought: tuple[str, ...] = ()  # files that are copied into memory before anything asks for them

    def files(self) -> dict[str, bytes]:
        """What is laid over virtme-ng's initramfs; all of it is executable."""
        variables = {
            "GUEST": GUEST,
            "LOWER_ROOT": LOWER_ROOT,
            "MODULES": str(self.modules or ""),
            # modprobe -d wants the directory that lib/modules is in
            "MODULE_ROOT": str(self.modules.parent.parent.parent) if self.modules else "/",
            "SYSTEMD_ROOT": str(self.systemd_root or ""),
        }
        assignments = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
        # An owner that is set, be it the same, has the overlay copy the file (fs/overlayfs/inode.c, ovl_setattr).
        copy = shlex.join(("/bin/chown", "-h", "--from=0:0", "0:0", *self.brought)) if self.brought else "true"
        bring = f'bring() {{ $B chroot "$1" {copy} || echo "oci-harness guest: some files are not in memory"; }}\n'
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in self.environment)
        agent = f"{exports}cd {shlex.quote(self.working_directory)}\nexec {shlex.join(self.argv)}\n"
        first, _, rest = _COMMON.partition("\n")
        init = f"{first}\n{assignments}{bring}{rest}{_SYSTEMD if self.systemd_root else _DIRECT}"
        return {"init": init.encode(), "agent.sh": agent.encode(), "enter.sh": (assignments + _ENTER).encode()}


def archive(files: dict[str, bytes]) -> bytes:
    """A cpio archive of the form `newc`, as the kernel unpacks it; executable files by their names."""
    parts = []
    for number, (name, content) in enumerate([*files.items(), ("TRAILER!!!", b"")], 1):
        encoded = name.encode() + b"\0"
        mode = 0o100755 if name != "TRAILER!!!" else 0
        # inode, mode, uid, gid, links, mtime, size, device and rdevice (major, minor), length of the name, no checksum
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        parts += [_padded(header + encoded), _padded(content)]
    return b"".join(parts)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
