/*
 * dumb-init: the options, the environment, the exit codes and the messages of dumb-init 1.2.5.
 *
 * COMMAND gets a session of its own and, with it, the terminal that we had. When it ends, TERM goes to what is left of
 * its group, through the rewrite table. The debug lines are kept to the letter: scripts match them.
 */
#include "drop_in.h"
#include "sys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define LAST_SIGNAL 31 /* which -r takes */

static bool set_by_user[LAST_SIGNAL + 1];

static void line(const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	tell_after(STDERR_FILENO, "[dumb-init] ", fmt, args);
	va_end(args);
}

#define DEBUG(...) (cfg.verbose > 0 ? line(__VA_ARGS__) : (void)0)

/* ---- what it does and says while it runs ---- */

/* A session leader that gives its terminal up is sent HUP and CONT for it: COMMAND must not see those. */
static void leave_terminal(void)
{
	if (CALL(SYS_ioctl, STDIN_FILENO, TIOCNOTTY) != 0) {
		DEBUG("Unable to detach from controlling tty (errno=%d %s).\n", errno, strerror(errno));
	} else if (getsid(0) == getpid()) {
		DEBUG("Detached from controlling tty, ignoring the first SIGHUP and SIGCONT we receive.\n");
		cfg.ignore_once = UINT64_C(1) << (SIGHUP - 1) | UINT64_C(1) << (SIGCONT - 1);
	} else {
		DEBUG("Detached from controlling tty, but was not session leader.\n");
	}
}

static void take_terminal(char **envp)
{
	(void)envp;
	if (CALL(SYS_ioctl, STDIN_FILENO, TIOCSCTTY, 0) != 0)
		DEBUG("Unable to attach to controlling tty (errno=%d %s).\n", errno, strerror(errno));
	DEBUG("setsid complete.\n");
}

static void started(pid_t command)
{
	DEBUG("Child spawned with PID %d.\n", (int)command);
}

static void received(int sig)
{
	DEBUG("Received signal %d.\n", sig);
}

static void mapped(int sig, int to)
{
	DEBUG("Translating signal %d to %d.\n", sig, to);
}

static void forwarded(int sig)
{
	DEBUG("Forwarded signal %d to children.\n", sig);
}

static void dropped(int sig, int to)
{
	if (to == 0) {
		mapped(sig, 0);
		DEBUG("Not forwarding signal 0 to children (ignored).\n");
	} else {
		DEBUG("Ignoring tty hand-off signal %d.\n", sig);
	}
}

static void forward_failed(int sig, int err)
{
	if (err == ESRCH)
		forwarded(sig); /* to nobody, as dumb-init has it */
	else if (cfg.verbose >= 0)
		line("Unable to forward signal %d to children (errno=%d %s).\n", sig, err, strerror(err));
}

static void reaped(pid_t pid, const char *comm, int status, bool is_command)
{
	(void)comm;
	(void)is_command;
	if (WIFSIGNALED(status))
		DEBUG("A child with PID %d was terminated by signal %d.\n", (int)pid, WTERMSIG(status));
	else
		DEBUG("A child with PID %d exited with exit status %d.\n", (int)pid, WEXITSTATUS(status));
}

/* The group has been sent its TERM by now, see term_on_exit. */
static void command_ended(int status)
{
	int to = cfg.map[SIGTERM];
	if (to == 0) {
		dropped(SIGTERM, 0);
	} else {
		if (to != SIGTERM)
			mapped(SIGTERM, to);
		forwarded(to);
	}
	DEBUG("Child exited with status %d. Goodbye.\n", exit_code(status));
}

static void suspending(int sig)
{
	(void)sig;
	DEBUG("Suspending self due to TTY signal.\n");
}

static void exec_failed(const char *command, int err)
{
	line("%s: %s\n", command, strerror(err));
}

static const struct voice voice = {
	.started = started,
	.received = received,
	.dropped = dropped,
	.mapped = mapped,
	.forwarded = forwarded,
	.forward_failed = forward_failed,
	.reaped = reaped,
	.command_ended = command_ended,
	.suspending = suspending,
	.exec_failed = exec_failed,
};

/* ---- the command line and the environment ---- */

static const char version[] = "dumb-init v1.2.5\n";

static const char help[] =
	"\n"
	"Runs command as a container's first process should: forwards signals to it and reaps orphans.\n"
	"This is sexton-init " SEXTON_VERSION ", started under dumb-init's name.\n"
	"\n"
	"Options:\n"
	"   -c, --single-child   Forward signals to command alone, not to its process group,\n"
	"                        and give it no session of its own.\n"
	"   -r, --rewrite s:r    Forward signal s as signal r, by number; r = 0 drops it.\n"
	"                        May be given more than once.\n"
	"   -v, --verbose        Say on stderr what happens.\n"
	"   -h, --help           Print this help and exit.\n"
	"   -V, --version        Print the version and exit.\n"
	"\n"
	"Environment: DUMB_INIT_DEBUG=1 is -v, DUMB_INIT_SETSID=0 is -c; SEXTON_...: see sexton-init(1).\n";

static bool parse_rewrite(const char *text)
{
	int from, to;
	if (!scan_int(&text, &from) || *text++ != ':' || !scan_int(&text, &to) || from < 1 || from > LAST_SIGNAL || to < 0 ||
	    to > LAST_SIGNAL)
		return false;
	cfg.map[from] = (uint8_t)to;
	set_by_user[from] = true;
	return true;
}

/* -1: go on; else the exit status. */
static int option(int letter, const struct flags *flags, bool *session)
{
	switch (letter) {
	case 'h':
		print(STDERR_FILENO, version);
		tell(STDERR_FILENO, "Usage: %s [option] command [[arg] ...]\n", flags->argv[0]);
		print(STDERR_FILENO, help);
		return 0;
	case 'V': print(STDERR_FILENO, version); return 0;
	case 'v': cfg.verbose = 2; return -1;
	case 'c': *session = false; return -1;
	case 'r':
		if (parse_rewrite(flags->value))
			return -1;
		tell(STDERR_FILENO,
		     "Usage: -r option takes <signum>:<signum>, where <signum> is between 1 and %d.\n"
		     "This option can be specified multiple times.\n"
		     "Use --help for full usage.\n",
		     LAST_SIGNAL);
		return 1;
	default: return 1;
	}
}

static bool is_set_to(const char *variable, const char *wanted)
{
	const char *value = getenv(variable);
	return value && strcmp(value, wanted) == 0;
}

static void environment(bool *session)
{
	if (is_set_to("DUMB_INIT_DEBUG", "1")) {
		cfg.verbose = 2;
		DEBUG("Running in debug mode.\n");
	}
	if (is_set_to("DUMB_INIT_SETSID", "0")) {
		*session = false;
		DEBUG("Not running in setsid mode.\n");
	}
}

/* In a session of its own COMMAND has no shell to continue it, and most programs know STOP only. */
static void make_session(void)
{
	static const int stops[] = { SIGTSTP, SIGTTOU, SIGTTIN };
	for (size_t i = 0; i < sizeof stops / sizeof *stops; i++)
		if (!set_by_user[stops[i]])
			cfg.map[stops[i]] = SIGSTOP;
	cfg.new_session = true;
	cfg.scope = SCOPE_GROUP;
	cfg.term_on_exit = cfg.map[SIGTERM];
	cfg.prepare = leave_terminal;
	cfg.in_child = take_terminal;
}

int dumb_init_arguments(int argc, char **argv)
{
	static const struct flag table[] = {
		{ 'h', false, "help" }, { 'c', false, "single-child" }, { 'r', true, "rewrite" }, { 'v', false, "verbose" },
		{ 'V', false, "version" }, { 0 },
	};
	struct flags flags = { .argv = argv, .table = table, .next = 1 };
	bool session = true;

	(void)argc;
	cfg.name = "dumb-init";
	cfg.voice = voice;
	cfg.scope = SCOPE_CHILD;
	cfg.on_exit = ON_EXIT_LEAVE;
	cfg.subreaper = false;
	cfg.no_job_control = true;
	cfg.forward_tty_stops = true;
	cfg.suspend_self = true;
	cfg.reset_signals = true;
	memcpy(cfg.exec_status, (int[]){ 2, 2, 2 }, sizeof cfg.exec_status);

	for (int letter; (letter = flags_next(&flags)) != 0;) {
		int status = option(letter, &flags, &session);
		if (status >= 0)
			return status;
	}
	if (!argv[flags.next]) {
		tell(STDERR_FILENO, "Usage: %s [option] program [args]\nTry %s --help for full usage.\n", argv[0], argv[0]);
		return 1;
	}
	cfg.command = argv + flags.next;
	environment(&session);
	if (session)
		make_session();
	else
		cfg.same_group = true;
	return -1;
}
