/* A culprit that looks after itself: it spins with known values in every register, in the floating point unit and in the
 * red zone, and says whether they are still there.
 *
 *     steady [threads]
 *
 * prints "up", and on each SIGUSR1 one line: "ok ROUNDS SIGNALS",
 * where SIGNALS counts every SIGRTMIN that came, or "bad WHAT". Ends when its standard input does. x86_64. */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t asked, counted;
static const char *volatile wrong;
static volatile unsigned long rounds;

static char alternate[64 * 1024];
static sigset_t own_mask;

/* Slots: 0-14 general registers, after[15] is not 0 where the stack pointer or the carry flag is another. */
uint64_t before[16], after[16];
unsigned char vectors_before[32 * 64] __attribute__((aligned(64)));
unsigned char vectors_after[32 * 64] __attribute__((aligned(64)));
uint64_t zone_before[16], zone_after[16];
uint64_t own_stack, countdown;

#define GENERAL(X)                                                                                                \
    X("rax", 0) X("rbx", 1) X("rcx", 2) X("rdx", 3) X("rsi", 4) X("rdi", 5) X("rbp", 6) X("r8", 7) X("r9", 8)      \
    X("r10", 9) X("r11", 10) X("r12", 11) X("r13", 12) X("r14", 13) X("r15", 14)
#define LOAD(name, slot) "mov before+8*" #slot "(%%rip), %%" name "\n\t"
#define STORE(name, slot) "mov %%" name ", after+8*" #slot "(%%rip)\n\t"
#define ZONE(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16)
#define FILL(n) "mov zone_before+8*(" #n "-1)(%%rip), %%rax\n\tmov %%rax, -8*" #n "(%%rsp)\n\t"
#define TAKE(n) "mov -8*" #n "(%%rsp), %%rax\n\tmov %%rax, zone_after+8*(" #n "-1)(%%rip)\n\t"
#define LOW(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define HIGH(X) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31)
#define XMM_LOAD(n) "movdqu vectors_before+64*" #n "(%%rip), %%xmm" #n "\n\t"
#define XMM_STORE(n) "movdqu %%xmm" #n ", vectors_after+64*" #n "(%%rip)\n\t"
#define YMM_LOAD(n) "vmovdqu vectors_before+64*" #n "(%%rip), %%ymm" #n "\n\t"
#define YMM_STORE(n) "vmovdqu %%ymm" #n ", vectors_after+64*" #n "(%%rip)\n\t"
#define ZMM_LOAD(n) "vmovdqu64 vectors_before+64*" #n "(%%rip), %%zmm" #n "\n\t"
#define ZMM_STORE(n) "vmovdqu64 %%zmm" #n ", vectors_after+64*" #n "(%%rip)\n\t"

/* The compiler believes that nothing but memory and the scratch registers changes; so all is put back at the end.
 * The stack pointer is moved away from the compiler's own red zone first. */
#define SPIN(load, store)                                                                                          \
    __asm__ volatile("lea -256(%%rsp), %%rsp\n\t"                                                                  \
                     "push %%rbx\n\tpush %%rbp\n\tpush %%r12\n\tpush %%r13\n\tpush %%r14\n\tpush %%r15\n\t"          \
                     "mov %%rsp, own_stack(%%rip)\n\t" ZONE(FILL) load GENERAL(LOAD)                                \
                     "stc\n\t"                                                                                     \
                     "1: decq countdown(%%rip)\n\tjnz 1b\n\t" GENERAL(STORE)                                       \
                     "setnc %%cl\n\tcmp %%rsp, own_stack(%%rip)\n\tsetne %%al\n\tor %%cl, %%al\n\t"                     \
                     "movzbl %%al, %%eax\n\tmov %%rax, after+120(%%rip)\n\t"                                     \
                     "mov own_stack(%%rip), %%rsp\n\t" store ZONE(TAKE)                                            \
                     "pop %%r15\n\tpop %%r14\n\tpop %%r13\n\tpop %%r12\n\tpop %%rbp\n\tpop %%rbx\n\t"                \
                     "lea 256(%%rsp), %%rsp\n\t" ::: "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11",    \
                     "memory", "cc")

static void spin_registers(void) {
    int wide = __builtin_cpu_supports("avx512f") ? 64 : __builtin_cpu_supports("avx") ? 32 : 16;
    int count = wide == 64 ? 32 : 16;
    unsigned control = 0x1f80 | 0x6000, control_now; /* round towards zero: not what it starts with */
    double kept = 1.0 / 3 * (double)(rounds + 1), kept_now;

    for (unsigned i = 0; i < sizeof vectors_before; i++)
        vectors_before[i] = (unsigned char)(i * 7 + rounds);
    for (unsigned i = 0; i < 15; i++)
        before[i] = 0x0123456789abcdefULL * (i + 1) + rounds;
    for (unsigned i = 0; i < 16; i++)
        zone_before[i] = 0xfedcba9876543210ULL * (i + 3) ^ rounds;
    memset(vectors_after, 0, sizeof vectors_after);
    countdown = 300000;
    __asm__ volatile("ldmxcsr %0" ::"m"(control));
    __asm__ volatile("fldl %0" ::"m"(kept));
    if (wide == 64)
        SPIN(LOW(ZMM_LOAD) HIGH(ZMM_LOAD), LOW(ZMM_STORE) HIGH(ZMM_STORE));
    else if (wide == 32)
        SPIN(LOW(YMM_LOAD), LOW(YMM_STORE));
    else
        SPIN(LOW(XMM_LOAD), LOW(XMM_STORE));
    __asm__ volatile("fstpl %0" : "=m"(kept_now));
    __asm__ volatile("stmxcsr %0" : "=m"(control_now));
    if (memcmp(before, after, 15 * sizeof *before))
        wrong = "general registers";
    if (after[15])
        wrong = "stack pointer or flags";
    for (int i = 0; i < count; i++)
        if (memcmp(vectors_before + 64 * i, vectors_after + 64 * i, (size_t)wide))
            wrong = "vector registers";
    if (memcmp(zone_before, zone_after, sizeof zone_before))
        wrong = "red zone";
    if (control_now != control)
        wrong = "mxcsr";
    if (kept_now != kept)
        wrong = "x87";
}

static void check_signals(void) {
    sigset_t mask;
    stack_t stack;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    if (memcmp(&mask, &own_mask, 8))
        wrong = "signal mask";
    sigaltstack(NULL, &stack);
    if (stack.ss_sp != alternate || stack.ss_size != sizeof alternate || stack.ss_flags)
        wrong = "alternate stack";
}

static void on_usr1(int number) {
    (void)number;
    asked = 1;
}

static void on_count(int number) {
    (void)number;
    counted++;
}

/* Threads that sleep in four ways and see that each sleep was as long as it should be, and each lock held. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static unsigned long shared_a, shared_b;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void *sleeper(void *how) {
    for (unsigned n = 0;; n++) {
        int64_t start = now(), least = 5000000;
        struct timespec span = {0, least}, left;
        switch ((long)how) {
        case 0:
            while (nanosleep(&span, &left)) /* EINTR is what any signal handler would do */
                span = left;
            break;
        case 1:
            while (poll(NULL, 0, (int)((start + least - now()) / 1000000 + 1)) && now() < start + least)
                ;
            if (now() < start + least)
                least = 0; /* poll may be early by EINTR */
            break;
        case 2: {
            struct timespec until;
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_nsec += least;
            if (until.tv_nsec >= 1000000000)
                until.tv_sec++, until.tv_nsec -= 1000000000;
            pthread_mutex_lock(&lock);
            while (!pthread_cond_timedwait(&never, &lock, &until))
                ;
            if (shared_a != shared_b)
                wrong = "a lock";
            pthread_mutex_unlock(&lock);
            least = 0;
            break;
        }
        default:
            for (volatile int i = 0; i < 20000; i++)
                ;
            pthread_mutex_lock(&lock);
            shared_a++;
            shared_b++;
            pthread_mutex_unlock(&lock);
            least = 0;
        }
        if (now() - start < least)
            wrong = "a sleep was too short";
    }
    return NULL;
}

static int input_ended(void) {
    struct pollfd input = {0, POLLIN, 0};
    return poll(&input, 1, 0) > 0 && input.revents & POLLHUP;
}

int main(int argc, char **argv) {
    int threads = argc > 1 && !strcmp(argv[1], "threads");
    struct sigaction action = {.sa_handler = on_usr1, .sa_flags = SA_RESTART | SA_ONSTACK};
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    pthread_t thread;
    sigset_t blocked;

    sigaltstack(&stack, NULL);
    sigaction(SIGUSR1, &action, NULL);
    action.sa_handler = on_count;
    sigaction(SIGRTMIN, &action, NULL);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    sigaddset(&blocked, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    for (long how = 0; threads && how < 5; how++)
        pthread_create(&thread, NULL, sleeper, (void *)how);
    sigdelset(&blocked, SIGUSR1); /* asked of this thread alone */
    pthread_sigmask(SIG_SETMASK, &blocked, NULL);
    sigprocmask(SIG_BLOCK, NULL, &own_mask);
    puts("up");
    fflush(stdout);
    for (; !input_ended(); rounds++) {
        spin_registers();
        check_signals();
        if (asked) {
            asked = 0;
            if (wrong)
                printf("bad %s\n", wrong);
            else
                printf("ok %lu %d\n", rounds, (int)counted);
            fflush(stdout);
        }
    }
}
