/*
 * Who belongs to the tree, and a signal for each of them, once.
 *
 * As PID 1 the tree is everything in the namespace: one flat look at /proc. Elsewhere it is every descendant: as a
 * subreaper we are the parent of all that lost theirs, so a walk down from our own children finds everybody.
 *
 * No process is signalled by a number that may have been reused. A child of ours cannot be: we alone can bury it. Anyone
 * else is held by a pidfd first and looked at in /proc afterwards: either what we read is of the process that the pidfd
 * holds, or that process is gone and the signal reaches nobody.
 */
#include "sexton.h"
#include "sys.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PF_KTHREAD 0x00200000

/* ---- a set of processes: number and start time are an identity ---- */

#define BORN_BEFORE UINT64_MAX /* in place of a start time: whoever had that number when it was entered */

struct entry {
	pid_t pid; /* 0 = free */
	uint64_t start;
	uint64_t when; /* ticks: when it was entered */
};

struct set {
	struct entry *slot;
	size_t n, room; /* room: a power of two */
};

static struct set told; /* who got the stop signal; after tree_forget(), who got SIGKILL */

static struct entry *set_find(const struct set *set, pid_t pid)
{
	if (!set->room)
		return NULL;
	for (size_t i = (size_t)pid * 2654435761u & (set->room - 1);; i = (i + 1) & (set->room - 1))
		if (set->slot[i].pid == pid || !set->slot[i].pid)
			return &set->slot[i];
}

static bool set_has(const struct set *set, pid_t pid, uint64_t start)
{
	const struct entry *entry = set_find(set, pid);
	return entry && entry->pid && (entry->start == start || (entry->start == BORN_BEFORE && start <= entry->when));
}

/* A set that cannot grow forgets; the caller's work is then repeated, never left out. */
static bool set_add(struct set *set, pid_t pid, uint64_t start, uint64_t when)
{
	if (set->n * 2 >= set->room) {
		struct set more = { .room = set->room ? set->room * 2 : 128 };
		more.slot = mmap(NULL, more.room * sizeof *more.slot, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (more.slot == MAP_FAILED)
			return false;
		for (size_t i = 0; i < set->room; i++)
			if (set->slot[i].pid)
				*set_find(&more, set->slot[i].pid) = set->slot[i];
		more.n = set->n;
		if (set->room)
			munmap(set->slot, set->room * sizeof *set->slot);
		*set = more;
	}
	struct entry *entry = set_find(set, pid);
	set->n += !entry->pid;
	*entry = (struct entry){ pid, start, when };
	return true;
}

static void set_clear(struct set *set)
{
	if (set->room)
		munmap(set->slot, set->room * sizeof *set->slot);
	*set = (struct set){ 0 };
}

void tree_forget(void)
{
	set_clear(&told);
}

void tree_mark(const struct proc_stat *stat)
{
	set_add(&told, stat->pid, stat->start, proc_ticks());
}

bool tree_told_anyone(void)
{
	/* A number that is in use again counts too: that only costs the walk. */
	for (size_t i = 0; i < told.room; i++)
		if (told.slot[i].pid && (kill(told.slot[i].pid, 0) == 0 || errno != ESRCH))
			return true;
	return false;
}

/* ---- the walk ---- */

struct member {
	struct proc_stat stat;
	int pidfd; /* -1: a child of ours, or this kernel has none */
};

struct walk {
	bool hold;         /* open a pidfd for those who are not our children */
	bool signal_first; /* visit before the children are listed: SIGKILL, after which nobody forks */
	bool news;         /* only children of ours that nobody has told, and what is below them */
	void (*visit)(const struct member *member, void *arg);
	void *arg;
};

static bool dead(const struct proc_stat *stat)
{
	/* A dead leader may have living threads; the process then lives. */
	return (stat->state == 'Z' || stat->state == 'X') && stat->threads <= 1;
}

/* To ask for a group costs a fortieth of a look into /proc/PID/stat, so the start time is left open. */
void tree_mark_group(pid_t group)
{
	struct pids all = { 0 };
	uint64_t now = proc_ticks();
	proc_all(&all);
	for (size_t i = 0; i < all.n; i++)
		if (all.pid[i] != st.self && getpgid(all.pid[i]) == group)
			set_add(&told, all.pid[i], BORN_BEFORE, now);
	pids_free(&all);
}

static bool look(pid_t pid, bool hold, struct member *member)
{
	member->pidfd = -1;
	if (hold) {
		member->pidfd = (int)CALL(SYS_pidfd_open, pid, 0);
		if (member->pidfd < 0 && errno == ESRCH)
			return false;
	}
	if (proc_stat(pid, &member->stat))
		return true;
	if (member->pidfd >= 0)
		close(member->pidfd);
	return false;
}

static void leave(struct member *member)
{
	if (member->pidfd >= 0)
		close(member->pidfd);
}

static void walk_namespace(const struct walk *walk)
{
	struct pids all = { 0 };
	proc_all(&all);
	for (size_t i = 0; i < all.n; i++) {
		struct member member;
		if (all.pid[i] == st.self || !look(all.pid[i], walk->hold, &member))
			continue;
		if (!dead(&member.stat) && !(member.stat.flags & PF_KTHREAD))
			walk->visit(&member, walk->arg);
		leave(&member);
	}
	pids_free(&all);
}

/* Kernels without children files: everyone whose ancestors lead to us, parents before their children. */
static void list_by_ppid(struct pids *out)
{
	struct pids all = { 0 }, parent = { 0 };
	struct proc_stat stat;
	proc_all(&all);
	for (size_t i = 0; i < all.n; i++)
		if (!pids_add(&parent, proc_stat(all.pid[i], &stat) ? stat.ppid : 0))
			break;
	pid_t of = st.self;
	for (size_t next = 0;; of = out->pid[next++]) {
		for (size_t i = 0; i < parent.n; i++)
			if (parent.pid[i] == of)
				pids_add(out, all.pid[i]);
		if (next == out->n)
			break;
	}
	pids_free(&all);
	pids_free(&parent);
}

/* One of the queue. Between its listing and this look it may have been buried, and its number given to a stranger. */
static void walk_one(const struct walk *walk, pid_t pid, bool own, bool by_ppid, struct pids *queue, struct set *seen)
{
	struct member member;
	const struct entry *entry = set_find(&told, pid), *known = set_find(seen, pid), *parent;
	/* Our own children need no pidfd: nobody else can bury them. */
	if ((walk->news && entry && entry->pid) || (known && known->pid) || !look(pid, walk->hold && !own, &member))
		return;
	parent = set_find(seen, member.stat.ppid);
	if ((member.stat.ppid == st.self || (parent && parent->pid)) && !dead(&member.stat) && !set_has(seen, pid, member.stat.start)) {
		set_add(seen, pid, member.stat.start, 0);
		if (walk->signal_first)
			walk->visit(&member, walk->arg);
		if (!by_ppid)
			proc_children(pid, member.stat.threads, queue);
		if (!walk->signal_first)
			walk->visit(&member, walk->arg);
	}
	leave(&member);
}

/* Who dies under our eyes leaves its children to us: so our own children are listed again until there is nobody new. */
static void walk_descendants(const struct walk *walk)
{
	struct pids queue = { 0 };
	struct set seen = { 0 };
	size_t known, next = 0;
	do {
		known = seen.n;
		bool by_ppid = !proc_children(st.self, 1, &queue);
		size_t own = by_ppid ? 0 : queue.n;
		if (by_ppid)
			list_by_ppid(&queue);
		for (; next < queue.n; next++)
			walk_one(walk, queue.pid[next], next < own, by_ppid, &queue, &seen);
	} while (seen.n > known);
	set_clear(&seen);
	pids_free(&queue);
}

static void walk(const struct walk *walk)
{
	if (st.pid1)
		walk_namespace(walk);
	else
		walk_descendants(walk);
}

/* ---- a signal for each of them ---- */

/* A list of names, cut off where it is full. */
static void list_add(struct names *names, const struct proc_stat *stat)
{
	names->live++;
	if (names->used + 96 < sizeof names->text)
		names->used += (size_t)format(names->text + names->used, sizeof names->text - names->used,
		                              names->used ? ", %d (%s)" : "%d (%s)", stat->pid, stat->comm);
	else
		names->more++;
}

struct sending {
	const struct sweep *sweep;
	int live;
};

/* ESRCH: it is gone; or this kernel (or its guardian) gives no pidfd, and its turn comes when it is our orphan. */
static int send_to(const struct member *member, int sig, const siginfo_t *info)
{
	pid_t pid = member->stat.pid;
	if (member->stat.ppid == st.self)
		return info ? (int)CALL(SYS_rt_sigqueueinfo, pid, sig, info) : kill(pid, sig);
	if (member->pidfd >= 0 && CALL(SYS_pidfd_send_signal, member->pidfd, sig, info, 0) == 0)
		return 0;
	if (member->pidfd < 0 || errno != EPERM || kill(pid, 0) == 0)
		errno = ESRCH; /* a refusal of the call, not of the signal */
	return -1;
}

/* In a later sweep: was it born after its parent was told? Then it is part of the parent's going, and is left to finish. */
static bool born_after(const struct proc_stat *stat, uint64_t began)
{
	const struct entry *parent = set_find(&told, stat->ppid);
	return stat->start >= (parent && parent->pid ? parent->when : began);
}

static void send_visit(const struct member *member, void *arg)
{
	struct sending *sending = arg;
	const struct sweep *sweep = sending->sweep;
	const struct proc_stat *stat = &member->stat;
	sending->live++;
	if (sweep->group && stat->pgrp != sweep->group)
		return;
	if (sweep->mark && set_has(&told, stat->pid, stat->start))
		return;
	bool pass_over = sweep->mark && sweep->later && sweep->sig != SIGKILL && born_after(stat, sweep->began);
	bool refused = false;
	if (sweep->sig && !sweep->sent && !pass_over && send_to(member, sweep->sig, sweep->info) != 0) {
		if (errno != EPERM)
			return;
		refused = true;
		say(0, "may not send SIG%S to %d (%s): it belongs to another user; give sexton-init CAP_KILL", sweep->sig, stat->pid, stat->comm);
	}
	if (sweep->mark)
		set_add(&told, stat->pid, stat->start, proc_ticks());
	if (!sweep->sig || pass_over || refused)
		return;
	if (sweep->sig == SIGKILL) {
		if (sweep->killed)
			list_add(sweep->killed, stat);
		event_killed(stat->pid, stat->comm);
	} else if (sweep->mark || sweep->sent) {
		event_told(stat->pid, stat->comm, sweep->sig);
		if (stat->state == 'T')
			send_to(member, SIGCONT, NULL); /* stopped, it acts on the stop signal only when it goes on */
	}
}

int tree_signal(const struct sweep *sweep)
{
	struct sending sending = { .sweep = sweep };
	walk(&(struct walk){ .hold = sweep->sig != 0,
	                     .signal_first = sweep->sig == SIGKILL,
	                     .news = sweep->later,
	                     .visit = send_visit,
	                     .arg = &sending });
	return sending.live;
}

static void name_visit(const struct member *member, void *arg)
{
	list_add(arg, &member->stat);
}

int tree_names(struct names *names)
{
	*names = (struct names){ 0 };
	walk(&(struct walk){ .visit = name_visit, .arg = names });
	return names->live;
}

/* May kill(-1) stand for a walk? As PID 1, if nobody can refuse us: it does not say that somebody did. */
bool tree_atomic(void)
{
	struct {
		uint32_t version;
		int pid;
	} header = { 0x20080522, 0 }; /* linux/capability.h: version 3 */
	struct {
		uint32_t effective, permitted, inheritable;
	} caps[2] = { { 0 } };
	const unsigned cap_kill = 5;
	return st.pid1 && (!st.proc || (CALL(SYS_capget, &header, caps) == 0 && caps[0].effective & 1u << cap_kill));
}

struct strangers {
	pid_t *pids;
	int n, max;
};

static void stranger_visit(const struct member *member, void *arg)
{
	struct strangers *strangers = arg;
	if (member->stat.ppid != st.self && strangers->n < strangers->max)
		strangers->pids[strangers->n++] = member->stat.pid;
}

int tree_strangers(pid_t *pids, int max)
{
	struct strangers strangers = { pids, 0, max };
	walk(&(struct walk){ .visit = stranger_visit, .arg = &strangers });
	return strangers.n;
}
