/*
 * Run a command and note which of some system calls it, and all that it starts, make.
 *
 *   calls FILE CALL[,CALL...] COMMAND [ARGUMENT...]          (COMMAND is an absolute path, a CALL is its number)
 *
 * FILE gets a line `NUMBER COMM` the first time that a process of the name COMM makes the call. This process becomes the
 * command; an orphan watches (seccomp_unotify(2)), with FILE in its arguments, until nobody is left to be watched.
 *
 * Exit status 125 when that cannot be set up, 127 when the command cannot be run.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

extern char **environ;
enum { MAX_CALLS = 128, MAX_SEEN = 1024 };

union control {
	struct cmsghdr header;
	char space[CMSG_SPACE(sizeof(int))];
};

static int hand_over(int socket, int fd)
{
	char byte = 0;
	union control control;
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	memset(&control, 0, sizeof(control));
	control.header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)) };
	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	return sendmsg(socket, &message, 0) == 1 ? 0 : -1;
}

static int take_over(int socket)
{
	char byte;
	int fd = -1;
	union control control;
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&message))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	return fd;
}

static void watch(int listener, int log)
{
	static char seen[MAX_SEEN][32];
	int count = 0;
	for (;;) {
		struct pollfd wait = { .fd = listener, .events = POLLIN };
		if (poll(&wait, 1, -1) < 0 && errno != EINTR)
			return;
		if (wait.revents & (POLLHUP | POLLERR | POLLNVAL))
			return;
		struct seccomp_notif request;
		memset(&request, 0, sizeof(request));
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request) < 0)
			continue; /* it was killed meanwhile */
		char path[64], comm[32] = "?", line[64];
		snprintf(path, sizeof(path), "/proc/%u/comm", request.pid);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, comm, sizeof(comm) - 1);
		if (n > 0)
			comm[comm[n - 1] == '\n' ? n - 1 : n] = '\0';
		if (fd >= 0)
			close(fd);
		snprintf(line, sizeof(line), "%d %s\n", request.data.nr, comm);
		int known = 0;
		for (int i = 0; i < count; i++)
			known |= strncmp(seen[i], line, sizeof(seen[i]) - 1) == 0;
		if (!known && count < MAX_SEEN) {
			strncpy(seen[count++], line, sizeof(seen[0]) - 1);
			if (write(log, line, strlen(line)) < 0)
				return;
		}
		struct seccomp_notif_resp response = { .id = request.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE };
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
	}
}

static int load(const char *calls)
{
	struct sock_filter filter[MAX_CALLS * 2 + 2];
	int at = 0;
	char *rest = (char *)calls;
	filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	while (*rest) {
		unsigned int number = (unsigned int)strtoul(rest, &rest, 10);
		if (at > MAX_CALLS * 2 || (*rest != ',' && *rest != '\0'))
			return -1;
		filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
		filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
		rest += *rest == ',';
	}
	filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { .len = (unsigned short)at, .filter = filter };
	unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
	int listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
	if (listener < 0 && errno == EINVAL) /* before Linux 6.0 */
		listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
	return listener;
}

int main(int argc, char **argv)
{
	int sockets[2];

	if (argc < 4 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		return 125;
	int log = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (log < 0)
		return 125;
	pid_t pid = fork();
	if (pid < 0)
		return 125;
	if (pid == 0) {
		if (fork() != 0) /* the command must not find a child that it has not made */
			_exit(0);
		close(sockets[0]);
		int listener = take_over(sockets[1]);
		/* nothing of the command's may stay open here */
		if (listener < 0 || dup2(log, 0) < 0 || dup2(listener, 1) < 0)
			return 125;
		syscall(SYS_close_range, 2U, ~0U, 0U);
		setsid();
		watch(1, 0);
		return 0;
	}
	close(sockets[1]);
	waitpid(pid, NULL, 0);
	int listener = load(argv[2]);
	if (listener < 0 || hand_over(sockets[0], listener) < 0)
		return 125;
	close(listener);
	close(sockets[0]);
	execve(argv[3], argv + 3, environ);
	return 127;
}
