/*
 * What is told: messages for people on stderr, events for programs as one JSON object a line. Telling never blocks,
 * never fails the caller and never allocates: what cannot be written at once is lost, and the events say how many were.
 */
#include "sexton.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TRIES 50 /* at a terminal that somebody else writes to, 100 us apart */
#ifndef RWF_NOWAIT
#define RWF_NOWAIT 8 /* linux/fs.h, which not every libc has beside it */
#endif

/* ---- text ---- */

struct text {
	char *at, *end;
};

static void add(struct text *text, const char *s, size_t len)
{
	size_t room = (size_t)(text->end - text->at);
	if (len > room)
		len = room;
	memcpy(text->at, s, len);
	text->at += len;
}

static void add_number(struct text *text, uint64_t n, int digits)
{
	char buf[20];
	int at = sizeof buf;
	do {
		buf[--at] = (char)('0' + n % 10);
		n /= 10;
		digits--;
	} while (n || digits > 0);
	add(text, buf + at, sizeof buf - (size_t)at);
}

static void add_seconds(struct text *text, int64_t sec, int64_t usec)
{
	add_number(text, (uint64_t)sec, 1);
	add(text, ".", 1);
	add_number(text, (uint64_t)usec, 6);
}

/* The length of the UTF-8 sequence at s, 0 if it is none. The end of the string stops it: 0 is no continuation byte. */
static size_t utf8(const unsigned char *s)
{
	size_t len = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
	for (size_t i = 1; i < len; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return len;
}

static void add_json(struct text *text, const char *s)
{
	static const char hex[] = "0123456789abcdef";
	add(text, "\"", 1);
	for (const unsigned char *at = (const void *)s; *at && text->end - text->at > 6;) {
		size_t len = utf8(at);
		if (len == 0) {
			add(text, "\\ufffd", 6);
			len = 1;
		} else if (*at < 0x20 || *at == 0x7f) {
			add(text, (char[]){ '\\', 'u', '0', '0', hex[*at >> 4], hex[*at & 15] }, 6);
		} else {
			if (*at == '"' || *at == '\\')
				add(text, "\\", 1);
			add(text, (const char *)at, len);
		}
		at += len;
	}
	add(text, "\"", 1);
}

/* %s text, %j text as a JSON string, %d int, %l int64_t, %S a signal's name, %e an errno's text, %T seconds from a timeval */
static void expand(struct text *text, const char *fmt, va_list args)
{
	for (const char *s; *fmt; fmt++) {
		if (*fmt != '%') {
			add(text, fmt, 1);
			continue;
		}
		int64_t n;
		switch (*++fmt) {
		case 's':
			s = va_arg(args, const char *);
			add(text, s, strlen(s));
			break;
		case 'j':
			add_json(text, va_arg(args, const char *));
			break;
		case 'S':
			s = signal_name(va_arg(args, int));
			add(text, s, strlen(s));
			break;
		case 'e':
			s = strerror(va_arg(args, int));
			add(text, s, strlen(s));
			break;
		case 'T': {
			const struct timeval *t = va_arg(args, const struct timeval *);
			add_seconds(text, t->tv_sec, t->tv_usec);
			break;
		}
		case 'd':
		case 'l':
			n = *fmt == 'd' ? va_arg(args, int) : va_arg(args, int64_t);
			if (n < 0)
				add(text, "-", 1);
			add_number(text, n < 0 ? 0 - (uint64_t)n : (uint64_t)n, 1);
			break;
		default:
			add(text, "%", 1);
		}
	}
}

/* Cuts off what has no room. Returns the length. */
int vformat(char *out, size_t size, const char *fmt, va_list args)
{
	struct text text = { out, out + size - 1 };
	expand(&text, fmt, args);
	*text.at = 0;
	return (int)(text.at - out);
}

int format(char *out, size_t size, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	int len = vformat(out, size, fmt, args);
	va_end(args);
	return len;
}

/* ---- writing ---- */

/*
 * The descriptor may be shared with COMMAND, so it must not be made non-blocking: that flag is of the open file, and
 * COMMAND would see it. Hence a way not to block for each kind of file.
 */
ssize_t put(int fd, const char *text, size_t len)
{
	unsigned type = file_type(fd, "");
	char path[32];
	if (type == S_IFREG)
		return write(fd, text, len);
	if (type == S_IFSOCK)
		return send(fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	struct iovec part = { (char *)text, len };
	ssize_t n = CALL(SYS_pwritev2, fd, &part, 1, -1, -1, RWF_NOWAIT);
	if (n >= 0 || errno == EAGAIN)
		return n;
	/* A terminal refuses that flag, and an old kernel the call; but opened anew it has flags of its own. */
	format(path, sizeof path, "/proc/self/fd/%d", fd);
	int own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct pollfd ready = { .fd = fd, .events = POLLOUT };
	if (own >= 0) {
		/* While somebody else writes to a terminal, it refuses though it has room: that is over in a moment. */
		for (int tries = 0; (n = write(own, text, len)) < 0 && errno == EAGAIN && tries < TRIES && poll(&ready, 1, 0) == 1; tries++)
			CALL(SYS_nanosleep, &(struct timespec){ .tv_nsec = 100000 }, NULL);
		close(own);
		return n;
	}
	return poll(&ready, 1, 0) == 1 && ready.revents == POLLOUT ? write(fd, text, len) : -1;
}

static const char *level_name(int level)
{
	return level <= FATAL ? "error" : level <= 0 ? "warning" : level == 1 ? "info" : "debug";
}

void say(int level, const char *fmt, ...)
{
	if ((level > cfg.verbose && level > FATAL) || (st.no_stderr && !owner_connected()))
		return;
	char line[1536];
	struct text text = { line, line + sizeof line - 2 };
	va_list args;
	va_start(args, fmt);
	if (!owner_connected()) {
		add(&text, cfg.name, strlen(cfg.name));
		add(&text, ": ", 2);
	}
	expand(&text, fmt, args);
	va_end(args);
	if (level == FATAL && cfg.owner_fd >= 0 && !owner_connected()) {
		*text.at = 0;
		owner_last_word(line + strlen(cfg.name) + 2);
		return;
	}
	if (owner_connected()) {
		*text.at = 0;
		event_to_owner("message", ",\"level\":%j,\"text\":%j", level_name(level), line);
		return;
	}
	*text.at++ = '\n';
	put(2, line, (size_t)(text.at - line));
}

/* ---- events ---- */

IDLE bool reporting(void)
{
	return cfg.events >= 0 || cfg.verbose >= 2 || owner_connected();
}

static char tail[512]; /* what of the last line a full socket did not take */
static size_t tail_len;
static int lost;

static bool flush_tail(void)
{
	if (!tail_len)
		return true;
	ssize_t n = put(cfg.events, tail, tail_len);
	if (n > 0) {
		tail_len -= (size_t)n;
		memmove(tail, tail + n, tail_len);
	}
	return tail_len == 0;
}

static bool send_line(const char *line, size_t len)
{
	ssize_t n = flush_tail() ? put(cfg.events, line, len) : -1;
	if (n > 0 && (size_t)n < len) {
		tail_len = len - (size_t)n;
		memcpy(tail, line + n, tail_len);
	}
	return n > 0;
}

/* One line, with its end. */
static size_t compose(char *line, size_t size, const char *name, const char *fmt, va_list args)
{
	struct text text = { line, line + size - 32 };
	struct timespec now;
	add(&text, "{\"event\":", 9);
	add_json(&text, name);
	expand(&text, fmt, args);
	text.end = line + size;
	CALL(SYS_clock_gettime, CLOCK_REALTIME, &now);
	add(&text, ",\"time\":", 8);
	add_seconds(&text, now.tv_sec, now.tv_nsec / 1000);
	add(&text, "}\n", 2);
	return (size_t)(text.at - line);
}

static void to_events(const char *line, size_t len)
{
	char first[64];
	if (lost && send_line(first, (size_t)format(first, sizeof first, "{\"event\":\"lost\",\"count\":%d}\n", lost)))
		lost = 0;
	if (lost || !send_line(line, len))
		lost++;
}

/* keep: not to be lost when the owner is slow to read. */
static void event(bool keep, const char *name, const char *fmt, ...)
{
	char line[sizeof tail];
	va_list args;
	if (cfg.events < 0 && !owner_connected())
		return;
	va_start(args, fmt);
	size_t len = compose(line, sizeof line, name, fmt, args);
	va_end(args);
	if (cfg.events >= 0)
		to_events(line, len);
	owner_line(line, len, keep);
}

void event_to_owner(const char *name, const char *fmt, ...)
{
	static char line[4096]; /* a message may be long, and what needs escaping longer */
	va_list args;
	va_start(args, fmt);
	size_t len = compose(line, sizeof line, name, fmt, args);
	va_end(args);
	owner_line(line, len, true);
}

static const char *how(int status, char *out, size_t size)
{
	if (WIFSIGNALED(status))
		format(out, size, "\"signal\":%j", signal_name(WTERMSIG(status)));
	else
		format(out, size, "\"code\":%d", WEXITSTATUS(status));
	return out;
}

/* The name that the kernel gives it; /proc has still our own while the exec is under way. */
void command_name(char *comm, size_t size)
{
	const char *path = cfg.exec ? cfg.exec : *cfg.command, *slash = strrchr(path, '/');
	format(comm, size < 16 ? size : 16, "%s", slash ? slash + 1 : path);
}

void event_started(pid_t pid)
{
	char comm[16];
	command_name(comm, sizeof comm);
	event(true, "started", ",\"pid\":%d,\"comm\":%j", pid, comm);
}

void event_signalled(int sig, pid_t pid, enum scope scope)
{
	static const char *const scopes[] = { "child", "group", "tree" };
	event(false, "signalled", ",\"signal\":%j,\"pid\":%d,\"scope\":%j", signal_name(sig), pid, scopes[scope]);
}

void event_reaped(pid_t pid, const char *comm, int status, bool adopted)
{
	char end[32];
	event(false, "reaped", ",\"pid\":%d,\"comm\":%j,%s,\"adopted\":%s", pid, comm, how(status, end, sizeof end), adopted ? "true" : "false");
}

void event_stopping(const char *why, int left)
{
	event(true, "stopping", ",\"why\":%j,\"left\":%d", why, left);
}

void event_killed(pid_t pid, const char *comm)
{
	event(false, "killed", ",\"pid\":%d,\"comm\":%j", pid, comm);
}

void event_exited(pid_t pid, int status, bool again)
{
	static const char fmt[] = ",\"pid\":%d,%s,\"rusage\":{\"utime\":%T,\"stime\":%T,\"maxrss\":%l}";
	const struct rusage *usage = &st.rusage;
	int64_t maxrss = (int64_t)usage->ru_maxrss * 1024;
	char end[32];
	how(status, end, sizeof end);
	if (again)
		event_to_owner("exited", fmt, pid, end, &usage->ru_utime, &usage->ru_stime, maxrss);
	else
		event(true, "exited", fmt, pid, end, &usage->ru_utime, &usage->ru_stime, maxrss);
}

void event_failed(int err, const char *step, const char *text)
{
	event(true, "failed", ",\"errno\":%d,\"step\":%j,\"text\":%j", err, step, text);
}

void event_told(pid_t pid, const char *comm, int sig)
{
	event(false, "signalled", ",\"signal\":%j,\"pid\":%d,\"comm\":%j,\"scope\":\"stop\"", signal_name(sig), pid, comm);
}

void event_empty(void)
{
	event(true, "empty", "");
}

/* ---- our own words ---- */

static void native_started(pid_t command)
{
	say(2, "started %s as %d", cfg.command[0], command);
}

IDLE static void native_received(int sig)
{
	if (sig != SIGCHLD && cfg.verbose >= 3)
		say(3, "received SIG%S", sig);
}

static void native_dropped(int sig, int mapped)
{
	(void)mapped;
	say(2, "SIG%S is mapped to none: not forwarded", sig);
}

IDLE static void native_forwarded(int sig)
{
	if (cfg.verbose >= 2)
		say(2, "sent SIG%S to %d", sig, st.command);
}

static void native_forward_failed(int sig, int err)
{
	say(0, "could not send SIG%S to %d (COMMAND): %e", sig, st.command, err);
}

IDLE static void native_reaped(pid_t pid, const char *comm, int status, bool is_command)
{
	if (is_command || cfg.verbose < 2)
		return;
	if (WIFSIGNALED(status))
		say(2, "reaped %d (%s), ended by SIG%S", pid, comm, WTERMSIG(status));
	else
		say(2, "reaped %d (%s), exit status %d", pid, comm, WEXITSTATUS(status));
}

static void native_command_ended(int status)
{
	if (WIFSIGNALED(status))
		say(1, "%d (COMMAND) was ended by SIG%S", st.ended, WTERMSIG(status));
	else
		say(1, "%d (COMMAND) ended with exit status %d", st.ended, WEXITSTATUS(status));
}

const struct voice native_voice = {
	.started = native_started,
	.received = native_received,
	.dropped = native_dropped,
	.forwarded = native_forwarded,
	.forward_failed = native_forward_failed,
	.reaped = native_reaped,
	.command_ended = native_command_ended,
};
