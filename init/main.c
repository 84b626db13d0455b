/* The order of things. */
#include "sexton.h"

#include <errno.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct state st;

#define BIT(sig) (UINT64_C(1) << ((sig)-1))

/*
 * Sent by somebody they are forwarded like any other; a fault of our own kills us although they are blocked.
 * tini and catatonit leave them alone.
 */
#define FAULTS (BIT(SIGFPE) | BIT(SIGILL) | BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGABRT) | BIT(SIGTRAP) | BIT(SIGSYS))

static const struct {
	const char *name;
	int (*arguments)(int argc, char **argv);
} personalities[] = {
	{ "tini", tini_arguments },           { "tini-static", tini_arguments },  { "docker-init", tini_arguments },
	{ "dumb-init", dumb_init_arguments }, { "catatonit", catatonit_arguments }, { "pause", pause_arguments },
};

STARTUP static int configure(int argc, char **argv, char **envp)
{
	const char *slash = argc ? strrchr(argv[0], '/') : NULL;
	const char *name = slash ? slash + 1 : argc ? argv[0] : "";
	config_defaults();
	for (size_t i = 0; i < sizeof personalities / sizeof *personalities; i++)
		if (strcmp(name, personalities[i].name) == 0) {
			int done = personalities[i].arguments(argc, argv);
			return done >= 0 ? done : config_environment(envp) ? -1 : EXIT_USAGE;
		}
	if (!config_environment(envp))
		return EXIT_USAGE;
	int done = config_arguments(argc, argv);
	if (done >= 0)
		return done;
	if (cfg.pause && *cfg.command) {
		say(FATAL, "--pause takes no COMMAND, but there is '%s'", *cfg.command);
		return EXIT_USAGE;
	}
	if (!cfg.pause && !*cfg.command) {
		say(FATAL, "no COMMAND; usage: sexton-init [OPTION]... [--] COMMAND [ARG]...");
		return EXIT_USAGE;
	}
	return -1;
}

/* The kernel's own call: the C library would keep three signals for itself, and COMMAND would not get its mask back. */
static uint64_t block_signals(uint64_t set)
{
	uint64_t before = 0;
	st.watched = set;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &set, &before, sizeof before);
	return before;
}

STARTUP static bool watch_parent(pid_t parent)
{
	if (!cfg.pdeathsig)
		return true;
	if (prctl(PR_SET_PDEATHSIG, cfg.pdeathsig) != 0) {
		say(FATAL, "--pdeathsig: %e", errno);
		return false;
	}
	if (getppid() != parent)
		kill(st.self, cfg.pdeathsig); /* it died before we asked to be told */
	return true;
}

static int remap(int code)
{
	return (cfg.ok[code / 8] & 1u << code % 8) ? 0 : code;
}

static int exit_status(void)
{
	if (st.timed_out)
		return EXIT_TIMED_OUT;
	return remap(WIFSIGNALED(st.status) ? 128 + WTERMSIG(st.status) : WEXITSTATUS(st.status));
}

/* What COMMAND alone should hold: a pipe that it closes must be closed for its reader. */
STARTUP static void close_inherited(void)
{
	int keep[] = { cfg.events, tty_descriptor() };
	unsigned from = 3;
	if (keep[0] > keep[1])
		keep[0] = keep[1], keep[1] = cfg.events;
	for (int i = 0; i < 2; i++)
		if (keep[i] >= (int)from) {
			if (keep[i] > (int)from)
				syscall(SYS_close_range, from, keep[i] - 1, 0);
			from = (unsigned)keep[i] + 1;
		}
	syscall(SYS_close_range, from, ~0U, 0);
}

#ifndef __has_feature /* gcc */
#define __has_feature(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
static void drop_startup(void)
{
}
#else
extern char __start_startup[], __stop_startup[], __start_startup_text[], __stop_startup_text[];

static void drop_pages(const char *from, const char *to)
{
	uintptr_t page = getauxval(AT_PAGESZ), first = ((uintptr_t)from + page - 1) & -page, end = (uintptr_t)to & -page;
	if (first < end)
		munmap((void *)first, end - first);
}

/* Also the stack below us, where starting went deeper than the loop goes; a page is left for what runs now. */
static void drop_startup(void)
{
	uintptr_t page = getauxval(AT_PAGESZ), here = (uintptr_t)__builtin_frame_address(0) & -page;
	drop_pages(__start_startup, __stop_startup);
	drop_pages(__start_startup_text, __stop_startup_text);
	madvise((void *)(here - 8 * page), 7 * page, MADV_DONTNEED);
}
#endif

/* -1: COMMAND runs; else the exit status. */
STARTUP static int start(int argc, char **argv, char **envp)
{
	pid_t parent = getppid();
	uint64_t mask = block_signals(~UINT64_C(0));
	struct sigaction inherited, standard = { .sa_handler = SIG_DFL };
	st.self = getpid();
	st.pid1 = st.self == 1;
	st.drain_at = st.stop_timeout_at = st.timeout_at = st.grace_at = st.give_up_at = NEVER;
	int done = configure(argc, argv, envp);
	if (done >= 0)
		return done;
	if (cfg.leave_faults)
		block_signals(~FAULTS);
	/* Ignored, SIGCHLD would make the kernel bury our children, and their statuses with them. */
	sigaction(SIGCHLD, &standard, &inherited);
	/* Whoever is asked for more than COMMAND must be the parent of what comes of it. */
	cfg.subreaper |= cfg.scope == SCOPE_TREE || cfg.on_exit != ON_EXIT_LEAVE;
	if (cfg.subreaper && !st.pid1 && prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
		say(0, "cannot become a subreaper: %e; orphans will not be reaped", errno);
	if (!watch_parent(parent))
		return EXIT_USAGE;
	st.proc = proc_mounted();
	if (cfg.prepare)
		cfg.prepare();
	if (!cfg.pause) {
		tty_start();
		done = command_start(envp, mask, &inherited);
		if (done >= 0)
			return cfg.voice == &native_voice ? done : remap(done);
		if (cfg.timeout != NEVER)
			st.timeout_at = now_ns() + cfg.timeout;
		if (cfg.voice->started)
			cfg.voice->started(st.command);
		event_started(st.command, *cfg.command);
	}
	close_inherited();
	/* Ours is not the cwd that somebody wants to unmount. */
	if (chdir("/") != 0)
		say(2, "cannot change to /: %e", errno);
	return -1;
}

int main(int argc, char **argv, char **envp)
{
	int done = start(argc, argv, envp);
	if (done >= 0)
		return done;
	drop_startup();
	loop();
	return exit_status();
}
