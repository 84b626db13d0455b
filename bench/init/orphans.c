/*
 * COMMAND of an init that is PID 1: makes orphans, as quickly as it can.
 *
 * For each line on stdin, a number, it double-forks that many children; when the init has buried the last of them, that
 * is when this namespace holds nobody but the two, it answers with a line.
 *
 * The orphans are made in a session of their own, whatever the init does: the kernel's autogroups give each session its
 * share of the CPU, and dumb-init, which makes one for COMMAND, would be measured under another scheduling than the
 * others (by it alone, 4 instead of 7 microseconds an orphan; `dumb-init -c` shows it).
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

static void make_in_session(int n)
{
	int status;
	pid_t maker = fork();
	if (maker == 0) {
		setsid();
		while (n--)
			orphan();
		_exit(0);
	}
	if (maker < 0 || waitpid(maker, &status, 0) != maker || status)
		errx(1, "no session could be made");
}

int main(void)
{
	int n;
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (scanf("%d", &n) == 1) {
		make_in_session(n);
		while (kill(-1, 0) == 0)
			nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
		if (errno != ESRCH)
			err(1, "kill");
		puts("done");
	}
}
