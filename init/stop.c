/*
 * To stop is: the stop signal, the grace time, SIGKILL, until nothing is left.
 *
 * Nobody gets the stop signal twice. Who was told is remembered by number and start time, those too who had the same
 * signal forwarded to them before the stop began. What a process forks after it was told is part of its going and is
 * left to finish within the grace time.
 *
 * After SIGKILL nobody can fork. Whoever a walk missed, because its parent died under our eyes, becomes our child by
 * that very death, and the death wakes us: so looking at our own children after each burial finds them all.
 */
#include "sexton.h"

#include <errno.h>
#include <unistd.h>

#define GIVE_UP (10 * NS_PER_S) /* how long the killed may take to die: uninterruptible sleep has no other end */

static uint64_t began;
static struct names names;

static int64_t after(int64_t delay)
{
	return delay == NEVER ? NEVER : now_ns() + delay;
}

static int tell(bool later)
{
	return tree_signal(&(struct sweep){ .sig = cfg.stop_signal, .mark = true, .later = later, .began = began });
}

static int kill_all(bool later)
{
	names.used = 0;
	names.live = names.more = 0;
	int live = tree_signal(&(struct sweep){ .sig = SIGKILL, .mark = true, .later = later, .killed = &names });
	if (names.live && names.more)
		say(0, "killed %s and %d more", names.text, names.more);
	else if (names.live)
		say(0, "killed %s", names.text);
	return live;
}

void stop_begin(const char *why)
{
	if (st.phase >= STOPPING)
		return;
	st.timeout_at = st.stop_timeout_at = st.drain_at = NEVER;
	if (cfg.grace == 0) {
		kill_begin(why);
		return;
	}
	st.phase = STOPPING;
	st.grace_at = after(cfg.grace);
	began = proc_ticks();
	int left = st.proc && (reporting() || cfg.verbose >= 1) ? tree_names(&names) : 0;
	event_stopping(why, left);
	if (left)
		say(1, "stopping (%s): SIG%S to %d, then %l s of grace", why, cfg.stop_signal, left, cfg.grace / NS_PER_S);
	if (tree_atomic() && (!st.proc || !tree_told_anyone())) {
		if (st.proc)
			tree_signal(&(struct sweep){ .sig = cfg.stop_signal, .sent = true });
		kill(-1, cfg.stop_signal); /* nobody is missed */
		if (!st.proc)
			kill(-1, SIGCONT); /* who is stopped cannot be told from the others */
	} else if (st.proc) {
		tell(false);
	} else if (st.group) {
		kill(-st.group, cfg.stop_signal);
	}
}

void kill_begin(const char *why)
{
	if (st.phase >= KILLING)
		return;
	if (st.phase < STOPPING)
		event_stopping(why, st.proc && reporting() ? tree_names(&names) : 0);
	st.phase = KILLING;
	st.grace_at = st.timeout_at = st.stop_timeout_at = st.drain_at = NEVER;
	st.give_up_at = after(st.proc || st.pid1 || st.group ? GIVE_UP : 0);
	tree_forget();
	if (st.proc)
		kill_all(false);
	contain_kill();
	if (st.pid1)
		kill(-1, SIGKILL); /* atomic: whoever forked meanwhile too */
	else if (!st.proc && st.group)
		kill(-st.group, SIGKILL);
}

void stop_continue(void)
{
	if (st.pid1 || !st.proc)
		return;
	if (st.phase == STOPPING)
		tell(true);
	else if (st.phase == KILLING)
		kill_all(true);
}

int stop_strangers(pid_t *pids, int max)
{
	if (!st.pid1 || (kill(-1, 0) != 0 && errno == ESRCH))
		return 0;
	return st.proc ? tree_strangers(pids, max) : -1;
}

void give_up(void)
{
	static bool looked_again;
	st.phase = DONE;
	if (st.command)
		st.status = EXIT_USAGE << 8; /* it has none */
	if (st.proc && !looked_again && kill_all(false) && names.live) {
		looked_again = true;
		st.phase = KILLING;
		st.give_up_at = after(GIVE_UP);
	} else if (st.proc && tree_names(&names)) {
		say(FATAL, "%d still alive after SIGKILL, in uninterruptible sleep or another user's: %s", names.live, names.text);
	} else {
		say(FATAL, "some of the tree may be left: without /proc nobody can be found; mount it, or run as PID 1");
	}
}
