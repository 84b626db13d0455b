/*
 * --contain: what holds the tree together besides our being its subreaper. Containment that cannot be had is an error.
 *
 * pidns: a process of ours, outside, and our child as PID 1 of a new PID namespace, which is the guard. When that one
 * ends, for whatever reason, the kernel kills everything in the namespace; when the one outside ends, it kills the guard.
 * cgroup: a cgroup v2 child of our own cgroup, ended by cgroup.kill.
 */
#include "sexton.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[1024];
static int procs = -1; /* its cgroup.procs */

const char *contain_directory(void)
{
	return directory;
}

/* ---- pidns ---- */

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	bool good = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return good;
}

/* With privilege a PID namespace alone; without, a user namespace around it in which we stay who we are. */
static bool unshare_pid(void)
{
	char map[32];
	uid_t uid = geteuid();
	gid_t gid = getegid();
	if (unshare(CLONE_NEWPID) == 0)
		return true;
	if (unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0)
		return false;
	write_file("/proc/self/setgroups", "deny");
	format(map, sizeof map, "%d %d 1", (int)gid, (int)gid);
	if (!write_file("/proc/self/gid_map", map))
		return false;
	format(map, sizeof map, "%d %d 1", (int)uid, (int)uid);
	return write_file("/proc/self/uid_map", map);
}

/* Passes signals in, and the exit status out. */
static int stand_outside(pid_t guard)
{
	siginfo_t info;
	for (;;) {
		int sig = (int)CALL(SYS_rt_sigtimedwait, &st.watched, &info, NULL, sizeof st.watched), status;
		if (sig > 0 && sig != SIGCHLD && !(cfg.terminal_reaches_both && info.si_code == SI_KERNEL)) {
			if (info.si_code != SI_QUEUE)
				info.si_code = SI_MESGQ; /* by it the guard knows our word from what a group of us both was sent */
			CALL(SYS_rt_sigqueueinfo, guard, sig, &info);
		}
		pid_t pid;
		while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0 && pid != guard)
			; /* an orphan of the namespace that we are PID 1 of */
		if (pid == guard)
			return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	}
}

/* The guard must end with the one outside, even if that ended before we could ask for it: then the pipe is closed. */
static bool tie_to_parent(int pipe_end)
{
	struct pollfd parent = { .fd = pipe_end, .events = 0 };
	if (CALL(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL) != 0 || poll(&parent, 1, 0) != 0)
		return false;
	close(pipe_end);
	return true;
}

static int enter_pidns(void)
{
	int ends[2];
	tty_start(); /* before COMMAND is given the foreground */
	pid_t guard = CALL(SYS_pipe2, ends, O_CLOEXEC) == 0 && unshare_pid() ? (pid_t)CALL(SYS_clone, SIGCHLD) : -1;
	if (guard < 0) {
		say(FATAL, "--contain: pidns cannot be had: %e", errno);
		return EXIT_USAGE;
	}
	if (guard > 0) {
		dup2(ends[1], 0); /* its end is ours; all else but the terminal is COMMAND's */
		close(1);
		close(2);
		close_inherited();
		CALL(SYS_chdir, "/");
		int status = stand_outside(guard);
		tty_take();
		return status;
	}
	close(ends[1]);
	if (!tie_to_parent(ends[0]))
		return EXIT_USAGE;
	st.self = getpid();
	st.pid1 = true;
	/* A /proc of the namespace's own, for us and for the tree; without, everything but the names still works. */
	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) != 0 ||
	    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0)
		say(1, "/proc stays the one outside: %e", errno);
	return -1;
}

/* ---- cgroup ---- */

/* The first line of a file for which match says yes, without its end, in buf. */
static char *find_line(const char *path, char *buf, size_t size, const char *contains)
{
	size_t used = 0;
	char byte[512];
	ssize_t n;
	bool found = false;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	while (!found && fd >= 0 && (n = read(fd, byte, sizeof byte)) > 0)
		for (ssize_t i = 0; i < n && !found; i++) {
			if (byte[i] != '\n') {
				if (used < size - 1)
					buf[used++] = byte[i];
				continue;
			}
			buf[used] = 0;
			used = 0;
			for (const char *at = buf; *at && !found; at++)
				found = strncmp(at, contains, strlen(contains)) == 0;
		}
	if (fd >= 0)
		close(fd);
	return found ? buf : NULL;
}

/* mountinfo: ID PARENT DEV ROOT MOUNTPOINT ... - cgroup2 ...; our path below that mount is ours in /proc/self/cgroup. */
static bool own_cgroup(char *out_, size_t size)
{
	char mounts[1024], own[1024];
	char *field = find_line("/proc/self/mountinfo", mounts, sizeof mounts, " - cgroup2 ");
	char *path = find_line("/proc/self/cgroup", own, sizeof own, "0::/");
	char *root = NULL, *point = NULL;
	for (int i = 0; field && i < 5; i++) {
		char *next = strchr(field, ' ');
		if (!next)
			return false;
		*next = 0;
		if (i == 3)
			root = field;
		if (i == 4)
			point = field;
		field = next + 1;
	}
	if (!point || !path || strncmp(path, "0::", 3) != 0)
		return false;
	path += 3;
	size_t shared = strcmp(root, "/") == 0 ? 0 : strlen(root);
	if (strncmp(path, root, shared) != 0)
		return false;
	path += shared;
	format(out_, size, "%s%s", point, strcmp(path, "/") == 0 ? "" : path);
	return true;
}

static int make_cgroup(void)
{
	char own[900], file[1100];
	if (!own_cgroup(own, sizeof own)) {
		say(FATAL, "--contain: cgroup cannot be had: no cgroup v2 is mounted here that we are in");
		return EXIT_USAGE;
	}
	/* By its mark the tree's cgroup is found when we were killed. Guards below us may have the same mark, hence both. */
	format(directory, sizeof directory, "%s/sexton-%d%s%s", own, st.self, cfg.mark ? "@" : "", cfg.mark ? cfg.mark : "");
	if (mkdir(directory, 0755) != 0) {
		say(FATAL, "--contain: cgroup cannot be had: %s: %e", directory, errno);
		directory[0] = 0;
		return EXIT_USAGE;
	}
	format(file, sizeof file, "%s/cgroup.kill", directory);
	bool can_kill = CALL(SYS_faccessat, AT_FDCWD, file, W_OK, 0) == 0;
	format(file, sizeof file, "%s/cgroup.procs", directory);
	procs = can_kill ? above_stdio(open(file, O_WRONLY | O_CLOEXEC)) : -1;
	if (procs >= 0)
		return -1;
	say(FATAL, "--contain: cgroup cannot be had: %s has no cgroup.kill for us (Linux 5.14 has it)", directory);
	contain_end();
	return EXIT_USAGE;
}

/* In the child. */
bool contain_join(void)
{
	return procs < 0 || write(procs, "0", 1) == 1;
}

void contain_kill(void)
{
	char file[1100];
	if (!directory[0])
		return;
	format(file, sizeof file, "%s/cgroup.kill", directory);
	int fd = open(file, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1", 1) != 1)
		say(0, "could not write %s: %e", file, errno);
	if (fd >= 0)
		close(fd);
}

void contain_end(void)
{
	if (directory[0] && rmdir(directory) != 0)
		say(0, "could not remove %s: %e", directory, errno);
	directory[0] = 0;
}

/* -1: go on; else the exit status, of the process outside or of a failure. */
int contain_start(void)
{
	switch (cfg.contain) {
	case CONTAIN_PIDNS: return enter_pidns();
	case CONTAIN_CGROUP: return make_cgroup();
	default: return -1;
	}
}
