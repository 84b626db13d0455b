/*
 * How long a signal takes to reach the command behind an init.
 *
 *   signals ROUNDS WARM_UP , INIT ARG... , INIT ARG... ...
 *
 * To be started on one CPU. Each INIT gets this program in its other role, `signals answer FD`, as its COMMAND: it
 * waits for SIGUSR1 and writes down when it came. One line a round: nanoseconds from before kill() to the command's
 * clock; the first number is of a command without any init.
 */
#define _GNU_SOURCE
#include <err.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define MAX 16

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int answer(int fd)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	/* Behind an init that dies this must end too. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	uint64_t when = 0;
	do {
		if (write(fd, &when, sizeof when) != sizeof when)
			return 1;
		if (sigwaitinfo(&set, NULL) != SIGUSR1)
			return 1;
		when = now();
	} while (1);
}

struct target {
	pid_t pid;
	int fd;
};

static uint64_t answered(const struct target *target)
{
	uint64_t when;
	if (read(target->fd, &when, sizeof when) != sizeof when)
		errx(1, "a command ended before its time");
	return when;
}

/* words: an init and its arguments, or none. */
static struct target start(char **words)
{
	char *argv[64], fd[16], self[4096];
	int ends[2], n = 0;
	ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
	if (len < 0 || pipe(ends) != 0)
		err(1, "pipe");
	self[len] = 0;
	snprintf(fd, sizeof fd, "%d", ends[1]);
	while (*words && n < 60)
		argv[n++] = *words++;
	argv[n++] = self;
	argv[n++] = "answer";
	argv[n++] = fd;
	argv[n] = NULL;
	pid_t pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ends[0]);
		execv(argv[0], argv);
		err(1, "cannot start %s", argv[0]);
	}
	close(ends[1]);
	struct target target = { pid, ends[0] };
	answered(&target);
	return target;
}

int main(int argc, char **argv)
{
	static char *none[] = { NULL };
	struct target target[MAX];
	int n = 0;
	if (argc == 3 && strcmp(argv[1], "answer") == 0)
		return answer(atoi(argv[2]));
	if (argc < 4)
		errx(1, "usage: signals ROUNDS WARM_UP , INIT ARG... , ...");
	target[n++] = start(none);
	for (int i = argc - 1; i >= 3; i--)
		if (strcmp(argv[i], ",") == 0)
			argv[i] = NULL;
	for (int i = 3; i < argc && n < MAX; i++)
		if (!argv[i])
			target[n++] = start(argv + i + 1);
	int rounds = atoi(argv[1]), warm_up = atoi(argv[2]);
	for (int round = -warm_up; round < rounds; round++) {
		uint64_t took[MAX];
		for (int i = 0; i < n; i++) {
			int at = (i + round + warm_up) % n;
			uint64_t began = now();
			if (kill(target[at].pid, SIGUSR1) != 0)
				err(1, "kill");
			took[at] = answered(&target[at]) - began;
			/* Until everybody sleeps again: what one does after the delivery is not its neighbour's delay. */
			nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
		}
		for (int i = 0; round >= 0 && i < n; i++)
			printf("%llu%c", (unsigned long long)took[i], i + 1 < n ? ' ' : '\n');
	}
	for (int i = 0; i < n; i++)
		kill(target[i].pid, SIGKILL);
}
