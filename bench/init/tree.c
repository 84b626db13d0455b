/*
 * A tree of processes, and how an init stops it.
 *
 *   tree SHAPE PLACE SIZE [INIT ARG...]
 *
 * SHAPE  default   SIZE processes, ten children each, every second one in a session of its own; they die of SIGTERM
 *        daemon    SIZE double-forked daemons of one COMMAND; a SIGTERM ends them
 *        stubborn  the same, but they ignore SIGTERM
 * PLACE  pid1      INIT is PID 1 of a PID namespace of its own
 *        beside    INIT is a child of ours, in our namespace
 *        bare      no INIT: this program sends SIGTERM to each pid, which it knows, and buries them all
 *
 * Waits until all have started, sends SIGTERM to INIT, waits for its end. Prints nanoseconds from the signal to that
 * end, how many of the tree are alive then, and how many of them SIGTERM had reached (default: 0, it leaves no trace).
 *
 * Must itself be PID 1 of a namespace: its end is the end of whatever is left.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX 4096
#define FANOUT 10
#define MEMORY_FD 3 /* struct shared */
#define READY_FD 4  /* each member writes a byte */

static struct shared {
	volatile pid_t pid[MAX]; /* as the namespace of INIT sees it */
	volatile bool told[MAX];
} *shared;

static int self; /* which member this process is */

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void map_memory(void)
{
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, MEMORY_FD, 0);
	if (shared == MAP_FAILED)
		err(1, "mmap");
}

/* ---- the members ---- */

static _Noreturn void live(int which)
{
	shared->pid[which] = getpid();
	if (write(READY_FD, "", 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

static void told(int sig)
{
	(void)sig;
	shared->told[self] = true;
}

static void told_and_gone(int sig)
{
	told(sig);
	_exit(0);
}

/* Returns in each member, with its number. */
static int grow_default(int size)
{
	int which = 0;
	for (int nth = 1; nth <= FANOUT; nth++) {
		int child = which * FANOUT + nth;
		if (child >= size)
			break;
		pid_t pid = fork();
		if (pid < 0)
			err(1, "fork");
		if (pid > 0)
			continue;
		which = child;
		nth = 0;
		if (which % 2)
			setsid();
	}
	return which;
}

static void daemonize(int which, bool stubborn)
{
	if (fork() != 0)
		return;
	setsid();
	if (fork() != 0)
		_exit(0);
	self = which;
	signal(SIGTERM, stubborn ? told : told_and_gone);
	live(which);
}

static _Noreturn void grow(const char *shape, int size)
{
	map_memory();
	if (strcmp(shape, "default") == 0)
		live(grow_default(size));
	for (int i = 0; i < size; i++)
		daemonize(i, strcmp(shape, "stubborn") == 0);
	/* Not pause(): COMMAND buries the middle ones of the double forks. */
	for (;;)
		if (wait(NULL) < 0 && errno == ECHILD)
			pause();
}

/* ---- the one who measures ---- */

static void wait_until_grown(int fd, int size)
{
	char bytes[MAX];
	for (int n = 0; n < size;) {
		struct pollfd ready = { .fd = fd, .events = POLLIN };
		if (poll(&ready, 1, 30000) != 1)
			errx(1, "%d of %d have started", n, size);
		ssize_t more = read(fd, bytes, sizeof bytes);
		if (more <= 0)
			errx(1, "%d of %d have started", n, size);
		n += (int)more;
	}
}

static pid_t start(const char *shape, const char *place, int size, char **words)
{
	char number[16], exe[4096], *argv[64];
	ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);
	int n = 0;
	if (len < 0)
		err(1, "/proc/self/exe");
	exe[len] = 0;
	bool pid1 = strcmp(place, "pid1") == 0;
	if (pid1 && unshare(CLONE_NEWPID) != 0)
		err(1, "unshare");
	pid_t pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (pid > 0)
		return pid;
	if (pid1 && (unshare(CLONE_NEWNS) != 0 || mount("none", "/proc", NULL, MS_PRIVATE | MS_REC, NULL) != 0 ||
	             mount("proc", "/proc", "proc", 0, NULL) != 0))
		err(1, "/proc");
	if (strcmp(place, "bare") == 0)
		grow(shape, size);
	snprintf(number, sizeof number, "%d", size);
	while (*words && n < 59)
		argv[n++] = *words++;
	argv[n++] = exe;
	argv[n++] = "grow";
	argv[n++] = (char *)shape;
	argv[n++] = number;
	argv[n] = NULL;
	execv(argv[0], argv);
	err(1, "cannot start %s", argv[0]);
}

static int count_alive(int size)
{
	int alive = 0;
	for (int i = 0; i < size; i++) {
		char path[32], text[512];
		snprintf(path, sizeof path, "/proc/%d/stat", shared->pid[i]);
		FILE *file = fopen(path, "r");
		if (!file)
			continue;
		size_t n = fread(text, 1, sizeof text - 1, file);
		text[n] = 0;
		fclose(file);
		const char *name_end = strrchr(text, ')');
		alive += name_end && name_end[1] && name_end[2] != 'Z' && name_end[2] != 'X';
	}
	return alive;
}

static uint64_t stop_bare(int size)
{
	uint64_t began = now();
	for (int i = 0; i < size; i++)
		kill(shared->pid[i], SIGTERM);
	while (wait(NULL) > 0)
		;
	return now() - began;
}

static uint64_t stop(pid_t init)
{
	uint64_t began = now();
	kill(init, SIGTERM);
	for (pid_t dead; (dead = wait(NULL)) != init;)
		if (dead < 0)
			err(1, "wait");
	return now() - began;
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "grow") == 0)
		grow(argv[2], atoi(argv[3]));
	if (argc < 4)
		errx(1, "usage: tree SHAPE PLACE SIZE [INIT ARG...]");
	if (getpid() != 1)
		errx(1, "must be PID 1 of a namespace: what it leaves would live on");
	int size = atoi(argv[3]), ends[2];
	if (size > MAX)
		errx(1, "no more than %d", MAX);
	int memory = memfd_create("tree", 0);
	if (memory < 0 || ftruncate(memory, sizeof *shared) != 0 || pipe(ends) != 0)
		err(1, "memory or pipe");
	/* The low numbers may be taken by what was just opened: first up, then down to their places. */
	int high_memory = dup2(memory, 60), high_write = dup2(ends[1], 61), high_read = dup2(ends[0], 62);
	for (int fd = 3; fd < 60; fd++)
		close(fd);
	dup2(high_memory, MEMORY_FD);
	dup2(high_write, READY_FD);
	close(high_memory);
	close(high_write);
	map_memory();
	pid_t init = start(argv[1], argv[2], size, argv + 4);
	wait_until_grown(high_read, size);
	bool bare = strcmp(argv[2], "bare") == 0, pid1 = strcmp(argv[2], "pid1") == 0;
	uint64_t took = bare ? stop_bare(size) : stop(init);
	/* Whoever the last signals reached may need a moment to end. */
	if (!bare)
		nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
	int told = 0;
	for (int i = 0; i < size; i++)
		told += shared->told[i];
	printf("%llu %d %d\n", (unsigned long long)took, pid1 ? 0 : count_alive(size), told);
}
