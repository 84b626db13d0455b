/*
 * The terminal's foreground, and job control.
 *
 * COMMAND has a process group of its own, so the terminal must be told: if we had the foreground, COMMAND gets it. When
 * COMMAND stops (Ctrl-Z), we stop too, so that the shell that started us sees a stopped job; when the shell continues
 * us, we continue COMMAND, with the foreground if the shell gave it to us.
 */
#include "sexton.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static int tty = -1;      /* the controlling terminal, or -1 */
static bool foreground;   /* we had it when we started */

int above_stdio(int fd)
{
	if (fd < 0 || fd > 2)
		return fd;
	int moved = (int)CALL(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3);
	close(fd);
	return moved;
}

static pid_t tty_group(int fd)
{
	int group;
	return CALL(SYS_ioctl, fd, TIOCGPGRP, &group) == 0 ? group : -1;
}

/*
 * As PID 1 of a namespace whose group leader stayed outside, our group and the terminal's both read 0. Then a read asks
 * the kernel itself: with SIGTTIN blocked, one from the background fails with EIO, and one of no bytes takes nothing.
 */
static bool reads_as_foreground(void)
{
	int fd = open("/dev/tty", O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, &(char){ 0 }, 0);
	bool background = n < 0 && errno == EIO;
	close(fd);
	return !background;
}

void tty_start(void)
{
	/* As --contain pidns it was found before. */
	if (tty < 0)
		tty = above_stdio(open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC));
	for (int fd = 0; fd <= 2 && tty < 0; fd++)
		if (tty_group(fd) >= 0) /* COMMAND may close or replace it; the duplicate is ours */
			tty = (int)CALL(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3);
	pid_t group = tty_group(tty);
	st.terminal = tty >= 0;
	foreground = st.terminal && group == getpgrp() && (group != 0 || reads_as_foreground());
}

/* Runs in the child too, with SIGTTOU blocked: it is not stopped for asking from the background. */
void tty_give(pid_t group)
{
	if (foreground && tty >= 0)
		CALL(SYS_ioctl, tty, TIOCSPGRP, &group);
}

void tty_take(void)
{
	pid_t group = getpgrp();
	if (foreground && group > 0 && tty_group(tty) != group)
		CALL(SYS_ioctl, tty, TIOCSPGRP, &group);
}

/*
 * Stopping is only right where somebody will continue us: a shell with job control, our parent, in our session. And a
 * guard that is stopped would not see its owner die.
 */
static bool shell_watches(void)
{
	return !st.pid1 && cfg.owner_fd < 0 && !cfg.listen && tty >= 0 && getsid(0) != st.self && getsid(getppid()) == getsid(0) && getpgid(getppid()) != getpgrp();
}

static bool suspended;

void tty_suspend_self(void)
{
	if (st.pid1)
		return; /* the kernel would not stop us, but would take back a SIGCONT that is on its way */
	suspended = true;
	kill(st.self, SIGSTOP);
}

void tty_command_stopped(int sig)
{
	if (cfg.no_job_control || !st.group || !shell_watches())
		return;
	if ((sig == SIGTTIN || sig == SIGTTOU) && tty_group(tty) == getpgrp()) {
		/* The shell brought us to the foreground without a SIGCONT, since we were running: hand it on. */
		foreground = true;
		tty_give(st.group);
		kill(-st.group, SIGCONT);
	} else {
		tty_suspend_self();
	}
}

void tty_continued(void)
{
	if (tty < 0 || !st.group)
		return;
	pid_t group = tty_group(tty);
	if (group != st.group) /* else COMMAND has what we gave it */
		foreground = group == getpgrp();
	tty_give(st.group);
	if (suspended && cfg.scope == SCOPE_CHILD)
		kill(-st.group, SIGCONT); /* Ctrl-Z stopped the whole group */
	suspended = false;
}

int tty_descriptor(void)
{
	return tty;
}
