/* The order of things. */
#include "sexton.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct state st;
static bool drop_in; /* started under another program's name */

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

static int configure(int argc, char **argv, char **envp)
{
	const char *slash = argc ? strrchr(argv[0], '/') : NULL;
	const char *name = slash ? slash + 1 : argc ? argv[0] : "";
	config_defaults();
	for (size_t i = 0; i < sizeof personalities / sizeof *personalities; i++)
		if (strcmp(name, personalities[i].name) == 0) {
			drop_in = true;
			int done = personalities[i].arguments(argc, argv);
			if (done < 0 && !config_environment(envp, true))
				done = EXIT_USAGE;
			cfg.pause = !cfg.command; /* whatever SEXTON_PAUSE says */
			return done;
		}
	cfg.in_child = listen_pid;
	/* Who marks the tree says all on the command line; in the environment are the options of one further up. */
	bool marked = argc > 1 && strncmp(argv[1], "--mark", 6) == 0;
	if (!config_environment(envp, !marked))
		return EXIT_USAGE;
	int done = config_arguments(argc, argv);
	if (done >= 0)
		return done;
	/* An owner that gave us a session meant it for COMMAND. One with a terminal stays whole: see below. */
	cfg.new_session = cfg.owner_fd >= 0 && getsid(0) == st.self;
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
	CALL(SYS_rt_sigprocmask, SIG_SETMASK, &set, &before, sizeof before);
	return before;
}

static bool watch_parent(pid_t parent)
{
	if (!cfg.pdeathsig)
		return true;
	if (CALL(SYS_prctl, PR_SET_PDEATHSIG, cfg.pdeathsig) != 0) {
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
void close_inherited(void)
{
	int keep[4] = { cfg.events, tty_descriptor() };
	unsigned from = 3;
	owner_descriptors(keep + 2);
	for (;;) {
		unsigned next = ~0U;
		for (size_t i = 0; i < sizeof keep / sizeof *keep; i++)
			if (keep[i] >= (int)from && (unsigned)keep[i] < next)
				next = (unsigned)keep[i];
		if (next > from)
			CALL(SYS_close_range, from, next == ~0U ? next : next - 1, 0);
		if (next == ~0U)
			return;
		from = next + 1;
	}
}

extern char __executable_start[], etext[], __start_idle[], __stop_idle[];

/*
 * From here on we mostly sleep. What starting touched is given back: whatever of it is needed again, the kernel reads
 * again from the file, with what lies around it; MADV_RANDOM sets the idle code apart, so that it is not around it.
 */
IDLE static void drop_pages(uintptr_t from, uintptr_t to)
{
	if (from < to && sys(SYS_madvise, (long)from, (long)(to - from), MADV_RANDOM, 0, 0, 0) == 0)
		sys(SYS_madvise, (long)from, (long)(to - from), MADV_DONTNEED, 0, 0, 0);
}

IDLE static void rest(uintptr_t page)
{
	uintptr_t stack = (uintptr_t)__builtin_frame_address(0) & -page;
	/* Where starting went deeper than we go now. */
	sys(SYS_madvise, (long)(stack - 8 * page), (long)(7 * page), MADV_DONTNEED, 0, 0, 0);
	drop_pages((uintptr_t)__executable_start & -page, (uintptr_t)__start_idle & -page);
	drop_pages(((uintptr_t)__stop_idle + page - 1) & -page, ((uintptr_t)etext + page - 1) & -page);
}

/* Whoever has a FIFO open for both reads no end of it anyway; and while we have it, what was written waits in it. */
static bool keeps_what_is_written(int fd)
{
	struct stat about;
	return CALL(SYS_fstat, fd, &about) == 0 && S_ISFIFO(about.st_mode) && (CALL(SYS_fcntl, fd, F_GETFL) & O_ACCMODE) == O_RDWR;
}

/* The pipes are COMMAND's now. Our messages go to stderr, or to the owner, if there is one: then stderr is COMMAND's too. */
static void leave_stdio(void)
{
	st.no_stderr = owner_connected();
	for (int fd = 0; fd <= (st.no_stderr ? 2 : 1); fd++)
		if (fd != cfg.events && fd != cfg.owner_fd && !keeps_what_is_written(fd))
			close(fd);
}

/* Whoever died before we were executed sent its SIGCHLD to the program before us. */
static void expect_the_dead(void)
{
	siginfo_t info = { 0 };
	if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 && info.si_pid)
		kill(st.self, SIGCHLD);
}

/* -1: COMMAND runs; else the exit status. */
static int start(int argc, char **argv, char **envp)
{
	pid_t parent = getppid();
	uint64_t mask = block_signals(~UINT64_C(0));
	struct disposition inherited, standard = { 0 };
	st.self = st.given = getpid();
	st.pid1 = st.self == 1;
	st.drain_at = st.stop_timeout_at = st.timeout_at = st.grace_at = st.give_up_at = st.lease_at = NEVER;
	int done = configure(argc, argv, envp);
	if (done >= 0)
		return done;
	if (cfg.leave_faults)
		block_signals(~FAULTS);
	/* Ignored, SIGCHLD would make the kernel bury our children, and their statuses with them. */
	CALL(SYS_rt_sigaction, SIGCHLD, &standard, &inherited, sizeof mask);
	if (!watch_parent(parent))
		return EXIT_USAGE;
	st.containing = true;
	done = contain_start();
	if (done >= 0)
		return done;
	st.containing = false;
	st.proc = proc_is_ours();
	if (!owner_start())
		return EXIT_USAGE;
	/* Whoever is asked for more than COMMAND must be the parent of what comes of it. */
	cfg.subreaper |= cfg.scope == SCOPE_TREE || cfg.on_exit != ON_EXIT_LEAVE;
	if (cfg.subreaper && !st.pid1 && CALL(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1) != 0)
		say(0, "cannot become a subreaper: %e; orphans will not be reaped", errno);
	if (cfg.prepare)
		cfg.prepare();
	expect_the_dead();
	if (!cfg.pause) {
		tty_start();
		cfg.new_session &= drop_in || !st.terminal;
		done = command_start(envp, mask, &inherited);
		if (done >= 0)
			return drop_in ? remap(done) : done;
		if (cfg.voice.started)
			cfg.voice.started(st.command);
		event_started(st.command);
	}
	if (cfg.timeout != NEVER)
		st.timeout_at = now_ns() + cfg.timeout;
	if (!drop_in)
		leave_stdio();
	close_inherited();
	/* Ours is not the cwd that somebody wants to unmount. */
	if (chdir("/") != 0)
		say(2, "cannot change to /: %e", errno);
	return -1;
}

IDLE int main(int argc, char **argv, char **envp)
{
	int done = start(argc, argv, envp);
	if (done < 0) {
		if (!cfg.late)
			rest(getauxval(AT_PAGESZ)); /* whose owner waits for the end is mostly short */
		loop();
		done = exit_status();
	}
	contain_end();
	owner_end();
	return done;
}
