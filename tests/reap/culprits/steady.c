/* A culprit that looks after itself: it spins with known values in every register and in the floating point unit, and
 * says whether they are still there.
 *
 *     steady [threads]
 *
 * prints "up", and on each SIGUSR1 one line: "ok ROUNDS SIGNALS",
 * where SIGNALS counts every SIGRTMIN that came, or "bad WHAT". Ends when its standard input does. */
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

#ifdef __aarch64__
#include "registers_aarch64.h"
#else
#include "registers_x86_64.h"
#endif

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
    for (;;) {
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
