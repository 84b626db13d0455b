/* Buries the dead: every child, and every orphan that came to us. Nothing here allocates. */
#include "sexton.h"
#include "sys.h"

#include <errno.h>
#include <sys/wait.h>

/* To look before burying costs a second system call a body: only when somebody wants names, or a group's id held. */
IDLE static bool must_look(void)
{
	return reporting() || cfg.term_on_exit || (st.command && !st.proc && !st.pid1 && cfg.on_exit == ON_EXIT_STOP);
}

/* COMMAND is dead and not yet buried: its group's number is still its own. */
static void last_word_to_group(void)
{
	if (!st.group)
		return;
	if (cfg.term_on_exit && cfg.on_exit != ON_EXIT_STOP) /* the stop asks all of them */
		kill(-st.group, cfg.term_on_exit);
	else if (!st.proc && !st.pid1 && cfg.on_exit == ON_EXIT_STOP && cfg.grace == 0)
		kill(-st.group, SIGKILL);
	else if (!st.proc && !st.pid1 && cfg.on_exit == ON_EXIT_STOP && !st.stop_asked)
		kill(-st.group, cfg.stop_signal);
}

IDLE static void buried(pid_t pid, const char *comm, int status, const struct rusage *usage)
{
	bool is_command = pid == st.command;
	if (reporting())
		event_reaped(pid, comm, status, !is_command);
	if (cfg.voice.reaped)
		cfg.voice.reaped(pid, comm, status, is_command);
	if (!is_command)
		return;
	st.command = st.group = 0;
	st.ended = pid;
	st.status = status;
	st.rusage = *usage;
	st.command_ended = true;
}

/* The next to bury, by number, and its name while it still has one; 0: nobody yet; -1: there is no child. */
static pid_t look(char *comm, size_t size)
{
	siginfo_t info = { 0 };
	if (waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL) != 0)
		return -1;
	if (!info.si_pid || info.si_code == CLD_STOPPED)
		return info.si_pid;
	if (info.si_pid == st.command) {
		command_name(comm, size); /* a look into /proc takes longer than all else here */
		last_word_to_group();
	} else {
		proc_comm(info.si_pid, comm, size);
	}
	return info.si_pid;
}

IDLE bool reap(void)
{
	bool any = false;
	for (uint8_t n = 1;; n++) {
		static struct rusage usage;
		char comm[64] = "";
		pid_t pid = -1;
		int status = 0;
		if (must_look() && (pid = look(comm, sizeof comm)) <= 0) {
			st.alone = pid < 0; /* who ends after that look is looked at in the next one */
			return any;
		}
		pid = (pid_t)sys(SYS_wait4, pid, (long)&status, WNOHANG | WUNTRACED | __WALL, reporting() || cfg.listen ? (long)&usage : 0, 0, 0);
		if (pid == -EINTR)
			continue;
		st.alone = pid < 0;
		if (pid <= 0)
			return any;
		if (WIFSTOPPED(status)) {
			if (pid == st.command)
				tty_command_stopped(WSTOPSIG(status));
			continue;
		}
		any = true;
		buried(pid, comm, status, &usage);
		if (n == 0 && next_deadline() <= now_ns()) {
			kill(st.self, SIGCHLD); /* others may be dying faster than they are buried: the rest after the deadline */
			return any;
		}
	}
}
