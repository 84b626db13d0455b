/*
 * COMMAND of an init that is PID 1: makes orphans, as quickly as it can.
 *
 * For each line on stdin, a number, it double-forks that many children; when the init has buried the last of them, that
 * is when this namespace holds nobody but the two, it answers with a line.
 */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void orphan(void)
{
	pid_t middle = vfork();
	if (middle < 0)
		err(1, "vfork");
	if (middle == 0) {
		/* fork, not vfork: this parent must be able to end first. */
		pid_t last = fork();
		_exit(last < 0);
	}
	int status;
	if (waitpid(middle, &status, 0) != middle || status)
		errx(1, "no orphan could be made");
}

int main(void)
{
	int n;
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (scanf("%d", &n) == 1) {
		while (n--)
			orphan();
		while (kill(-1, 0) == 0)
			nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
		if (errno != ESRCH)
			err(1, "kill");
		puts("done");
	}
}
