/* What the drop-in personalities share: getopt as those programs have it, and lines as those programs write them. */
#ifndef DROP_IN_H
#define DROP_IN_H

#include "sexton.h"

struct flag {
	char letter;
	bool argument;
	const char *name; /* the long option, or NULL */
};

struct flags {
	char **argv;
	const struct flag *table; /* ends with the letter 0 */
	int next;                 /* start with 1; at the end: the first word that is no option */
	const char *rest;         /* of a word like -vvg */
	const char *value;        /* the option's argument */
};

/* The letter of the next option; 0: there is no more; '?': a bad one, and it said so. */
int flags_next(struct flags *flags);

/* A decimal number as scanf's %d reads it: blanks and a sign may come first. Beyond an int it stays at the end. */
bool scan_int(const char **at, int *out);

/* To fd at once, a kilobyte at most; the caller ends the line. */
void tell(int fd, const char *fmt, ...);
void tell_after(int fd, const char *prefix, const char *fmt, va_list args);

void print(int fd, const char *text);

/* The exit code that stands for a wait status: 128 and the number for a signal. */
int exit_code(int status);

extern const char licence_text[];

#endif
