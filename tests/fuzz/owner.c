/*
 * What an owner may send, in whatever pieces: the first byte is the size of a piece. Every answer is a whole line with a
 * JSON object, and nothing but a word that was understood changes anything.
 */
#include "sexton.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void turn(void)
{
	struct pollfd fds[2];
	owner_flush();
	int n = owner_poll(fds);
	if (poll(fds, (nfds_t)n, 0) > 0)
		owner_ready(fds, n);
	owner_flush();
}

static void read_answers(int fd)
{
	static char text[65536];
	ssize_t n = recv(fd, text, sizeof text, MSG_DONTWAIT);
	if (n <= 0)
		return;
	require(text[n - 1] == '\n');
	for (char *line = text, *end; line < text + n; line = end + 1) {
		end = memchr(line, '\n', (size_t)(text + n - line));
		require(end && end[-1] == '}' && strncmp(line, "{\"event\":\"", 10) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int ends[2];
	if (size == 0)
		return 0;
	memset(&cfg, 0, sizeof cfg);
	memset(&st, 0, sizeof st);
	config_defaults();
	st.self = getpid();
	st.drain_at = st.stop_timeout_at = st.timeout_at = st.grace_at = st.give_up_at = st.lease_at = NEVER;
	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
	cfg.owner_fd = ends[1];
	require(owner_start());
	size_t piece = data[0] ? data[0] : 256;
	for (size_t at = 1; at < size; at += piece) {
		size_t len = size - at < piece ? size - at : piece;
		require(send(ends[0], data + at, len, 0) == (ssize_t)len);
		turn();
		read_answers(ends[0]);
		require(owner_connected());
	}
	require(st.phase == RUNNING || memmem(data, size, "stop", 4) || memmem(data, size, "kill", 4));
	require(st.lease_at == NEVER || memmem(data, size, "renew", 5));
	close(ends[0]);
	turn();
	require(!owner_connected() && st.owner_gone);
	return 0;
}
