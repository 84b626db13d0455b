/*
 * Starts each command in turn, ROUNDS times, and waits for its end: how long each took.
 *
 *   start ROUNDS WARM_UP , COMMAND ARG... , COMMAND ARG... ...
 *
 * One line a round: nanoseconds, one number a command. Each round begins with another command, so that none is always
 * behind the same neighbour. The commands' own output goes to /dev/null.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX 16

extern char **environ;

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t run(char **command, const posix_spawn_file_actions_t *actions)
{
	pid_t pid;
	int status;
	uint64_t began = now();
	errno = posix_spawn(&pid, command[0], actions, NULL, command, environ);
	if (errno)
		err(1, "cannot start %s", command[0]);
	if (wait4(pid, &status, 0, NULL) != pid)
		err(1, "wait4");
	uint64_t took = now() - began;
	if (status)
		errx(1, "%s ended with wait status %d", command[0], status);
	return took;
}

int main(int argc, char **argv)
{
	char **command[MAX];
	int n = 0;
	if (argc < 5)
		errx(1, "usage: start ROUNDS WARM_UP , COMMAND ARG... , ...");
	for (int i = 3; i < argc; i++)
		if (strcmp(argv[i], ",") == 0) {
			argv[i] = NULL;
			if (n < MAX)
				command[n++] = argv + i + 1;
		}
	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	int rounds = atoi(argv[1]), warm_up = atoi(argv[2]);
	for (int round = -warm_up; round < rounds; round++) {
		uint64_t took[MAX];
		for (int i = 0; i < n; i++) {
			int at = (i + round + warm_up) % n;
			took[at] = run(command[at], &actions);
		}
		for (int i = 0; round >= 0 && i < n; i++)
			printf("%llu%c", (unsigned long long)took[i], i + 1 < n ? ' ' : '\n');
	}
}
