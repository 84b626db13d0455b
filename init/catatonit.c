/*
 * catatonit, and pause: inits that do next to nothing, the one with a command, the other without.
 *
 * catatonit: the options, the environment, the exit codes and the messages of catatonit 0.2.1, which podman starts.
 * pause: those of the Kubernetes image of that name, the first process of a pod.
 */
#include "drop_in.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>
#include <unistd.h>

static void line(const char *level, const char *fmt, ...)
{
	char prefix[40];
	format(prefix, sizeof prefix, "%s (catatonit:%d): ", level, (int)getpid());
	va_list args;
	va_start(args, fmt);
	tell_after(STDERR_FILENO, prefix, fmt, args);
	va_end(args);
}

#define DEBUG(...) (cfg.verbose > 1 ? line("DEBUG", __VA_ARGS__) : (void)0)

/* ---- what catatonit does and says while it runs ---- */

static void started(pid_t command)
{
	DEBUG("pid1 (%d) spawned: %s\n", (int)command, cfg.command[0]);
}

static void dropped(int sig, int to)
{
	(void)sig;
	(void)to;
	DEBUG("ignoring kernel attempting to stop us: tty has TOSTOP set\n");
}

static void forward_failed(int sig, int err)
{
	if (cfg.verbose >= 0)
		line("WARN", "forwarding of signal %d to pid1 (%d) failed: %s\n", sig, (int)st.command, strerror(err));
}

static void reaped(pid_t pid, const char *comm, int status, bool is_command)
{
	(void)comm;
	if (is_command)
		return;
	if (WIFSIGNALED(status))
		DEBUG("child process %d exited due to signal %d\n", (int)pid, WTERMSIG(status));
	else
		DEBUG("child process %d exited with code %d\n", (int)pid, WEXITSTATUS(status));
}

static void exec_failed(const char *command, int err)
{
	(void)command;
	line("ERROR", "failed to exec pid1: %s\n", strerror(err));
}

static const struct voice catatonit_voice = {
	.started = started,
	.dropped = dropped,
	.forward_failed = forward_failed,
	.reaped = reaped,
	.exec_failed = exec_failed,
};

/* ---- catatonit's command line and environment ---- */

static const char usage[] = "usage: catatonit [-ghLPV] [--] <progname> [<arguments>...]\n";

static const char help[] =
	"\n"
	"Runs <progname>, forwards signals to it and reaps orphans.\n"
	"This is sexton-init " SEXTON_VERSION ", started under catatonit's name.\n"
	"\n"
	"options:\n"
	"  -g              Forward signals to the whole process group of <progname>.\n"
	"  -h              Print this help.\n"
	"  -L              Print the licence.\n"
	"  -P              Run nothing: be the pause process of a pod, until SIGINT or SIGTERM.\n"
	"  -V, --version   Print the version.\n"
	"\n"
	"environment: CATATONIT_DEBUG, set to anything, says what happens; SEXTON_...: see sexton-init(1).\n";

/* -1: go on; else the exit status. */
static int option(int letter)
{
	switch (letter) {
	case 'g': cfg.scope = SCOPE_GROUP; return -1;
	case 'P': cfg.pause = true; return -1;
	case 'h':
		print(STDERR_FILENO, usage);
		print(STDERR_FILENO, help);
		return 0;
	case 'L': print(STDOUT_FILENO, licence_text); return 0;
	/* The engine knows only tini's version line. */
	case 'V': print(STDOUT_FILENO, "tini version 0.2.1_catatonit\n"); return 0;
	default: print(STDERR_FILENO, usage); return 1;
	}
}

int catatonit_arguments(int argc, char **argv)
{
	static const struct flag table[] = {
		{ .letter = 'g' }, { .letter = 'h' }, { .letter = 'L' }, { .letter = 'P' }, { .letter = 'V', .name = "version" }, { 0 },
	};
	struct flags flags = { .argv = argv, .table = table, .next = 1 };

	(void)argc;
	cfg.name = "catatonit";
	cfg.voice = catatonit_voice;
	cfg.scope = SCOPE_CHILD;
	cfg.on_exit = ON_EXIT_LEAVE;
	cfg.subreaper = true;
	cfg.no_job_control = true;
	cfg.leave_faults = true;
	cfg.in_child = listen_pid;
	cfg.map[SIGTSTP] = 0;
	memcpy(cfg.exec_status, (int[]){ 1, 1, 1 }, sizeof cfg.exec_status);
	if (getenv("CATATONIT_DEBUG"))
		cfg.verbose = 2;
	if (getenv("CATATONIT_LOG")) {
		line("ERROR", "CATATONIT_LOG is reserved for future use\n");
		return 1;
	}

	for (int letter; (letter = flags_next(&flags)) != 0;) {
		int status = option(letter);
		if (status >= 0)
			return status;
	}
	if (cfg.pause)
		return -1;
	if (!argv[flags.next]) {
		line("ERROR", "missing program name\n");
		print(STDERR_FILENO, usage);
		return 1;
	}
	cfg.command = argv + flags.next;
	return -1;
}

/* ---- pause ---- */

static void pause_prepare(void)
{
	if (!st.pid1 && cfg.verbose >= 0)
		print(STDERR_FILENO, "Warning: pause should be the first process\n");
}

static void pause_received(int sig)
{
	if ((sig == SIGTERM || sig == SIGINT) && cfg.verbose >= 0)
		tell(STDERR_FILENO, "Shutting down, got signal: %s\n", strsignal(sig));
}

static const struct voice pause_voice = { .received = pause_received };

int pause_arguments(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcasecmp(argv[i], "-v") == 0) {
			print(STDOUT_FILENO, "pause.c v3.10-sexton-init-" SEXTON_VERSION "\n");
			return 0;
		}
	}
	cfg.name = "pause";
	cfg.voice = pause_voice;
	cfg.prepare = pause_prepare;
	cfg.on_exit = ON_EXIT_LEAVE;
	cfg.subreaper = false;
	cfg.pause = true;
	return -1;
}
