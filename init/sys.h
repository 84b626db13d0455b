/*
 * System calls without the C library: it brings more of itself along than they are worth, and what an idle sexton-init
 * runs should be all that stays of it in memory (see main.c).
 *
 * sys() is inline and returns the kernel's answer: negative is -errno. CALL() sets errno and returns -1, as usual; the
 * arguments are made long, which the kernel reads, from whatever they are.
 */
#ifndef SYS_H
#define SYS_H

#include <sys/syscall.h>

#if defined(__x86_64__)
static inline long sys(long n, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return result;
}
#elif defined(__aarch64__)
static inline long sys(long n, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}
#else
#error "sexton-init is built for x86_64 and aarch64"
#endif

unsigned file_type(int fd, const char *path);
long call(long n, long a, long b, long c, long d, long e, long f);

#define CALL(...) CALL_(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)
#define CALL_(n, a, b, c, d, e, f, ...) call(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

#endif
