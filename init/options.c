/* The command line and the environment. Both set options through one table; the command line comes second and wins. */
#include "sexton.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct config cfg;

/* Plain decimal digits, nothing else, at most max. */
bool parse_number(const char *text, unsigned max, unsigned *out)
{
	uint64_t n = 0;
	const char *at = text;
	for (; *at >= '0' && *at <= '9' && n <= max; at++)
		n = n * 10 + (unsigned)(*at - '0');
	if (at == text || *at || n > max)
		return false;
	*out = (unsigned)n;
	return true;
}

/* Seconds with an optional fraction, "5" or "0.25", up to some thirty years. */
bool parse_seconds(const char *text, int64_t *ns)
{
	int64_t n = 0;
	int digits = 0;
	for (; *text >= '0' && *text <= '9' && n <= 1000000000; text++, digits++)
		n = n * 10 + (*text - '0');
	if (n > 1000000000)
		return false;
	n *= NS_PER_S;
	if (*text == '.') {
		text++;
		for (int64_t unit = NS_PER_S / 10; *text >= '0' && *text <= '9'; text++, digits++, unit /= 10)
			n += (*text - '0') * unit;
	}
	if (*text || !digits)
		return false;
	*ns = n;
	return true;
}

/* ---- one setter an option: NULL, or what was expected ---- */

/* The place of value among names, -1 if it is none of them. */
static int one_of(const char *value, const char *const *names)
{
	for (int i = 0; names[i]; i++)
		if (strcmp(value, names[i]) == 0)
			return i;
	return -1;
}

static const char *set_signal(const char *value)
{
	int n = one_of(value, (const char *const[]){ "child", "group", "tree", NULL });
	cfg.scope = (enum scope)n;
	return n < 0 ? "child, group or tree" : NULL;
}

static const char *set_on_exit(const char *value)
{
	int n = one_of(value, (const char *const[]){ "stop", "wait", "leave", NULL });
	cfg.on_exit = (enum on_exit)n;
	return n < 0 ? "stop, wait or leave" : NULL;
}

/* Calls set for each piece between commas. */
static const char *each(const char *value, const char *(*set)(const char *))
{
	char piece[64];
	for (const char *end;; value = end + 1) {
		end = strchrnul(value, ',');
		size_t len = (size_t)(end - value);
		if (len >= sizeof piece)
			len = sizeof piece - 1;
		memcpy(piece, value, len);
		piece[len] = 0;
		const char *expected = set(piece);
		if (expected || !*end)
			return expected; // cppcheck-suppress returnDanglingLifetime ; what set() gives is static
	}
}

static const char *map_one(const char *value)
{
	static const char expected[] = "FROM=TO, both signals such as TERM, SIGTERM, 15 or RTMIN+3; TO may be none";
	char from[64];
	const char *equals = strchr(value, '=');
	if (!equals || (size_t)(equals - value) >= sizeof from)
		return expected;
	memcpy(from, value, (size_t)(equals - value));
	from[equals - value] = 0;
	int source = signal_number(from), target = strcmp(equals + 1, "none") == 0 ? 0 : signal_number(equals + 1);
	if (source < 0 || target < 0)
		return expected;
	if (source == SIGKILL || source == SIGSTOP)
		return "a FROM that can be caught: no process sees KILL or STOP";
	if (source == SIGCHLD)
		return "a FROM other than CHLD: it tells sexton-init of the dead and is never forwarded";
	cfg.map[source] = (uint8_t)target;
	return NULL;
}

static const char *set_map(const char *value)
{
	return each(value, map_one);
}

static const char *ok_one(const char *value)
{
	unsigned code;
	if (!parse_number(value, 255, &code))
		return "an exit code from 0 to 255";
	cfg.ok[code / 8] |= (uint8_t)(1u << code % 8);
	return NULL;
}

static const char *set_ok(const char *value)
{
	return each(value, ok_one);
}

static const char *seconds(const char *value, int64_t *out)
{
	return parse_seconds(value, out) ? NULL : "seconds, such as 5 or 0.25";
}

static const char *set_drain(const char *value)
{
	return seconds(value, &cfg.drain);
}

static const char *set_grace(const char *value)
{
	return seconds(value, &cfg.grace);
}

static const char *set_stop_timeout(const char *value)
{
	return seconds(value, &cfg.stop_timeout);
}

static const char *set_timeout(const char *value)
{
	return seconds(value, &cfg.timeout);
}

static const char *signal_value(const char *value, int *out)
{
	int sig = signal_number(value);
	if (sig < 0)
		return "a signal such as TERM, SIGTERM, 15 or RTMIN+3";
	*out = sig;
	return NULL;
}

static const char *set_stop_signal(const char *value)
{
	return signal_value(value, &cfg.stop_signal);
}

static const char *set_pdeathsig(const char *value)
{
	return signal_value(value, &cfg.pdeathsig);
}

static const char *set_user(const char *value)
{
	memset(&cfg.user, 0, sizeof cfg.user);
	return user_resolve(value, &cfg.user);
}

/* A FIFO is opened for reading too: it then needs no reader to be opened, and a reader that leaves does not end it. */
static const char *set_events(const char *value)
{
	unsigned fd;
	if (parse_number(value, INT32_MAX, &fd)) {
		if (CALL(SYS_fcntl, (int)fd, F_GETFD) < 0)
			return "not an open file descriptor";
		cfg.events = (int)fd;
		if (fd > 2)
			CALL(SYS_fcntl, (int)fd, F_SETFD, FD_CLOEXEC);
		return NULL;
	}
	if (*value == '-' || (*value >= '0' && *value <= '9') || !*value)
		return "not an open file descriptor, nor a path (./NAME for a file of that name)";
	bool fifo = file_type(AT_FDCWD, value) == S_IFIFO;
	int opened = above_stdio(open(value, (fifo ? O_RDWR : O_WRONLY | O_CREAT | O_APPEND) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0644));
	if (opened < 0)
		return strerror(errno);
	cfg.events = opened;
	return NULL;
}

static const char *set_verbose(const char *value)
{
	unsigned level;
	if (!parse_number(value, 3, &level))
		return "a number from 0 to 3";
	cfg.verbose = (int)level;
	return NULL;
}

static const char *boolean(const char *value, bool *out)
{
	unsigned on;
	if (!parse_number(value, 1, &on))
		return "0 or 1";
	*out = on;
	return NULL;
}

static const char *set_quiet(const char *value)
{
	bool on = false;
	const char *expected = boolean(value, &on);
	if (on)
		cfg.verbose = QUIET;
	return expected;
}

static const char *set_pause(const char *value)
{
	return boolean(value, &cfg.pause);
}

static const char *set_owner_fd(const char *value)
{
	unsigned fd;
	if (!parse_number(value, INT32_MAX, &fd) || CALL(SYS_fcntl, (int)fd, F_GETFD) < 0)
		return "an open file descriptor";
	cfg.owner_fd = (int)fd;
	CALL(SYS_fcntl, (int)fd, F_SETFD, FD_CLOEXEC);
	return NULL;
}

static const char *set_listen(const char *value)
{
	cfg.listen = value;
	return *value == '/' ? NULL : "an absolute path"; /* we leave the directory that we were started in */
}

static const char *set_lease(const char *value)
{
	return seconds(value, &cfg.lease);
}

static const char *set_on_owner_lost(const char *value)
{
	int n = one_of(value, (const char *const[]){ "stop", "keep", "lease", "hold", NULL });
	cfg.on_owner_lost = (enum on_owner_lost)n;
	return n < 0 ? "stop, keep, lease or hold" : NULL;
}

static const char *set_contain(const char *value)
{
	int n = one_of(value, (const char *const[]){ "subreaper", "pidns", "cgroup", NULL });
	cfg.contain = (enum contain)n;
	return n < 0 ? "subreaper, pidns or cgroup" : NULL;
}

static const char *set_exec(const char *value)
{
	cfg.exec = value;
	return NULL;
}

static const char *set_mark(const char *value)
{
	cfg.mark = value;
	return *value && strlen(value) <= MARK_MAX && !strchr(value, '/') ? NULL : "of 1 to 64 bytes, without a slash";
}

static const char *set_late(const char *value)
{
	return boolean(value, &cfg.late);
}

static const char *set_same_group(const char *value)
{
	const char *expected = boolean(value, &cfg.same_group);
	cfg.no_job_control = cfg.terminal_reaches_both = cfg.same_group;
	return expected;
}

#define PREFIX "SEXTON_"

static const struct option {
	const char *name, *variable; /* variable: without PREFIX */
	const char *(*set)(const char *value);
	bool flag; /* takes no value on the command line: 1 is set */
} options[] = {
	{ "--signal", "SIGNAL", set_signal, false },
	{ "--map", "MAP", set_map, false },
	{ "--drain", "DRAIN", set_drain, false },
	{ "--on-exit", "ON_EXIT", set_on_exit, false },
	{ "--stop-signal", "STOP_SIGNAL", set_stop_signal, false },
	{ "--grace", "GRACE", set_grace, false },
	{ "--stop-timeout", "STOP_TIMEOUT", set_stop_timeout, false },
	{ "--timeout", "TIMEOUT", set_timeout, false },
	{ "--ok", "OK", set_ok, false },
	{ "--user", "USER", set_user, false },
	{ "--pdeathsig", "PDEATHSIG", set_pdeathsig, false },
	{ "--events", "EVENTS", set_events, false },
	{ "--owner-fd", "OWNER_FD", set_owner_fd, false },
	{ "--listen", "LISTEN", set_listen, false },
	{ "--lease", "LEASE", set_lease, false },
	{ "--on-owner-lost", "ON_OWNER_LOST", set_on_owner_lost, false },
	{ "--contain", "CONTAIN", set_contain, false },
	{ "--exec", "EXEC", set_exec, false },
	{ "--mark", "TREE", set_mark, false },
	{ "--same-group", "SAME_GROUP", set_same_group, true },
	{ "--late", "LATE", set_late, true },
	{ "--verbose", "VERBOSE", set_verbose, true },
	{ "--quiet", "QUIET", set_quiet, true },
	{ "--pause", "PAUSE", set_pause, true },
};

#define OPTIONS (sizeof options / sizeof *options)

void config_defaults(void)
{
	cfg.voice = native_voice;
	cfg.name = "sexton-init";
	cfg.scope = SCOPE_GROUP;
	cfg.stop_signal = SIGTERM;
	cfg.grace = 5 * NS_PER_S;
	cfg.stop_timeout = cfg.timeout = NEVER;
	cfg.events = cfg.owner_fd = -1;
	cfg.lease = NEVER;
	cfg.subreaper = true;
	cfg.exec_status[0] = EXIT_NOT_FOUND;
	cfg.exec_status[1] = cfg.exec_status[2] = EXIT_CANNOT_EXEC;
	for (int sig = 1; sig <= NSIG_MAX; sig++)
		cfg.map[sig] = (uint8_t)sig;
}

static bool set(const char *what, const struct option *option, const char *value)
{
	const char *wrong = option->set(value);
	if (!wrong)
		return true;
	bool is_reason = option->set == set_user || option->set == set_events;
	say(FATAL, is_reason ? "%s: '%s': %s" : "%s: '%s' is not %s", what, value, wrong);
	return false;
}

/*
 * They are for this sexton-init alone: COMMAND's environment is without them, so that a guard further down starts clean.
 * obey: false where they are another one's, and only to be taken away.
 */
bool config_environment(char **envp, bool obey)
{
	bool good = true;
	char **keep = envp;
	for (char **env = envp; *env; env++) {
		const struct option *option = options, *end = options + OPTIONS;
		char *value = strncmp(*env, PREFIX, sizeof PREFIX - 1) == 0 ? strchr(*env, '=') : NULL;
		if (value)
			*value = 0;
		while (option < end && (!value || strcmp(*env + sizeof PREFIX - 1, option->variable) != 0))
			option++;
		if (option < end && obey)
			good &= set(*env, option, value + 1);
		if (option == end && value)
			*value = '=';
		if (option == end)
			*keep++ = *env;
	}
	*keep = NULL;
	return good;
}

static const struct option *find(const char *arg, size_t len)
{
	for (const struct option *option = options; option < options + OPTIONS; option++)
		if (strncmp(option->name, arg, len) == 0 && !option->name[len])
			return option;
	return NULL;
}

static int usage(const char *fmt, const char *arg)
{
	say(FATAL, fmt, arg);
	say(FATAL, "'%s --help' lists the options", cfg.name);
	return EXIT_USAGE;
}

int config_arguments(int argc, char **argv)
{
	int at = 1, verbose = 0;
	for (; at < argc && argv[at][0] == '-' && argv[at][1]; at++) {
		char *arg = argv[at];
		if (strcmp(arg, "--") == 0) {
			at++;
			break;
		}
		if (strcmp(arg, "--help") == 0 || strcmp(arg, "--version") == 0) {
			const char *text = arg[2] == 'h' ? help_text : "sexton-init " SEXTON_VERSION "\n";
			return write(1, text, strlen(text)) < 0 ? 1 : 0;
		}
		char *equals = strchr(arg, '=');
		const struct option *option = find(arg, equals ? (size_t)(equals - arg) : strlen(arg));
		if (!option)
			return usage("%s: no such option", arg);
		if (option->flag && equals)
			return usage("%s: takes no value", arg);
		if (!option->flag && !equals && !argv[at + 1])
			return usage("%s: needs a value", arg);
		char level[2] = { (char)('1' + (verbose > 2 ? 2 : verbose)), 0 };
		const char *value = equals ? equals + 1 : option->flag ? "1" : argv[++at];
		if (option->set == set_verbose) {
			value = level;
			verbose++;
		}
		if (!set(option->name, option, value))
			return EXIT_USAGE;
	}
	cfg.command = argv + at;
	return -1;
}
