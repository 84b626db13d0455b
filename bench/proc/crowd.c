/* crowd LIVING ZOMBIES: so many children that sleep and so many that are zombies, then "ready" and sleep until stdin ends.
   Small on purpose: ten thousand of its forks must fit into a small machine. Run it in a PID namespace of its own. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static int spawn(int zombie)
{
	pid_t pid = fork();
	if (pid < 0)
		return -1;
	if (pid == 0) {
		if (zombie)
			_exit(0);
		for (;;)
			pause();
	}
	/* WNOWAIT: see the child die and leave it dead, so that "ready" means what it says. */
	siginfo_t info;
	return zombie ? waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) : 0;
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: crowd LIVING ZOMBIES\n");
		return 2;
	}
	long living = atol(argv[1]), zombies = atol(argv[2]);
	for (long i = 0; i < living; i++)
		if (spawn(0) < 0)
			return perror("crowd: fork"), 1;
	for (long i = 0; i < zombies; i++)
		if (spawn(1) < 0)
			return perror("crowd: fork"), 1;
	puts("ready");
	fflush(stdout);
	char byte;
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}
