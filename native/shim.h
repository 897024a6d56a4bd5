/* What the shim offers. Every function returns >= 0, or -errno; none touches errno of its caller's thread on purpose. */
#ifndef OCI_HARNESS_SHIM_H
#define OCI_HARNESS_SHIM_H

#include <stddef.h>
#include <stdint.h>

/* --- clocks --------------------------------------------------------------------------------------------- */

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t oh_monotonic_ns(void);

/* --- processes ------------------------------------------------------------------------------------------ */

/* Flags of oh_spawn. */
#define OH_SPAWN_PDEATHSIG 1 /* SIGKILL for the child when the calling thread ends */
#define OH_SPAWN_SETSID 2    /* the child leads a session of its own */
#define OH_SPAWN_NO_CLONE3 4 /* act as on a kernel without clone3 */

/* Where a child failed before it became the command (oh_spawned.stage). */
#define OH_STAGE_CLONE 0
#define OH_STAGE_MOUNT_NS 1
#define OH_STAGE_CGROUP 2
#define OH_STAGE_CWD 3
#define OH_STAGE_FDS 4
#define OH_STAGE_EXEC 5
#define OH_STAGE_SESSION 6

struct oh_spawned {
	int64_t start_ns; /* CLOCK_MONOTONIC, read right before the clone */
	int pid;        /* not above 0 when there is no child */
	int pidfd;
	int stage;      /* one of OH_STAGE_*, set when the call fails */
	int into_clone; /* 1: the kernel put the child into the cgroup at the clone (CLONE_INTO_CGROUP) */
};

/*
 * Start a command: clone with CLONE_VM|CLONE_VFORK|CLONE_PIDFD, so the cost does not grow with the caller.
 * argv and envp are blocks of NUL-terminated strings, argc and envc their number. fds[i] becomes descriptor i;
 * -1 leaves that number closed; all other descriptors are closed by the exec. cgroup_fd: a cgroup v2 directory
 * to be born into, or -1. join_fds: cgroup v1 directories whose cgroup.procs the child writes itself into before the
 * exec. mount_ns_fd: a mount namespace to enter first, or -1. cwd may be NULL.
 * A failure on the way to the exec is returned here as -errno with out->stage; then there is no child.
 */
int oh_spawn(const char *path, const char *argv, int argc, const char *envp, int envc, const char *cwd,
	     const int *fds, int n_fds, int cgroup_fd, const int *join_fds, int n_join, int mount_ns_fd, int flags,
	     struct oh_spawned *out);

struct oh_exit {
	int64_t end_ns;  /* CLOCK_MONOTONIC, read as soon as the wait returned */
	int code;        /* CLD_EXITED, CLD_KILLED or CLD_DUMPED */
	int status;      /* exit status, or the signal's number */
	int64_t user_us; /* getrusage(2) of the child and the children it waited for */
	int64_t system_us;
	int64_t maxrss_kib;
	int64_t minflt;
	int64_t majflt;
	int64_t nvcsw;
	int64_t nivcsw;
};

/*
 * Wait for a child to end and reap it. timeout_ns < 0 waits for ever.
 * -ETIMEDOUT at the deadline, -EINTR on a signal, -ECHILD when it is no child of ours.
 */
int oh_wait(int pid, int pidfd, int64_t timeout_ns, struct oh_exit *out);

int oh_pidfd_open(int pid, int flags);
int oh_pidfd_send_signal(int pidfd, int sig);

/* poll(2) on one descriptor: revents > 0, or 0 at the deadline. timeout_ns < 0 waits for ever. */
int oh_poll(int fd, int events, int64_t timeout_ns);

/* --- cgroup files --------------------------------------------------------------------------------------- */

/* openat2(2) that never leaves dirfd and follows no link; on a kernel without openat2 the same by walking
 * the path with O_NOFOLLOW. -EXDEV or -ELOOP tell of an attempt to get out. */
int oh_open_beneath(int dirfd, const char *path, int flags);

/* f_type of fstatfs(2): OH_CGROUP_SUPER_MAGIC, OH_CGROUP2_SUPER_MAGIC, ... */
int64_t oh_fs_magic(int fd);

/*
 * Read n files whole, in one call into one buffer: dirfds[i] is the directory of the i-th NUL-terminated name.
 * lengths[i]: bytes read (the files' bytes lie one after the other in buf), or -errno of that file.
 * Returns the bytes used; -ENOBUFS when buf is too small. Names hold no '/'.
 */
int64_t oh_read_files(const int *dirfds, const char *names, int n, char *buf, size_t cap, int64_t *lengths);

/* The same from descriptors that are open already, by pread at 0. */
int64_t oh_pread_files(const int *fds, int n, char *buf, size_t cap, int64_t *lengths);

/*
 * oh_pread_files every period_ns until stop_fd is readable, max_samples are taken or buf is full; no interpreter
 * between two samples. times[s]: CLOCK_MONOTONIC before the reads. lengths[s * n + i] as above.
 * cpu_ns: CPU time this thread spent in the call. Returns the samples taken.
 */
int64_t oh_sample(const int *fds, int n, int64_t period_ns, int stop_fd, int64_t max_samples, char *buf, size_t cap,
		  int64_t *times, int64_t *lengths, int64_t *cpu_ns);

/* cgroup v1: a new eventfd, registered through cgroup.event_control for target_fd ("<event> <target> args"). */
int oh_cgroup_eventfd(int control_fd, int target_fd, const char *args);

/* --- namespaces and mounts ------------------------------------------------------------------------------ */

#define OH_NAMESPACES 10 /* cgroup ipc mnt net pid pid_for_children time time_for_children user uts */

/* Identity of every namespace of a process, from a descriptor of its /proc directory; dev 0 and ino 0: not there.
 * Returns how many are there; -errno when none can be read. */
int oh_namespaces(int proc_fd, uint64_t *dev, uint64_t *ino);

int oh_ns_type(int fd);          /* a CLONE_NEW* constant */
int64_t oh_ns_owner_uid(int fd); /* of a user namespace */
int oh_ns_userns(int fd);        /* a descriptor of the owning user namespace */
int oh_ns_parent(int fd);        /* a descriptor of the parent (user and pid namespaces) */
int oh_setns(int fd, int flags); /* fd: a namespace, or a pidfd with CLONE_NEW* flags */
int oh_unshare(int flags);
int oh_mount(const char *source, const char *target, const char *fstype, uint64_t flags, const char *data);
int oh_umount(const char *target, int flags);
int oh_reflink(int source_fd, int target_fd); /* ioctl FICLONE */

/* --- system call denial --------------------------------------------------------------------------------- */

/* Number of a system call this shim may want to deny, by name; -ENOSYS when this architecture has none. */
int oh_syscall_number(const char *name);

/* Make the given system calls fail with `error` for this thread and all it starts from now on (no_new_privs is set).
 * There is no way back. */
int oh_deny_syscalls(const int *numbers, int n, int error);

#endif
