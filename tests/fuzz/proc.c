/* What /proc says, from a tree that may name its processes as it likes. */
#include "sexton.h"

#include <stdlib.h>
#include <string.h>

static void require(bool holds)
{
	if (!holds)
		abort();
}

/* A stat line: whatever it holds, what is taken from it ends. */
static void stat_line(const char *text, size_t len)
{
	struct proc_stat stat;
	memset(&stat, 0xff, sizeof stat);
	if (proc_parse_stat(text, len, &stat))
		require(memchr(stat.comm, 0, sizeof stat.comm) != NULL);
}

/* A children file: read in two pieces, cut anywhere, it has the same pids as in one. */
static void pid_list(const char *text, size_t len, size_t cut)
{
	struct pids whole = { 0 }, pieces = { 0 };
	pid_t partial = 0;
	size_t added = proc_parse_pids(text, len, &whole, &partial);
	require(added == whole.n);
	pid_t rest = 0;
	proc_parse_pids(text, cut, &pieces, &rest);
	proc_parse_pids(text + cut, len - cut, &pieces, &rest);
	require(rest == partial && pieces.n == whole.n);
	require(whole.n == 0 || memcmp(pieces.pid, whole.pid, whole.n * sizeof *whole.pid) == 0);
	for (size_t i = 0; i < whole.n; i++)
		require(whole.pid[i] > 0);
	pids_free(&whole);
	pids_free(&pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	char *text = malloc(size); /* of its own: one byte too far is an error */
	memcpy(text, data + 1, size - 1);
	stat_line(text, size - 1);
	pid_list(text, size - 1, size > 1 ? data[0] % size : 0);
	free(text);
	return 0;
}
