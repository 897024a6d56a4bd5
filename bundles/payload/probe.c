/*
 * Try what container runtimes ask of a kernel: each probe in a process of its own, which may be killed, hang or fail.
 *
 *   probe [-r UID] [-d DIR] [-c CGROUP] [-i DIR]... [NAME...]      (no NAME: all)
 *
 *   -r UID     as a rootless runtime: give up root for this user, then be root of a user namespace of one's own
 *   -d DIR     an empty directory to make overlays in; the caller removes it
 *   -c CGROUP  an empty cgroup v2 directory to work in; the caller removes it with all below
 *   -i DIR     also try an idmapped mount of this directory (the probe's name is idmap:DIR)
 *
 * One line a probe: NAME TAB OUTCOME TAB STEP. OUTCOME is 0, an errno, "nothing" (all calls went well, without effect),
 * "signal N" or "late". STEP is the last thing that was tried. Mounts are made in private mount namespaces only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif
/* from the kernel's headers, which cannot be had together with the C library's everywhere */
enum { NOSYMFOLLOW = 256, RECURSIVE = 0x8000, IDMAP = 0x100000, TREE_CLONE = 1, MOVE_EMPTY = 4, MEMFD_EXEC = 0x10 };
struct attributes { uint64_t set, clear, propagation, userns; };
struct how { uint64_t flags, mode, resolve; };
struct clone3 { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, n_tid, cgroup; };

enum { NOTHING = 4096, DEADLINE_MS = 2000, GRACE_MS = 500, MAX_PROBES = 128 };

struct slot {
	const char *step;
	int error, done;
};
static struct slot *mine;
static const char *directory, *cgroup, *argument;
static int rootless = -1;

#define TRY(what, call) do { mine->step = what; errno = 0; if ((call) < 0) return errno ? errno : EIO; } while (0)
#define SEE(what, condition) do { mine->step = what; if (!(condition)) return NOTHING; } while (0)

/* What a child of this process says: its errno, 0 if all is well. */
static int in_child(int (*function)(void))
{
	pid_t pid = fork();
	if (pid < 0)
		return errno;
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		int error = function();
		_exit(error == NOTHING ? 255 : error);
	}
	int status;
	if (waitpid(pid, &status, 0) < 0)
		return errno;
	if (WIFSIGNALED(status))
		return EINTR;
	return WEXITSTATUS(status) == 255 ? NOTHING : WEXITSTATUS(status);
}

static int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t done = write(fd, text, strlen(text));
	int error = errno;
	close(fd);
	errno = error;
	return done < 0 ? -1 : 0;
}

/* open(2), and close(2) what it gives. */
static int touch(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);
	return fd < 0 ? -1 : close(fd);
}

static int map_ids(pid_t pid, unsigned int outside_uid, unsigned int outside_gid, unsigned int count)
{
	char path[64], text[64];
	snprintf(path, sizeof(path), "/proc/%d/setgroups", pid);
	if (count == 1 && put(path, "deny") < 0 && errno != ENOENT)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
	snprintf(text, sizeof(text), "0 %u %u", outside_gid, count);
	if (put(path, text) < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	snprintf(text, sizeof(text), "0 %u %u", outside_uid, count);
	return put(path, text);
}

static int become_rootless(void)
{
	if (cgroup) {
		char path[4096];
		snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
		TRY("join the delegated cgroup", put(path, "0"));
	}
	if (geteuid() == 0) {
		TRY("setgroups", setgroups(0, NULL));
		TRY("setresgid", setresgid((gid_t)rootless, (gid_t)rootless, (gid_t)rootless));
		TRY("setresuid", setresuid((uid_t)rootless, (uid_t)rootless, (uid_t)rootless));
		prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* or its files in /proc belong to root */
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a change of ids takes it away */
	}
	uid_t uid = geteuid();
	gid_t gid = getegid();
	TRY("unshare(CLONE_NEWUSER)", unshare(CLONE_NEWUSER));
	TRY("write /proc/self/uid_map", map_ids(getpid(), uid, gid, 1));
	return 0;
}

/* ---- namespaces ---- */

static int is_init(void)
{
	SEE("getpid is 1", getpid() == 1);
	return 0;
}

static int unshared(int flag, const char *link)
{
	struct stat before, after;
	TRY("stat /proc/self/ns", stat(link, &before));
	TRY("unshare", unshare(flag));
	TRY("stat /proc/self/ns", stat(link, &after));
	SEE("it is another namespace", before.st_ino != after.st_ino);
	return 0;
}

static int ns_cgroup(void) { return unshared(CLONE_NEWCGROUP, "/proc/self/ns/cgroup"); }
static int ns_ipc(void) { return unshared(CLONE_NEWIPC, "/proc/self/ns/ipc"); }
static int ns_mnt(void) { return unshared(CLONE_NEWNS, "/proc/self/ns/mnt"); }
static int ns_net(void) { return unshared(CLONE_NEWNET, "/proc/self/ns/net"); }
static int ns_uts(void) { return unshared(CLONE_NEWUTS, "/proc/self/ns/uts"); }

static int ns_user(void)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int error = unshared(CLONE_NEWUSER, "/proc/self/ns/user");
	if (error)
		return error;
	TRY("write /proc/self/uid_map", map_ids(getpid(), uid, gid, 1));
	return 0;
}

static int ns_pid(void)
{
	TRY("unshare", unshare(CLONE_NEWPID));
	return in_child(is_init);
}

static time_t uptime_before;
static int clock_is_ahead(void)
{
	struct timespec now;
	TRY("clock_gettime", clock_gettime(CLOCK_MONOTONIC, &now));
	SEE("the child's clock is ahead", now.tv_sec >= uptime_before + 9000);
	return 0;
}

static int ns_time(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	uptime_before = now.tv_sec;
	TRY("unshare", unshare(CLONE_NEWTIME));
	TRY("write /proc/self/timens_offsets", put("/proc/self/timens_offsets", "monotonic 9999 0"));
	return in_child(clock_is_ahead);
}

/* ---- mounts ---- */

static int private_mounts(void)
{
	TRY("unshare(CLONE_NEWNS)", unshare(CLONE_NEWNS));
	TRY("mount(MS_REC|MS_PRIVATE)", mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	return 0;
}

static const char *scratch_place(void)
{
	static const char *const places[] = { "/tmp", "/mnt", "/run", "/var", "/dev" };
	struct stat info;
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++)
		if (stat(places[i], &info) == 0 && S_ISDIR(info.st_mode))
			return places[i];
	return "/";
}

/* A tmpfs of our own as the working directory. */
static int scratch(void)
{
	int error = private_mounts();
	if (error)
		return error;
	TRY("mount tmpfs", mount("oci-harness", scratch_place(), "tmpfs", MS_NOSUID, "size=1m,mode=755"));
	TRY("chdir to the tmpfs", chdir(scratch_place()));
	return 0;
}

#define SCRATCH() do { int error = scratch(); if (error) return error; } while (0)

static int mount_tmpfs(void) { return scratch(); }

static int mounted(const char *type, const char *data)
{
	TRY("mkdir", mkdir("at", 0755));
	TRY("mount", mount("oci-harness", "at", type, MS_NOSUID | MS_NOEXEC, data));
	return 0;
}

static int mounted_proc(void) { return mounted("proc", NULL); }
static int mount_proc(void)
{
	SCRATCH();
	TRY("unshare(CLONE_NEWPID)", unshare(CLONE_NEWPID));
	mine->step = "mount";
	return in_child(mounted_proc);
}
static int mount_sysfs(void)
{
	SCRATCH();
	TRY("unshare(CLONE_NEWNET)", unshare(CLONE_NEWNET));
	return mounted("sysfs", NULL);
}
static int mount_mqueue(void)
{
	SCRATCH();
	TRY("unshare(CLONE_NEWIPC)", unshare(CLONE_NEWIPC));
	return mounted("mqueue", NULL);
}
static int mount_devpts(void)
{
	SCRATCH();
	return mounted("devpts", "newinstance,ptmxmode=0666,mode=0620");
}
static int mount_cgroup2(void)
{
	SCRATCH();
	TRY("unshare(CLONE_NEWCGROUP)", unshare(CLONE_NEWCGROUP));
	return mounted("cgroup2", NULL);
}

static int mount_bind(void)
{
	SCRATCH();
	TRY("create a file", touch("null", O_CREAT | O_WRONLY));
	TRY("mount(MS_BIND)", mount("/dev/null", "null", NULL, MS_BIND, NULL));
	TRY("mount(MS_REMOUNT|MS_BIND|MS_RDONLY)",
	    mount(NULL, "null", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL));
	return 0;
}

static int overlaid(void)
{
	static const char *const parts[] = { "lower", "upper", "work", "merged" };
	struct stat info;
	for (int i = 0; i < 4; i++)
		TRY("mkdir", mkdir(parts[i], 0755));
	TRY("mount overlay", mount("overlay", "merged", "overlay", 0, "lowerdir=lower,upperdir=upper,workdir=work"));
	TRY("create a file in it", touch("merged/file", O_CREAT | O_WRONLY));
	TRY("see it in the upper layer", stat("upper/file", &info));
	TRY("remove it again", unlink("merged/file"));
	return 0;
}
static int overlay_tmpfs(void)
{
	SCRATCH();
	return overlaid();
}
static int overlay_directory(void)
{
	int error = private_mounts();
	if (error)
		return error;
	TRY("chdir to the directory", chdir(directory ? directory : "/nonexistent"));
	return overlaid();
}

static int recursive_readonly(void)
{
	struct attributes wanted = { .set = 1 /* MOUNT_ATTR_RDONLY */ };
	SCRATCH();
	int error = mounted("tmpfs", NULL);
	if (error)
		return error;
	TRY("mkdir", mkdir("at/sub", 0755));
	TRY("mount", mount("oci-harness", "at/sub", "tmpfs", 0, NULL));
	TRY("mount_setattr(AT_RECURSIVE)", syscall(SYS_mount_setattr, AT_FDCWD, "at", RECURSIVE, &wanted, sizeof(wanted)));
	SEE("the mount below is read-only", touch("at/sub/file", O_CREAT | O_WRONLY) < 0 && errno == EROFS);
	return 0;
}

static int nosymfollow(void)
{
	SCRATCH();
	TRY("mkdir", mkdir("at", 0755));
	TRY("mount(MS_NOSYMFOLLOW)", mount("oci-harness", "at", "tmpfs", NOSYMFOLLOW, NULL));
	TRY("symlink", symlink("/", "at/link"));
	SEE("the link is not followed", touch("at/link", O_RDONLY) < 0 && errno == ELOOP);
	return 0;
}

static int mount_api(void)
{
	int fs, tree;
	SCRATCH();
	TRY("fsopen", fs = (int)syscall(SYS_fsopen, "tmpfs", 1));
	TRY("fsconfig", syscall(SYS_fsconfig, fs, 6 /* FSCONFIG_CMD_CREATE */, NULL, NULL, 0));
	TRY("fsmount", tree = (int)syscall(SYS_fsmount, fs, 1, 0));
	TRY("move_mount", syscall(SYS_move_mount, tree, "", AT_FDCWD, scratch_place(), MOVE_EMPTY));
	return 0;
}

static int pivot_root_(void)
{
	SCRATCH();
	TRY("pivot_root", syscall(SYS_pivot_root, ".", "."));
	TRY("umount2(MNT_DETACH)", umount2(".", MNT_DETACH));
	return 0;
}

static int device_node(void)
{
	SCRATCH();
	TRY("mknod", mknod("null", S_IFCHR | 0666, makedev(1, 3)));
	TRY("open the node", touch("null", O_RDWR));
	return 0;
}

/* A user namespace that maps 0 to 100000 and so on, kept by a child of ours. */
static int foreign_userns(void)
{
	int ready[2];
	char path[64], byte;
	if (pipe(ready) < 0)
		return -1;
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		byte = unshare(CLONE_NEWUSER) < 0 ? (char)errno : 0;
		if (write(ready[1], &byte, 1) == 1)
			pause();
		_exit(0);
	}
	if (pid < 0 || read(ready[0], &byte, 1) != 1)
		return -1;
	int fd = -1;
	if (byte)
		errno = byte;
	else if (map_ids(pid, rootless < 0 ? 100000 : 0, rootless < 0 ? 100000 : 0, rootless < 0 ? 65536 : 1) == 0) {
		snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	int error = errno;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	errno = error;
	return fd;
}

static int idmapped_at(const char *path)
{
	struct attributes wanted = { .set = IDMAP };
	struct stat plain, mapped;
	int userns, tree;
	TRY("stat", stat(path, &plain));
	TRY("open_tree", tree = (int)syscall(SYS_open_tree, AT_FDCWD, path, TREE_CLONE | O_CLOEXEC));
	TRY("make a user namespace", userns = foreign_userns());
	wanted.userns = (uint64_t)userns;
	TRY("mount_setattr(MOUNT_ATTR_IDMAP)", syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &wanted, sizeof(wanted)));
	TRY("fstat", fstat(tree, &mapped));
	SEE("the owner is shifted", rootless >= 0 || mapped.st_uid == plain.st_uid + 100000);
	return 0;
}
static int idmapped(void) { return idmapped_at(argument); }
static int idmapped_tmpfs(void)
{
	SCRATCH();
	return idmapped_at(".");
}
static int idmapped_overlay(void)
{
	SCRATCH();
	int error = overlaid();
	return error ? error : idmapped_at("merged");
}

/* ---- seccomp; the call that the filters single out is getppid ---- */

enum { ANSWER = 77 };

static int load(unsigned int action, unsigned int flags)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = 4, .filter = filter };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static int seccomp_errno(void)
{
	TRY("load the filter", load(SECCOMP_RET_ERRNO | ANSWER, 0));
	SEE("the call fails as told", syscall(SYS_getppid) == -1 && errno == ANSWER);
	return 0;
}
static int seccomp_log(void)
{
	TRY("load the filter", load(SECCOMP_RET_LOG, 0));
	SEE("the call goes on", syscall(SYS_getppid) == getppid());
	return 0;
}
static volatile int survived;
static void *call_getppid(void *unused)
{
	syscall(SYS_getppid);
	survived = 1;
	return unused;
}
static int killed_in_thread(unsigned int action)
{
	pthread_t thread;
	struct stat tasks;
	TRY("load the filter", load(action, 0));
	TRY("start a thread", (errno = pthread_create(&thread, NULL, call_getppid, NULL)) ? -1 : 0);
	mine->step = "wait for the thread's end"; /* pthread_join would wait for ever for one that was killed */
	do
		sched_yield();
	while (stat("/proc/self/task", &tasks) == 0 && tasks.st_nlink > 3);
	SEE("the thread was killed at the call", !survived);
	return 0;
}
static int seccomp_kill_thread(void) { return killed_in_thread(SECCOMP_RET_KILL_THREAD); }
static int process_dies(void)
{
	int error = killed_in_thread(SECCOMP_RET_KILL_PROCESS);
	return error ? error : NOTHING; /* only the thread was killed */
}
static int seccomp_kill_process(void)
{
	int error = in_child(process_dies);
	return error == EINTR ? 0 : error; /* a signal has ended it */
}

static volatile sig_atomic_t trapped;
static void on_trap(int sig) { trapped = sig; }
static int seccomp_trap(void)
{
	signal(SIGSYS, on_trap);
	TRY("load the filter", load(SECCOMP_RET_TRAP, 0));
	syscall(SYS_getppid);
	SEE("SIGSYS came", trapped == SIGSYS);
	return 0;
}

static int seccomp_trace(void)
{
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
			_exit(errno);
		raise(SIGSTOP);
		if (load(SECCOMP_RET_TRACE | ANSWER, 0) < 0)
			_exit(errno);
		syscall(SYS_getppid);
		_exit(0);
	}
	TRY("fork", pid);
	TRY("wait for the tracee", waitpid(pid, &status, 0));
	TRY("be traced", WIFSTOPPED(status) ? 0 : (errno = WEXITSTATUS(status), -1));
	TRY("ptrace(PTRACE_O_TRACESECCOMP)", ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL)));
	TRY("ptrace(PTRACE_CONT)", ptrace(PTRACE_CONT, pid, NULL, NULL));
	TRY("wait for the event", waitpid(pid, &status, 0));
	TRY("load the filter", WIFSTOPPED(status) ? 0 : (errno = WEXITSTATUS(status), -1));
	SEE("PTRACE_EVENT_SECCOMP", status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8));
	return 0;
}

static int seccomp_notify(void)
{
	struct seccomp_notif request = { 0 };
	struct seccomp_notif_resp response = { 0 };
	int listener, status;
	TRY("load the filter", listener = load(SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER));
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit((int)syscall(SYS_getppid));
	}
	TRY("fork", pid);
	TRY("ioctl(SECCOMP_IOCTL_NOTIF_RECV)", ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request));
	response.id = request.id;
	response.val = ANSWER;
	TRY("ioctl(SECCOMP_IOCTL_NOTIF_SEND)", ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response));
	TRY("wait for the child", waitpid(pid, &status, 0));
	SEE("the child gets the answer", WIFEXITED(status) && WEXITSTATUS(status) == ANSWER);
	return 0;
}
static int seccomp_flag_log(void)
{
	TRY("load the filter", load(SECCOMP_RET_ERRNO | ANSWER, SECCOMP_FILTER_FLAG_LOG));
	return 0;
}
static int seccomp_flag_tsync(void)
{
	TRY("load the filter", load(SECCOMP_RET_ERRNO | ANSWER, SECCOMP_FILTER_FLAG_TSYNC));
	return 0;
}

/* ---- processes and files ---- */

static int clone3_plain(void)
{
	struct clone3 wanted = { .exit_signal = SIGCHLD };
	long pid;
	TRY("clone3", pid = syscall(SYS_clone3, &wanted, sizeof(wanted)));
	if (pid == 0)
		_exit(0);
	TRY("wait for the child", waitpid((pid_t)pid, NULL, 0));
	return 0;
}

static int pidfd(void)
{
	int fd;
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause();
		_exit(0);
	}
	TRY("fork", pid);
	TRY("pidfd_open", fd = (int)syscall(SYS_pidfd_open, pid, 0));
	TRY("pidfd_send_signal", syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0));
	siginfo_t info;
	TRY("waitid(P_PIDFD)", waitid((idtype_t)3, (id_t)fd, &info, WEXITED));
	SEE("it was killed", info.si_status == SIGKILL);
	return 0;
}

static int pidfd_setns(void)
{
	int ready[2], fd;
	char byte = 0;
	struct stat before, after;
	TRY("pipe", pipe(ready));
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		byte = unshare(CLONE_NEWUTS) < 0 ? (char)errno : 0;
		if (write(ready[1], &byte, 1) == 1)
			pause();
		_exit(0);
	}
	TRY("fork", pid);
	TRY("wait for the child", read(ready[0], &byte, 1));
	TRY("unshare(CLONE_NEWUTS)", byte ? (errno = byte, -1) : 0);
	TRY("stat", stat("/proc/self/ns/uts", &before));
	TRY("pidfd_open", fd = (int)syscall(SYS_pidfd_open, pid, 0));
	TRY("setns(pidfd)", setns(fd, CLONE_NEWUTS));
	TRY("stat", stat("/proc/self/ns/uts", &after));
	kill(pid, SIGKILL);
	SEE("it is another namespace", before.st_ino != after.st_ino);
	return 0;
}

static int openat2_(void)
{
	struct how how = { .flags = O_PATH | O_CLOEXEC, .resolve = 8 /* RESOLVE_BENEATH */ };
	int root;
	TRY("open /proc", root = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));
	TRY("openat2", syscall(SYS_openat2, root, "self", &how, sizeof(how)));
	SEE("it does not leave the directory", syscall(SYS_openat2, root, "..", &how, sizeof(how)) < 0 && errno == EXDEV);
	return 0;
}

static int close_range_(void)
{
	int fd = open("/dev/null", O_RDONLY);
	TRY("close_range", syscall(SYS_close_range, fd < 0 ? 1000 : fd, ~0U, 0));
	SEE("the descriptor is closed", fd < 0 || fcntl(fd, F_GETFD) < 0);
	return 0;
}

/* As runc does with its own binary (CVE-2019-5736). */
static int exec_memfd(void)
{
	int memory, self, status;
	char buffer[65536];
	ssize_t n;
	TRY("open /proc/self/exe", self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
	memory = (int)syscall(SYS_memfd_create, "oci-harness", MFD_CLOEXEC | MFD_ALLOW_SEALING | MEMFD_EXEC);
	if (memory < 0 && errno == EINVAL) /* before Linux 6.3 */
		memory = (int)syscall(SYS_memfd_create, "oci-harness", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	TRY("memfd_create", memory < 0 ? -1 : 0);
	while ((n = read(self, buffer, sizeof(buffer))) > 0)
		TRY("write", write(memory, buffer, (size_t)n) == n ? 0 : -1);
	TRY("fcntl(F_ADD_SEALS)", fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL));
	pid_t pid = fork();
	if (pid == 0) {
		char *const argv[] = { "probe", "--nothing", NULL }, *const env[] = { NULL };
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		syscall(SYS_execveat, memory, "", argv, env, AT_EMPTY_PATH);
		_exit(errno);
	}
	TRY("fork", pid);
	TRY("wait for the child", waitpid(pid, &status, 0));
	TRY("execveat", WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : (errno = WEXITSTATUS(status), -1));
	return 0;
}

static int keyring(void)
{
	TRY("keyctl(KEYCTL_JOIN_SESSION_KEYRING)", syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL));
	TRY("add_key", syscall(SYS_add_key, "user", "oci-harness", "x", 1, KEY_SPEC_SESSION_KEYRING));
	return 0;
}

static int landlock(void)
{
	TRY("landlock_create_ruleset", syscall(SYS_landlock_create_ruleset, NULL, 0, 1));
	return 0;
}

static int pressure(void)
{
	char text[512];
	int fd;
	TRY("open /proc/pressure/cpu", fd = open("/proc/pressure/cpu", O_RDONLY | O_CLOEXEC));
	TRY("read /proc/pressure/cpu", read(fd, text, sizeof(text)));
	TRY("open /proc/pressure/cpu for writing", fd = open("/proc/pressure/cpu", O_RDWR | O_CLOEXEC));
	TRY("write a trigger", write(fd, "some 500000 2000000", 20));
	return 0;
}

static int opened(const char *path)
{
	TRY("open", touch(path, O_RDWR));
	return 0;
}
static int device_fuse(void) { return opened("/dev/fuse"); }
static int device_tun(void) { return opened("/dev/net/tun"); }
static int device_kvm(void) { return opened("/dev/kvm"); }

/* ---- limits and settings of a container's process ---- */

static int raised(int resource, rlim_t value)
{
	struct rlimit low = { 64, 64 }, high = { value, value };
	TRY("lower the limit", setrlimit((__rlimit_resource_t)resource, &low));
	TRY("raise the limit again", setrlimit((__rlimit_resource_t)resource, &high));
	return 0;
}
static int limit_nofile(void) { return raised(RLIMIT_NOFILE, 128); }
static int limit_memlock(void) { return raised(RLIMIT_MEMLOCK, RLIM_INFINITY); }

static int oom_score(void)
{
	TRY("write /proc/self/oom_score_adj", put("/proc/self/oom_score_adj", "-500"));
	return 0;
}
static int realtime(void)
{
	struct sched_param parameter = { .sched_priority = 1 };
	TRY("sched_setscheduler(SCHED_FIFO)", sched_setscheduler(0, SCHED_FIFO, &parameter));
	return 0;
}
static int hostname(void)
{
	TRY("unshare(CLONE_NEWUTS)", unshare(CLONE_NEWUTS));
	TRY("sethostname", sethostname("oci-harness", 11));
	return 0;
}
static int sysctl_net(void)
{
	TRY("unshare(CLONE_NEWNET)", unshare(CLONE_NEWNET));
	TRY("write /proc/sys/net/ipv4/ip_forward", put("/proc/sys/net/ipv4/ip_forward", "1"));
	return 0;
}
static int sysctl_ipc(void)
{
	TRY("unshare(CLONE_NEWIPC)", unshare(CLONE_NEWIPC));
	TRY("write /proc/sys/kernel/msgmax", put("/proc/sys/kernel/msgmax", "8000"));
	return 0;
}

/* ---- cgroup v2 ---- */

static int at_cgroup(char *path, const char *name)
{
	if (!cgroup) {
		mine->step = "find cgroup v2";
		return ENOENT;
	}
	snprintf(path, 4096, "%s/%s", cgroup, name);
	return 0;
}

static int made_cgroup(char *path, const char *name)
{
	int error = at_cgroup(path, name);
	if (error)
		return error;
	TRY("mkdir a cgroup", mkdir(path, 0755));
	return 0;
}

/* A child in the cgroup `path` that waits, or -1. */
static pid_t member(const char *path)
{
	char procs[4200];
	int ready[2];
	char byte;
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", path);
	if (pipe(ready) < 0)
		return -1;
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		byte = put(procs, "0") < 0 ? (char)errno : 0;
		if (write(ready[1], &byte, 1) == 1 && byte == 0)
			pause();
		_exit(0);
	}
	if (pid > 0 && read(ready[0], &byte, 1) == 1 && byte) {
		waitpid(pid, NULL, 0);
		errno = byte;
		return -1;
	}
	return pid;
}

static int cgroup_join(void)
{
	char path[4096];
	int error = made_cgroup(path, "join");
	if (error)
		return error;
	pid_t pid;
	TRY("write cgroup.procs", pid = member(path));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return 0;
}

static int cgroup_kill(void)
{
	char path[4096], file[4200];
	int status, error = made_cgroup(path, "kill");
	pid_t pid;
	if (error)
		return error;
	TRY("write cgroup.procs", pid = member(path));
	snprintf(file, sizeof(file), "%s/cgroup.kill", path);
	TRY("write cgroup.kill", put(file, "1"));
	TRY("wait for the process", waitpid(pid, &status, 0));
	SEE("it was killed", WIFSIGNALED(status));
	return 0;
}

static int cgroup_freeze(void)
{
	char path[4096], file[4200], text[256];
	int fd, error = made_cgroup(path, "freeze");
	pid_t pid;
	if (error)
		return error;
	TRY("write cgroup.procs", pid = member(path));
	snprintf(file, sizeof(file), "%s/cgroup.freeze", path);
	TRY("write cgroup.freeze", put(file, "1"));
	snprintf(file, sizeof(file), "%s/cgroup.events", path);
	TRY("open cgroup.events", fd = open(file, O_RDONLY | O_CLOEXEC));
	for (;;) { /* the deadline of all probes ends it */
		struct pollfd wait = { .fd = fd, .events = POLLPRI };
		memset(text, 0, sizeof(text));
		TRY("read cgroup.events", pread(fd, text, sizeof(text) - 1, 0));
		if (strstr(text, "frozen 1"))
			break;
		mine->step = "wait until it is frozen";
		poll(&wait, 1, 50);
	}
	kill(pid, SIGKILL); /* a frozen process of v2 can be killed */
	waitpid(pid, NULL, 0);
	return 0;
}

static int clone_into_cgroup(void)
{
	char path[4096], text[8192] = { 0 };
	int fd, error = made_cgroup(path, "clone"), report[2];
	if (error)
		return error;
	TRY("open the cgroup", fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	TRY("pipe", pipe(report));
	struct clone3 wanted = { .flags = 0x200000000ULL /* CLONE_INTO_CGROUP */, .exit_signal = SIGCHLD, .cgroup = (uint64_t)fd };
	long pid;
	TRY("clone3(CLONE_INTO_CGROUP)", pid = syscall(SYS_clone3, &wanted, sizeof(wanted)));
	if (pid == 0) {
		int own = open("/proc/self/cgroup", O_RDONLY);
		ssize_t n = read(own, text, sizeof(text) - 1);
		_exit(write(report[1], text, n > 0 ? (size_t)n : 0) < 0);
	}
	TRY("wait for the child", waitpid((pid_t)pid, NULL, 0));
	close(report[1]);
	TRY("read what the child saw", read(report[0], text, sizeof(text) - 1));
	SEE("it was born there", strstr(text, "/clone\n") != NULL);
	return 0;
}

static int opens_zero(void)
{
	TRY("open /dev/zero", touch("/dev/zero", O_RDONLY));
	return 0;
}

static int device_filter(void)
{
	struct bpf_insn program[] = { { .code = 0xb7, .dst_reg = 0, .imm = 0 }, { .code = 0x95 } }; /* r0 = 0; exit */
	char path[4096], file[4200];
	int fd, filter, error = made_cgroup(path, "devices");
	if (error)
		return error;
	union bpf_attr wanted;
	memset(&wanted, 0, sizeof(wanted));
	wanted.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
	wanted.insns = (uint64_t)(uintptr_t)program;
	wanted.insn_cnt = 2;
	wanted.license = (uint64_t)(uintptr_t)"GPL";
	TRY("open the cgroup", fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	TRY("bpf(BPF_PROG_LOAD)", filter = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &wanted, sizeof(wanted)));
	memset(&wanted, 0, sizeof(wanted));
	wanted.target_fd = (uint32_t)fd;
	wanted.attach_bpf_fd = (uint32_t)filter;
	wanted.attach_type = BPF_CGROUP_DEVICE;
	wanted.attach_flags = BPF_F_ALLOW_MULTI;
	TRY("bpf(BPF_PROG_ATTACH)", syscall(SYS_bpf, BPF_PROG_ATTACH, &wanted, sizeof(wanted)));
	snprintf(file, sizeof(file), "%s/cgroup.procs", path);
	TRY("write cgroup.procs", put(file, "0"));
	SEE("a device cannot be opened", opens_zero() == EPERM);
	return 0;
}

struct probe {
	const char *name;
	int (*function)(void);
	const char *argument;
};
static struct probe probes[MAX_PROBES] = {
	{ "ns:cgroup", ns_cgroup, 0 }, { "ns:ipc", ns_ipc, 0 }, { "ns:mnt", ns_mnt, 0 }, { "ns:net", ns_net, 0 },
	{ "ns:pid", ns_pid, 0 }, { "ns:time", ns_time, 0 }, { "ns:user", ns_user, 0 }, { "ns:uts", ns_uts, 0 },
	{ "mount:tmpfs", mount_tmpfs, 0 }, { "mount:proc", mount_proc, 0 }, { "mount:sysfs", mount_sysfs, 0 },
	{ "mount:mqueue", mount_mqueue, 0 }, { "mount:devpts", mount_devpts, 0 }, { "mount:cgroup2", mount_cgroup2, 0 },
	{ "mount:bind", mount_bind, 0 }, { "mount:api", mount_api, 0 },
	{ "mount:recursive-readonly", recursive_readonly, 0 }, { "mount:nosymfollow", nosymfollow, 0 },
	{ "mount:pivot-root", pivot_root_, 0 }, { "mount:device-node", device_node, 0 },
	{ "overlay:tmpfs", overlay_tmpfs, 0 }, { "overlay:directory", overlay_directory, 0 },
	{ "idmap:tmpfs", idmapped_tmpfs, 0 }, { "idmap:overlay", idmapped_overlay, 0 },
	{ "seccomp:errno", seccomp_errno, 0 }, { "seccomp:kill-process", seccomp_kill_process, 0 },
	{ "seccomp:kill-thread", seccomp_kill_thread, 0 }, { "seccomp:log", seccomp_log, 0 },
	{ "seccomp:notify", seccomp_notify, 0 }, { "seccomp:trace", seccomp_trace, 0 }, { "seccomp:trap", seccomp_trap, 0 },
	{ "seccomp:flag-log", seccomp_flag_log, 0 }, { "seccomp:flag-tsync", seccomp_flag_tsync, 0 },
	{ "call:clone3", clone3_plain, 0 }, { "call:pidfd", pidfd, 0 }, { "call:pidfd-setns", pidfd_setns, 0 },
	{ "call:openat2", openat2_, 0 }, { "call:close-range", close_range_, 0 }, { "call:exec-memfd", exec_memfd, 0 },
	{ "call:keyring", keyring, 0 }, { "call:landlock", landlock, 0 }, { "psi", pressure, 0 },
	{ "device:fuse", device_fuse, 0 }, { "device:tun", device_tun, 0 }, { "device:kvm", device_kvm, 0 },
	{ "limit:nofile", limit_nofile, 0 }, { "limit:memlock", limit_memlock, 0 }, { "limit:oom-score-adj", oom_score, 0 },
	{ "limit:realtime", realtime, 0 }, { "set:hostname", hostname, 0 }, { "set:sysctl-net", sysctl_net, 0 },
	{ "set:sysctl-ipc", sysctl_ipc, 0 }, { "cgroup:join", cgroup_join, 0 }, { "cgroup:kill", cgroup_kill, 0 },
	{ "cgroup:freeze", cgroup_freeze, 0 }, { "cgroup:clone-into", clone_into_cgroup, 0 },
	{ "cgroup:device-filter", device_filter, 0 },
};

static int wanted(const char *name, char **names, int count)
{
	for (int i = 0; i < count; i++)
		if (strcmp(names[i], name) == 0)
			return 1;
	return count == 0;
}

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void tell(const char *name, const struct slot *slot, int status, int late)
{
	const char *step = slot->step ? slot->step : "";
	if (late)
		printf("%s\tlate\t%s\n", name, step);
	else if (!slot->done && WIFSIGNALED(status))
		printf("%s\tsignal %d\t%s\n", name, WTERMSIG(status), step);
	else if (slot->error == NOTHING || !slot->done)
		printf("%s\tnothing\t%s\n", name, step);
	else
		printf("%s\t%d\t%s\n", name, slot->error, step);
}

int main(int argc, char **argv)
{
	char names[MAX_PROBES][4096];
	pid_t pids[MAX_PROBES] = { 0 };
	int option, count = 0, left = 0;
	struct timespec turn = { .tv_nsec = 50 * 1000 * 1000 };
	sigset_t child;

	if (argc == 2 && strcmp(argv[1], "--nothing") == 0)
		return 0;
	while (probes[count].name)
		count++;
	while ((option = getopt(argc, argv, "r:d:c:i:")) != -1) {
		if (option == 'r')
			rootless = atoi(optarg);
		else if (option == 'd')
			directory = optarg;
		else if (option == 'c')
			cgroup = optarg;
		else if (option == 'i' && count < MAX_PROBES) {
			snprintf(names[count], sizeof(names[count]), "idmap:%s", optarg);
			probes[count] = (struct probe){ names[count], idmapped, optarg };
			count++;
		} else
			return 2;
	}
	struct slot *slots = mmap(NULL, sizeof(*slots) * MAX_PROBES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (slots == MAP_FAILED)
		return 1;
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	int64_t end = now_ms() + DEADLINE_MS;
	for (int i = 0; i < count; i++) {
		if (!wanted(probes[i].name, argv + optind, argc - optind))
			continue;
		pids[i] = fork();
		if (pids[i] < 0)
			return 1;
		if (pids[i] == 0) {
			setpgid(0, 0);
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			mine = &slots[i];
			argument = probes[i].argument;
			int error = rootless >= 0 ? become_rootless() : 0;
			mine->error = error ? error : probes[i].function();
			mine->done = 1;
			_exit(0);
		}
		left++;
	}
	while (left > 0) {
		siginfo_t ended = { 0 };
		int late = now_ms() >= end;
		for (int i = 0; late && i < count; i++)
			if (pids[i] > 0)
				kill(-pids[i], SIGKILL);
		/* not reaped before its group, the children that it left, is killed: nobody else can have the number till then */
		while (waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid > 0) {
			int status;
			kill(-ended.si_pid, SIGKILL);
			waitpid(ended.si_pid, &status, 0);
			for (int i = 0; i < count; i++)
				if (pids[i] == ended.si_pid) {
					pids[i] = 0;
					left--;
					tell(probes[i].name, &slots[i], status, late && !slots[i].done);
				}
			ended.si_pid = 0;
		}
		if (now_ms() >= end + GRACE_MS)
			break;
		if (left > 0)
			sigtimedwait(&child, NULL, &turn);
	}
	for (int i = 0; i < count; i++) /* not even killed: they sleep in the kernel */
		if (pids[i] > 0)
			tell(probes[i].name, &slots[i], 0, 1);
	return 0;
}
