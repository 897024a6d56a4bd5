/* The least that a lifecycle can cost: posix_spawn and waitpid, and nothing else. For scripts/bench-overhead. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

/* argument: a scratch file for the commands' streams; stdin: three lines a lifecycle, arguments separated by tabs; stdout: "operations whole" in ns, a line each */
int main(int argc, char **argv0)
{
	static char line[3][65536];
	if (argc != 2)
		return 1;
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	posix_spawn_file_actions_t files;
	posix_spawn_file_actions_init(&files);
	/* not /dev/null: some runtimes change the owner of what they get */
	for (int fd = 0; fd < 3; fd++)
		posix_spawn_file_actions_addopen(&files, fd, argv0[1], O_RDWR | O_APPEND | O_CREAT, 0600);
	while (fgets(line[0], sizeof(line[0]), stdin) && fgets(line[1], sizeof(line[1]), stdin) &&
	       fgets(line[2], sizeof(line[2]), stdin)) {
		char *argv[3][64];
		for (int op = 0; op < 3; op++) {
			int n = 0;
			for (char *word = strtok(line[op], "\t\n"); word; word = strtok(NULL, "\t\n"))
				argv[op][n++] = word;
			argv[op][n] = NULL;
		}
		long operations = 0, first = 0, end = 0;
		for (int op = 0; op < 3; op++) {
			pid_t pid;
			int status;
			long start = now();
			if (op == 0)
				first = start;
			if (posix_spawn(&pid, argv[op][0], &files, NULL, argv[op], environ))
				return 2;
			if (waitpid(pid, &status, 0) != pid || status != 0) {
				fprintf(stderr, "%s failed: status %x\n", argv[op][0], status);
				return 3;
			}
			end = now();
			operations += end - start;
			if (op == 1) /* init, and whatever helpers the runtime left to us */
				while (waitpid(-1, &status, 0) > 0)
					;
		}
		printf("%ld %ld\n", operations, end - first);
		fflush(stdout);
	}
	return 0;
}
