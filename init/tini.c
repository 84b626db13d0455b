/*
 * tini, docker-init and tini-static: the options, the environment, the exit codes and the messages of tini 0.19.
 *
 * docker-init --version is parsed by the engine, and the messages are matched by scripts; both are kept. Where tini
 * dies because a signal may not be delivered, this says so and lives.
 */
#include "drop_in.h"
#include "sys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define VERSION_LINE "tini version 0.19.0"

enum { FATAL_LINE = -1, WARN, INFO, DEBUG, TRACE };

static bool warn_on_reap;

static void line(int level, const char *fmt, ...)
{
	static const char words[][6] = { "FATAL", "WARN ", "INFO ", "DEBUG", "TRACE" };
	if (level != FATAL_LINE && level > cfg.verbose)
		return;
	char prefix[40];
	format(prefix, sizeof prefix, "[%s tini (%d)] ", words[level + 1], (int)getpid());
	va_list args;
	va_start(args, fmt);
	tell_after(level <= WARN ? STDERR_FILENO : STDOUT_FILENO, prefix, fmt, args);
	va_end(args);
}

/* ---- what it says while it runs ---- */

static void prepare(void)
{
	int subreaper = 0;
	if (cfg.subreaper)
		line(TRACE, "Registered as child subreaper\n");
	if (st.pid1 || (CALL(SYS_prctl, PR_GET_CHILD_SUBREAPER, &subreaper) == 0 && subreaper))
		return;
	line(WARN, "Tini is not running as PID 1 and is not a child subreaper.\n"
	           "Orphans do not come to it, so zombie reaping won't work.\n"
	           "Run it as PID 1, use the -s option, or set the environment variable TINI_SUBREAPER.\n");
}

static void started(pid_t command)
{
	line(INFO, "Spawned child process '%s' with pid '%d'\n", cfg.command[0], (int)command);
}

static void received(int sig)
{
	if (sig == SIGCHLD)
		line(DEBUG, "Received SIGCHLD\n");
	else
		line(DEBUG, "Passing signal: '%s'\n", strsignal(sig));
}

static void forward_failed(int sig, int err)
{
	(void)sig;
	if (err == ESRCH)
		line(WARN, "Child was dead when forwarding signal\n");
	else
		line(WARN, "Unexpected error when forwarding signal: '%s'\n", strerror(err));
}

static void reaped(pid_t pid, const char *comm, int status, bool is_command)
{
	(void)comm;
	line(DEBUG, "Reaped child with pid: '%d'\n", (int)pid);
	if (is_command && WIFSIGNALED(status))
		line(INFO, "Main child exited with signal (with signal '%s')\n", strsignal(WTERMSIG(status)));
	else if (is_command)
		line(INFO, "Main child exited normally (with status '%d')\n", WEXITSTATUS(status));
	else if (warn_on_reap)
		line(WARN, "Reaped zombie process with pid=%d\n", (int)pid);
}

static void command_ended(int status)
{
	(void)status;
	line(TRACE, "Exiting: child has exited\n");
}

static void exec_failed(const char *command, int err)
{
	line(FATAL_LINE, "exec %s failed: %s\n", command, strerror(err));
}

static const struct voice voice = {
	.started = started,
	.received = received,
	.forward_failed = forward_failed,
	.reaped = reaped,
	.command_ended = command_ended,
	.exec_failed = exec_failed,
};

/* ---- the command line and the environment ---- */

static const char help[] =
	"\n"
	"Options:\n"
	"\n"
	"  --version     print the version and exit; alone\n"
	"  -h            print this help and exit\n"
	"  -s            become a subreaper, for where it is not PID 1\n"
	"  -p SIGNAL     be sent SIGNAL when the parent dies, as in \"-p SIGKILL\"\n"
	"  -v            more verbose; up to three times\n"
	"  -w            warn of each orphan that is reaped\n"
	"  -g            forward signals to the whole process group of the program\n"
	"  -e EXIT_CODE  exit with 0 where the program exits with EXIT_CODE (0 to 255); repeatable\n"
	"  -l            print the licence and exit\n"
	"\n"
	"Environment:\n"
	"\n"
	"  TINI_SUBREAPER           as -s, whatever its value\n"
	"  TINI_KILL_PROCESS_GROUP  as -g, whatever its value\n"
	"  TINI_VERBOSITY           0 to 4 (default: 1); each -v adds 1 to the default, this replaces both\n"
	"  SEXTON_...               see sexton-init(1): what happens to leftovers, grace times, and more\n"
	"\n";

static void usage(int fd, const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	tell(fd, "%s (" VERSION_LINE "), by sexton-init " SEXTON_VERSION "\n", name);
	tell(fd, "Usage: %s [OPTIONS] PROGRAM -- [ARGS] | --version\n\n", name);
	tell(fd, "Runs a program under the supervision of a valid init process (%s).\n", name);
	print(fd, help);
}

/* Exact names only: TERM without SIG is refused, and so are the few that tini does not know. */
static bool parse_pdeathsig(const char *name)
{
	int sig = strncmp(name, "SIG", 3) == 0 ? signal_number(name) : -1;
	if (sig < 1 || sig >= 32 || sig == SIGSTKFLT || sig == SIGIO || sig == SIGPWR || strcmp(name + 3, signal_name(sig)) != 0)
		return false;
	cfg.pdeathsig = sig;
	return true;
}

static bool parse_ok(const char *text)
{
	const char *end = text;
	int code = 0;
	scan_int(&end, &code);
	if (*end || code < 0 || code > 255)
		return false;
	cfg.ok[code / 8] |= (uint8_t)(1 << code % 8);
	return true;
}

static void environment(void)
{
	const char *verbosity = getenv("TINI_VERBOSITY");
	int n = 0;
	if (getenv("TINI_SUBREAPER"))
		cfg.subreaper = true;
	if (getenv("TINI_KILL_PROCESS_GROUP"))
		cfg.scope = SCOPE_GROUP;
	if (verbosity) {
		scan_int(&verbosity, &n);
		cfg.verbose = n < 0 ? TRACE : n - 1;
	}
}

static int bad_value(char letter, const char *value)
{
	line(FATAL_LINE, "Not a valid option for -%s: %s\n", (char[]){ letter, 0 }, value);
	return 1;
}

/* -1: go on; else the exit status. */
static int option(int letter, const struct flags *flags)
{
	switch (letter) {
	case 'h': usage(STDOUT_FILENO, flags->argv[0]); return 0;
	case 'l': print(STDOUT_FILENO, licence_text); return 0;
	case 's': cfg.subreaper = true; return -1;
	case 'v': cfg.verbose++; return -1;
	case 'w': warn_on_reap = true; return -1;
	case 'g': cfg.scope = SCOPE_GROUP; return -1;
	case 'p': return parse_pdeathsig(flags->value) ? -1 : bad_value('p', flags->value);
	case 'e': return parse_ok(flags->value) ? -1 : bad_value('e', flags->value);
	default: usage(STDERR_FILENO, flags->argv[0]); return 1;
	}
}

int tini_arguments(int argc, char **argv)
{
	static const struct flag table[] = {
		{ .letter = 'h' }, { .letter = 's' }, { .letter = 'v' }, { .letter = 'w' }, { .letter = 'g' }, { .letter = 'l' },
		{ .letter = 'p', .argument = true }, { .letter = 'e', .argument = true }, { 0 },
	};
	struct flags flags = { .argv = argv, .table = table, .next = 1 };

	cfg.name = "tini";
	cfg.voice = voice;
	cfg.prepare = prepare;
	cfg.scope = SCOPE_CHILD;
	cfg.on_exit = ON_EXIT_LEAVE;
	cfg.subreaper = false;
	cfg.no_job_control = true;
	cfg.leave_faults = true;
	memcpy(cfg.exec_status, (int[]){ EXIT_NOT_FOUND, EXIT_CANNOT_EXEC, 1 }, sizeof cfg.exec_status);

	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		print(STDOUT_FILENO, VERSION_LINE "\n");
		return 0;
	}
	for (int letter; (letter = flags_next(&flags)) != 0;) {
		int status = option(letter, &flags);
		if (status >= 0)
			return status;
	}
	if (!argv[flags.next]) {
		usage(STDERR_FILENO, argv[0]);
		return 1;
	}
	cfg.command = argv + flags.next;
	environment();
	return -1;
}
