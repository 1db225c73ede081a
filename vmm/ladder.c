// SPDX-License-Identifier: GPL-2.0
/*
 * What people do with a VMM, one case per name of this program: start QEMU with gmem.so,
 * let its Linux guest use memory, and compare what guest, host and KVM say about it.
 *
 * /vmm/qemu has QEMU's arguments for the architecture, one per line; /vmm/guest.cpio is the
 * initramfs of the guest, whose init is guest.c.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/kernel-page-flags.h>
#include <linux/kvm.h>
#include <linux/mempolicy.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define MAX_ARGS 96
#define GUEST 192		/* memory of a guest, in MiB */
#define WHOLE 768		/* where it is about all of the memory */
#define FILL 112		/* what it fills: the kernel in it needs the rest */
#define ALL 0			/* instead: nearly all that is free */
#define MOVES 6			/* from node to node */
#define PLUG "256"		/* memory that is plugged in */
#define SECONDS 240		/* for an answer; the time limit of the whole comes from init */
#define KVM_DEBUG "/sys/kernel/debug/kvm"
#define CGROUPS "/tmp/cgroups"
#define MAGIC 0x6d656d672d747365ULL	/* see guest.c */
#define STEP 0x9e3779b97f4a7c15ULL
#define PAGE 4096
#define HUGE (2 << 20)
#define NR_HUGE (GUEST / 2)	/* hugepages of a guest */
#define NO_HUGEPAGE (HUGE / 4 * 3)	/* there is room for pages and page tables */
#define PFN ((1ULL << 55) - 1)		/* of an entry of pagemap */

#ifdef __x86_64__
#define MACHINE "microvm,acpi=off,rtc=on"
#define PCI_MACHINE "pc"
#define FAULTS "pf_taken"
#define RAM 0
#define TELLS_GUEST true
#else
#define MACHINE "virt,gic-version=host"
#define PCI_MACHINE MACHINE
#define FAULTS "exits"		/* KVM on arm64 does not count faults */
#define RAM 0x40000000
#define TELLS_GUEST false
#endif

struct vm {
	const char *name;
	const char *machine, *flags, *extra;
	int memory;			/* in MiB; 0: GUEST */
	const char *expected[3];	/* words in a line that is no splat here */
	pid_t pid;
	int in, out, monitor, answers;
	char line[512];
	size_t length;
};

static int kmsg;

static void __attribute__((format(printf, 1, 2), noreturn)) fail(const char *format, ...)
{
	va_list args;

	/* init quotes the line after this one as the reason. */
	printf("==== Test Assertion Failure ====\n  ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	exit(1);
}

#define need(condition, format, ...) do {					\
	if (!(condition))							\
		fail(format ": %s", ##__VA_ARGS__, strerror(errno));		\
} while (0)

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

/* QEMU. */

static void add_words(char **argv, int *argc, char *words, const char *blank)
{
	char *word;

	for (word = strtok(words, blank); word && *argc < MAX_ARGS - 1; word = strtok(NULL, blank))
		argv[(*argc)++] = word;
	argv[*argc] = NULL;
}

static char *read_file(const char *path)
{
	static char text[8192];
	FILE *file = fopen(path, "re");
	size_t length;

	need(file, "%s", path);
	length = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[length] = '\0';
	return text;
}

static void write_file(const char *path, const char *format, ...)
{
	FILE *file = fopen(path, "we");
	va_list args;

	need(file, "%s", path);
	va_start(args, format);
	vfprintf(file, format, args);
	va_end(args);
	need(!fclose(file), "%s", path);
}

/* The memory that is charged for a guest.  Each guest has a cgroup of its own. */
static long charged_bytes(struct vm *vm)
{
	char path[64];

	snprintf(path, sizeof(path), CGROUPS "/%s/memory.current", vm->name);
	return atol(read_file(path));
}

/* The same in MiB. */
static long charged(struct vm *vm)
{
	return charged_bytes(vm) >> 20;
}

static void make_cgroup(const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), CGROUPS "/%s", name);
	need(!mkdir(path, 0755) || errno == EEXIST, "%s", path);
}

/* Let what this process allocates be charged to a guest's cgroup, or to its own again. */
static void join(const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), CGROUPS "/%s/cgroup.procs", name);
	write_file(path, "0");
}

static void open_monitor(struct vm *vm, char *option, size_t size)
{
	static const char * const ends[] = { "in", "out" };
	int fds[ARRAY_SIZE(ends)];
	char path[64];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ends); i++) {
		snprintf(path, sizeof(path), "/tmp/%s.%s", vm->name, ends[i]);
		unlink(path);
		need(!mkfifo(path, 0600), "%s", path);
		fds[i] = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
		need(fds[i] >= 0, "%s", path);
	}
	snprintf(option, size, "pipe:/tmp/%s", vm->name);
	vm->monitor = fds[0];
	vm->answers = fds[1];
}

static void __attribute__((noreturn)) run_qemu(struct vm *vm, char **argv)
{
	join(vm->name);
	if (vm->flags) {
		setenv("LD_PRELOAD", "/vmm/gmem.so", 1);
		setenv("GMEM", "require", 1);
		setenv("GMEM_FLAGS", vm->flags, 1);
	}
	execv(argv[0], argv);
	printf("%s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

/*
 * Start a guest.  Its flags are those of GMEM_FLAGS, or NULL for memory of QEMU's own;
 * extra are more arguments of QEMU.
 */
static void start(struct vm *vm)
{
	char *argv[MAX_ARGS], words[512], monitor[64], *common = strdup(read_file("/vmm/qemu"));
	int in[2], out[2], argc = 0;

	open_monitor(vm, monitor, sizeof(monitor));
	snprintf(words, sizeof(words), "-machine %s -m %dM -initrd /vmm/guest.cpio -monitor %s %s",
		 vm->machine ? vm->machine : MACHINE, vm->memory ? vm->memory : GUEST, monitor,
		 vm->extra ? vm->extra : "");
	add_words(argv, &argc, common, "\n");
	add_words(argv, &argc, words, " ");
	make_cgroup(vm->name);
	need(!pipe2(in, O_CLOEXEC) && !pipe2(out, O_CLOEXEC), "pipe");
	vm->pid = fork();
	need(vm->pid >= 0, "fork");
	if (!vm->pid) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(out[1], 2);
		run_qemu(vm, argv);
	}
	close(in[0]);
	close(out[1]);
	vm->in = in[1];
	vm->out = out[0];
	free(common);
}

/* The verdict looks for splats in the kernel log, those of the guest's kernel among them. */
static void log_line(const struct vm *vm)
{
	char line[sizeof(vm->line) + 64];
	int length = snprintf(line, sizeof(line), "%s: %s\n", vm->name, vm->line);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(vm->expected); i++)
		if (vm->expected[i] && strstr(line, vm->expected[i]))
			return;
	need(write(kmsg, line, length) == length, "/dev/kmsg");
}

/* Read until a line contains text; return false at the end of output or in time. */
static bool read_until(struct vm *vm, const char *text, double seconds)
{
	struct pollfd pollfd = { .fd = vm->out, .events = POLLIN };
	double end = now() + seconds;
	char byte;

	while (now() < end && poll(&pollfd, 1, 200) >= 0) {
		if (!pollfd.revents)
			continue;
		if (read(vm->out, &byte, 1) != 1)
			return false;
		if (byte != '\n' && vm->length < sizeof(vm->line) - 1) {
			if (byte != '\r')
				vm->line[vm->length++] = byte;
			continue;
		}
		vm->line[vm->length] = '\0';
		vm->length = 0;
		log_line(vm);
		if (strstr(vm->line, text))
			return true;
	}
	return false;
}

static void wait_for(struct vm *vm, const char *text)
{
	if (!read_until(vm, text, SECONDS))
		fail("%s: no \"%s\" from the guest; the last line was \"%s\"", vm->name, text,
		     vm->line);
}

static void send_line(int fd, const char *line)
{
	need(write(fd, line, strlen(line)) == (ssize_t)strlen(line) && write(fd, "\n", 1) == 1,
	     "cannot send \"%s\"", line);
}

/* Let QEMU do something, and expect that it succeeds, i.e. says nothing. */
static void ask(struct vm *vm, const char *format, ...)
{
	char command[96], typed[104], answer[1 << 14], *said = NULL;
	double end = now() + SECONDS;
	size_t length = 0;
	ssize_t count;
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	send_line(vm->monitor, command);
	snprintf(typed, sizeof(typed), "%s\033[K\r\n", command);
	/* It echoes the command, answers, and prompts for the next one. */
	while (!said || !strstr(said, "(qemu) ")) {
		if (now() > end || length == sizeof(answer) - 1)
			fail("%s: no answer to \"%s\"", vm->name, command);
		usleep(10000);
		count = read(vm->answers, answer + length, sizeof(answer) - 1 - length);
		length += count > 0 ? count : 0;
		answer[length] = '\0';
		said = strstr(answer, typed);
	}
	said += strlen(typed);
	if (strncmp(said, "(qemu) ", strlen("(qemu) ")))
		fail("%s: %s: %.*s", vm->name, command, (int)strcspn(said, "\r\n"), said);
}

/* Wait until the guest has done what it was told, and expect that all was right. */
static void wait_for_answer(struct vm *vm, const char *command)
{
	char text[128];

	snprintf(text, sizeof(text), "guest: %.*s: ", (int)strcspn(command, " "), command);
	wait_for(vm, text);
	if (!strstr(vm->line, ": ok"))
		fail("%s: %s", vm->name, vm->line);
}

static double tell(struct vm *vm, const char *format, ...)
{
	char command[64];
	double begin = now();
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	send_line(vm->in, command);
	wait_for_answer(vm, command);
	return now() - begin;
}

static void stop_work(struct vm *vm)
{
	send_line(vm->in, "stop");
	wait_for_answer(vm, "work");
}

/* Wait for QEMU to end by itself, with this exit status. */
static void finish(struct vm *vm, int expected)
{
	int status;

	while (read_until(vm, "\n", SECONDS))
		;
	need(waitpid(vm->pid, &status, 0) == vm->pid, "waitpid");
	if (!WIFEXITED(status) || WEXITSTATUS(status) != expected)
		fail("%s: QEMU ended with status %#x", vm->name, status);
	close(vm->in);
	close(vm->out);
	close(vm->monitor);
	close(vm->answers);
}

static void end_by_guest(struct vm *vm)
{
	send_line(vm->in, "reboot");
	finish(vm, 0);
}

/* What KVM says. */

static void debug_path(struct vm *vm, const char *file, char *path, size_t size)
{
	DIR *dir = opendir(KVM_DEBUG);
	struct dirent *entry;

	need(dir, KVM_DEBUG);
	while ((entry = readdir(dir))) {
		if (atoi(entry->d_name) == vm->pid && strchr(entry->d_name, '-')) {
			snprintf(path, size, KVM_DEBUG "/%s/%s", entry->d_name, file);
			closedir(dir);
			return;
		}
	}
	fail("%s: KVM has no statistics of its VM", vm->name);
}

static long stat_of(struct vm *vm, const char *name)
{
	char path[320];

	debug_path(vm, name, path, sizeof(path));
	return atol(read_file(path));
}

/* Guest memory that KVM maps with hugepages, in MiB. */
static long huge(struct vm *vm)
{
#ifdef __x86_64__
	return stat_of(vm, "pages_2m") * 2;
#else
	unsigned long from, to, bytes = 0;
	char path[320], line[256];
	FILE *file;

	debug_path(vm, "stage2_page_tables", path, sizeof(path));
	file = fopen(path, "re");
	need(file, "%s", path);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "0x%lx-0x%lx", &from, &to) == 2 && strstr(line, "BLK"))
			bytes += to - from;
	fclose(file);
	return bytes >> 20;
#endif
}

/* Let the guest fill memory and say how much KVM maps with hugepages then, in MiB. */
static long fill(struct vm *vm, int mib)
{
	long before = stat_of(vm, FAULTS), mapped;
	double seconds = mib == ALL ? tell(vm, "fill") : tell(vm, "fill %d", mib);

	sscanf(strstr(vm->line, ": ok"), ": ok, %d", &mib);
	mapped = huge(vm);
	printf("# %s: %ld MiB in hugepages, filled %d in %.3f s with %ld " FAULTS "\n",
	       vm->name, mapped, mib, seconds, stat_of(vm, FAULTS) - before);
	return mapped;
}

/* Compare, work on all CPUs, compare. */
static void work(struct vm *vm)
{
	tell(vm, "check");
	tell(vm, "work 2");
	tell(vm, "check");
}

static long use(struct vm *vm)
{
	long mapped = fill(vm, FILL);

	work(vm);
	return mapped;
}

/* A file descriptor of the guest_memfd that has the guest's memory. */
static int steal_gmem(struct vm *vm)
{
	char path[64], link[64];
	struct dirent *entry;
	int fd = -1, pidfd;
	ssize_t length;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", vm->pid);
	dir = opendir(path);
	need(dir, "%s", path);
	while ((entry = readdir(dir))) {
		length = readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);
		link[length < 0 ? 0 : length] = '\0';
		if (strstr(link, "kvm-gmem"))
			fd = atoi(entry->d_name);
	}
	closedir(dir);
	if (fd < 0)
		fail("QEMU has no guest_memfd");
	pidfd = syscall(SYS_pidfd_open, vm->pid, 0);
	need(pidfd >= 0, "pidfd_open");
	fd = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	need(fd >= 0, "pidfd_getfd");
	close(pidfd);
	return fd;
}

/* Wait for the guest, which must have guest_memfd if it is to have flags. */
static void wait_for_guest(struct vm *vm)
{
	wait_for(vm, "guest: hello");
	if (vm->flags)
		close(steal_gmem(vm));
}

static void boot(struct vm *vm)
{
	double begin = now();

	start(vm);
	wait_for_guest(vm);
	printf("# %s: boots in %.3f s\n", vm->name, now() - begin);
}

/* Wait until the guest's memory is down to this, in MiB. */
static void wait_until_charged(struct vm *vm, long most)
{
	double end = now() + SECONDS;

	while (charged(vm) > most) {
		if (now() > end)
			fail("%s still has %ld MiB, more than %ld", vm->name, charged(vm), most);
		usleep(200000);		/* and leave what it prints in the pipe */
	}
}

/* The rungs. */

/* With the flag, nearly all that the guest has touched is mapped huge. */
static void mostly_huge(struct vm vm)
{
	long mapped;

	boot(&vm);
	mapped = use(&vm);
	if (mapped < FILL * 9 / 10)
		fail("only %ld MiB are mapped with hugepages", mapped);
	end_by_guest(&vm);
}

static void hugepages(void)
{
	mostly_huge((struct vm){ .name = "hugepages", .flags = "hugepage", .extra = "-no-reboot" });
}

/* Without it, nothing is; the guest's memory is right all the same. */
static void pages(void)
{
	struct vm vm = { .name = "pages", .flags = "", .extra = "-no-reboot" };
	long mapped;

	boot(&vm);
	mapped = use(&vm);
	if (mapped)
		fail("%ld MiB are mapped with hugepages, without the flag", mapped);
	end_by_guest(&vm);
}

/* Of a guest that uses all of its memory, nearly all is mapped huge. */
static void whole_guest(void)
{
	struct vm vm = { .name = "whole", .flags = "hugepage", .memory = WHOLE,
		.extra = "-no-reboot" };
	long mapped;

	boot(&vm);
	mapped = fill(&vm, ALL);
	printf("# whole: %.1f %% of %d MiB in hugepages\n", mapped * 100.0 / WHOLE, WHOLE);
	work(&vm);
	if (mapped <= WHOLE * 9 / 10)
		fail("only %ld of %d MiB are mapped with hugepages", mapped, WHOLE);
	end_by_guest(&vm);
}

/* The control: the same QEMU without the library. */
static void anonymous(void)
{
	struct vm vm = { .name = "anonymous", .extra = "-no-reboot" };

	boot(&vm);
	use(&vm);
	end_by_guest(&vm);
}

/* QEMU keeps the memory of a guest that reboots.  On a PC it deletes the slots and adds new ones. */
static void guest_reboots(void)
{
	struct vm vm = { .name = "reboots", .machine = PCI_MACHINE, .flags = "hugepage" };

	boot(&vm);
	use(&vm);
	send_line(vm.in, "reboot");
	wait_for(&vm, "guest: hello");
	use(&vm);
	send_line(vm.monitor, "quit");
	finish(&vm, 0);
}

static void two_guests(void)
{
	struct vm one = { .name = "one", .flags = "hugepage", .extra = "-no-reboot" };
	struct vm two = { .name = "two", .flags = "hugepage", .extra = "-no-reboot" };

	start(&one);
	start(&two);
	wait_for_guest(&one);
	wait_for_guest(&two);
	use(&one);
	use(&two);
	tell(&one, "check");
	end_by_guest(&one);
	tell(&two, "check");
	end_by_guest(&two);
}

/* A PC has slots that firmware and BIOS areas split, move and make read-only. */
static void split_slots(void)
{
	mostly_huge((struct vm){ .name = "pc", .machine = PCI_MACHINE, .flags = "hugepage",
		    .extra = "-no-reboot" });
}

/* The host finds what the guest has stored. */
static void host_reads(void)
{
	struct vm vm = { .name = "dump", .flags = "hugepage", .extra = "-no-reboot" };
	static uint64_t page[PAGE / sizeof(uint64_t)];
	long found = 0, wrong = 0;
	FILE *file;
	size_t i;

	boot(&vm);
	fill(&vm, FILL);
	ask(&vm, "pmemsave %#x %d \"/tmp/dump\"", RAM, GUEST << 20);
	end_by_guest(&vm);
	file = fopen("/tmp/dump", "re");
	need(file, "/tmp/dump");
	while (fread(page, sizeof(page), 1, file) == 1) {
		if (page[0] != MAGIC)
			continue;
		found++;
		for (i = 2; i < ARRAY_SIZE(page); i++)
			if (page[i] - page[i - 1] != STEP)
				break;
		wrong += i < ARRAY_SIZE(page);
	}
	fclose(file);
	unlink("/tmp/dump");
	if (found != FILL << 8 || wrong)
		fail("the host sees %ld of %d pages, %ld of them wrong", found, FILL << 8, wrong);
}

/*
 * The guest gives memory up, page by page, while it works, and gets it back.  The host
 * has it in the meantime.
 */
static void balloon(void)
{
	struct vm vm = { .name = "balloon", .flags = "hugepage",
		.extra = "-no-reboot -device virtio-balloon-device" };
	long before;

	boot(&vm);
	fill(&vm, FILL);
	before = charged(&vm);
	tell(&vm, "fill 16");
	send_line(vm.in, "work");
	ask(&vm, "balloon 96");
	wait_until_charged(&vm, before - FILL / 2);
	printf("# balloon: %ld MiB in use, %ld before\n", charged(&vm), before);
	stop_work(&vm);
	tell(&vm, "check");
	ask(&vm, "balloon %d", GUEST);
	/* The guest's kernel has the pages only some time later. */
	tell(&vm, "work 5");
	use(&vm);
	end_by_guest(&vm);
}

/* The same with two CPUs, which meet the holes at once. */
static void two_cpus(void)
{
	struct vm vm = { .name = "cpus", .flags = "hugepage",
		.extra = "-smp 2 -no-reboot -device virtio-balloon-device" };
	long before;
	int i;

	boot(&vm);
	if (!strstr(vm.line, "hello: 2 CPUs"))
		fail("the guest has not two CPUs: %s", vm.line);
	fill(&vm, FILL);
	before = charged(&vm);
	tell(&vm, "fill 16");
	for (i = 0; i < 2; i++) {
		send_line(vm.in, "work");
		ask(&vm, "balloon 96");
		wait_until_charged(&vm, before - FILL / 2);
		ask(&vm, "balloon %d", GUEST);
		stop_work(&vm);
		tell(&vm, "check");
	}
	tell(&vm, "work 5");
	use(&vm);
	end_by_guest(&vm);
}

/* The limit of a guest's cgroup is so much, in bytes, above what it has. */
static long limit(struct vm *vm, long room)
{
	long most = charged_bytes(vm) + room;
	char path[64];

	snprintf(path, sizeof(path), CGROUPS "/%s/memory.max", vm->name);
	write_file(path, "%ld", most);
	return most >> 20;
}

/* A host reads memory here and there that the guest has not used yet, e.g. to dump it. */
static void read_under_limit(struct vm *vm)
{
	long before = charged(vm), after, spare = 9;
	int fd = steal_gmem(vm);
	volatile char *memory;
	size_t at;

	memory = mmap(NULL, GUEST << 20, PROT_READ, MAP_SHARED, fd, 0);
	need(memory != MAP_FAILED, "mmap");
	close(fd);
	join(vm->name);
	for (at = 0; at < GUEST << 20; at += HUGE) {
		limit(vm, NO_HUGEPAGE);
		(void)memory[at];
	}
	join(".");
	after = charged(vm);
	munmap((void *)memory, GUEST << 20);
	printf("# pressure: %ld MiB in use, %ld before\n", after, before);
	if (after > before + spare)
		fail("%ld MiB are charged, %ld before", after, before);
}

/*
 * The guest gets more and more memory, and works on it, while the limit of the VMM's
 * cgroup is too low for a hugepage, and for the guest's RAM.
 */
static void pressure(void)
{
	struct vm vm = { .name = "pressure", .flags = "hugepage", .extra = "-no-reboot" };
	long before, mapped, first, most;
	int i = 16;

	boot(&vm);
	first = fill(&vm, i);
	before = charged(&vm);
	for (; i < FILL; i++) {
		limit(&vm, NO_HUGEPAGE);
		tell(&vm, "grow 1");
	}
	mapped = huge(&vm);
	printf("# pressure: %ld MiB in use, %ld before; %ld in hugepages, %ld before\n",
	       charged(&vm), before, mapped, first);
	if (mapped != first)
		fail("%ld MiB are mapped with hugepages, %ld before", mapped, first);
	if (charged(&vm) < before + FILL / 2)
		fail("only %ld MiB are charged, %ld before", charged(&vm), before);
	read_under_limit(&vm);
	most = limit(&vm, 8 << 20);
	if (most >= GUEST)
		fail("the limit is %ld MiB", most);
	work(&vm);
	end_by_guest(&vm);
}

/* Memory is plugged into the running guest, used, and unplugged again. */
static void hot_add(void)
{
	struct vm vm = { .name = "hotadd", .machine = PCI_MACHINE, .flags = "hugepage",
		.extra = "-no-reboot -m maxmem=1G "
			 "-object memory-backend-ram,id=memory,size=" PLUG "M "
			 "-device virtio-mem-pci,id=plug,memdev=memory,requested-size=0" };
	long before, mapped, left;

	boot(&vm);
	before = fill(&vm, FILL);
	ask(&vm, "qom-set plug requested-size " PLUG "M");
	tell(&vm, "memory %d", GUEST + atoi(PLUG) * 9 / 10);
	mapped = fill(&vm, FILL + atoi(PLUG) / 2);
	tell(&vm, "check");
	if (mapped < before + atoi(PLUG) / 2 * 9 / 10)
		fail("only %ld MiB are mapped with hugepages, %ld before", mapped, before);
	left = charged(&vm) - atoi(PLUG) / 4;
	tell(&vm, "free");
	ask(&vm, "qom-set plug requested-size 0");
	wait_until_charged(&vm, left);
	printf("# hotadd: %ld MiB in use after the unplug\n", charged(&vm));
	use(&vm);
	end_by_guest(&vm);
}

/* The guest's kernel tells which memory is free, and the host takes it. */
static void free_pages(void)
{
	struct vm vm = { .name = "reports", .flags = "hugepage",
		.extra = "-no-reboot -device virtio-balloon-device,free-page-reporting=on" };
	long before;

	boot(&vm);
	fill(&vm, FILL);
	before = charged(&vm);
	tell(&vm, "free");
	wait_until_charged(&vm, before - FILL / 2);
	printf("# reports: %ld MiB in use, %ld before\n", charged(&vm), before);
	use(&vm);
	end_by_guest(&vm);
}

/* QEMU is killed while the guest works: its memory is free again. */
static void killed(void)
{
	struct vm vm = { .name = "killed", .flags = "hugepage", .extra = "" };
	long left;

	boot(&vm);
	fill(&vm, FILL);
	send_line(vm.in, "work");
	if (charged(&vm) < FILL)
		fail("only %ld MiB are charged", charged(&vm));
	need(!kill(vm.pid, SIGKILL), "kill");
	need(waitpid(vm.pid, NULL, 0) == vm.pid, "waitpid");
	left = charged(&vm);
	printf("# killed: %ld MiB left\n", left);
	if (left > 16)
		fail("%ld MiB are still charged", left);
}

/* After holes and refills, the guest has its hugepages back without noticing. */
static void collapse(void)
{
	struct vm vm = { .name = "collapse", .flags = "hugepage,migratable",
		.extra = "-no-reboot -device virtio-balloon-device" };
	struct kvm_guest_memfd_collapse range = { .size = GUEST << 20 };
	long before, between, after, usually;
	int fd;

	boot(&vm);
	before = fill(&vm, FILL);
	tell(&vm, "free");
	usually = charged(&vm);
	ask(&vm, "balloon 96");
	wait_until_charged(&vm, usually - 32);
	ask(&vm, "balloon %d", GUEST);
	tell(&vm, "work 5");
	between = fill(&vm, FILL);
	send_line(vm.in, "work");
	fd = steal_gmem(&vm);
	while (range.size) {
		if (!ioctl(fd, KVM_GUEST_MEMFD_COLLAPSE, &range))
			continue;
		need(errno == EBUSY || errno == ENOMEM, "collapse at %#llx", (long long)range.offset);
		range.offset += HUGE;		/* best effort */
		range.size -= HUGE;
	}
	close(fd);
	stop_work(&vm);
	tell(&vm, "check");
	after = huge(&vm);
	printf("# collapse: %ld MiB in hugepages, %ld after the holes, %ld before\n", after, between,
	       before);
	if (between > before / 2 || after < before * 9 / 10)
		fail("%ld MiB in hugepages, %ld after the holes, %ld before", after, between, before);
	end_by_guest(&vm);
}

/* Where QEMU has the guest's memory. */
static char *find_memory(struct vm *vm)
{
	char path[64], line[512];
	uintptr_t start, end;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/maps", vm->pid);
	file = fopen(path, "re");
	need(file, "%s", path);
	while (fgets(line, sizeof(line), file)) {
		if (strstr(line, "kvm-gmem") && sscanf(line, "%lx-%lx", &start, &end) == 2 &&
		    end - start == GUEST << 20) {
			fclose(file);
			return (char *)start;
		}
	}
	fail("QEMU has not mapped the guest's memory in one piece");
}

/*
 * Move hugepages of QEMU, and what else it has if all is true; return how many of them
 * have come from the other node.
 */
static int move(struct vm *vm, char *memory, int node, bool all)
{
	unsigned long from = 1UL << !node, to = 1UL << node;
	int before[NR_HUGE], after[NR_HUGE], nodes[NR_HUGE], i, moved = 0;
	void *pages[NR_HUGE];

	for (i = 0; i < NR_HUGE; i++) {
		pages[i] = memory + (size_t)i * HUGE;
		nodes[i] = node;
	}
	need(!syscall(SYS_move_pages, vm->pid, NR_HUGE, pages, NULL, before, 0), "move_pages");
	if (all)
		need(syscall(SYS_migrate_pages, vm->pid, 8 * sizeof(to), &from, &to) >= 0,
		     "migrate_pages");
	else
		need(syscall(SYS_move_pages, vm->pid, NR_HUGE, pages, nodes, after,
			     MPOL_MF_MOVE_ALL) >= 0, "move_pages");
	need(!syscall(SYS_move_pages, vm->pid, NR_HUGE, pages, NULL, after, 0), "move_pages");
	for (i = 0; i < NR_HUGE; i++)
		moved += before[i] == !node && after[i] == node;
	return moved;
}

/* The host moves the memory to and fro between NUMA nodes while two CPUs work on it. */
static void migrate(void)
{
	struct vm vm = { .name = "migrate", .flags = "hugepage,migratable",
		.extra = "-smp 2 -no-reboot" };
	long mapped, moved = 0, once;
	double begin;
	char *memory;
	int i;

	boot(&vm);
	fill(&vm, FILL);
	/* Only what QEMU has touched can move. */
	ask(&vm, "pmemsave %#x %d \"/dev/null\"", RAM, GUEST << 20);
	memory = find_memory(&vm);
	move(&vm, memory, 0, false);
	send_line(vm.in, "work");
	for (i = 1; i <= MOVES; i++) {
		begin = now();
		once = move(&vm, memory, i % 2, i % 4 / 2);
		printf("# migrate: %ld of %d hugepages to node %d in %.3f s\n", once, NR_HUGE,
		       i % 2, now() - begin);
		moved += once;
	}
	stop_work(&vm);
	tell(&vm, "check");
	mapped = huge(&vm);
	printf("# migrate: %ld MiB in hugepages after %ld of them have moved\n", mapped, moved);
	if (moved < MOVES * NR_HUGE * 9 / 10)
		fail("only %ld hugepages have moved", moved);
	if (mapped < FILL * 9 / 10)
		fail("only %ld MiB are mapped with hugepages", mapped);
	end_by_guest(&vm);
}

/* The host maps the bad page, too, and is told about it. */
static void on_bad_page(int signal)
{
	(void)signal;
}

/* The guest has met the bad page: it loses this page, is told so, and goes on. */
static void guest_goes_on(struct vm *vm)
{
	stop_work(vm);
	if (!strstr(vm->line, ", 1 lost"))
		tell(vm, "check");
	if (!strstr(vm->line, ", 1 lost"))
		fail("the guest was not told: %s", vm->line);
	tell(vm, "check");
	end_by_guest(vm);
}

/* On arm64 QEMU tells a guest by ACPI tables only, which need firmware.  It ends instead. */
static void vmm_ends(struct vm *vm)
{
	wait_for(vm, "Hardware memory error");
	finish(vm, 1);
	if (charged(vm) > 16)
		fail("%ld MiB are still charged", charged(vm));
}

/*
 * A page of the guest goes bad while it uses the memory: the guest never sees what is in
 * it, and the host never uses it again.
 */
static void memory_error(void)
{
	struct vm vm = { .name = "error", .flags = "hugepage", .extra = "-no-reboot",
		.expected = { "[Hardware Error]", "Guest MCE Memory Error", "Hardware memory error!" } };
	uint64_t *memory, entry, flags;
	size_t at, words = PAGE / sizeof(*memory);
	int fd, pagemap;

	signal(SIGBUS, on_bad_page);
	boot(&vm);
	fill(&vm, FILL);
	send_line(vm.in, "work");
	fd = steal_gmem(&vm);
	memory = mmap(NULL, GUEST << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	need(memory != MAP_FAILED, "mmap");
	for (at = (GUEST / 2 << 20) / PAGE; memory[at * words] != MAGIC; at++)
		if (at == (GUEST << 20) / PAGE - 1)
			fail("the host does not find the guest's pages");
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	need(pread(pagemap, &entry, 8, ((uintptr_t)memory / PAGE + at) * 8) == 8, "pagemap");
	close(pagemap);
	need(!madvise(memory + at * words, PAGE, MADV_HWPOISON), "MADV_HWPOISON");
	munmap(memory, GUEST << 20);
	close(fd);
	if (TELLS_GUEST)
		guest_goes_on(&vm);
	else
		vmm_ends(&vm);
	pagemap = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	need(pread(pagemap, &flags, 8, (entry & PFN) * 8) == 8, "kpageflags");
	close(pagemap);
	if (!(flags & 1ULL << KPF_HWPOISON) || flags & 1ULL << KPF_BUDDY)
		fail("the flags of the bad page are %#llx", (long long)flags);
}

/* Run a VMM with a variable and these arguments; expect this status, and the lines with text. */
static void try_vmm(char *program, const char *name, const char *value, const char *arguments,
		    int expected, int lines, const char *text)
{
	char *argv[MAX_ARGS] = { program }, *words = strdup(arguments);
	struct vm vm = { .name = value };
	int out[2], status, argc = 1, said = 0;

	add_words(argv, &argc, words, " ");
	need(!pipe2(out, O_CLOEXEC), "pipe");
	vm.pid = fork();
	need(vm.pid >= 0, "fork");
	if (!vm.pid) {
		dup2(out[1], 1);
		dup2(out[1], 2);
		setenv("LD_PRELOAD", "/vmm/gmem.so", 1);
		setenv(name, value, 1);
		execv(argv[0], argv);
		_exit(127);
	}
	close(out[1]);
	vm.out = out[0];
	while (read_until(&vm, text, SECONDS))
		said++;
	close(out[0]);
	need(waitpid(vm.pid, &status, 0) == vm.pid, "waitpid");
	if (said != lines || !WIFEXITED(status) || WEXITSTATUS(status) != expected)
		fail("%s=%s %s: status %#x, and %d of %d lines with \"%s\"", name, value, arguments,
		     status, said, lines, text);
	free(words);
}

static void try_qemu(const char *name, const char *value, const char *arguments, int expected,
		     int lines, const char *text)
{
	char *program = strdup(read_file("/vmm/qemu"));

	program[strcspn(program, "\n")] = '\0';
	try_vmm(program, name, value, arguments, expected, lines, text);
	free(program);
}

/* A VMM that registers memory when gmem.so cannot replace it, see calls.c. */
static void try_calls(const char *what, const char *text)
{
	try_vmm("/vmm/calls", "GMEM", "try", what, 0, 1, text);
	try_vmm("/vmm/calls", "GMEM", "require", what, 1, 1,
		"the VMM ends, because of GMEM=require");
}

/* What other VMMs do, or one that may do less. */
static void few_calls(void)
{
	const char *replaced = ": guest_memfd with hugepages";

	try_vmm("/vmm/calls", "GMEM", "require", "odd", 0, 1, replaced);
	try_vmm("/vmm/calls", "GMEM", "require", "memlock", 0, 1, replaced);
	try_vmm("/vmm/calls", "GMEM", "require", "vms", 0, 3, replaced);
	try_vmm("/vmm/calls", "GMEM", "require", "fork", 0, 1, replaced);
	try_vmm("/vmm/calls", "GMEM", "require", "again", 0, 2, replaced);
	try_vmm("/vmm/calls", "GMEM", "require", "middle", 0, 1, replaced);
	try_vmm("/vmm/calls", "GMEM", "require", "over", 0, 1, replaced);
	try_vmm("/vmm/calls", "GMEM", "require", "closed", 0, 1, replaced);
	try_vmm("/vmm/calls", "GMEM", "try", "twice", 0, 1, replaced);
#ifdef __x86_64__
	try_vmm("/vmm/calls", "GMEM", "require", "smm", 0, 1, replaced);
#endif
	try_vmm("/vmm/calls", "GMEM", "require", "log", 0, 1,
		"gmem: slot 0: KVM cannot log writes to guest_memfd, which migration needs");
}

/* Values that gmem.so does not know, a program that does not use KVM, and what KVM or mm refuse. */
static void bad_input(void)
{
	try_qemu("GMEM", "maybe", "-version", 2, 1, "gmem: GMEM must be try, require or off");
	try_qemu("GMEM_FLAGS", "hugepages", "-version", 2, 1, "gmem: GMEM_FLAGS must be a list");
	try_qemu("GMEM", "require", "-version", 0, 1,
		 "gmem: GMEM=require, but this program has created");
	try_qemu("GMEM", "off", "-version", 0, 1, "QEMU emulator version");
	try_calls("files", "cannot read /proc/self/maps: Too many open files; going on without");
	try_calls("memory", "cannot map the guest_memfd: Cannot allocate memory; going on without");
	try_calls("shared", "remains an ordinary slot: its memory is shared");
	try_calls("watched", "remains an ordinary slot: its memory is shared, of a file or hugetlb, in use");
#ifdef __x86_64__
	try_calls("private", "has no guest_memfd that a VMM can map");
	try_vmm("/vmm/calls", "GMEM", "try", "private", 0, 1, "gmem: ");
#endif
}

/* QEMU forks twice, and its child creates a VM. */
static void daemonize(void)
{
	int pid;

	try_qemu("GMEM", "require", "-nodefaults -display none -machine " MACHINE " -cpu host -m 64 "
		 "-S -accel kvm -daemonize -pidfile /tmp/pid", 0, 1, ": guest_memfd with hugepages");
	pid = atoi(read_file("/tmp/pid"));
	need(pid > 0 && !kill(pid, SIGKILL), "QEMU does not run");
}

static const struct {
	const char *name;
	void (*run)(void);
} rungs[] = {
	{ "hugepages", hugepages },
	{ "whole_guest", whole_guest },
	{ "pages", pages },
	{ "anonymous", anonymous },
	{ "guest_reboots", guest_reboots },
	{ "two_guests", two_guests },
	{ "split_slots", split_slots },
	{ "host_reads", host_reads },
	{ "balloon", balloon },
	{ "two_cpus", two_cpus },
	{ "pressure", pressure },
	{ "hot_add", hot_add },
	{ "free_pages", free_pages },
	{ "collapse", collapse },
	{ "migrate", migrate },
	{ "memory_error", memory_error },
	{ "killed", killed },
	{ "few_calls", few_calls },
	{ "bad_input", bad_input },
	{ "daemonize", daemonize },
};

int main(int argc, char **argv)
{
	const char *rung;
	size_t i;

	(void)argc;
	signal(SIGPIPE, SIG_IGN);
	setlinebuf(stdout);
	kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	need(kmsg >= 0, "/dev/kmsg");
	mkdir(CGROUPS, 0755);
	if (!mount("none", CGROUPS, "cgroup2", 0, NULL))
		write_file(CGROUPS "/cgroup.subtree_control", "+memory");
	else
		need(errno == EBUSY, CGROUPS);
	rung = strrchr(argv[0], '/');
	rung = rung ? rung + 1 : argv[0];
	for (i = 0; i < ARRAY_SIZE(rungs); i++) {
		if (!strcmp(rungs[i].name, rung)) {
			rungs[i].run();
			return 0;
		}
	}
	fail("there is no rung %s", rung);
}
