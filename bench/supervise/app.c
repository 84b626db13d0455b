/* An app: says when it runs, on the FIFO that it is given; sleeps, or writes so many bytes first. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void announce(const char *fifo)
{
	char line[64];
	struct timespec now;
	int fd = open(fifo, O_WRONLY);
	clock_gettime(CLOCK_MONOTONIC, &now);
	int length = snprintf(line, sizeof line, "%d %lld\n", (int)getpid(), now.tv_sec * 1000000000LL + now.tv_nsec);
	if (fd < 0 || write(fd, line, (size_t)length) != length)
		_exit(1);
	close(fd);
}

/* Lines of 100 bytes, as many at once as the C library writes to a pipe: 4 KiB. */
static void flood(long bytes)
{
	char chunk[4096];
	memset(chunk, 'x', sizeof chunk);
	for (size_t i = 99; i < sizeof chunk; i += 100)
		chunk[i] = '\n';
	chunk[sizeof chunk - 1] = '\n';
	while (bytes > 0) {
		size_t wanted = bytes < (long)sizeof chunk ? (size_t)bytes : sizeof chunk;
		ssize_t n = write(1, chunk + sizeof chunk - wanted, wanted);
		if (n < 0)
			_exit(1);
		bytes -= n;
	}
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	announce(argv[1]);
	if (argc > 2)
		flood(atol(argv[2]));
	for (;;)
		pause();
}
