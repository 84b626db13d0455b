/*
 * sexton-init: the caretaker of one process tree.
 *
 *   main.c      the order of things: options, start, loop, exit status
 *   options.c   the command line and the environment  -> struct config
 *   tini.c dumb_init.c catatonit.c   the same for the programs it stands in for, and their messages
 *   drop_in.c   what those share: getopt, lines
 *   signals.c   signal names and numbers
 *   user.c      --user: passwd and group
 *   command.c   starts COMMAND: group, terminal, privileges, exec
 *   loop.c      the one wait; forwards signals, keeps the deadlines
 *   reap.c      buries the dead
 *   stop.c      stop signal, grace, SIGKILL, until nothing is left
 *   tree.c      who belongs to the tree, and a signal for each of them, once
 *   proc.c      parses /proc
 *   owner.c     the owner at the other end of a socket: commands in, events out
 *   contain.c   --contain: a PID namespace or a cgroup of the tree's own
 *   tty.c       the terminal's foreground and job control
 *   report.c    messages and events: never blocks, never fails
 */
#ifndef SEXTON_H
#define SEXTON_H

#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#define NSIG_MAX 64 /* the highest signal number */
#define NS_PER_S INT64_C(1000000000)
#define QUIET (-1)
#define FATAL (-2) /* a message that --quiet does not silence: why we do not start, or end before all is done */
#define MARK_MAX 64 /* bytes of a tree's name */
#define NEVER INT64_MAX /* a deadline that does not come */

enum scope { SCOPE_CHILD, SCOPE_GROUP, SCOPE_TREE };
enum on_exit { ON_EXIT_STOP, ON_EXIT_WAIT, ON_EXIT_LEAVE };
enum on_owner_lost { LOST_STOP, LOST_KEEP, LOST_LEASE, LOST_HOLD };
enum contain { CONTAIN_SUBREAPER, CONTAIN_PIDNS, CONTAIN_CGROUP };

enum exit_status {
	EXIT_TIMED_OUT = 124,
	EXIT_USAGE = 125, /* a bad option, or sexton-init itself failed */
	EXIT_CANNOT_EXEC = 126,
	EXIT_NOT_FOUND = 127,
};

/*
 * The words in which a personality tells what happens. A null entry says nothing.
 * They must not allocate, and they write through say() only.
 */
struct voice {
	void (*started)(pid_t command);
	void (*received)(int sig);                                  /* before mapping; SIGCHLD too, before the reaping */
	void (*dropped)(int sig, int mapped);                       /* not forwarded: mapped to 0 (none), or else ignored once */
	void (*mapped)(int sig, int to);
	void (*forwarded)(int sig);                                 /* delivered */
	void (*forward_failed)(int sig, int err);
	void (*reaped)(pid_t pid, const char *comm, int status, bool is_command);
	void (*command_ended)(int status);                          /* wait status, after the reaping */
	void (*suspending)(int sig);
	void (*exec_failed)(const char *command, int err);
};

struct user {
	bool set;
	uid_t uid;
	gid_t gid;
	int ngroups;
	gid_t groups[256];
	char home[256];
};

struct config {
	struct voice voice;
	const char *name;       /* what messages begin with */
	char **command;         /* argv of COMMAND, NULL with --pause; command[-1] is ours to overwrite */
	enum scope scope;
	enum on_exit on_exit;
	int stop_signal;
	int64_t drain, grace;   /* nanoseconds */
	int64_t stop_timeout;   /* nanoseconds, NEVER = none */
	int64_t timeout;        /* nanoseconds, NEVER = none */
	uint8_t map[NSIG_MAX + 1]; /* 0 = none */
	uint8_t ok[256 / 8];    /* bitmap of exit codes reported as 0 */
	struct user user;
	int pdeathsig;
	int events;             /* descriptor, -1 = none */
	int verbose;            /* QUIET, 0 warnings, 1 info, 2 debug, 3 trace */
	bool pause;
	int owner_fd;           /* a connected unix socket, -1 = none */
	const char *listen;     /* where an owner may connect, or NULL */
	int64_t lease;          /* nanoseconds, NEVER = none */
	enum on_owner_lost on_owner_lost;
	enum contain contain;
	const char *mark;       /* the tree's name in COMMAND's environment, or NULL */
	const char *exec;       /* the file to execute, NULL: COMMAND's first word; without a slash it is searched for */
	bool late;              /* the owner is told when it must be, not at once */
	bool terminal_reaches_both; /* what the terminal sends, COMMAND has too: not forwarded (--same-group) */
	bool subreaper;         /* become one where we are not PID 1 */
	bool new_session;       /* setsid for COMMAND instead of setpgid */
	bool same_group;        /* leave COMMAND in our group and session */
	/* what only the drop-in personalities want */
	bool forward_tty_stops; /* TTIN and TTOU are forwarded too (dumb-init) */
	bool suspend_self;      /* stop ourselves on TSTP, TTIN, TTOU (dumb-init) */
	bool no_job_control;    /* do not mirror COMMAND's stops */
	int term_on_exit;       /* signal, already mapped, for the group when COMMAND ended; 0 = none (dumb-init) */
	uint64_t ignore_once;   /* bit n: the first signal n is swallowed (dumb-init) */
	bool reset_signals;     /* COMMAND starts with no signal blocked and none below 32 ignored (dumb-init) */
	bool leave_faults;      /* FPE ILL SEGV BUS ABRT TRAP SYS are neither blocked nor forwarded (tini, catatonit) */
	void (*prepare)(void);  /* all options are read, signals blocked, subreaper or not; COMMAND is not yet started */
	void (*in_child)(char **envp); /* in COMMAND's process, before it executes; may replace entries of envp */
	int exec_status[3];     /* exit status for ENOENT, EACCES, any other failure to execute */
};

/* What is true now. */
enum phase {
	RUNNING,  /* COMMAND lives */
	WAITING,  /* COMMAND ended, --on-exit wait */
	STOPPING, /* the stop signal is out, the grace time runs */
	KILLING,  /* SIGKILL is out */
	EMPTY,    /* nothing is left, but an owner may still come for the exit status */
	DONE,
};

struct state {
	pid_t self, command;    /* command: 0 when it is reaped */
	pid_t given;            /* our pid for who started us */
	pid_t group;            /* COMMAND's process group; 0 when it has none of its own or COMMAND is reaped */
	bool pid1;
	bool alone;             /* wait said ECHILD: no child is left */
	bool proc;              /* /proc is mounted, and is the one of our PID namespace */
	enum phase phase;
	int status;             /* COMMAND's wait status */
	pid_t ended;            /* COMMAND's pid, when it is reaped */
	bool command_ended;     /* just now: not yet acted on */
	uint64_t watched;       /* the signals that are blocked and waited for */
	bool timed_out, stop_asked, drained, terminal;
	bool containing;        /* what fails now is containment */
	bool no_stderr;         /* it is COMMAND's alone: messages are for the owner or for nobody */
	bool owner_gone;        /* just now: not yet acted on */
	int urgent;             /* INT and TERM received */
	struct rusage rusage;   /* COMMAND's, with what it waited for */
	int64_t drain_at, stop_timeout_at, timeout_at, grace_at, give_up_at, lease_at; /* CLOCK_MONOTONIC, ns */
	siginfo_t held;         /* the stop signal that waits for the drain */
};

/* What runs while there are only orphans to bury and signals to pass on: kept together, so that the rest need not stay. */
#define IDLE __attribute__((section("idle")))

extern struct config cfg;
extern struct state st;

/* options.c */
void config_defaults(void);
bool config_environment(char **envp, bool obey); /* false: said why, exit 125; takes the SEXTON_ variables out of envp */
int config_arguments(int argc, char **argv); /* -1: go on; else the exit status */
bool parse_seconds(const char *text, int64_t *ns);
bool parse_number(const char *text, unsigned max, unsigned *out);

/* Personalities: parse argv, set cfg. -1: go on; else the exit status. */
int tini_arguments(int argc, char **argv);
int dumb_init_arguments(int argc, char **argv);
int catatonit_arguments(int argc, char **argv);
int pause_arguments(int argc, char **argv);
extern const struct voice native_voice;

/* signals.c */
int signal_number(const char *text);    /* NAME, SIGNAME, number, RTMIN+n, RTMAX-n; -1 = unknown */
const char *signal_name(int sig);       /* without SIG; static storage */
static inline bool is_stop_signal(int sig)
{
	return sig == SIGTERM || sig == SIGINT || sig == SIGQUIT || sig == SIGHUP;
}

/* user.c */
const char *user_resolve(const char *spec, struct user *out); /* NULL, or what is wrong with spec */
bool user_become(const struct user *user);                    /* in the child; false: errno */

/* A signal's disposition as the kernel holds it (its struct sigaction); all zero is SIG_DFL. */
struct disposition {
	unsigned long word[4];
};

/* command.c */
/* mask: the signal mask COMMAND gets. Returns -1, or the exit status when it could not be started (said why). */
int command_start(char **envp, uint64_t mask, const struct disposition *chld);
void listen_pid(char **envp); /* cfg.in_child: LISTEN_PID names COMMAND, if it named us, or nobody by 0 */

/* loop.c */
int64_t now_ns(void);
int64_t next_deadline(void); /* NEVER: there is none */
void loop(void);
int signal_command(int sig, const siginfo_t *info, enum scope scope); /* 0, or the errno */

/* reap.c */
bool reap(void); /* buries all who are dead; true if there was one */

/* stop.c */
void stop_begin(const char *why);
void kill_begin(const char *why);
void stop_continue(void);  /* after each reaping */
int stop_strangers(pid_t *pids, int max); /* as PID 1: who is left and is no child of ours */
void give_up(void);

/* proc.c */
struct proc_stat {
	pid_t pid, ppid, pgrp;
	int tty;                /* the controlling terminal's device number, 0 = none */
	char state;
	unsigned flags;
	int threads;
	uint64_t start;         /* clock ticks since boot */
	char comm[64];
};
bool proc_is_ours(void);                   /* false: /proc is not mounted, or not that of our PID namespace */
bool proc_stat(pid_t pid, struct proc_stat *out);
bool proc_parse_stat(const char *text, size_t len, struct proc_stat *out);
void proc_comm(pid_t pid, char *comm, size_t size); /* "?" when it cannot be read */
uint64_t proc_ticks(void);                 /* now, in the unit of proc_stat.start */
struct pids {
	pid_t *pid;
	size_t n, room;
};
bool pids_add(struct pids *pids, pid_t pid);
void pids_free(struct pids *pids);
bool proc_children(pid_t pid, int threads, struct pids *out); /* false: no children files here */
bool proc_all(struct pids *out);
size_t proc_parse_pids(const char *text, size_t len, struct pids *out, pid_t *partial);

/* tree.c */
struct names {
	char text[1024]; /* "12 (foo), 13 (bar)" */
	size_t used;
	int live, more;  /* more: those the text had no room for */
};
struct sweep {
	int sig;
	const siginfo_t *info;  /* a queued value to keep, or NULL */
	pid_t group;            /* only members of this process group; 0 = all */
	bool mark;              /* remember who got it; nobody gets it again */
	bool sent;              /* they all get it at once, by kill(-1): only tell of it, and continue the stopped */
	bool later;             /* not the first sweep of this stop: only children of ours that are new to us */
	struct names *killed;   /* SIGKILL: whom it reached, or NULL */
	uint64_t began;         /* ticks: when this stop began */
};
int tree_signal(const struct sweep *sweep); /* how many live processes it saw; sig 0 only marks */
void tree_mark(const struct proc_stat *stat);
void tree_mark_group(pid_t group);          /* everyone who is in it now */
bool tree_told_anyone(void);                /* who is still there */
bool tree_atomic(void);
void tree_forget(void);
int tree_names(struct names *names);        /* who is alive; returns how many */
int tree_strangers(pid_t *pids, int max);   /* who is alive and no child of ours */

/* tty.c */
void tty_start(void);       /* before COMMAND: have we the foreground? */
void tty_give(pid_t group); /* to COMMAND; in the child too */
void tty_take(void);        /* back, when COMMAND has ended */
void tty_command_stopped(int sig);
void tty_continued(void);
void tty_suspend_self(void);
int tty_descriptor(void);   /* ours, or -1 */
int above_stdio(int fd);    /* fd, moved out of the way of 0, 1 and 2 if they were closed */

/* report.c */
void say(int level, const char *fmt, ...);    /* to stderr, with the name before it and the line's end; see vformat() */
ssize_t put(int fd, const char *text, size_t len); /* one write that does not block; -1: errno */
int format(char *out, size_t size, const char *fmt, ...);
int vformat(char *out, size_t size, const char *fmt, va_list args);
void command_name(char *comm, size_t size);   /* as the kernel calls it when it starts */
void event_started(pid_t pid);
void event_signalled(int sig, pid_t pid, enum scope scope);
void event_reaped(pid_t pid, const char *comm, int status, bool adopted);
void event_stopping(const char *why, int left);
void event_killed(pid_t pid, const char *comm);
void event_exited(pid_t pid, int status, bool again); /* again: only to the owner, who is new */
void event_told(pid_t pid, const char *comm, int sig);  /* the stop signal, to one process */
void event_failed(int err, const char *step, const char *text);
void event_to_owner(const char *name, const char *fmt, ...);
void event_empty(void);
bool reporting(void);                         /* somebody wants names of the reaped */

/* owner.c */

bool owner_start(void);                                       /* false: said why */
bool owner_connected(void);
void owner_last_word(const char *text);
void owner_line(const char *line, size_t len, bool keep);     /* keep: must not be lost */
void owner_flush(void);
int owner_poll(struct pollfd fds[2]);                         /* how many it waits for */
void owner_ready(const struct pollfd *fds, int n);
bool owner_may_come(void);                                    /* the tree is empty: wait for an owner to hear of it? */
void owner_end(void);                                         /* tells what is untold yet, and leaves no socket behind */
int owner_descriptors(int fds[2]);

void close_inherited(void); /* main.c */

/* contain.c */
int contain_start(void);                                      /* -1: go on; else the exit status */
const char *contain_directory(void);                          /* the cgroup's, or "" */
bool contain_join(void);                                      /* in the child; false: errno */
void contain_kill(void);
void contain_end(void);

/* help.c */
extern const char help_text[];

#endif
