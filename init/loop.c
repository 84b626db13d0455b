/*
 * The one wait. Every signal is blocked, so each stays pending until it is taken here with all it carries: nothing runs
 * in a handler, nothing is interrupted, nothing wakes us for nothing.
 */
#include "sexton.h"
#include "sys.h"

#include <errno.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STRANGERS 32
#define PIDFD_SIGNAL_PROCESS_GROUP 4UL /* linux/pidfd.h, since 6.9 */

IDLE int64_t now_ns(void)
{
	struct timespec t = { 0 };
	sys(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&t, 0, 0, 0, 0);
	return t.tv_sec * NS_PER_S + t.tv_nsec;
}

IDLE static struct timespec until(int64_t deadline)
{
	int64_t left = deadline - now_ns();
	if (left < 0)
		left = 0;
	return (struct timespec){ left / NS_PER_S, left % NS_PER_S };
}

/* The next blocked signal; 0 when the deadline came first. */
IDLE static int take_signal(siginfo_t *info, const struct timespec *timeout)
{
	int sig = (int)sys(SYS_rt_sigtimedwait, (long)&st.watched, (long)info, (long)timeout, sizeof st.watched, 0, 0);
	return sig < 0 ? 0 : sig;
}

/* Until the deadline, a signal, or one of the descriptors is ready; which may only be looked at through signalfd. */
IDLE static int take_signal_or_ready(siginfo_t *info, const struct timespec *timeout, struct pollfd *fds, int n, int owners)
{
	static int signals = -1;
	if (signals < 0)
		signals = (int)CALL(SYS_signalfd4, -1, &st.watched, sizeof st.watched, SFD_CLOEXEC);
	fds[n] = (struct pollfd){ .fd = signals, .events = POLLIN };
	struct timespec left = timeout ? *timeout : (struct timespec){ 0 }; /* the kernel writes into it */
	if (sys(SYS_ppoll, (long)fds, n + 1, timeout ? (long)&left : 0, 0, 0, 0) > 0)
		owner_ready(fds, owners);
	return take_signal(info, &(struct timespec){ 0 });
}

/*
 * As PID 1, processes that entered our namespace are no children of ours: their end comes through a pidfd. Returns how
 * many there are to watch, -1 when there is somebody to wait for but nobody left to watch: look again.
 */
IDLE static int watch_strangers(struct pollfd *fds)
{
	pid_t pids[STRANGERS];
	if (!st.alone || !st.pid1 || !st.proc || (st.phase != STOPPING && st.phase != WAITING))
		return 0;
	int n = stop_strangers(pids, STRANGERS), watched = 0;
	bool gone = n == 0;
	for (int i = 0; i < n; i++) {
		int fd = (int)CALL(SYS_pidfd_open, pids[i], 0);
		gone |= fd < 0 && errno == ESRCH;
		if (fd >= 0)
			fds[watched++] = (struct pollfd){ .fd = fd, .events = POLLIN };
	}
	return watched ? watched : gone ? -1 : 0;
}

static inline int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

IDLE int64_t next_deadline(void)
{
	int64_t next = earlier(earlier(st.drain_at, st.stop_timeout_at), earlier(st.timeout_at, st.grace_at));
	return earlier(next, earlier(st.give_up_at, st.lease_at));
}

IDLE static int wait_for_event(siginfo_t *info)
{
	int64_t deadline = next_deadline();
	struct timespec timeout, *limit = NULL;
	if (deadline != NEVER) {
		timeout = until(deadline);
		limit = &timeout;
		if (!(timeout.tv_sec | timeout.tv_nsec))
			return 0; /* before the signals: there may be always one */
	}
	struct pollfd fds[2 + STRANGERS + 1];
	int owners = owner_poll(fds), strangers = watch_strangers(fds + owners);
	if (strangers < 0)
		return take_signal(info, &(struct timespec){ 0 });
	if (owners + strangers == 0)
		return take_signal(info, limit);
	int sig = take_signal_or_ready(info, limit, fds, owners + strangers, owners);
	for (int i = owners; i < owners + strangers; i++)
		close(fds[i].fd);
	return sig;
}

/* Once COMMAND has ended, those who had the stop signal by being forwarded it must not be sent it again. */
static void mark_told(enum scope scope)
{
	struct proc_stat stat;
	if (scope == SCOPE_TREE)
		tree_signal(&(struct sweep){ .mark = true });
	else if (proc_stat(st.command, &stat))
		tree_mark(&stat);
	if (scope == SCOPE_GROUP && st.group)
		tree_mark_group(st.group);
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
	int fd = (int)CALL(SYS_pidfd_open, st.command, 0);
	int result = fd < 0 ? -1 : (int)CALL(SYS_pidfd_send_signal, fd, sig, info, PIDFD_SIGNAL_PROCESS_GROUP);
	if (fd >= 0)
		close(fd);
	return result;
}

/* To each of a tree, or with a queued value. */
static int send_seldom(int sig, const siginfo_t *queued, enum scope scope)
{
	if (scope == SCOPE_TREE && !queued && tree_atomic())
		return kill(-1, sig);
	if (scope == SCOPE_TREE && st.proc)
		return send_each(sig, queued, 0);
	if (!queued)
		return kill(st.group ? -st.group : st.command, sig);
	if (scope == SCOPE_CHILD || !st.group)
		return (int)CALL(SYS_rt_sigqueueinfo, st.command, sig, queued);
	int result = queue_for_group(sig, queued);
	if (result != 0)
		result = st.proc ? send_each(sig, queued, st.group) : kill(-st.group, sig);
	if (getpgid(st.command) != st.group)
		result = (int)CALL(SYS_rt_sigqueueinfo, st.command, sig, queued);
	return result;
}

IDLE static int send_scope(int sig, const siginfo_t *queued, enum scope scope)
{
	if (queued || scope == SCOPE_TREE)
		return send_seldom(sig, queued, scope);
	long result = -ESRCH;
	bool group = scope == SCOPE_GROUP && st.group;
	if (group)
		result = sys(SYS_kill, -st.group, sig, 0, 0, 0, 0);
	/* COMMAND may have moved to another group; the signal is for it in the first place. */
	if (!group || sys(SYS_getpgid, st.command, 0, 0, 0, 0, 0) != st.group)
		result = sys(SYS_kill, st.command, sig, 0, 0, 0, 0);
	if (result == 0)
		return 0;
	errno = (int)-result;
	return -1;
}

IDLE int signal_command(int sig, const siginfo_t *info, enum scope scope)
{
	if (!st.command && (scope != SCOPE_TREE || (!st.proc && !st.pid1)))
		return ESRCH;
	if (send_scope(sig, info && info->si_code == SI_QUEUE ? info : NULL, scope) != 0) {
		int err = errno;
		if (cfg.voice.forward_failed)
			cfg.voice.forward_failed(sig, err);
		return err;
	}
	if (sig == cfg.stop_signal && st.proc && cfg.on_exit != ON_EXIT_LEAVE)
		mark_told(scope);
	if (reporting())
		event_signalled(sig, st.command, scope);
	if (cfg.voice.forwarded)
		cfg.voice.forwarded(sig);
	return 0;
}

IDLE static void deliver(int sig, const siginfo_t *info)
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
IDLE static void forward(int sig, const siginfo_t *info)
{
	int to = cfg.map[sig];
	if (to == 0 || cfg.ignore_once & UINT64_C(1) << (sig - 1)) {
		cfg.ignore_once &= ~(UINT64_C(1) << (sig - 1));
		if (cfg.voice.dropped)
			cfg.voice.dropped(sig, to);
		return;
	}
	if (to != sig && cfg.voice.mapped)
		cfg.voice.mapped(sig, to);
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

/* The third INT or TERM at a terminal. While COMMAND runs, an INT that reaches us is its business: not counted. */
IDLE static bool impatient(int sig)
{
	if (!st.terminal || cfg.on_exit == ON_EXIT_LEAVE || (sig != SIGTERM && (sig != SIGINT || st.phase == RUNNING)))
		return false;
	return ++st.urgent >= 3;
}

IDLE static void on_signal(int sig, const siginfo_t *info)
{
	if ((sig == SIGTTIN || sig == SIGTTOU) && !cfg.forward_tty_stops)
		return;
	if (cfg.contain == CONTAIN_PIDNS && info->si_code >= 0 && !info->si_pid)
		return; /* the one outside had it too, and passes it on */
	if (sig == SIGCONT)
		tty_continued();
	if (impatient(sig)) {
		kill_begin("signal");
		return;
	}
	if (cfg.terminal_reaches_both && info->si_code == SI_KERNEL)
		return;
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
		if (st.command && cfg.map[sig] && !is_stop_signal(cfg.map[sig]) && cfg.map[sig] != cfg.stop_signal)
			deliver(cfg.map[sig], info);
		break;
	default:
		break;
	}
	if (cfg.suspend_self && (sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU)) {
		if (cfg.voice.suspending)
			cfg.voice.suspending(sig);
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
	if (st.lease_at <= now) {
		st.lease_at = NEVER;
		if (st.phase == EMPTY)
			st.phase = DONE;
		else
			stop_begin("lease");
	}
}

static void on_command_end(void)
{
	st.command_ended = false;
	st.drain_at = st.stop_timeout_at = NEVER;
	event_exited(st.ended, st.status, false);
	if (cfg.voice.command_ended)
		cfg.voice.command_ended(st.status);
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
IDLE static bool empty(void)
{
	if (!st.alone || st.command || st.phase == RUNNING)
		return false;
	return (st.phase != STOPPING && st.phase != WAITING) || stop_strangers(&(pid_t){ 0 }, 1) == 0;
}

/* One signal or one deadline, and what came of it. */
IDLE static void turn(void)
{
	siginfo_t info;
	info.si_code = info.si_pid = 0;
	owner_flush();
	if (st.owner_gone) {
		st.owner_gone = false;
		stop_begin("owner");
	}
	int sig = wait_for_event(&info);
	/* A write of ours to a pipe nobody reads, or past a limit: nobody sent it. */
	if ((sig == SIGPIPE || sig == SIGXFSZ) && info.si_pid == st.self)
		return;
	if (sig && cfg.voice.received)
		cfg.voice.received(sig);
	if (!sig)
		on_deadline();
	else if (sig != SIGCHLD)
		on_signal(sig, &info);
	/* A signal of another kind says nothing of the dead, and they will say so themselves. */
	bool any = (sig == SIGCHLD || sig == 0 || st.phase >= STOPPING) && reap();
	if (st.command_ended)
		on_command_end();
	if (any && st.phase >= STOPPING)
		stop_continue();
}

IDLE void loop(void)
{
	while (st.phase != DONE) {
		bool told = st.phase == EMPTY;
		turn();
		if (!told && empty()) {
			event_empty();
			st.stop_timeout_at = st.timeout_at = st.grace_at = st.give_up_at = NEVER;
			st.phase = owner_may_come() ? EMPTY : DONE;
		}
	}
}
