/*
 * The command line and the environment, in every personality. The input is words that end in NUL: the first chooses the
 * personality by its first byte, those with a SEXTON_ at their head are the environment, the others the arguments.
 */
#include "sexton.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORDS 64

/* --events makes files: not here. What is read, /etc/passwd and /etc/group, may be. */
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
	if (strncmp(path, "/etc/", 5) == 0 && (flags & O_ACCMODE) == O_RDONLY)
		return __real_open(path, flags);
	errno = EACCES;
	return -1;
}

static void require(bool holds)
{
	if (!holds)
		abort();
}

static int parse(unsigned char personality, int argc, char **argv)
{
	switch (personality % 5) {
	case 0: return tini_arguments(argc, argv);
	case 1: return dumb_init_arguments(argc, argv);
	case 2: return catatonit_arguments(argc, argv);
	case 3: return pause_arguments(argc, argv);
	default: return config_arguments(argc, argv);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *argv[WORDS + 1] = { 0 }, *envp[WORDS + 1] = { 0 };
	int argc = 0, envc = 0;
	if (size == 0)
		return 0;
	char *text = malloc(size);
	memcpy(text, data + 1, size - 1);
	text[size - 1] = 0;
	argv[argc++] = text;
	for (char *word = text; (word += strlen(word) + 1) < text + size;) {
		if (strncmp(word, "SEXTON_", 7) == 0 && envc < WORDS)
			envp[envc++] = word;
		else if (argc < WORDS)
			argv[argc++] = word;
	}
	memset(&cfg, 0, sizeof cfg);
	config_defaults();
	bool good = config_environment(envp, true);
	int done = parse(data[0], argc, argv);
	require(done >= -1 && done <= 255);
	if (good && done == -1) {
		require(cfg.pause || (cfg.command > argv && cfg.command <= argv + argc));
		require(cfg.scope <= SCOPE_TREE && cfg.on_exit <= ON_EXIT_LEAVE);
		require(cfg.drain >= 0 && cfg.grace >= 0 && cfg.stop_timeout >= 0 && cfg.timeout >= 0);
		for (int sig = 0; sig <= NSIG_MAX; sig++)
			require(cfg.map[sig] <= NSIG_MAX);
		require(!cfg.user.set || memchr(cfg.user.home, 0, sizeof cfg.user.home));
	}
	free(text);
	return 0;
}
