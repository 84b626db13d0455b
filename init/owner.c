/*
 * The owner: who asked for this tree, at the other end of a unix socket. Lines in, JSON lines out.
 *
 * The held socket is the one death notice that even SIGKILL of the owner cannot prevent: its end is the end of the
 * ownership, and what then becomes of the tree is said by --on-owner-lost. What the owner does not read is kept in a
 * buffer of fixed size; beyond that, lines that only tell of single processes are counted as lost.
 */
#include "sexton.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LINE_MAX_ 512
#define RESERVE 4096 /* of the buffer, for lines that must not be lost */
#define MUCH 8192    /* is told even if it could wait (--late) */
#define LAST_WORDS (5 * NS_PER_S) /* how long an owner that does not read may keep an empty guard */

static int owner = -1, listener = -1;
static char out[131072], in[LINE_MAX_]; /* of out only what is used costs memory */
static size_t out_len, in_len;
static bool urgent;   /* what is in out cannot wait (--late) */
static bool skipping; /* the rest of a line that was too long */
static int lost;

IDLE bool owner_connected(void)
{
	return owner >= 0;
}

/* ---- out ---- */

static void owner_lost(void)
{
	if (owner < 0)
		return;
	close(owner);
	owner = -1;
	out_len = in_len = 0;
	skipping = false;
	if (cfg.on_owner_lost == LOST_HOLD)
		st.lease_at = now_ns() + cfg.lease;
	else if (cfg.on_owner_lost == LOST_KEEP)
		st.lease_at = NEVER;
	else if (cfg.on_owner_lost == LOST_STOP)
		st.owner_gone = true; /* acted on in the loop: we may be in the midst of a walk */
}

static void flush(void)
{
	ssize_t n = out_len ? send(owner, out, out_len, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
	if (n > 0) {
		out_len -= (size_t)n;
		memmove(out, out + n, out_len);
		urgent &= out_len != 0;
	} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
		owner_lost();
	}
}

static bool queue(const char *line, size_t len, size_t limit)
{
	if (out_len + len > limit)
		flush();
	if (owner < 0 || out_len + len > limit)
		return false;
	memcpy(out + out_len, line, len);
	out_len += len;
	return true;
}

void owner_line(const char *line, size_t len, bool keep)
{
	char text[64];
	size_t limit = keep ? sizeof out : sizeof out - RESERVE;
	if (owner < 0)
		return;
	if (lost && queue(text, (size_t)format(text, sizeof text, "{\"event\":\"lost\",\"count\":%d}\n", lost), limit))
		lost = 0;
	urgent |= keep && (!st.command || st.phase != RUNNING);
	if (!queue(line, len, limit))
		lost++;
}

static const char *phase_name(void)
{
	static const char names[][10] = { "running", "waiting", "stopping", "killing", "empty", "empty" };
	return names[st.phase];
}

/* more: further fields, or "". */
static void introduce(const char *event, const char *more)
{
	static const char *const contain[] = { "subreaper", "pidns", "cgroup" };
	static const char on_lost[][6] = { "stop", "keep", "lease", "hold" };
	bool starting = st.phase == RUNNING && !st.command && !st.ended && !cfg.pause;
	event_to_owner(event, ",\"version\":\"" SEXTON_VERSION "\",\"guard\":%d,\"pid\":%d,\"phase\":%j,\"contain\":%j,\"cgroup\":%j,\"on_owner_lost\":%j%s",
	               st.self, st.command, starting ? "starting" : phase_name(), contain[cfg.contain], contain_directory(),
	               on_lost[cfg.on_owner_lost], more);
}

/* ---- in ---- */

static void answer(const char *command, const char *wrong)
{
	urgent = true;
	if (wrong)
		event_to_owner("error", ",\"command\":%j,\"why\":%j", command, wrong);
	else
		event_to_owner("ok", ",\"command\":%j", command);
}

static const char *do_signal(char **word, int words)
{
	static const char scopes[][6] = { "child", "group", "tree" };
	int scope = (int)cfg.scope, sig = words > 1 ? signal_number(word[1]) : -1;
	if (sig < 0 || words > 3)
		return "expected: signal SIG [child|group|tree]";
	if (words == 3) {
		for (scope = 0; scope < 3 && strcmp(word[2], scopes[scope]) != 0; scope++)
			;
		if (scope == 3)
			return "the scope is not child, group or tree";
	}
	if (!st.command && scope != SCOPE_TREE)
		return "COMMAND has ended; only the scope tree is left";
	int err = signal_command(sig, NULL, (enum scope)scope);
	return err ? strerror(err) : NULL;
}

static const char *do_stop(char **word, int words)
{
	int64_t grace = cfg.grace;
	if (words > 2 || (words == 2 && !parse_seconds(word[1], &grace)))
		return "expected: stop [SECONDS]";
	cfg.grace = grace;
	if (st.phase == STOPPING)
		st.grace_at = now_ns() + grace;
	else
		stop_begin("stop");
	return NULL;
}

static const char *do_renew(char **word, int words)
{
	int64_t lease = cfg.lease;
	if (words > 2 || (words == 2 && !parse_seconds(word[1], &lease)))
		return "expected: renew [SECONDS]";
	if (cfg.on_owner_lost == LOST_HOLD)
		return "the lease rests while there is an owner";
	if (lease == NEVER)
		return "there is no --lease: say renew SECONDS";
	if (st.phase >= STOPPING && st.phase != EMPTY)
		return "the tree is being stopped";
	st.lease_at = now_ns() + lease;
	return NULL;
}

static void do_status(void)
{
	static struct names names;
	char lease[24] = "null", more[64];
	int64_t now = now_ns();
	if (st.lease_at != NEVER)
		format(lease, sizeof lease, "%l", (st.lease_at > now ? st.lease_at - now : 0) / NS_PER_S);
	format(more, sizeof more, ",\"left\":%d,\"lease\":%s", st.proc ? tree_names(&names) : -1, lease);
	urgent = true;
	introduce("status", more);
}

static void obey(char *line)
{
	char *word[4];
	int words = 0;
	const char *wrong = NULL;
	char *at = line;
	do {
		word[words++] = at;
		at = strchr(at, ' ');
		if (at)
			*at++ = 0;
	} while (at && words < 4);
	if (st.phase == EMPTY && (strcmp(word[0], "stop") == 0 || strcmp(word[0], "kill") == 0)) {
		st.phase = DONE; /* dismissed */
	} else if (strcmp(word[0], "signal") == 0) {
		wrong = do_signal(word, words);
	} else if (strcmp(word[0], "stop") == 0) {
		wrong = do_stop(word, words);
	} else if (strcmp(word[0], "kill") == 0 && words == 1) {
		kill_begin("kill");
	} else if (strcmp(word[0], "renew") == 0) {
		wrong = do_renew(word, words);
	} else if (strcmp(word[0], "status") == 0 && words == 1) {
		do_status();
		return;
	} else {
		wrong = "expected one of: signal, stop, kill, renew, status";
	}
	if (strlen(word[0]) > 32)
		word[0][32] = 0; /* nobody needs more of it back */
	answer(word[0], wrong);
}

static void take_line(size_t len)
{
	in[len] = 0;
	if (skipping || strlen(in) != len)
		answer("", skipping ? "a line of more than 511 bytes" : "a line with a NUL in it");
	else
		obey(in);
	skipping = false;
}

static void listen_to_owner(void)
{
	ssize_t n = recv(owner, in + in_len, sizeof in - 1 - in_len, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		owner_lost();
		return;
	}
	in_len += (size_t)n;
	for (char *end; owner >= 0 && (end = memchr(in, '\n', in_len));) {
		size_t len = (size_t)(end - in), rest = in_len - len - 1;
		take_line(len);
		in_len = owner >= 0 ? rest : 0;
		memmove(in, in + len + 1, in_len);
	}
	if (in_len == sizeof in - 1) {
		skipping = true;
		in_len = 0;
	}
}

/* ---- who may ---- */

static bool same_user(int fd, struct ucred *peer)
{
	socklen_t size = sizeof *peer;
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, &size) == 0 && peer->uid == geteuid();
}

static void take_owner(int fd)
{
	owner = fd;
	if (cfg.on_owner_lost == LOST_HOLD)
		st.lease_at = NEVER; /* it rests */
	introduce("hello", "");
	if (st.ended)
		event_exited(st.ended, st.status, true);
}

/* Why there will be no tree, to an owner that is not greeted yet: stderr is COMMAND's. */
void owner_last_word(const char *text)
{
	int fd = cfg.owner_fd;
	cfg.owner_fd = -1;
	owner = fd;
	event_to_owner("failed", ",\"errno\":0,\"step\":%j,\"text\":%j", st.containing ? "contain" : "options", text);
}

static void accept_owner(void)
{
	static const char taken[] = "{\"event\":\"error\",\"command\":\"\",\"why\":\"owned: this tree has an owner\"}\n";
	static const char stranger[] = "{\"event\":\"error\",\"command\":\"\",\"why\":\"another user's tree\"}\n";
	struct ucred peer;
	int fd = (int)CALL(SYS_accept4, listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	bool ours = same_user(fd, &peer);
	if (ours && owner < 0) {
		take_owner(fd);
		urgent = true;
		return;
	}
	send(fd, ours ? taken : stranger, (ours ? sizeof taken : sizeof stranger) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	close(fd);
}

/* ---- in the loop ---- */

/* Once a turn, before it sleeps: each send wakes the owner. */
IDLE void owner_flush(void)
{
	if (out_len && (!cfg.late || urgent || out_len > MUCH))
		flush();
}

IDLE int owner_poll(struct pollfd fds[2])
{
	int n = 0;
	if (owner >= 0)
		fds[n++] = (struct pollfd){ .fd = owner, .events = (short)(out_len && (!cfg.late || urgent) ? POLLIN | POLLOUT : POLLIN) };
	if (listener >= 0)
		fds[n++] = (struct pollfd){ .fd = listener, .events = POLLIN };
	return n;
}

void owner_ready(const struct pollfd *fds, int n)
{
	for (int i = 0; i < n; i++) {
		if (!fds[i].revents)
			continue;
		if (fds[i].fd == listener) {
			accept_owner();
			continue;
		}
		if (fds[i].revents & POLLOUT)
			flush();
		if (owner >= 0 && fds[i].revents & (POLLIN | POLLHUP | POLLERR))
			listen_to_owner();
	}
}

bool owner_may_come(void)
{
	if (owner >= 0)
		return cfg.on_owner_lost == LOST_HOLD; /* until it says that it knows */
	return listener >= 0 && cfg.on_owner_lost >= LOST_LEASE && st.lease_at != NEVER;
}

void owner_end(void)
{
	int64_t deadline = now_ns() + LAST_WORDS;
	int room = 1 << 24; /* or what the kernel allows: twice as much at least, so that it can keep all this for later */
	CALL(SYS_setsockopt, owner, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
	while (owner >= 0 && out_len && now_ns() < deadline) {
		struct pollfd writable = { .fd = owner, .events = POLLOUT };
		flush();
		if (owner >= 0 && out_len)
			poll(&writable, 1, (int)(LAST_WORDS / 1000000));
	}
	if (listener >= 0)
		unlink(cfg.listen); /* before its name may be another guard's */
	if (owner >= 0)
		shutdown(owner, SHUT_WR); /* it may go on while we are taken apart */
}

/* ---- at the start ---- */

static bool bind_listener(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(cfg.listen) >= sizeof address.sun_path) {
		say(FATAL, "--listen: '%s' is longer than the 107 bytes of a socket's path", cfg.listen);
		return false;
	}
	strcpy(address.sun_path, cfg.listen);
	listener = above_stdio(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	mode_t mask = umask(0177);
	bool bound = listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof address) == 0;
	int err = errno;
	umask(mask);
	if (bound && listen(listener, 8) == 0)
		return true;
	say(FATAL, "--listen: '%s': %e", cfg.listen, bound ? errno : err);
	if (listener >= 0)
		close(listener);
	listener = -1;
	return false;
}

bool owner_start(void)
{
	struct ucred peer;
	if (cfg.owner_fd >= 0 && !same_user(cfg.owner_fd, &peer)) {
		int fd = cfg.owner_fd;
		cfg.owner_fd = -1; /* nobody to tell */
		say(FATAL, "--owner-fd: %d is not a connected unix socket whose other end is this user's", fd);
		return false;
	}
	bool hold = cfg.on_owner_lost == LOST_HOLD;
	if (cfg.on_owner_lost >= LOST_LEASE && (cfg.lease == NEVER || (hold && !cfg.listen))) {
		say(FATAL, "--on-owner-lost %s needs %s--lease SECONDS", hold ? "hold" : "lease", hold ? "--listen PATH and " : "");
		return false;
	}
	if (cfg.listen && !bind_listener())
		return false;
	if (cfg.lease != NEVER)
		st.lease_at = now_ns() + cfg.lease;
	if (cfg.owner_fd >= 0)
		take_owner(cfg.owner_fd);
	urgent = false; /* greetings can wait */
	return true;
}

int owner_descriptors(int fds[2])
{
	fds[0] = owner;
	fds[1] = listener;
	return 2;
}
