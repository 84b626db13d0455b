/* See sys.h. */
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

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
	struct stat about;
	about.st_mode = 0; /* as it stays where the call fails */
	CALL(SYS_newfstatat, fd, path, &about, AT_EMPTY_PATH);
	return about.st_mode & S_IFMT;
}
