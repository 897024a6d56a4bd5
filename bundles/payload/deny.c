/*
 * Run a command for which some system calls fail, as on a kernel that lacks them.
 *
 *   deny ERRNO NUMBER[,NUMBER...] COMMAND [ARGUMENT...]      (COMMAND is an absolute path, all numbers are decimal)
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
	struct sock_filter filter[64 * 2 + 2];
	int at = 0;

	if (argc < 4)
		return 125;
	unsigned int error = (unsigned int)atoi(argv[1]);
	filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (char *number = strtok(argv[2], ","); number && at < 128; number = strtok(NULL, ",")) {
		filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned int)atoi(number), 0, 1);
		filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (error & SECCOMP_RET_DATA));
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
