/*
 * Reads /proc. The parsers are pure functions of bytes, and fuzzed.
 * What vanishes while it is read is an answer (false), not an error.
 */
#include "sexton.h"
#include "sys.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define TICKS_PER_S 100 /* USER_HZ: fixed by the ABI on every architecture we build for */

struct linux_dirent64 {
	uint64_t ino;
	int64_t off;
	unsigned short len;
	unsigned char type;
	char name[];
};

/* The C library's open() sets FD_CLOEXEC a second time, with an fcntl, for kernels of long ago. */
static int open_proc(const char *path, int flags)
{
	return (int)CALL(SYS_openat, AT_FDCWD, path, flags | O_RDONLY | O_CLOEXEC, 0);
}

static ssize_t read_file(const char *path, char *buf, size_t size)
{
	int fd = open_proc(path, 0);
	if (fd < 0)
		return -1;
	ssize_t n = read(fd, buf, size);
	close(fd);
	return n;
}

static bool next_number(const char **at, const char *end, uint64_t *out)
{
	const char *p = *at;
	while (p < end && *p == ' ')
		p++;
	bool negative = p < end && *p == '-';
	if (negative)
		p++;
	if (p >= end || *p < '0' || *p > '9')
		return false;
	uint64_t n = 0;
	while (p < end && *p >= '0' && *p <= '9')
		n = n * 10 + (uint64_t)(*p++ - '0');
	*out = negative ? 0 - n : n;
	*at = p;
	return true;
}

/* proc_pid_stat(5): pid (comm) state ppid pgrp ... num_threads(20) ... starttime(22). comm may hold anything. */
bool proc_parse_stat(const char *text, size_t len, struct proc_stat *out)
{
	const char *end = text + len, *open = memchr(text, '(', len), *close = memrchr(text, ')', len);
	uint64_t n;
	const char *at = text;
	if (!open || !close || close < open || end - close < 4 || !next_number(&at, open, &n))
		return false;
	out->pid = (pid_t)n;
	size_t size = (size_t)(close - open - 1);
	if (size >= sizeof out->comm)
		size = sizeof out->comm - 1;
	memcpy(out->comm, open + 1, size);
	out->comm[size] = 0;
	out->state = close[2];
	at = close + 3;
	for (int field = 4; field <= 22; field++) {
		if (!next_number(&at, end, &n))
			return false;
		switch (field) {
		case 4: out->ppid = (pid_t)n; break;
		case 5: out->pgrp = (pid_t)n; break;
		case 7: out->tty = (int)n; break;
		case 9: out->flags = (unsigned)n; break;
		case 20: out->threads = (int)n; break;
		case 22: out->start = n; break;
		}
	}
	return true;
}

/* A /proc of another PID namespace would give us other processes under our numbers. The link alone costs next to nothing. */
bool proc_is_ours(void)
{
	char text[16];
	unsigned pid;
	ssize_t n = readlink("/proc/self", text, sizeof text - 1);
	text[n > 0 ? n : 0] = 0;
	return parse_number(text, INT32_MAX, &pid) && (pid_t)pid == st.self;
}

bool proc_stat(pid_t pid, struct proc_stat *out)
{
	char path[32], text[512];
	format(path, sizeof path, "/proc/%d/stat", pid);
	ssize_t n = read_file(path, text, sizeof text);
	return n > 0 && proc_parse_stat(text, (size_t)n, out) && out->pid == pid;
}

void proc_comm(pid_t pid, char *comm, size_t size)
{
	char path[32];
	format(path, sizeof path, "/proc/%d/comm", pid);
	ssize_t n = read_file(path, comm, size - 1);
	if (n > 0 && comm[n - 1] == '\n')
		n--;
	if (n <= 0) {
		comm[0] = '?';
		n = 1;
	}
	comm[n] = 0;
}

uint64_t proc_ticks(void)
{
	struct timespec t;
	CALL(SYS_clock_gettime, CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * TICKS_PER_S + (uint64_t)t.tv_nsec / (NS_PER_S / TICKS_PER_S);
}

/* Grows by mapping pages: nothing here runs while we only reap. */
bool pids_add(struct pids *pids, pid_t pid)
{
	if (pids->n == pids->room) {
		size_t room = pids->room ? pids->room * 2 : 4096 / sizeof *pids->pid;
		void *more = pids->room ? (void *)CALL(SYS_mremap, pids->pid, pids->room * sizeof *pids->pid, room * sizeof *pids->pid, MREMAP_MAYMOVE)
		                        : mmap(NULL, room * sizeof *pids->pid, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (more == MAP_FAILED)
			return false;
		pids->pid = more;
		pids->room = room;
	}
	pids->pid[pids->n++] = pid;
	return true;
}

void pids_free(struct pids *pids)
{
	if (pids->room)
		munmap(pids->pid, pids->room * sizeof *pids->pid);
	*pids = (struct pids){ 0 };
}

/*
 * Space-separated pids, in pieces: *partial carries a number cut off at the end of one piece over to the next (0 = none).
 * Returns how many were added.
 */
size_t proc_parse_pids(const char *text, size_t len, struct pids *out, pid_t *partial)
{
	size_t added = 0;
	for (size_t i = 0; i < len; i++) {
		if (text[i] >= '0' && text[i] <= '9') {
			if (*partial <= (INT32_MAX - 9) / 10)
				*partial = *partial * 10 + (text[i] - '0');
		} else if (*partial) {
			added += pids_add(out, *partial);
			*partial = 0;
		}
	}
	return added;
}

static bool children_of_task(pid_t pid, pid_t task, struct pids *out)
{
	char path[48], text[2048];
	format(path, sizeof path, "/proc/%d/task/%d/children", pid, task);
	int fd = open_proc(path, 0);
	if (fd < 0)
		return false;
	pid_t partial = 0;
	ssize_t n;
	while ((n = read(fd, text, sizeof text)) > 0)
		proc_parse_pids(text, (size_t)n, out, &partial);
	close(fd);
	return true;
}

/* The numbers among the names of a directory. */
static bool number_entries(const char *path, struct pids *out)
{
	int fd = open_proc(path, O_DIRECTORY);
	if (fd < 0)
		return false;
	_Alignas(struct linux_dirent64) char buf[2048];
	long n;
	while ((n = CALL(SYS_getdents64, fd, buf, sizeof buf)) > 0)
		for (long at = 0; at < n;) {
			struct linux_dirent64 *entry = (void *)(buf + at);
			unsigned pid;
			if (parse_number(entry->name, INT32_MAX, &pid))
				pids_add(out, (pid_t)pid);
			at += entry->len;
		}
	close(fd);
	return true;
}

/* A child hangs on the thread that made it. */
bool proc_children(pid_t pid, int threads, struct pids *out)
{
	if (threads <= 1)
		return children_of_task(pid, pid, out);
	char path[32];
	format(path, sizeof path, "/proc/%d/task", pid);
	struct pids tasks = { 0 };
	bool found = false;
	if (number_entries(path, &tasks))
		for (size_t i = 0; i < tasks.n; i++)
			found |= children_of_task(pid, tasks.pid[i], out);
	pids_free(&tasks);
	return found;
}

bool proc_all(struct pids *out)
{
	return number_entries("/proc", out);
}
