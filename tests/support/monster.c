/*
 * The monsters: ill-behaved processes in a small language, so that a test says in one line what tree it wants.
 *
 *   monster LOG STATEMENT [, STATEMENT]...        e.g.  monster 3 times 20 daemon stubborn , await 20 , exit 3
 *
 * LOG is a descriptor number or an absolute path; every monster writes whole lines "WORD PID LABEL ..." to it.
 * A statement is a row of modifiers and one action; statements run one after the other in the first process.
 *
 * modifiers: times N, as LABEL, fork, daemon (double fork), setsid, group (own process group), chain N (N deep),
 *            join (the group of the child forked last), become N (all three user ids),
 *            thread (the rest runs in a thread, not the leader, which stays), pids (fork into a new PID namespace)
 * actions:   polite     logs each signal and ends at a stop signal (TERM INT QUIT HUP, and 39, which queues)
 *            stubborn   logs each signal and stays
 *            leaderless stubborn, but its first thread has ended: /proc shows a zombie with threads
 *            ignore     ignores TERM INT QUIT HUP, and stays
 *            plain      default dispositions, stays
 *            stopped    stops itself; when continued, polite
 *            hold       waits for one byte on stdin
 *            await N    waits until N monsters have said that they are ready
 *            wait       waits for every child; mourn: until each forked child is a zombie, and leaves it one
 *            deny ERRNO     from now on, over exec too, the newer system calls fail so: an old kernel, or a strict seccomp
 *            block SIG; disregard SIG (SIG_IGN); both stay so over exec
 *            exit N; die SIG (of it); raise SIG; say WORD; exec PROGRAM ARG...
 *            comet N    a process that is always another one: fork and exit, N times, then stays
 *            bomb N     every process forks on, until N were born, then all stay
 *            host PROGRAM ARG...  an init that only reaps: when PROGRAM ends it logs who is left, and ends
 *
 * Signals are blocked and taken with sigwaitinfo: none is lost to a default action, and queued values are seen.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int log_fd;
static pid_t forked[4096]; /* by this process, for mourn */
static int forks;
static const char *label = "-";
static struct {
	int ready, born;
} *shared; /* by all processes that fork from the first */

static void fail(const char *what)
{
	dprintf(2, "monster: %s: %s\n", what, strerror(errno));
	_exit(99);
}

static void note(const char *word, const char *fmt, ...)
{
	char line[256];
	int n = snprintf(line, sizeof line, "%s %d %s", word, (int)getpid(), label);
	va_list ap;
	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof line - n - 1, fmt, ap);
	va_end(ap);
	line[n++] = '\n';
	if (write(log_fd, line, n) < 0 && errno != EPIPE) /* one write: the lines of many processes do not mix */
		fail("log");
}

static void ready(void)
{
	note("ready", "");
	__atomic_add_fetch(&shared->ready, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &shared->ready, FUTEX_WAKE, 1 << 30, NULL, NULL, 0);
}

static void await(int n)
{
	for (int now; (now = __atomic_load_n(&shared->ready, __ATOMIC_SEQ_CST)) < n;)
		syscall(SYS_futex, &shared->ready, FUTEX_WAIT, now, NULL, NULL, 0);
}

static pid_t fork_or_fail(void)
{
	pid_t pid = fork();
	if (pid < 0)
		fail("fork");
	return pid;
}

/* The only place where a monster lives on: takes signals until one of them ends it. */
static _Noreturn void live(int ends)
{
	sigset_t all;
	sigfillset(&all);
	for (;;) {
		siginfo_t info;
		int sig = sigwaitinfo(&all, &info);
		if (sig < 0 || (sig == SIGCHLD && info.si_code > 0))
			continue;
		if (info.si_code == SI_QUEUE)
			note("got", " %d %d", sig, info.si_value.sival_int);
		else
			note("got", " %d -", sig);
		if (ends && (sig == SIGTERM || sig == SIGINT || sig == SIGQUIT || sig == SIGHUP || sig == 39))
			_exit(0);
	}
}

static _Noreturn void stay(void)
{
	for (;;)
		pause();
}

static void block_all(int how)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(how, &all, NULL);
}

static void ignore_stops(void)
{
	const int stops[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP};
	for (int i = 0; i < 4; i++)
		signal(stops[i], SIG_IGN);
}

static _Noreturn void comet(int n)
{
	ignore_stops();
	ready();
	while (n-- > 0)
		if (fork_or_fail())
			_exit(0);
	stay();
}

static _Noreturn void bomb(int n)
{
	ignore_stops();
	ready();
	signal(SIGCHLD, SIG_IGN);
	while (__atomic_add_fetch(&shared->born, 1, __ATOMIC_SEQ_CST) < n)
		if (fork() < 0)
			break;
	stay();
}

static _Noreturn void host(char **argv)
{
	block_all(SIG_BLOCK); /* as PID 1 nothing that a test sends to the group may end it */
	pid_t child = fork_or_fail();
	if (child == 0) {
		block_all(SIG_UNBLOCK);
		execvp(argv[0], argv);
		fail(argv[0]);
	}
	int status, code = 255;
	pid_t pid;
	do {
		pid = waitpid(-1, &status, 0);
	} while (pid != child);
	if (WIFEXITED(status))
		code = WEXITSTATUS(status);
	else
		note("killed", " %d", WTERMSIG(status));
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	if (kill(-1, 0) == 0) { /* somebody is left; the next pid bounds the search, without /proc */
		pid_t last = fork_or_fail();
		if (last == 0)
			_exit(0);
		waitpid(last, NULL, 0);
		for (pid_t p = 2; p < last; p++)
			if (kill(p, 0) == 0 && getpgid(p) >= 0)
				note("left", " %d", (int)p);
	}
	note("over", " %d", code);
	_exit(code);
}

/* What kernels before 5.9 lack, or what an engine's old profile refuses. */
static void deny(int err)
{
	const int calls[] = {SYS_pidfd_open, SYS_pidfd_send_signal, SYS_close_range, SYS_pwritev2, SYS_faccessat2, SYS_statx};
	enum { N = sizeof calls / sizeof *calls };
	struct sock_filter code[N + 3] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
	for (int i = 0; i < N; i++)
		code[i + 1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], N - i, 0);
	code[N + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	code[N + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)err);
	struct sock_fprog program = {N + 3, code};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		fail("seccomp");
}

static void *leaderless(void *arg)
{
	(void)arg;
	ready();
	live(0);
}

static char **statement(char **w);

static void *thread_body(void *arg)
{
	char ***job = arg;
	char **w = *job;
	*job = NULL;
	statement(w);
	int *done = (int *)(job + 1);
	__atomic_store_n(done, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, done, FUTEX_WAKE, 1, NULL, NULL, 0);
	stay();
}

static void run_in_thread(char **w)
{
	struct {
		char **words;
		int done;
	} *job = calloc(1, sizeof *job);
	pthread_t thread;
	job->words = w;
	if (pthread_create(&thread, NULL, thread_body, job))
		fail("pthread_create");
	while (!__atomic_load_n(&job->done, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &job->done, FUTEX_WAIT, 0, NULL, NULL, 0);
}

static void end_of_child(char **w)
{
	statement(w);
	_exit(0);
}

/* Runs one statement in this process; returns where it ended, if the process goes on. */
static char **statement(char **w)
{
	char **end = w;
	while (*end && strcmp(*end, ","))
		end++;
	if (w == end)
		return end;
	const char *word = *w++;
	int n = *w && w < end ? atoi(*w) : 0;
#define IS(text) (strcmp(word, text) == 0)
	if (IS("times")) {
		while (n-- > 0)
			statement(w + 1);
	} else if (IS("as")) {
		const char *before = label;
		label = *w;
		statement(w + 1);
		label = before;
	} else if (IS("fork")) {
		pid_t pid = fork_or_fail();
		if (pid == 0) {
			forks = 0;
			end_of_child(w);
		}
		forked[forks++ % 4096] = pid;
	} else if (IS("daemon")) {
		pid_t middle = fork_or_fail();
		if (middle == 0) {
			setsid();
			if (fork_or_fail() == 0)
				end_of_child(w);
			_exit(0);
		}
		waitpid(middle, NULL, 0);
	} else if (IS("setsid")) {
		if (setsid() < 0)
			fail(word);
		statement(w);
	} else if (IS("group")) {
		if (setpgid(0, 0) < 0)
			fail(word);
		statement(w);
	} else if (IS("join")) {
		if (setpgid(0, forked[(forks - 1) % 4096]) < 0)
			fail(word);
		statement(w);
	} else if (IS("become")) {
		if (setresuid(n, n, n) < 0)
			fail(word);
		statement(w + 1);
	} else if (IS("pids")) {
		if (fork_or_fail() == 0) {
			if (unshare(CLONE_NEWPID) < 0)
				fail(word);
			if (fork_or_fail() == 0)
				end_of_child(w);
			block_all(SIG_BLOCK);
			waitpid(-1, NULL, 0);
			_exit(0);
		}
	} else if (IS("thread")) {
		run_in_thread(w);
	} else if (IS("chain")) {
		while (--n > 0) { /* every link stays, with one child below it */
			pid_t pid = fork_or_fail();
			if (pid)
				break;
		}
		statement(w + 1);
	} else if (IS("polite") || IS("stubborn")) {
		block_all(SIG_BLOCK);
		ready();
		live(IS("polite"));
	} else if (IS("leaderless")) {
		pthread_t thread;
		block_all(SIG_BLOCK);
		if (pthread_create(&thread, NULL, leaderless, NULL))
			fail(word);
		syscall(SYS_exit, 0);
	} else if (IS("stopped")) {
		block_all(SIG_BLOCK);
		ready();
		raise(SIGSTOP);
		live(1);
	} else if (IS("ignore")) {
		ignore_stops();
		ready();
		stay();
	} else if (IS("plain")) {
		ready();
		stay();
	} else if (IS("hold")) {
		char byte;
		while (read(0, &byte, 1) < 0 && errno == EINTR)
			;
	} else if (IS("await")) {
		await(n);
	} else if (IS("wait")) {
		while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
			;
	} else if (IS("mourn")) {
		siginfo_t info;
		while (forks > 0)
			waitid(P_PID, (id_t)forked[--forks], &info, WEXITED | WNOWAIT);
	} else if (IS("block")) {
		unsigned long bit = 1UL << (n - 1); /* the kernel's own call: libc keeps 32 and 33 back */
		syscall(SYS_rt_sigprocmask, SIG_BLOCK, &bit, NULL, sizeof bit);
	} else if (IS("deny")) {
		deny(n);
	} else if (IS("disregard")) {
		signal(n, SIG_IGN);
	} else if (IS("exit")) {
		_exit(n);
	} else if (IS("die")) {
		struct rlimit none = {0, 0};
		setrlimit(RLIMIT_CORE, &none);
		signal(n, SIG_DFL);
		raise(n);
		fail("still alive after die");
	} else if (IS("raise")) {
		raise(n);
	} else if (IS("say")) {
		note(*w, "");
	} else if (IS("exec")) {
		execvp(w[0], w);
		fail(w[0]);
	} else if (IS("comet")) {
		comet(n);
	} else if (IS("bomb")) {
		bomb(n);
	} else if (IS("host")) {
		host(w);
	} else {
		errno = EINVAL;
		fail(word);
	}
	return end;
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		errno = EINVAL;
		fail("usage: monster LOG STATEMENT [, STATEMENT]...");
	}
	log_fd = argv[1][0] == '/' ? open(argv[1], O_WRONLY | O_APPEND | O_CREAT, 0666) : atoi(argv[1]);
	if (log_fd < 0)
		fail(argv[1]);
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		fail("mmap");
	for (char **w = argv + 2; *w; w += *w != NULL)
		w = statement(w);
	return 0;
}
