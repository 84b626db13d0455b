/*
 * Linked into build/sexton-init-asan: what the sanitizers are to do there.
 * A finding ends it with 99, which no test expects. Leaks are not looked for: there is no malloc in sexton-init, and
 * the looking wants /proc, ptrace and a message where there is none.
 */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "exitcode=99:detect_leaks=0";
}

const char *__ubsan_default_options(void);
const char *__ubsan_default_options(void)
{
	return "exitcode=99:print_stacktrace=1";
}
