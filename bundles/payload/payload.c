/*
 * The static payload: its first act is to read CLOCK_MONOTONIC and hand it out as one decimal line on stdout.
 *
 *   payload                 stamp, exit 0
 *   payload exit N          stamp, exit N
 *   payload pause           stamp, then wait for SIGTERM or SIGINT (exit 0)
 *   payload memory BYTES    stamp, touch that much memory, then wait like pause
 *   payload ask COMMAND...  stamp, answer each command with one JSON line, print "end", then wait like pause:
 *       call NR ARG...      [result] of a system call; an ARG is a number, or a pointer to the text behind its '@'
 *       read PATH           [0, "the first 16383 bytes"] or [-errno, ""]
 *       link PATH           the same of where a symbolic link points to
 *       ,                   between two commands
 *   payload hook FILE NAME STATUS   append to FILE what a hook can see, as one JSON line, and exit with STATUS
 *
 * No C library, no dynamic loader, no allocation before the clock is read.
 */

typedef long i64;
typedef unsigned long u64;

struct timespec64 {
	i64 seconds;
	i64 nanoseconds;
};

#if defined(__x86_64__)
enum { NR_read = 0, NR_write = 1, NR_close = 3, NR_mmap = 9, NR_rt_sigaction = 13, NR_rt_sigreturn = 15, NR_pause = 34,
       NR_exit_group = 231, NR_clock_gettime = 228, NR_openat = 257, NR_readlinkat = 267 };

static i64 call6(i64 nr, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f)
{
	register i64 r10 __asm__("r10") = d;
	register i64 r8 __asm__("r8") = e;
	register i64 r9 __asm__("r9") = f;
	i64 ret;
	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall payload\n\thlt\n"
	"restore:\n\tmov $15, %eax\n\tsyscall\n");

static i64 wait_for_signal(void)
{
	return call6(NR_pause, 0, 0, 0, 0, 0, 0);
}
#elif defined(__aarch64__)
enum { NR_read = 63, NR_write = 64, NR_close = 57, NR_mmap = 222, NR_rt_sigaction = 134, NR_rt_sigreturn = 139,
       NR_ppoll = 73, NR_exit_group = 94, NR_clock_gettime = 113, NR_openat = 56, NR_readlinkat = 78 };

static i64 call6(i64 nr, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f)
{
	register i64 x8 __asm__("x8") = nr;
	register i64 x0 __asm__("x0") = a;
	register i64 x1 __asm__("x1") = b;
	register i64 x2 __asm__("x2") = c;
	register i64 x3 __asm__("x3") = d;
	register i64 x4 __asm__("x4") = e;
	register i64 x5 __asm__("x5") = f;
	__asm__ volatile("svc #0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
}

__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x0, sp\n\tbl payload\n\tbrk #0\n"
	"restore:\n\tmov x8, #139\n\tsvc #0\n");

static i64 wait_for_signal(void)
{
	return call6(NR_ppoll, 0, 0, 0, 0, 0, 0);
}
#else
#error "payload.c knows x86_64 and aarch64; add the system call numbers of this architecture"
#endif

extern void restore(void);

static void leave(i64 status)
{
	for (;;)
		call6(NR_exit_group, status, 0, 0, 0, 0, 0);
}

static void on_signal(int sig)
{
	(void)sig;
	leave(0);
}

static int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static u64 number(const char *text)
{
	u64 value = 0;
	for (; *text >= '0' && *text <= '9'; text++)
		value = value * 10 + (u64)(*text - '0');
	return value;
}

static void stamp(u64 value)
{
	char line[24];
	int at = sizeof(line);
	line[--at] = '\n';
	do
		line[--at] = (char)('0' + value % 10);
	while (value /= 10);
	call6(NR_write, 1, (i64)(line + at), (i64)sizeof(line) - at, 0, 0, 0);
}

static void catch_signal(int sig)
{
	/* the kernel's struct sigaction, not the C library's */
	struct {
		void (*handler)(int);
		u64 flags;
		void (*restorer)(void);
		u64 mask;
	} action = { on_signal, 0x04000000 /* SA_RESTORER */, restore, 0 };
	call6(NR_rt_sigaction, sig, (i64)&action, 0, 8, 0, 0);
}

/* What is to be written, collected: a line goes out in one write, so that those of several writers do not mix. */
static char line[65536];
static int used;

static void put(char c)
{
	if (used < (int)sizeof(line))
		line[used++] = c;
}

static void put_text(const char *text)
{
	for (; *text; text++)
		put(*text);
}

static void put_number(i64 value)
{
	char digits[24];
	int at = 0;
	u64 left = value < 0 ? -(u64)value : (u64)value;
	if (value < 0)
		put('-');
	do
		digits[at++] = (char)('0' + left % 10);
	while (left /= 10);
	while (at)
		put(digits[--at]);
}

/* A JSON string; a byte outside of printable ASCII is the character of that number. */
static void put_string(const char *text, i64 length)
{
	static const char hex[] = "0123456789abcdef";
	put('"');
	for (i64 i = 0; i < length; i++) {
		unsigned char c = (unsigned char)text[i];
		if (c >= ' ' && c < 127 && c != '"' && c != '\\') {
			put((char)c);
		} else {
			put_text("\\u00");
			put(hex[c >> 4]);
			put(hex[c & 15]);
		}
	}
	put('"');
}

static i64 length_of(const char *text)
{
	i64 length = 0;
	while (text[length])
		length++;
	return length;
}

static void flush(i64 fd)
{
	put('\n');
	call6(NR_write, fd, (i64)line, used, 0, 0, 0);
	used = 0;
}

static i64 read_all(i64 fd, char *into, i64 most)
{
	i64 have = 0, got;
	while (have < most && (got = call6(NR_read, fd, (i64)(into + have), most - have, 0, 0, 0)) > 0)
		have += got;
	return have ? have : got;
}

static char text[16384];

static void answer_text(const char *path, int link)
{
	i64 got;
	if (link) {
		got = call6(NR_readlinkat, -100 /* AT_FDCWD */, (i64)path, (i64)text, sizeof(text), 0, 0);
	} else if ((got = call6(NR_openat, -100, (i64)path, 0, 0, 0, 0)) >= 0) {
		i64 fd = got;
		got = read_all(fd, text, sizeof(text) - 1);
		call6(NR_close, fd, 0, 0, 0, 0, 0);
	}
	put('[');
	put_number(got < 0 ? got : 0);
	put(',');
	put_string(text, got < 0 ? 0 : got);
	put(']');
	flush(1);
}

static i64 argument_of(const char *word)
{
	if (*word == '@')
		return (i64)(word + 1);
	return *word == '-' ? -(i64)number(word + 1) : (i64)number(word);
}

static void answer(char **words)
{
	while (*words) {
		const char *verb = *words++;
		int link = same(verb, "link");
		if ((link || same(verb, "read")) && *words) {
			answer_text(*words++, link);
		} else if (same(verb, "call")) {
			i64 values[7] = { 0 };
			for (int i = 0; *words && !same(*words, ","); words++)
				if (i < 7)
					values[i++] = argument_of(*words);
			i64 result = call6(values[0], values[1], values[2], values[3], values[4], values[5], values[6]);
			put('[');
			put_number(result);
			put(']');
			flush(1);
		}
	}
	put_text("\"end\"");
	flush(1);
}

static void put_list(char **words)
{
	put('[');
	for (int i = 0; words[i]; i++) {
		if (i)
			put(',');
		put_string(words[i], length_of(words[i]));
	}
	put(']');
}

static void hook(u64 now, int argc, char **argv)
{
	static char *const kinds[] = { "/proc/self/ns/mnt", "/proc/self/ns/pid", "/proc/self/ns/net", "/proc/self/ns/uts",
				       "/proc/self/ns/ipc" };
	put_text("{\"name\":");
	put_string(argv[3], length_of(argv[3]));
	put_text(",\"at_ns\":");
	put_number((i64)now);
	put_text(",\"args\":");
	put_list(argv);
	put_text(",\"env\":");
	put_list(argv + argc + 1);
	put_text(",\"namespaces\":{");
	for (int i = 0; i < 5; i++) {
		i64 got = call6(NR_readlinkat, -100, (i64)kinds[i], (i64)text, 64, 0, 0);
		if (i)
			put(',');
		put_string(kinds[i] + 14, 3);
		put(':');
		put_string(text, got < 0 ? 0 : got);
	}
	put_text("},\"stdin\":");
	i64 got = read_all(0, text, sizeof(text));
	put_string(text, got < 0 ? 0 : got);
	put('}');
	i64 fd = call6(NR_openat, -100, (i64)argv[2], 02001 | 0100 /* O_WRONLY, O_APPEND, O_CREAT */, 0666, 0, 0);
	if (fd < 0)
		leave(125);
	flush(fd);
	leave((i64)number(argv[4]));
}

__attribute__((used)) void payload(const u64 *stack)
{
	struct timespec64 now;
	call6(NR_clock_gettime, 1 /* CLOCK_MONOTONIC */, (i64)&now, 0, 0, 0, 0);
	int argc = (int)stack[0];
	char **argv = (char **)(stack + 1);

	const char *verb = argc > 1 ? argv[1] : "exit";
	const char *argument = argc > 2 ? argv[2] : "0";
	if (same(verb, "hook") && argc > 4)
		hook((u64)now.seconds * 1000000000UL + (u64)now.nanoseconds, argc, argv);
	int asked = same(verb, "ask");
	int stays = asked || same(verb, "pause") || same(verb, "memory");
	if (stays) { /* before the stamp: whoever has seen it may send a signal at once */
		catch_signal(15);
		catch_signal(2);
	}
	stamp((u64)now.seconds * 1000000000UL + (u64)now.nanoseconds);
	if (asked)
		answer(argv + 2);
	if (same(verb, "memory")) {
		u64 bytes = number(argument);
		volatile char *area = (volatile char *)call6(NR_mmap, 0, (i64)bytes, 3 /* read, write */, 0x22, -1, 0);
		if ((u64)area > -4096UL)
			leave(1);
		for (u64 i = 0; i < bytes; i += 4096)
			area[i] = 1;
	}
	if (!stays)
		leave((i64)number(argument));
	for (;;)
		wait_for_signal();
}
