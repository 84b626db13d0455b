/* Known values in every register of x86_64, in the floating point unit and in the red zone, and whether they stay. */

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
