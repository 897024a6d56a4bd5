/*
 * Run a command for which some system calls fail, as on a kernel that lacks them.
 *
 *   deny ERRNO CALL[,CALL...] COMMAND [ARGUMENT...]          (COMMAND is an absolute path, all numbers are decimal)
 *
 * A CALL is the number of a system call; NUMBER=VALUE: only when its first argument is VALUE; NUMBER&MASK: only when
 * that has one of these bits. (The low 32 bits of the argument, on a little-endian machine.)
 *
 * Exit status 125 when the filter cannot be loaded, 127 when the command cannot be run.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv)
{
	struct sock_filter filter[32 * 5 + 2];
	struct sock_filter load = BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	int at = 0;

	if (argc < 4)
		return 125;
	unsigned int error = (unsigned int)atoi(argv[1]);
	struct sock_filter refuse = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (error & SECCOMP_RET_DATA));
	filter[at++] = load;
	for (char *call = strtok(argv[2], ","); call; call = strtok(NULL, ",")) {
		char *rest;
		unsigned int number = (unsigned int)strtoul(call, &rest, 10);
		int plain = *rest == '\0';
		if (at > 32 * 5 - 4 || (!plain && *rest != '=' && *rest != '&'))
			return 125;
		filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, plain ? 1 : 4);
		if (plain) {
			filter[at++] = refuse;
			continue;
		}
		unsigned int value = (unsigned int)strtoul(rest + 1, NULL, 10);
		unsigned short test = *rest == '=' ? BPF_JEQ : BPF_JSET;
		filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args));
		filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | test | BPF_K, value, 0, 1);
		filter[at++] = refuse;
		filter[at++] = load;
	}
	filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { .len = (unsigned short)at, .filter = filter };
	/* CAP_SYS_ADMIN may load a filter as it is; whoever lacks it must give up new privileges first */
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 &&
	    (errno != EACCES || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	     prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0))
		return 125;
	execve(argv[3], argv + 3, environ);
	return 127;
}
