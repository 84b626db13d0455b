/* Known values in every register of aarch64, those of SVE where there is SVE, and whether they stay. */

#include <sys/auxv.h>
#include <sys/prctl.h>

/* Slots: 1-30 general registers; x0 counts. after[31] is the flags, after[32] not 0 where the stack pointer moved. */
uint64_t before[33], after[33];
unsigned char vectors_before[32 * 64] __attribute__((aligned(64)));
unsigned char vectors_after[32 * 64] __attribute__((aligned(64)));
unsigned char predicates_before[17 * 8] __attribute__((aligned(64)));
unsigned char predicates_after[17 * 8] __attribute__((aligned(64)));
uint64_t own_stack;

#define AT(reg, name) "adrp " reg ", " name "\n\tadd " reg ", " reg ", :lo12:" name "\n\t"
#define SOME(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define REST(X) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30)
#define LOAD(n) "ldr x" #n ", [x0, #8*" #n "]\n\t"
#define STORE(n) "str x" #n ", [x0, #8*" #n "]\n\t"
#define QUAD_LOAD(n) "ldr q" #n ", [x0, #16*" #n "]\n\t"
#define QUAD_STORE(n) "str q" #n ", [x0, #16*" #n "]\n\t"
#define WIDE_LOAD(n) "ldr z" #n ", [x0, #" #n ", mul vl]\n\t"
#define WIDE_STORE(n) "str z" #n ", [x0, #" #n ", mul vl]\n\t"
#define TRUTH_LOAD(n) "ldr p" #n ", [x1, #" #n ", mul vl]\n\t"
#define TRUTH_STORE(n) "str p" #n ", [x1, #" #n ", mul vl]\n\t"
#define VECTORS(X) X(0) SOME(X) REST(X) X(31)
#define PREDICATES(X) X(0) SOME(X)

/* The compiler believes that nothing but memory and the scratch registers changes; so all is put back at the end. */
#define SPIN(load, store)                                                                                          \
    __asm__ volatile(".arch armv8-a+sve\n\t"                                                                       \
                     "sub sp, sp, #96\n\t"                                                                         \
                     "stp x18, x19, [sp]\n\tstp x20, x21, [sp, #16]\n\tstp x22, x23, [sp, #32]\n\t"                \
                     "stp x24, x25, [sp, #48]\n\tstp x26, x27, [sp, #64]\n\tstp x28, x29, [sp, #80]\n\t"           \
                     "str x30, [sp, #-16]!\n\t" AT("x0", "own_stack") "mov x1, sp\n\tstr x1, [x0]\n\t"             \
                     AT("x0", "vectors_before") AT("x1", "predicates_before") load                                 \
                     AT("x0", "before") SOME(LOAD) REST(LOAD)                                                      \
                     "ldr x0, [x0]\n\tcmp xzr, xzr\n\t"                                                            \
                     "1: sub x0, x0, #1\n\tcbnz x0, 1b\n\t"                                                        \
                     AT("x0", "after") SOME(STORE) REST(STORE) "mrs x1, nzcv\n\tstr x1, [x0, #8*31]\n\t"           \
                     AT("x2", "own_stack") "ldr x2, [x2]\n\tmov x3, sp\n\tsub x3, x3, x2\n\tstr x3, [x0, #8*32]\n\t" \
                     "mov sp, x2\n\t" AT("x0", "vectors_after") AT("x1", "predicates_after") store                 \
                     "ldr x30, [sp], #16\n\t"                                                                      \
                     "ldp x18, x19, [sp]\n\tldp x20, x21, [sp, #16]\n\tldp x22, x23, [sp, #32]\n\t"                \
                     "ldp x24, x25, [sp, #48]\n\tldp x26, x27, [sp, #64]\n\tldp x28, x29, [sp, #80]\n\t"           \
                     "add sp, sp, #96\n\t" ::: "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10",   \
                     "x11", "x12", "x13", "x14", "x15", "x16", "x17", "memory", "cc", "v0", "v1", "v2", "v3", "v4", \
                     "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18",   \
                     "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31")

static void spin_registers(void) {
    int sve = (getauxval(AT_HWCAP) & HWCAP_SVE) != 0;
    size_t wide = sve ? (size_t)(prctl(PR_SVE_GET_VL) & PR_SVE_VL_LEN_MASK) : 16;
    size_t vectors = 32 * wide, predicates = sve ? 16 * wide / 8 : 0;
    uint64_t control = 1 << 22, control_now, status = 0x1f, status_now; /* round up: not what it starts with */

    if (vectors > sizeof vectors_before) {
        wrong = "the test: vectors of this length";
        return;
    }
    for (unsigned i = 0; i < sizeof vectors_before; i++)
        vectors_before[i] = (unsigned char)(i * 7 + rounds);
    for (unsigned i = 0; i < sizeof predicates_before; i++)
        predicates_before[i] = (unsigned char)(i * 5 + rounds);
    memset(predicates_before + predicates, 0xff, wide / 8); /* not every value is one of the FFR */
    for (unsigned i = 1; i < 31; i++)
        before[i] = 0x0123456789abcdefULL * (i + 1) + rounds;
    before[0] = 100000;
    memset(vectors_after, 0, sizeof vectors_after);
    memset(predicates_after, 0, sizeof predicates_after);
    __asm__ volatile("msr fpcr, %0\n\tmsr fpsr, %1" ::"r"(control), "r"(status));
    if (sve)
        SPIN("ldr p0, [x1, #16, mul vl]\n\twrffr p0.b\n\t" VECTORS(WIDE_LOAD) PREDICATES(TRUTH_LOAD),
             VECTORS(WIDE_STORE) PREDICATES(TRUTH_STORE) "rdffr p0.b\n\tstr p0, [x1, #16, mul vl]\n\t");
    else
        SPIN(VECTORS(QUAD_LOAD), VECTORS(QUAD_STORE));
    __asm__ volatile("mrs %0, fpcr\n\tmrs %1, fpsr" : "=r"(control_now), "=r"(status_now));
    if (memcmp(before + 1, after + 1, 30 * sizeof *before))
        wrong = "general registers";
    if (after[31] != 0x60000000 || after[32])
        wrong = "stack pointer or flags";
    if (memcmp(vectors_before, vectors_after, vectors))
        wrong = "vector registers";
    if (memcmp(predicates_before, predicates_after, predicates))
        wrong = "predicates";
    if (predicates && memcmp(predicates_before + predicates, predicates_after + predicates, wide / 8))
        wrong = "the first fault register";
    if (control_now != control)
        wrong = "fpcr";
    if (status_now != status)
        wrong = "fpsr";
}
