/* Start a command with no interpreter work between the clock and the clone. */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ULL
#endif
#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#define CHILD_STACK (64 * 1024)

int64_t oh_monotonic_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

struct child {
	const char *path;
	char **argv;
	char **envp;
	const char *cwd;
	int *fds;
	int n_fds;
	int cgroup_fd; /* to be joined by writing cgroup.procs; -1: nothing to do */
	const int *join_fds;
	int n_join;
	int mount_ns_fd;
	int flags;
	pid_t parent;
	int reset_handlers;
	volatile int error;
	volatile int stage;
};

static int join_cgroup(int dirfd)
{
	int fd = openat(dirfd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t wrote = write(fd, "0", 1);
	int error = errno;
	close(fd);
	errno = error;
	return wrote == 1 ? 0 : -1;
}

/* Give the child its descriptors. Sources below n_fds are first moved out of the way. */
static int place_fds(struct child *c)
{
	for (int i = 0; i < c->n_fds; i++) /* before a copy takes the number of one that is not open */
		if (c->fds[i] >= 0 && fcntl(c->fds[i], F_GETFD) < 0)
			return -1;
	for (int i = 0; i < c->n_fds; i++) {
		if (c->fds[i] >= 0 && c->fds[i] < c->n_fds && c->fds[i] != i) {
			int moved = fcntl(c->fds[i], F_DUPFD_CLOEXEC, c->n_fds);
			if (moved < 0)
				return -1;
			c->fds[i] = moved;
		}
	}
	for (int i = 0; i < c->n_fds; i++) {
		if (c->fds[i] < 0)
			close(i);
		else if (c->fds[i] == i) {
			if (fcntl(i, F_SETFD, 0) < 0)
				return -1;
		} else if (dup2(c->fds[i], i) < 0)
			return -1;
	}
	syscall(SYS_close_range, c->n_fds, ~0U, CLOSE_RANGE_CLOEXEC); /* Linux 5.11; before it Python's own O_CLOEXEC */
	return 0;
}

/* Runs in the caller's memory on a stack of its own, all signals blocked, until the exec. */
static int become_command(void *arg)
{
	struct child *c = arg;
	sigset_t none;

	if (c->reset_handlers) {
		struct sigaction action;
		for (int sig = 1; sig < NSIG; sig++)
			if (sigaction(sig, NULL, &action) == 0 && action.sa_handler != SIG_DFL &&
			    action.sa_handler != SIG_IGN)
				signal(sig, SIG_DFL);
	}
	signal(SIGPIPE, SIG_DFL); /* Python ignores these two; a command expects them */
	signal(SIGXFSZ, SIG_DFL);

	c->stage = OH_STAGE_SESSION;
	if (c->flags & OH_SPAWN_PDEATHSIG) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
			goto failed;
		if (getppid() != c->parent) {
			errno = EOWNERDEAD;
			goto failed;
		}
	}
	if ((c->flags & OH_SPAWN_SETSID) && setsid() < 0)
		goto failed;

	c->stage = OH_STAGE_CGROUP;
	if (c->cgroup_fd >= 0 && join_cgroup(c->cgroup_fd) < 0)
		goto failed;
	for (int i = 0; i < c->n_join; i++)
		if (join_cgroup(c->join_fds[i]) < 0)
			goto failed;

	c->stage = OH_STAGE_MOUNT_NS;
	if (c->mount_ns_fd >= 0 && setns(c->mount_ns_fd, CLONE_NEWNS) < 0)
		goto failed;
	c->stage = OH_STAGE_CWD;
	if (c->cwd && chdir(c->cwd) < 0)
		goto failed;
	c->stage = OH_STAGE_FDS;
	if (place_fds(c) < 0)
		goto failed;

	c->stage = OH_STAGE_EXEC;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(c->path, c->argv, c->envp);
failed:
	c->error = errno;
	_exit(127);
}

/*
 * clone3 with a stack for the child. The C library has no wrapper, and a plain syscall() would return into a frame that
 * the child and its suspended parent share; so the child jumps to its function straight from the system call.
 */
static long clone3_call(struct clone_args *args, struct child *c)
{
#if defined(__x86_64__)
	register struct child *r_child __asm__("r12") = c;
	register int (*r_fn)(void *) __asm__("r13") = become_command;
	long ret;
	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %%r12, %%rdi\n\t"
			 "call *%%r13\n\t"
			 "hlt\n"
			 "1:"
			 : "=a"(ret)
			 : "a"((long)SYS_clone3), "D"(args), "S"(sizeof(*args)), "r"(r_child), "r"(r_fn)
			 : "rcx", "r11", "memory", "cc");
	return ret;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = SYS_clone3;
	register long x0 __asm__("x0") = (long)args;
	register long x1 __asm__("x1") = sizeof(*args);
	register struct child *r_child __asm__("x20") = c;
	register int (*r_fn)(void *) __asm__("x21") = become_command;
	__asm__ volatile("svc #0\n\t"
			 "cbnz x0, 1f\n\t"
			 "mov x29, #0\n\t"
			 "mov x0, x20\n\t"
			 "blr x21\n\t"
			 "brk #0\n"
			 "1:"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(r_child), "r"(r_fn)
			 : "memory", "cc", "x30");
	return x0;
#else
	(void)args;
	(void)c;
	return -ENOSYS;
#endif
}

static void split_block(const char *block, int count, char **out)
{
	for (int i = 0; i < count; i++) {
		out[i] = (char *)block;
		block += strlen(block) + 1;
	}
	out[count] = NULL;
}

int oh_spawn(const char *path, const char *argv, int argc, const char *envp, int envc, const char *cwd,
	     const int *fds, int n_fds, int cgroup_fd, const int *join_fds, int n_join, int mount_ns_fd, int flags,
	     struct oh_spawned *out)
{
	size_t pointers = sizeof(char *) * ((size_t)argc + 1 + (size_t)envc + 1);
	char **args = malloc(pointers + sizeof(int) * (size_t)n_fds);
	char *stack = aligned_alloc(16, CHILD_STACK);
	if (!args || !stack) {
		free(args);
		free(stack);
		return -ENOMEM;
	}
	char **env = args + argc + 1;
	split_block(argv, argc, args);
	split_block(envp, envc, env);
	int *child_fds = (int *)((char *)args + pointers);
	memcpy(child_fds, fds, sizeof(int) * (size_t)n_fds);

	struct child c = {
		.path = path, .argv = args, .envp = env, .cwd = cwd, .fds = child_fds, .n_fds = n_fds,
		.cgroup_fd = -1, .join_fds = join_fds, .n_join = n_join, .mount_ns_fd = mount_ns_fd,
		.flags = flags, .parent = getpid(), .error = 0, .stage = OH_STAGE_CLONE,
	};
	struct clone_args clone_args = {
		.flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
		.pidfd = (uint64_t)(uintptr_t)&out->pidfd,
		.exit_signal = SIGCHLD,
		.stack = (uint64_t)(uintptr_t)stack,
		.stack_size = CHILD_STACK,
	};
	if (cgroup_fd >= 0) {
		clone_args.flags |= CLONE_INTO_CGROUP;
		clone_args.cgroup = (uint64_t)cgroup_fd;
	}

	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	out->pidfd = -1;
	out->into_clone = 0;
	long pid = -ENOSYS;
	if (!(flags & OH_SPAWN_NO_CLONE3)) {
		out->start_ns = oh_monotonic_ns();
		pid = clone3_call(&clone_args, &c);
		out->into_clone = pid > 0 && cgroup_fd >= 0;
	}
	/* ENOSYS: no clone3 (before Linux 5.3, or a seccomp filter). EPERM: a seccomp filter that does not know it (Docker
	 * before 20.10). EINVAL, E2BIG: clone3 without CLONE_CLEAR_SIGHAND (5.5) or CLONE_INTO_CGROUP (5.7). Then the
	 * child does by hand what the flags would have done. */
	if (pid == -ENOSYS || pid == -EPERM || pid == -EINVAL || pid == -E2BIG) {
		c.cgroup_fd = cgroup_fd;
		c.reset_handlers = 1;
		out->start_ns = oh_monotonic_ns();
		pid = clone(become_command, stack + CHILD_STACK, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &c,
			    &out->pidfd);
		if (pid < 0)
			pid = -errno;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	free(stack);
	free(args);

	out->pid = (int)pid;
	out->stage = c.stage;
	if (pid < 0)
		return (int)pid;
	if (c.error) { /* the child is gone already: reap it, nobody else knows of it */
		if (out->pidfd >= 0)
			close(out->pidfd);
		while (waitpid((pid_t)pid, NULL, 0) < 0 && errno == EINTR)
			;
		out->pid = 0;
		out->pidfd = -1;
		return -c.error;
	}
	return (int)pid;
}

static struct timespec to_timespec(int64_t ns)
{
	return (struct timespec){ .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
}

int oh_poll(int fd, int events, int64_t timeout_ns)
{
	struct pollfd p = { .fd = fd, .events = (short)events };
	struct timespec timeout = to_timespec(timeout_ns < 0 ? 0 : timeout_ns);
	int ready = ppoll(&p, 1, timeout_ns < 0 ? NULL : &timeout, NULL);
	if (ready < 0)
		return -errno;
	return ready ? p.revents : 0;
}

int oh_wait(int pid, int pidfd, int64_t timeout_ns, struct oh_exit *out)
{
	siginfo_t info = { 0 };
	struct rusage usage;

	if (pidfd >= 0) {
		int ready = oh_poll(pidfd, POLLIN, timeout_ns);
		out->end_ns = oh_monotonic_ns();
		if (ready < 0)
			return ready;
		if (ready == 0)
			return -ETIMEDOUT;
	}
	/* the raw call: only it hands out the rusage. By pidfd (Linux 5.4), for the pid of one that was somebody else's child
	 * may be that of a new child of ours by now. */
	long waited = pidfd < 0 ? -1 : syscall(SYS_waitid, P_PIDFD, pidfd, &info, WEXITED, &usage);
	if (waited < 0 && (pidfd < 0 || errno == EINVAL))
		waited = syscall(SYS_waitid, P_PID, pid, &info, WEXITED, &usage);
	if (waited < 0)
		return -errno;
	if (pidfd < 0)
		out->end_ns = oh_monotonic_ns();
	out->code = info.si_code;
	out->status = info.si_status;
	out->user_us = (int64_t)usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec;
	out->system_us = (int64_t)usage.ru_stime.tv_sec * 1000000 + usage.ru_stime.tv_usec;
	out->maxrss_kib = usage.ru_maxrss;
	out->minflt = usage.ru_minflt;
	out->majflt = usage.ru_majflt;
	out->nvcsw = usage.ru_nvcsw;
	out->nivcsw = usage.ru_nivcsw;
	return 0;
}

int oh_pidfd_open(int pid, int flags)
{
	long fd = syscall(SYS_pidfd_open, pid, flags);
	return fd < 0 ? -errno : (int)fd;
}

int oh_pidfd_send_signal(int pidfd, int sig)
{
	return syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) < 0 ? -errno : 0;
}
