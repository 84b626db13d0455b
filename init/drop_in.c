/*
 * What the drop-in personalities share.
 *
 * The options are read as getopt_long(3) reads them, abbreviations and messages included, but reading stops at the first
 * word that is no option: `tini sh -c x` means what it says.
 */
#include "drop_in.h"

#include <limits.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINE_SIZE 1024

const char licence_text[] =
	"sexton-init " SEXTON_VERSION "\n"
	"Copyright (c) 2026 the sexton authors\n"
	"MIT licence (SPDX-License-Identifier: MIT); its text is in the file LICENSE of the source.\n";

void print(int fd, const char *text)
{
	put(fd, text, strlen(text));
}

void tell_after(int fd, const char *prefix, const char *fmt, va_list args)
{
	char line[LINE_SIZE];
	size_t n = (size_t)format(line, sizeof line, "%s", prefix);
	vformat(line + n, sizeof line - n, fmt, args);
	n = strlen(line);
	if (n == sizeof line - 1)
		line[n - 1] = '\n'; /* cut, yet a line */
	put(fd, line, n);
}

void tell(int fd, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	tell_after(fd, "", fmt, args);
	va_end(args);
}

int exit_code(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

bool scan_int(const char **at, int *out)
{
	const char *p = *at;
	while (*p == ' ' || (*p >= '\t' && *p <= '\r'))
		p++;
	bool negative = *p == '-';
	if (*p == '-' || *p == '+')
		p++;
	if (*p < '0' || *p > '9')
		return false;
	int n = 0;
	for (; *p >= '0' && *p <= '9'; p++)
		n = n > (INT_MAX - 9) / 10 ? INT_MAX : n * 10 + (*p - '0');
	*out = negative ? -n : n;
	*at = p;
	return true;
}

/* ---- getopt_long(3) ---- */

static int ambiguous(const struct flags *flags, const char *word, size_t len)
{
	tell(STDERR_FILENO, "%s: option '--%s' is ambiguous; possibilities:", flags->argv[0], word);
	for (const struct flag *flag = flags->table; flag->letter; flag++)
		if (flag->name && strncmp(flag->name, word, len) == 0)
			tell(STDERR_FILENO, " '--%s'", flag->name);
	print(STDERR_FILENO, "\n");
	return '?';
}

/* word: what follows the two dashes, perhaps with =VALUE. */
static int long_flag(struct flags *flags, const char *word)
{
	const char *equals = strchrnul(word, '=');
	size_t len = (size_t)(equals - word);
	const struct flag *found = NULL;
	int matches = 0;
	for (const struct flag *flag = flags->table; flag->letter; flag++) {
		if (!flag->name || strncmp(flag->name, word, len) != 0)
			continue;
		found = flag;
		if (!flag->name[len]) {
			matches = 1;
			break;
		}
		matches++;
	}
	if (matches > 1)
		return ambiguous(flags, word, len);
	if (!found)
		tell(STDERR_FILENO, "%s: unrecognized option '--%s'\n", flags->argv[0], word);
	else if (!found->argument && *equals)
		tell(STDERR_FILENO, "%s: option '--%s' doesn't allow an argument\n", flags->argv[0], found->name);
	else if (found->argument && !*equals && !flags->argv[flags->next])
		tell(STDERR_FILENO, "%s: option '--%s' requires an argument\n", flags->argv[0], found->name);
	else {
		if (found->argument)
			flags->value = *equals ? equals + 1 : flags->argv[flags->next++];
		return found->letter;
	}
	return '?';
}

static int short_flag(struct flags *flags)
{
	char letter = *flags->rest++;
	const struct flag *flag = flags->table;
	while (flag->letter && flag->letter != letter)
		flag++;
	if (!flag->letter) {
		tell(STDERR_FILENO, "%s: invalid option -- '%s'\n", flags->argv[0], (char[]){ letter, 0 });
		return '?';
	}
	if (!flag->argument)
		return letter;
	flags->value = *flags->rest ? flags->rest : flags->argv[flags->next];
	if (!*flags->rest && flags->argv[flags->next])
		flags->next++;
	flags->rest = NULL;
	if (flags->value)
		return letter;
	tell(STDERR_FILENO, "%s: option requires an argument -- '%s'\n", flags->argv[0], (char[]){ letter, 0 });
	return '?';
}

static bool has_names(const struct flag *flag)
{
	while (flag->letter && !flag->name)
		flag++;
	return flag->letter;
}

int flags_next(struct flags *flags)
{
	if (!flags->rest || !*flags->rest) {
		const char *word = flags->argv[flags->next];
		if (!word || word[0] != '-' || !word[1])
			return 0;
		flags->next++;
		if (strcmp(word, "--") == 0)
			return 0;
		if (word[1] == '-' && has_names(flags->table))
			return long_flag(flags, word + 2);
		flags->rest = word + 1;
	}
	return short_flag(flags);
}
