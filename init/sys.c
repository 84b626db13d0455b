/* See sys.h. */
#include "sys.h"

#include <errno.h>

long call(long n, long a, long b, long c, long d, long e, long f)
{
	long result = sys(n, a, b, c, d, e, f);
	if (result >= 0)
		return result;
	errno = (int)-result;
	return -1;
}
