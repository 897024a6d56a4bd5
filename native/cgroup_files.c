/* Read many small kernel files at the price of their system calls. */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

static int openat2_missing; /* learnt once: ENOSYS (before Linux 5.6) or EPERM by an old seccomp filter */

/* openat(2) that says ELOOP to a link where openat2(2) with RESOLVE_NO_SYMLINKS does. */
static int open_part(int at, const char *part, int flags)
{
	struct stat st;
	int fd = openat(at, part, flags | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) {
		int error = errno;
		if (error == ENOTDIR && fstatat(at, part, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode))
			error = ELOOP; /* O_DIRECTORY came first */
		return -error;
	}
	if ((flags & (O_PATH | O_NOFOLLOW)) == O_PATH && fstat(fd, &st) == 0 && S_ISLNK(st.st_mode)) {
		close(fd); /* O_PATH with O_NOFOLLOW opens the link itself */
		return -ELOOP;
	}
	return fd;
}

static int walk_beneath(int dirfd, const char *path, int flags)
{
	char part[256];
	int at = dirfd;

	for (;;) {
		while (*path == '/')
			path++;
		size_t length = strcspn(path, "/");
		if (length >= sizeof(part))
			return at == dirfd ? -ENAMETOOLONG : (close(at), -ENAMETOOLONG);
		memcpy(part, path, length);
		part[length] = 0;
		path += length;
		int last = path[strspn(path, "/")] == 0;
		int fd = strcmp(part, "..") == 0 ? -EXDEV :
			 open_part(at, length ? part : ".", last ? flags : O_PATH | O_DIRECTORY);
		if (at != dirfd)
			close(at);
		if (fd < 0 || last)
			return fd;
		at = fd;
	}
}

int oh_open_beneath(int dirfd, const char *path, int flags)
{
	if (path[0] == '/')
		return -EXDEV;
	if (!openat2_missing) {
		struct open_how how = {
			.flags = (uint64_t)(flags | O_CLOEXEC),
			.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS,
		};
		long fd = syscall(SYS_openat2, dirfd, *path ? path : ".", &how, sizeof(how));
		if (fd >= 0)
			return (int)fd;
		if (errno != ENOSYS && errno != EPERM)
			return -errno;
		openat2_missing = errno == ENOSYS;
	}
	return walk_beneath(dirfd, path, flags);
}

int64_t oh_fs_magic(int fd)
{
	struct statfs fs;
	if (fstatfs(fd, &fs) < 0)
		return -errno;
	return (int64_t)(uint32_t)fs.f_type;
}

/*
 * One file from offset 0. A read of a seq_file ends early only at the end of the file, or within one record of the end of
 * the kernel's page-sized buffer (fs/seq_file.c seq_read_iter): so a short first read needs no second one to prove it.
 */
static int64_t read_whole(int fd, char *buf, size_t cap)
{
	size_t used = 0;
	while (used < cap) {
		ssize_t n = pread(fd, buf + used, cap - used, (off_t)used);
		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		used += (size_t)n;
		/* a read that filled the buffer may have been cut short by it, and proves nothing */
		if (n == 0 || (used == (size_t)n && n < 2048 && used < cap))
			return (int64_t)used;
	}
	return -ENOBUFS;
}

int64_t oh_read_files(const int *dirfds, const char *names, int n, char *buf, size_t cap, int64_t *lengths)
{
	size_t used = 0;
	for (int i = 0; i < n; i++, names += strlen(names) + 1) {
		int fd = strchr(names, '/') ? -EXDEV : openat(dirfds[i], names, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0) {
			lengths[i] = fd == -1 ? -errno : fd;
			continue;
		}
		lengths[i] = read_whole(fd, buf + used, cap - used);
		close(fd);
		if (lengths[i] == -ENOBUFS)
			return -ENOBUFS;
		if (lengths[i] > 0)
			used += (size_t)lengths[i];
	}
	return (int64_t)used;
}

int64_t oh_pread_files(const int *fds, int n, char *buf, size_t cap, int64_t *lengths)
{
	size_t used = 0;
	for (int i = 0; i < n; i++) {
		lengths[i] = fds[i] < 0 ? fds[i] : read_whole(fds[i], buf + used, cap - used);
		if (lengths[i] == -ENOBUFS)
			return -ENOBUFS;
		if (lengths[i] > 0)
			used += (size_t)lengths[i];
	}
	return (int64_t)used;
}

static int64_t thread_cpu_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t oh_sample(const int *fds, int n, int64_t period_ns, int stop_fd, int64_t max_samples, char *buf, size_t cap,
		  int64_t *times, int64_t *lengths, int64_t *cpu_ns)
{
	int64_t cpu_before = thread_cpu_ns();
	int64_t taken = 0;
	int64_t next = oh_monotonic_ns();
	size_t used = 0;

	while (taken < max_samples) {
		times[taken] = oh_monotonic_ns();
		int64_t got = oh_pread_files(fds, n, buf + used, cap - used, lengths + taken * n);
		if (got < 0)
			break;
		used += (size_t)got;
		taken++;
		next += period_ns;
		int64_t now = oh_monotonic_ns();
		if (next < now)
			next = now; /* late: do not try to catch up with a burst */
		int stop = oh_poll(stop_fd, POLLIN, next - now);
		if (stop > 0)
			break;
	}
	*cpu_ns = thread_cpu_ns() - cpu_before;
	return taken;
}

int oh_cgroup_eventfd(int control_fd, int target_fd, const char *args)
{
	char line[128];
	int event = eventfd(0, EFD_CLOEXEC);
	if (event < 0)
		return -errno;
	int length = snprintf(line, sizeof(line), "%d %d %s", event, target_fd, args);
	int error = length >= (int)sizeof(line) ? EINVAL : 0;
	if (!error && write(control_fd, line, (size_t)length) != length)
		error = errno;
	if (error) {
		close(event);
		return -error;
	}
	return event;
}
