/* Signal names and numbers: TERM, SIGTERM, 15, RTMIN+3, RTMAX-1. */
#include "sexton.h"

#include <string.h>
#include <strings.h>

/* The kernel's real-time range as users know it from kill -l: the C libraries keep 32 and 33 (and 34) for themselves. */
#define RT_FIRST 34
#define RT_LAST 64

static const char names[32][8] = {
	[0] = "none",       [SIGHUP] = "HUP",     [SIGINT] = "INT",   [SIGQUIT] = "QUIT",     [SIGILL] = "ILL",
	[SIGTRAP] = "TRAP", [SIGABRT] = "ABRT",   [SIGBUS] = "BUS",   [SIGFPE] = "FPE",       [SIGKILL] = "KILL",
	[SIGUSR1] = "USR1", [SIGSEGV] = "SEGV",   [SIGUSR2] = "USR2", [SIGPIPE] = "PIPE",     [SIGALRM] = "ALRM",
	[SIGTERM] = "TERM", [SIGSTKFLT] = "STKFLT", [SIGCHLD] = "CHLD", [SIGCONT] = "CONT",   [SIGSTOP] = "STOP",
	[SIGTSTP] = "TSTP", [SIGTTIN] = "TTIN",   [SIGTTOU] = "TTOU", [SIGURG] = "URG",       [SIGXCPU] = "XCPU",
	[SIGXFSZ] = "XFSZ", [SIGVTALRM] = "VTALRM", [SIGPROF] = "PROF", [SIGWINCH] = "WINCH", [SIGIO] = "IO",
	[SIGPWR] = "PWR",   [SIGSYS] = "SYS",
};

static const struct {
	char name[5];
	uint8_t sig;
} aliases[] = { { "POLL", SIGIO }, { "IOT", SIGABRT }, { "CLD", SIGCHLD } };

int signal_number(const char *text)
{
	unsigned n;
	if (parse_number(text, NSIG_MAX, &n))
		return n == 0 ? -1 : (int)n;
	if (strncasecmp(text, "SIG", 3) == 0)
		text += 3;
	for (int sig = 1; sig < 32; sig++)
		if (strcasecmp(text, names[sig]) == 0)
			return sig;
	for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
		if (strcasecmp(text, aliases[i].name) == 0)
			return aliases[i].sig;
	if (strcasecmp(text, "RTMIN") == 0)
		return RT_FIRST;
	if (strcasecmp(text, "RTMAX") == 0)
		return RT_LAST;
	if (strncasecmp(text, "RTMIN+", 6) == 0 && parse_number(text + 6, RT_LAST - RT_FIRST, &n))
		return RT_FIRST + (int)n;
	if (strncasecmp(text, "RTMAX-", 6) == 0 && parse_number(text + 6, RT_LAST - RT_FIRST, &n))
		return RT_LAST - (int)n;
	return -1;
}

const char *signal_name(int sig)
{
	static char text[16];
	if (sig >= 0 && sig < 32)
		return names[sig];
	if (sig >= RT_FIRST)
		format(text, sizeof text, sig == RT_FIRST ? "RTMIN" : "RTMIN+%d", sig - RT_FIRST);
	else
		format(text, sizeof text, "%d", sig);
	return text;
}
