/*
 * The one wait. Every signal is blocked, so each stays pending until it is taken here with all it carries: nothing runs
 * in a handler, nothing is interrupted, nothing wakes us for nothing.
 */
#include "sexton.h"

#include <errno.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STRANGERS 32
#define PIDFD_SIGNAL_PROCESS_GROUP 4UL /* linux/pidfd.h, since 6.9 */

int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NS_PER_S + t.tv_nsec;
}

static struct timespec until(int64_t deadline)
{
	int64_t left = deadline - now_ns();
	if (left < 0)
		left = 0;
	return (struct timespec){ left / NS_PER_S, left % NS_PER_S };
}

/* The next blocked signal; 0 when the deadline came first. */
static int take_signal(siginfo_t *info, const struct timespec *timeout)
{
	int sig;
	do
		sig = (int)syscall(SYS_rt_sigtimedwait, &st.watched, info, timeout, sizeof st.watched);
	while (sig < 0 && errno == EINTR);
	return sig < 0 ? 0 : sig;
}

/* As PID 1, processes that entered our namespace are no children of ours: their end comes through a pidfd. */
static int take_signal_or_end(siginfo_t *info, const struct timespec *timeout, const pid_t *pids, int n)
{
	struct pollfd fds[STRANGERS + 1];
	fds[0] = (struct pollfd){ .fd = (int)syscall(SYS_signalfd4, -1, &st.watched, sizeof st.watched, SFD_CLOEXEC), .events = POLLIN };
	for (int i = 0; i < n; i++)
		fds[i + 1] = (struct pollfd){ .fd = (int)syscall(SYS_pidfd_open, pids[i], 0), .events = POLLIN };
	ppoll(fds, (nfds_t)n + 1, timeout, NULL);
	for (int i = 0; i <= n; i++)
		if (fds[i].fd >= 0)
			close(fds[i].fd);
	return take_signal(info, &(struct timespec){ 0 });
}

static int64_t next_deadline(void)
{
	const int64_t deadlines[] = { st.drain_at, st.stop_timeout_at, st.timeout_at, st.grace_at, st.give_up_at };
	int64_t next = NEVER;
	for (size_t i = 0; i < sizeof deadlines / sizeof *deadlines; i++)
		if (deadlines[i] < next)
			next = deadlines[i];
	return next;
}

static int wait_for_event(siginfo_t *info)
{
	int64_t deadline = next_deadline();
	struct timespec timeout, *limit = NULL;
	if (deadline != NEVER) {
		timeout = until(deadline);
		limit = &timeout;
	}
	if (st.phase == STOPPING && st.alone && st.pid1) {
		pid_t pids[STRANGERS];
		int n = stop_strangers(pids, STRANGERS);
		if (n > 0)
			return take_signal_or_end(info, limit, pids, n);
	}
	return take_signal(info, limit);
}

/* Once COMMAND has ended, those who had the stop signal by being forwarded it must not be sent it again. */
static void mark_told(int sig, enum scope scope)
{
	struct proc_stat stat;
	if (sig != cfg.stop_signal || !st.proc || cfg.on_exit == ON_EXIT_LEAVE)
		return;
	if (scope == SCOPE_CHILD && proc_stat(st.command, &stat))
		tree_mark(&stat);
	else if (scope != SCOPE_CHILD)
		tree_signal(&(struct sweep){ .mark = true, .group = scope == SCOPE_GROUP ? st.group : 0 });
}

/* The kernel queues a value for one process only, never for a group: so each member gets its own. */
static int send_each(int sig, const siginfo_t *info, pid_t group)
{
	tree_signal(&(struct sweep){ .sig = sig, .info = info, .group = group });
	return 0;
}

/* Linux 6.9 can queue for a whole group; older kernels, only for one process at a time. */
static int queue_for_group(int sig, const siginfo_t *info)
{
	int fd = (int)syscall(SYS_pidfd_open, st.command, 0);
	int result = fd < 0 ? -1 : (int)syscall(SYS_pidfd_send_signal, fd, sig, info, PIDFD_SIGNAL_PROCESS_GROUP);
	if (fd >= 0)
		close(fd);
	return result;
}

static int send_scope(int sig, const siginfo_t *queued, enum scope scope)
{
	if (scope == SCOPE_CHILD || !st.group)
		return queued ? (int)syscall(SYS_rt_sigqueueinfo, st.command, sig, queued) : kill(st.command, sig);
	if (queued && scope == SCOPE_GROUP && queue_for_group(sig, queued) == 0)
		return 0;
	if (st.proc && (queued || (scope == SCOPE_TREE && !st.pid1)))
		return send_each(sig, queued, scope == SCOPE_GROUP ? st.group : 0);
	return kill(scope == SCOPE_TREE && st.pid1 ? -1 : -st.group, sig);
}

void signal_command(int sig, const siginfo_t *info, enum scope scope)
{
	if (send_scope(sig, info && info->si_code == SI_QUEUE ? info : NULL, scope) != 0) {
		if (cfg.voice->forward_failed)
			cfg.voice->forward_failed(sig, errno);
		return;
	}
	mark_told(sig, scope);
	event_signalled(sig, st.command, scope);
	if (cfg.voice->forwarded)
		cfg.voice->forwarded(sig);
}

static void deliver(int sig, const siginfo_t *info)
{
	signal_command(sig, info, cfg.scope);
	if (is_stop_signal(sig) && cfg.stop_timeout != NEVER && st.stop_timeout_at == NEVER)
		st.stop_timeout_at = now_ns() + cfg.stop_timeout;
}

static void end_drain(int sig, const siginfo_t *info)
{
	st.drain_at = NEVER;
	st.drained = true;
	deliver(sig, info);
}

/* COMMAND lives: pass it on. */
static void forward(int sig, const siginfo_t *info)
{
	int to = cfg.map[sig];
	if (to == 0 || cfg.ignore_once & UINT64_C(1) << (sig - 1)) {
		cfg.ignore_once &= ~(UINT64_C(1) << (sig - 1));
		if (cfg.voice->dropped)
			cfg.voice->dropped(sig, to);
		return;
	}
	if (to != sig && cfg.voice->mapped)
		cfg.voice->mapped(sig, to);
	if (!is_stop_signal(to)) {
		deliver(to, info);
	} else if (cfg.drain == 0 || st.drained) {
		st.stop_asked = true;
		deliver(to, info);
	} else if (st.drain_at != NEVER) {
		end_drain(to, info);
	} else {
		st.stop_asked = true;
		st.held = *info;
		st.held.si_signo = to;
		st.drain_at = now_ns() + cfg.drain;
		say(1, "SIG%S waits %l s for the drain; another stop signal ends the wait", to, cfg.drain / NS_PER_S);
	}
}

/* The third INT or TERM at a terminal. While COMMAND runs, a Ctrl-C that reaches us is its business: not counted. */
static bool impatient(int sig, const siginfo_t *info)
{
	if (!st.terminal || cfg.on_exit == ON_EXIT_LEAVE || (sig != SIGINT && sig != SIGTERM))
		return false;
	if (st.phase == RUNNING && info->si_code == SI_KERNEL)
		return false;
	return ++st.urgent >= 3;
}

static void on_signal(int sig, const siginfo_t *info)
{
	if ((sig == SIGTTIN || sig == SIGTTOU) && !cfg.forward_tty_stops)
		return;
	if (sig == SIGCONT)
		tty_continued();
	if (impatient(sig, info)) {
		kill_begin("signal");
		return;
	}
	switch (st.phase) {
	case RUNNING:
		if (!cfg.pause)
			forward(sig, info);
		else if ((sig == SIGTERM || sig == SIGINT) && cfg.on_exit == ON_EXIT_LEAVE)
			st.phase = DONE;
		else if (sig == SIGTERM || sig == SIGINT)
			stop_begin("signal");
		break;
	case WAITING:
		if (is_stop_signal(cfg.map[sig]))
			stop_begin("signal");
		break;
	case STOPPING:
		if (st.command && !is_stop_signal(sig) && cfg.map[sig])
			deliver(cfg.map[sig], info);
		break;
	default:
		break;
	}
	if (cfg.suspend_self && (sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU)) {
		if (cfg.voice->suspending)
			cfg.voice->suspending(sig);
		tty_suspend_self();
	}
}

static void on_deadline(void)
{
	int64_t now = now_ns();
	if (st.drain_at <= now)
		end_drain(st.held.si_signo, &st.held);
	if (st.stop_timeout_at <= now) {
		say(0, "%d (COMMAND) did not end within the stop timeout: killing the tree", st.command);
		kill_begin("stop-timeout");
	}
	if (st.timeout_at <= now) {
		st.timed_out = true;
		say(0, "the timeout is over: stopping the tree");
		stop_begin("timeout");
	}
	if (st.grace_at <= now)
		kill_begin("grace");
	if (st.give_up_at <= now)
		give_up();
}

static void on_command_end(void)
{
	st.command_ended = false;
	st.drain_at = st.stop_timeout_at = NEVER;
	event_exited(st.ended, st.status);
	if (cfg.voice->command_ended)
		cfg.voice->command_ended(st.status);
	tty_take();
	if (st.phase != RUNNING)
		return;
	if (cfg.on_exit == ON_EXIT_LEAVE)
		st.phase = DONE;
	else if (cfg.on_exit == ON_EXIT_WAIT && !st.stop_asked)
		st.phase = WAITING;
	else if (!st.alone || stop_strangers(&(pid_t){ 0 }, 1) != 0)
		stop_begin("exit");
	else
		st.phase = DONE;
}

/* Nothing is left: no child, and as PID 1 nobody else in the namespace either. */
static bool empty(void)
{
	if (!st.alone || st.command || st.phase == RUNNING)
		return false;
	return st.phase != STOPPING || stop_strangers(&(pid_t){ 0 }, 1) == 0;
}

void loop(void)
{
	while (st.phase != DONE) {
		siginfo_t info;
		int sig = wait_for_event(&info);
		/* A write of ours to a pipe nobody reads, or past a limit: nobody sent it. */
		if ((sig == SIGPIPE || sig == SIGXFSZ) && info.si_pid == st.self)
			continue;
		if (sig && cfg.voice->received)
			cfg.voice->received(sig);
		if (!sig)
			on_deadline();
		else if (sig != SIGCHLD)
			on_signal(sig, &info);
		bool any = reap();
		if (st.command_ended)
			on_command_end();
		else if (any)
			stop_continue();
		if (empty())
			break;
	}
	if (st.alone)
		event_empty();
}
