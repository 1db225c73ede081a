// SPDX-License-Identifier: GPL-2.0
/*
 * The first process of a guest that runs selftests: mount what they need, run
 * those listed in /tests one by one, each within its time limit, report the
 * results as KTAP, one suite with a case per selftest, and reboot.
 *
 * The lines of /tests:
 *
 *	module <file>
 *	suite <name>
 *	hold <device> [<ioctl>]
 *	<seconds> <hugepages> <program> [<argument>...]
 *
 * "module" is optional: load the module, with its parameters on the kernel's
 * command line, as modprobe does.  All of them are unloaded before the reboot, in
 * reverse order: a VM or a file that keeps its module for good must not go unnoticed.
 * "hold" is optional: open the device before the first selftest, issue the ioctl
 * without an argument, and keep both open until the last one has ended.  Without
 * a program no KTAP is printed.
 *
 * With kmemleak in the kernel, let it look for leaks at the end.  It prints how many
 * it has found, which makes the boot red; print the first ones here.
 *
 * With gcov in the kernel, print each of its files in debugfs at the end: a line
 * "gcov: <path> <size>", then the content as base64 in lines that start with
 * "gcov+ ".
 *
 * All other output goes through /dev/kmsg, where a line is a record that no
 * kernel message can split.  The log buffer is too small for the counters.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define GCOV		"/sys/kernel/debug/gcov"
#define KMEMLEAK	"/sys/kernel/debug/kmemleak"
#define LINE_SIZE	800	/* a printk record holds about 1000 bytes */
#define NAME_SIZE	120
#define MAX_TESTS	64
#define MAX_MODULES	16
#define MAX_ARGS	16
#define MAX_RESULTS	256	/* of one selftest's own TAP */
#define MAX_LINES	2000	/* of one selftest's output */
#define GCOV_SIZE	(1 << 20)
#define GCOV_BYTES	540	/* per line, divisible by three */
#define TICK_MS		100
#define KILL_MS		10000	/* until a killed selftest must be gone */
#define UNLOAD_MS	10000	/* until nothing may use a module any more */
#define LEAK_MS		6000	/* kmemleak reports nothing that is younger than 5 s */
#define LEAK_LINES	100
#define KSFT_SKIP	4	/* tools/testing/selftests/kselftest.h */

enum status { PASS, FAIL, SKIP, NR_STATUS };

struct result {
	char name[NAME_SIZE];
	char reason[NAME_SIZE];		/* for a skip */
	enum status status;
};

/* The lines of /tests other than selftests. */
struct setup {
	const char *modules[MAX_MODULES];	/* files */
	int nr_modules;
	const char *suite;
	const char *device;		/* to hold open */
	unsigned long request;		/* ioctl number, 0 for none */
	int held[2];			/* the device, and what the ioctl returned */
};

struct test {
	const char *name;
	char *argv[MAX_ARGS + 1];
	int seconds;
	char *hugepages;
};

/* What a running selftest has printed so far. */
struct output {
	const char *name;
	char line[LINE_SIZE];
	size_t length;
	unsigned int lines;
	char why[LINE_SIZE];		/* the assertion that failed */
	bool why_is_next;
	char skip[NAME_SIZE];
	bool tap;
	int plan;
	int count;
	struct result results[MAX_RESULTS];
};

static int kmsg = -1;

static void __attribute__((format(printf, 1, 2))) say(const char *format, ...)
{
	char text[LINE_SIZE + NAME_SIZE + 64];
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (length >= (int)sizeof(text))
		length = sizeof(text) - 1;
	if (write(kmsg, text, length) != length)
		exit(1);
}

/* The kernel panics when its first process exits. */
static void __attribute__((noreturn)) give_up(const char *what)
{
	if (kmsg >= 0)
		say("init: %s: %s", what, strerror(errno));
	exit(1);
}

static long long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static bool set(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);
	ssize_t length = strlen(value);
	bool done;

	if (fd < 0)
		return false;
	done = write(fd, value, length) == length;
	return !close(fd) && done;
}

static void mount_all(void)
{
	static const struct {
		const char *type, *path;
		bool needed;
	} mounts[] = {
		{ "devtmpfs", "/dev", true },
		{ "proc", "/proc", true },
		{ "sysfs", "/sys", true },
		{ "tmpfs", "/tmp", true },
		{ "debugfs", "/sys/kernel/debug", false },
		{ "cgroup2", "/sys/fs/cgroup", false },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(mounts); i++) {
		mkdir(mounts[i].path, 0755);
		if (mount("none", mounts[i].path, mounts[i].type, 0, NULL) && mounts[i].needed)
			give_up(mounts[i].path);
		if (!i)
			kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	}
	if (kmsg < 0)
		give_up("/dev/kmsg");
	/* The default rate limit drops all but ten lines in five seconds. */
	if (!set("/proc/sys/kernel/printk_devkmsg", "on\n"))
		give_up("printk_devkmsg");
}

/* The name of a module whose file is <name>.ko; the kernel has '_' where the file may have '-'. */
static void name_of(const char *path, char *name)
{
	const char *slash = strrchr(path, '/');

	snprintf(name, NAME_SIZE, "%s", slash ? slash + 1 : path);
	name[strcspn(name, ".")] = '\0';
	for (; *name; name++)
		if (*name == '-')
			*name = '_';
}

/* Collect the parameters of a module from a kernel command line, where they have the prefix "<name>.". */
static void parameters_of(const char *name, const char *command_line, char *parameters)
{
	char *words = strdup(command_line), *word, *at;
	size_t length = strlen(name), used = 0;

	parameters[0] = '\0';
	for (word = strtok(words, " \n"); word; word = strtok(NULL, " \n")) {
		for (at = word; *at && *at != '.' && *at != '='; at++)
			if (*at == '-')
				*at = '_';
		if (!strncmp(word, name, length) && word[length] == '.' && used < LINE_SIZE)
			used += snprintf(parameters + used, LINE_SIZE - used, "%s ", word + length + 1);
	}
	free(words);
	if (used >= LINE_SIZE) {
		errno = E2BIG;
		give_up(name);
	}
}

static void load_modules(const struct setup *setup)
{
	char name[NAME_SIZE], parameters[LINE_SIZE], command_line[4 * LINE_SIZE] = "";
	FILE *file = fopen("/proc/cmdline", "re");
	int fd, i;

	if (!file || !fgets(command_line, sizeof(command_line), file))
		give_up("/proc/cmdline");
	fclose(file);
	for (i = 0; i < setup->nr_modules; i++) {
		name_of(setup->modules[i], name);
		parameters_of(name, command_line, parameters);
		fd = open(setup->modules[i], O_RDONLY | O_CLOEXEC);
		if (fd < 0 || syscall(SYS_finit_module, fd, parameters, 0))
			give_up(setup->modules[i]);
		close(fd);
	}
}

/* What a selftest has left behind ends a little later than its process. */
static void unload_modules(const struct setup *setup)
{
	long long end = now_ms() + UNLOAD_MS;
	char name[NAME_SIZE];
	int i;

	for (i = setup->nr_modules - 1; i >= 0; i--) {
		name_of(setup->modules[i], name);
		while (syscall(SYS_delete_module, name, O_NONBLOCK)) {
			if (errno != EAGAIN || now_ms() > end)
				give_up(name);
			usleep(TICK_MS * 1000);
		}
	}
}

static void hold(struct setup *setup)
{
	setup->held[0] = setup->device ? open(setup->device, O_RDWR | O_CLOEXEC) : -1;
	setup->held[1] = -1;
	/* If the device is missing, the selftests themselves report that. */
	if (setup->held[0] < 0 || !setup->request)
		return;
	setup->held[1] = ioctl(setup->held[0], setup->request, 0);
	if (setup->held[1] < 0)
		give_up(setup->device);
}

/* Parse a "module", "suite" or "hold" line; return false for any other line. */
static bool take_setup(struct setup *setup, const char *word)
{
	const char *request;

	if (!strcmp(word, "module") && setup->nr_modules < MAX_MODULES) {
		setup->modules[setup->nr_modules++] = strtok(NULL, " \n");
	} else if (!strcmp(word, "suite")) {
		setup->suite = strtok(NULL, " \n");
	} else if (!strcmp(word, "hold")) {
		setup->device = strtok(NULL, " \n");
		request = strtok(NULL, " \n");
		setup->request = request ? strtoul(request, NULL, 0) : 0;
	} else {
		return false;
	}
	return true;
}

static int read_tests(const char *path, struct setup *setup, struct test *tests)
{
	FILE *file = fopen(path, "re");
	char line[LINE_SIZE];
	int count = 0;

	if (!file)
		give_up(path);
	while (fgets(line, sizeof(line), file)) {
		struct test *test = &tests[count];
		char *rest = strdup(line), *word;
		int argc = 0;

		word = strtok(rest, " \n");
		if (!word || take_setup(setup, word))
			continue;
		if (count++ == MAX_TESTS)
			break;
		test->seconds = atoi(word);
		test->hugepages = strtok(NULL, " \n");
		while ((word = strtok(NULL, " \n")) && argc < MAX_ARGS)
			test->argv[argc++] = word;
		if (word || !argc || test->seconds <= 0) {
			argc = 0;
			break;
		}
		word = strrchr(test->argv[0], '/');
		test->name = word ? word + 1 : test->argv[0];
	}
	fclose(file);
	if (count > MAX_TESTS || (count && (!setup->suite || !tests[count - 1].name))) {
		errno = EINVAL;
		give_up(path);
	}
	return count;
}

/* Copies a name or a reason up to the next " # ". */
static void copy_text(char *to, const char *from)
{
	const char *end = strstr(from, " # ");

	if (!strncmp(from, "- ", 2))
		from += 2;
	snprintf(to, NAME_SIZE, "%.*s", end && end > from ? (int)(end - from) : NAME_SIZE, from);
}

static void take_result(struct output *out, const char *text, enum status status)
{
	struct result *result = &out->results[out->count % MAX_RESULTS];
	const char *skip = strstr(text, "# SKIP");
	char *end;

	if (strtol(text, &end, 10) != ++out->count || end == text) {
		out->plan = -1;		/* can no longer be met */
		return;
	}
	while (*end == ' ')
		end++;
	copy_text(result->name, *end == '#' || !*end ? "unnamed" : end);
	result->reason[0] = '\0';
	if (skip && status == PASS) {
		status = SKIP;
		skip += strlen("# SKIP");
		copy_text(result->reason, skip + strspn(skip, " "));
	}
	result->status = status;
}

/* Process a line of a selftest: record TAP results, and print the line. */
static void take_line(struct output *out)
{
	const char *line = out->line;
	size_t i;

	for (i = 0; i < out->length; i++)
		if (!isprint((unsigned char)out->line[i]))
			out->line[i] = out->line[i] == '\t' ? ' ' : '?';
	out->line[out->length] = '\0';
	out->length = 0;
	if (!line[strspn(line, " ")])
		return;
	if (out->why_is_next && !out->why[0])
		strcpy(out->why, line + strspn(line, " "));
	out->why_is_next = strstr(line, "Test Assertion Failure");

	if (!strncmp(line, "TAP version 13", 14) || !strncmp(line, "KTAP version 1", 14))
		out->tap = true;
	else if (!strncmp(line, "1..0 # SKIP", 11))
		copy_text(out->skip, line + 11 + strspn(line + 11, " "));
	else if (out->tap && !strncmp(line, "1..", 3) && !out->plan)
		out->plan = atoi(line + 3);
	else if (out->tap && !strncmp(line, "ok ", 3))
		take_result(out, line + 3, PASS);
	else if (out->tap && !strncmp(line, "not ok ", 7))
		take_result(out, line + 7, FAIL);

	if (++out->lines < MAX_LINES)
		say("    # %s: %s", out->name, line);
	else if (out->lines == MAX_LINES)
		say("    # %s: (no more of its output than %d lines)", out->name, MAX_LINES);
}

/* Read some output; return false at its end. */
static bool take_output(struct output *out, int fd)
{
	char bytes[4096];
	ssize_t i, count = read(fd, bytes, sizeof(bytes));

	if (count < 0)
		return errno == EINTR;
	for (i = 0; i < count; i++) {
		if (bytes[i] == '\n' || out->length == sizeof(out->line) - 1)
			take_line(out);
		if (bytes[i] != '\n')
			out->line[out->length++] = bytes[i];
	}
	return count;
}

static pid_t start(const struct test *test, int fd)
{
	static char * const environment[] = { "HOME=/tmp", "TMPDIR=/tmp", NULL };
	pid_t pid = fork();
	int null;

	if (pid)
		return pid;
	null = open("/dev/null", O_RDONLY);
	if (null < 0 || dup2(null, 0) < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0 ||
	    setsid() < 0 || chdir("/tmp"))
		_exit(126);
	execve(test->argv[0], test->argv, environment);
	dprintf(1, "%s: %s\n", test->argv[0], strerror(errno));
	_exit(127);
}

/* Wait for a selftest to end; return false if it had to be killed. */
static bool watch(pid_t pid, int fd, long long limit, struct output *out, int *status)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	long long end = now_ms() + limit;
	bool killed = false;

	*status = -1;
	while (waitpid(pid, status, WNOHANG) != pid) {
		if (poll(&pollfd, 1, TICK_MS) > 0 && !take_output(out, fd))
			pollfd.fd = -1;
		if (now_ms() < end)
			continue;
		if (killed)
			break;
		killed = true;
		kill(-1, SIGKILL);
		end = now_ms() + KILL_MS;
	}
	/* Kill the processes that it has left behind. */
	kill(-1, SIGKILL);
	while (pollfd.fd >= 0 && poll(&pollfd, 1, TICK_MS) > 0 && take_output(out, fd))
		;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	if (out->length)
		take_line(out);
	return !killed;
}

static enum status sum(const struct result *results, int count)
{
	enum status status = SKIP;
	int i;

	for (i = 0; i < count; i++) {
		if (results[i].status == FAIL)
			return FAIL;
		if (results[i].status == PASS)
			status = PASS;
	}
	return status;
}

static void say_result(const char *indent, int number, const struct result *result)
{
	const char *word = result->status == FAIL ? "not ok" : "ok";

	if (result->status == SKIP)
		say("%s%s %d %s # SKIP %s", indent, word, number, result->name, result->reason);
	else
		say("%s%s %d %s", indent, word, number, result->name);
}

static void say_totals(const char *indent, const char *name, const int *counts)
{
	say("%s# %s: pass:%d fail:%d skip:%d total:%d", indent, name, counts[PASS], counts[FAIL],
	    counts[SKIP], counts[PASS] + counts[FAIL] + counts[SKIP]);
}

/* Print the results of a selftest's own TAP as its subtests. */
static void say_subtests(const struct output *out, int *counts)
{
	int i, own[NR_STATUS] = {};

	say("        KTAP version 1");
	say("        # Subtest: %s", out->name);
	say("        1..%d", out->count);
	for (i = 0; i < out->count; i++) {
		say_result("        ", i + 1, &out->results[i]);
		own[out->results[i].status]++;
	}
	say_totals("    ", out->name, own);
	for (i = 0; i < NR_STATUS; i++)
		counts[i] += own[i];
}

/*
 * Judge a selftest by its exit status. If it prints TAP, that must be complete
 * and agree with the exit status.
 */
static enum status judge(struct output *out, const struct test *test, bool ended, int status)
{
	bool fits = out->count <= MAX_RESULTS, whole = out->count == out->plan && fits;
	int code = ended && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	enum status seen = fits ? sum(out->results, out->count) : FAIL;
	enum status tap = out->tap && whole ? seen : FAIL;

	/* It may skip the rest halfway through, but not after a failure. */
	if (code == KSFT_SKIP && seen != FAIL)
		return SKIP;
	if (!code && (!out->tap || tap != FAIL))
		return out->tap ? tap : PASS;

	if (!ended)
		snprintf(out->why, sizeof(out->why), "its time limit of %d s", test->seconds);
	else if (code < 0)
		snprintf(out->why, sizeof(out->why), "signal %d", WTERMSIG(status));
	else if (!code && !whole)
		snprintf(out->why, sizeof(out->why), "the end of its TAP, which is not whole");
	else if (!out->why[0])
		snprintf(out->why, sizeof(out->why), "exit status %d", code);
	return FAIL;
}

static enum status run(const struct test *test, int number, int *counts)
{
	static struct output out;
	long long begin = now_ms();
	struct result result = {};
	int pipes[2], status;
	bool ended;
	pid_t pid;

	memset(&out, 0, sizeof(out));
	out.name = test->name;
	if (strcmp(test->hugepages, "0") && !set("/proc/sys/vm/nr_hugepages", test->hugepages))
		say("    # %s: no hugetlb pages: %s", test->name, strerror(errno));
	if (pipe2(pipes, O_CLOEXEC | O_NONBLOCK))
		give_up("pipe");
	/* The other end blocks, as a selftest expects. */
	fcntl(pipes[1], F_SETFL, 0);
	pid = start(test, pipes[1]);
	if (pid < 0)
		give_up("fork");
	close(pipes[1]);
	ended = watch(pid, pipes[0], test->seconds * 1000LL, &out, &status);
	close(pipes[0]);
	if (strcmp(test->hugepages, "0"))
		set("/proc/sys/vm/nr_hugepages", "0");

	snprintf(result.name, sizeof(result.name), "%s", test->name);
	result.status = judge(&out, test, ended, status);
	snprintf(result.reason, sizeof(result.reason), "%s",
		 out.skip[0] ? out.skip : out.results[0].reason);
	say("    # %s: took %.1f s", test->name, (now_ms() - begin) / 1000.0);
	if (out.count && out.count == out.plan && out.count <= MAX_RESULTS &&
	    sum(out.results, out.count) == result.status)
		say_subtests(&out, counts);
	else
		counts[result.status]++;
	/* The format in which KUnit reports failed assertions. */
	if (result.status == FAIL)
		say("    # %s: ASSERTION FAILED at %s", test->name, out.why);
	say_result("    ", number, &result);
	return result.status;
}

static void say_leaks(void)
{
	char line[LINE_SIZE];
	FILE *file;
	int i;

	usleep(LEAK_MS * 1000);
	/* An object must not have changed since the scan before. */
	if (!set(KMEMLEAK, "scan") || !set(KMEMLEAK, "scan"))
		give_up(KMEMLEAK);
	file = fopen(KMEMLEAK, "re");
	if (!file)
		give_up(KMEMLEAK);
	for (i = 0; i < LEAK_LINES && fgets(line, sizeof(line), file); i++)
		say("init: %s", line);
	fclose(file);
}

static void say_base64(FILE *console, const unsigned char *bytes, size_t length)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char text[GCOV_BYTES / 3 * 4 + 1], *to = text;
	unsigned int three;
	size_t i;

	for (i = 0; i < length; i += 3) {
		three = bytes[i] << 16;
		three |= i + 1 < length ? bytes[i + 1] << 8 : 0;
		three |= i + 2 < length ? bytes[i + 2] : 0;
		*to++ = digits[three >> 18];
		*to++ = digits[three >> 12 & 63];
		*to++ = i + 1 < length ? digits[three >> 6 & 63] : '=';
		*to++ = i + 2 < length ? digits[three & 63] : '=';
	}
	*to = '\0';
	fprintf(console, "gcov+ %s\n", text);
}

/* Print a gcov file. Read it to find its size: debugfs reports 0. */
static int say_counters(const char *path, const struct stat *info, int type, struct FTW *place)
{
	static unsigned char data[GCOV_SIZE];
	const char *suffix = strrchr(path, '.');
	size_t i, size;
	FILE *file, *console;

	(void)info;
	(void)place;
	if (type != FTW_F || !suffix || strcmp(suffix, ".gcda"))
		return 0;
	file = fopen(path, "re");
	if (!file)
		give_up(path);
	size = fread(data, 1, sizeof(data), file);
	if (ferror(file) || !feof(file))
		give_up(path);
	fclose(file);

	console = fopen("/dev/console", "we");
	if (!console)
		give_up("/dev/console");
	fprintf(console, "gcov: %s %zu\n", path + strlen(GCOV), size);
	for (i = 0; i < size; i += GCOV_BYTES)
		say_base64(console, data + i, size - i < GCOV_BYTES ? size - i : GCOV_BYTES);
	if (fflush(console) || tcdrain(fileno(console)))
		give_up("/dev/console");
	fclose(console);
	return 0;
}

static void run_all(const char *suite_name, const struct test *tests, int count)
{
	int i, cases[NR_STATUS] = {}, leaves[NR_STATUS] = {};
	struct result suite = { .reason = "all of it" };

	snprintf(suite.name, sizeof(suite.name), "%s", suite_name);
	say("KTAP version 1");
	say("1..1");
	say("    KTAP version 1");
	say("    # Subtest: %s", suite.name);
	say("    1..%d", count);
	for (i = 0; i < count; i++)
		cases[run(&tests[i], i + 1, leaves)]++;
	say_totals("", suite.name, cases);
	say_totals("", "Totals", leaves);
	if (cases[FAIL])
		suite.status = FAIL;
	else if (!cases[PASS])
		suite.status = SKIP;
	say_result("", 1, &suite);
}

int main(void)
{
	static struct test tests[MAX_TESTS + 1];
	struct setup setup = {};
	int count;

	mount_all();
	count = read_tests("/tests", &setup, tests);
	load_modules(&setup);
	if (count) {
		hold(&setup);
		run_all(setup.suite, tests, count);
		close(setup.held[1]);
		close(setup.held[0]);
	}
	unload_modules(&setup);
	if (!access(KMEMLEAK, F_OK))
		say_leaks();
	if (!access(GCOV, F_OK) && nftw(GCOV, say_counters, 16, FTW_PHYS))
		give_up(GCOV);
	reboot(RB_AUTOBOOT);
	give_up("reboot");
}
