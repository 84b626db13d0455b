/* See sys.h. */
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>

long call(long n, long a, long b, long c, long d, long e, long f)
{
	long result = sys(n, a, b, c, d, e, f);
	if (result >= 0)
		return result;
	errno = (int)-result;
	return -1;
}

/* The file type bits of fd, or of path where fd is AT_FDCWD; 0 when that cannot be said. */
unsigned file_type(int fd, const char *path)
{
	struct {
		uint32_t mask, blksize;
		uint64_t attributes;
		uint32_t nlink, uid, gid;
		uint16_t mode;
		uint16_t rest[113];
	} status; /* struct statx, which not every C library has */
	const unsigned type_only = 1;
	status.mode = 0;
	return CALL(SYS_statx, fd, path, AT_EMPTY_PATH, type_only, &status) == 0 ? status.mode & 0170000u : 0;
}
