/* Namespaces, mounts and the denial of system calls. */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/nsfs.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

int oh_namespaces(int proc_fd, uint64_t *dev, uint64_t *ino)
{
	static const char *const names[OH_NAMESPACES] = {
		"ns/cgroup", "ns/ipc",  "ns/mnt",		"ns/net",  "ns/pid", "ns/pid_for_children",
		"ns/time",   "ns/time_for_children", "ns/user", "ns/uts",
	};
	int found = 0, error = 0;
	for (int i = 0; i < OH_NAMESPACES; i++) {
		struct stat st;
		dev[i] = ino[i] = 0;
		if (fstatat(proc_fd, names[i], &st, 0) < 0) {
			error = errno;
			continue;
		}
		dev[i] = st.st_dev;
		ino[i] = st.st_ino;
		found++;
	}
	return found ? found : -error;
}

static int result(long value)
{
	return value < 0 ? -errno : (int)value;
}

int oh_ns_type(int fd)
{
	return result(ioctl(fd, NS_GET_NSTYPE));
}

int64_t oh_ns_owner_uid(int fd)
{
	uid_t uid;
	return ioctl(fd, NS_GET_OWNER_UID, &uid) < 0 ? -errno : (int64_t)uid;
}

int oh_ns_userns(int fd)
{
	return result(ioctl(fd, NS_GET_USERNS));
}

int oh_ns_parent(int fd)
{
	return result(ioctl(fd, NS_GET_PARENT));
}

int oh_setns(int fd, int flags)
{
	return result(setns(fd, flags));
}

int oh_unshare(int flags)
{
	return result(unshare(flags));
}

int oh_mount(const char *source, const char *target, const char *fstype, uint64_t flags, const char *data)
{
	return result(mount(source, target, fstype, (unsigned long)flags, data));
}

int oh_umount(const char *target, int flags)
{
	return result(umount2(target, flags));
}

int oh_reflink(int source_fd, int target_fd)
{
	return result(ioctl(target_fd, FICLONE, source_fd));
}

int oh_syscall_number(const char *name)
{
	static const struct {
		const char *name;
		int number;
	} known[] = {
		{ "clone3", SYS_clone3 },
		{ "openat2", SYS_openat2 },
		{ "pidfd_open", SYS_pidfd_open },
		{ "mount_setattr", SYS_mount_setattr },
		{ "fsopen", SYS_fsopen },
		{ "keyctl", SYS_keyctl },
		{ "unshare", SYS_unshare },
		{ "mount", SYS_mount },
		{ "setns", SYS_setns },
		{ "clone", SYS_clone },
		{ "seccomp", SYS_seccomp },
		{ "prctl", SYS_prctl },
		{ "bpf", SYS_bpf },
		{ "capset", SYS_capset },
		{ "chroot", SYS_chroot },
		{ "pivot_root", SYS_pivot_root },
		{ "umount2", SYS_umount2 },
		{ "sethostname", SYS_sethostname },
		{ "setgroups", SYS_setgroups },
		{ "memfd_create", SYS_memfd_create },
		{ "statx", SYS_statx },
		{ "add_key", SYS_add_key },
		{ "fsmount", SYS_fsmount },
		{ "fsconfig", SYS_fsconfig },
		{ "move_mount", SYS_move_mount },
		{ "open_tree", SYS_open_tree },
		{ "close_range", SYS_close_range },
	};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(name, known[i].name) == 0)
			return known[i].number;
	return -ENOSYS;
}

int oh_deny_syscalls(const int *numbers, int n, int error)
{
	struct sock_filter *filter = calloc((size_t)n * 2 + 2, sizeof(*filter));
	if (!filter)
		return -ENOMEM;
	int at = 0;
	filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (int i = 0; i < n; i++) {
		filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)numbers[i], 0, 1);
		filter[at++] = (struct sock_filter)BPF_STMT(
			BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((uint32_t)error & SECCOMP_RET_DATA));
	}
	filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { .len = (unsigned short)at, .filter = filter };
	int ret = result(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	if (ret == 0)
		ret = result(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
	free(filter);
	return ret;
}
