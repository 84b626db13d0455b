/*
 * Starts COMMAND. It gets what we were started with: mask, dispositions, cwd, environment, descriptors; and a process
 * group of its own, the terminal's foreground if we had it, and the user that was asked for.
 *
 * vfork: the child runs in our memory until it executes, so it is quick, and it tells what failed by writing it down.
 */
#include "sexton.h"
#include "sys.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATH_SIZE 4096
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static volatile struct failure {
	const char *step; /* NULL: it was the exec itself */
	int err;
	bool failed;      /* COMMAND did not come to run */
	bool found;       /* the file exists, yet it cannot be executed */
	bool foreign;     /* an ELF file for another machine */
} failure;

static bool is_elf(const char *path)
{
	char magic[SELFMAG];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	bool elf = read(fd, magic, sizeof magic) == sizeof magic && strncmp(magic, ELFMAG, SELFMAG) == 0;
	close(fd);
	return elf;
}

/* As execvp does, a file that the kernel does not know, and that is no program for another machine, goes to the shell. */
static void try_exec(const char *path, char **envp)
{
	execve(path, cfg.command, envp);
	if (errno == ENOEXEC) {
		failure.foreign = is_elf(path);
		if (!failure.foreign) {
			char *name = cfg.command[0], *before = cfg.command[-1];
			cfg.command[-1] = (char[]){ "/bin/sh" };
			cfg.command[0] = (char *)path;
			execve("/bin/sh", cfg.command - 1, envp);
			cfg.command[-1] = before;
			cfg.command[0] = name;
		}
		errno = ENOEXEC;
	}
	failure.err = errno;
}

/* The file is there, and yet it was not found: then it is its interpreter that is missing. */
static void look_for(const char *path)
{
	failure.found |= failure.err == ENOENT && CALL(SYS_faccessat, AT_FDCWD, path, F_OK, 0) == 0;
}

/* The next place in PATH; dirs goes on, NULL after the last. */
static const char *next_place(const char **dirs, const char *name, char path[PATH_SIZE])
{
	const char *end = strchrnul(*dirs, ':');
	size_t len = (size_t)(end - *dirs);
	bool fits = len + strlen(name) + 2 <= PATH_SIZE;
	if (fits) {
		memcpy(path, *dirs, len);
		if (len)
			path[len++] = '/';
		strcpy(path + len, name);
	}
	*dirs = *end ? end + 1 : NULL;
	return fits ? path : "";
}

static const char *program(void)
{
	return cfg.exec ? cfg.exec : cfg.command[0];
}

static void exec_command(char **envp)
{
	char path[PATH_SIZE];
	const char *dirs = DEFAULT_PATH, *name = program();
	bool denied = false;
	if (strchr(name, '/') || !*name) {
		try_exec(name, envp);
		look_for(name);
		return;
	}
	for (char **env = envp; *env; env++)
		if (strncmp(*env, "PATH=", 5) == 0)
			dirs = *env + 5;
	for (const char *at = dirs; at;) {
		try_exec(next_place(&at, name, path), envp);
		if (failure.err == EACCES)
			denied = true;
		else if (failure.err != ENOENT && failure.err != ENOTDIR)
			return;
	}
	failure.err = denied ? EACCES : ENOENT;
	for (const char *at = dirs; at;)
		look_for(next_place(&at, name, path));
}

static void fail(const char *step)
{
	failure.err = errno;
	failure.step = step;
	_exit(EXIT_USAGE);
}

static void own_group(void)
{
	if (cfg.new_session) {
		if (setsid() < 0)
			fail("make a session for");
	} else if (!cfg.same_group) {
		if (setpgid(0, 0) != 0)
			fail("make a process group for");
		tty_give(getpid());
	}
}

/* Who takes sockets by sd_listen_fds(3) looks whether they are meant for its pid, which who started us cannot know. */
void listen_pid(char **envp)
{
	static const char fmt[] = "LISTEN_PID=%d";
	static char entry[32];
	format(entry, sizeof entry, fmt, st.given);
	for (char **env = envp; *env; env++) {
		if (strcmp(*env, entry) == 0 || strcmp(*env, "LISTEN_PID=0") == 0) {
			format(entry, sizeof entry, fmt, (int)getpid());
			*env = entry;
			return;
		}
	}
}

static _Noreturn void child(char **envp, uint64_t mask, const struct disposition *chld)
{
	st.containing = true; /* of this memory, the parent sees it too */
	if (!contain_join())
		fail("move into its cgroup");
	st.containing = false;
	own_group();
	if (cfg.user.set && !user_become(&cfg.user))
		fail("change the user of");
	if (cfg.in_child)
		cfg.in_child(envp);
	/* With an owner, a guard that is killed takes COMMAND along; changing the user would have cleared it. */
	if (cfg.owner_fd >= 0 && (CALL(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != st.self))
		fail("tie to its guard");
	CALL(SYS_rt_sigaction, SIGCHLD, chld, NULL, sizeof mask);
	if (cfg.reset_signals)
		mask = 0;
	for (int sig = 1; cfg.reset_signals && sig < 32; sig++)
		CALL(SYS_rt_sigaction, sig, &(struct disposition){ 0 }, NULL, sizeof mask);
	CALL(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);
	exec_command(envp);
	failure.failed = true;
	_exit(EXIT_NOT_FOUND);
}

static void describe(char *text, size_t size)
{
	const char *name = program();
	if (failure.step)
		format(text, size, "cannot %s %s: %e", failure.step, name, failure.err);
	else if (failure.foreign)
		format(text, size, "cannot execute %s: it is built for another machine than this one", name);
	else if (failure.found)
		format(text, size, "cannot execute %s: the interpreter that its first line (or its ELF header) names is missing", name);
	else if (failure.err == ENOENT && !strchr(name, '/'))
		format(text, size, "cannot execute %s: not found in PATH", name);
	else
		format(text, size, "cannot execute %s: %e", name, failure.err);
}

static int explain(void)
{
	char text[256];
	describe(text, sizeof text);
	event_failed(failure.err, st.containing ? "contain" : failure.step ? "setup" : "exec", text);
	if (cfg.voice.exec_failed && !failure.step)
		cfg.voice.exec_failed(cfg.command[0], failure.err);
	else
		say(FATAL, "%s", text);
	if (failure.step)
		return EXIT_USAGE;
	return cfg.exec_status[failure.err == ENOENT ? 0 : failure.err == EACCES ? 1 : 2];
}

/* In place of the one of that name ("NAME="), or at the end, where there must be room. */
static void put_variable(char **envp, const char *name, char *text)
{
	while (*envp && strncmp(*envp, name, strlen(name)) != 0)
		envp++;
	if (!*envp)
		envp[1] = NULL;
	*envp = text;
}

static pid_t make_child(char **envp, uint64_t mask, const struct disposition *chld)
{
	pid_t pid = vfork();
	if (pid == 0)
		child(envp, mask, chld);
	return pid;
}

int command_start(char **envp, uint64_t mask, const struct disposition *chld)
{
	size_t n = 0;
	while (envp[n])
		n++;
	char *more[n + 3];
	memcpy(more, envp, (n + 1) * sizeof *more);
	if (*cfg.user.home) {
		static char home[sizeof cfg.user.home + 5];
		format(home, sizeof home, "HOME=%s", cfg.user.home);
		put_variable(more, "HOME=", home);
	}
	if (cfg.mark) {
		static char tree[MARK_MAX + 13];
		format(tree, sizeof tree, "SEXTON_TREE=%s", cfg.mark);
		put_variable(more, "SEXTON_TREE=", tree);
	}
	pid_t pid = make_child(more, mask, chld);
	if (pid < 0) {
		say(FATAL, "cannot start %s: no process can be made: %e", cfg.command[0], errno);
		return EXIT_USAGE;
	}
	if (failure.step || failure.failed) {
		/* It wrote down why, and ended. */
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		tty_take();
		return explain();
	}
	st.command = pid;
	st.group = cfg.same_group ? 0 : pid;
	return -1;
}
