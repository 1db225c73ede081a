// SPDX-License-Identifier: GPL-2.0
/*
 * The calls of a VMM, for what QEMU cannot be made to do.  It registers memory of
 * which gmem.so can replace:
 *
 *	odd	all, although it begins and ends in the middle of hugepages
 *	memlock	all, although a user who is not root may not lock any memory
 *	log	all, before the VMM asks twice that writes to it are logged
 *	vms	all of two VMs, and of a third one that has the descriptor of the first
 *	fork	all, before a child gives up what it has there
 *	again	all, before the VMM sets the same slot again, and moves it
 *	smm	all, before the VMM registers it for a second address space
 *	middle	all, before the VMM maps something else in the middle
 *	over	all, before the VMM maps something else over it, and deletes the slot
 *	closed	all, before the VMM closes the file and opens another in its place
 *	twice	all, before the VMM registers other memory at the same guest address
 *	watched	nothing, because userfaultfd has it
 *	files	nothing, because no file can be opened
 *	memory	nothing, because nothing can be mapped
 *	shared	nothing, because other processes could have mapped it
 *	private	nothing, because the VM has no guest_memfd that can be mapped
 *
 * It succeeds if KVM takes the memory, and if the contents stay.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define SIZE (16UL << 20)
#define PAGE 4096
#define HUGE (2UL << 20)
#define FIRST (3 * PAGE)
#define BYTES (SIZE - 8 * PAGE)
#define NOBODY 65534

static int kvm;
static char *mapping;		/* the newest, with what is around the memory */
static int uffd;

static void __attribute__((noreturn)) fail(const char *what, int status)
{
	perror(what);
	exit(status);
}

static void limit(int resource, rlim_t most)
{
	if (setrlimit(resource, &(struct rlimit){ most, most }))
		perror("setrlimit");
}

/* The size of the address space, in bytes. */
static rlim_t used(void)
{
	unsigned long pages = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	if (!file || fscanf(file, "%lu", &pages) != 1)
		perror("statm");
	if (file)
		fclose(file);
	return (rlim_t)pages * sysconf(_SC_PAGESIZE);
}

static char *make_memory(int flags)
{
	char *memory;
	size_t i;

	mapping = mmap(NULL, SIZE + HUGE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
	if (mapping == MAP_FAILED)
		fail("mmap", 3);
	memory = mapping + -(uintptr_t)mapping % HUGE;
	for (i = 0; i < SIZE / PAGE; i++)
		memory[i * PAGE] = i % 127;
	return memory;
}

static void check(const char *memory)
{
	size_t i;

	for (i = 0; i < SIZE / PAGE; i++) {
		if (memory[i * PAGE] == (char)(i % 127))
			continue;
		printf("page %zu has changed\n", i);
		exit(5);
	}
}

static int create_vm(long type)
{
	int vm = ioctl(kvm, KVM_CREATE_VM, type);

	if (vm < 0)
		fail("KVM_CREATE_VM", 3);
	return vm;
}

static int set_slot(int vm, __u32 slot, char *memory, __u32 flags, __u64 gpa, size_t size)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)memory + FIRST,
	};

	return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

static int set_region(int vm, char *memory, __u32 flags)
{
	return set_slot(vm, 0, memory, flags, 0, BYTES);
}

static void need(int holds, const char *what)
{
	if (!holds)
		fail(what, 6);
}

static void add(int vm, char *memory)
{
	if (set_region(vm, memory, 0))
		fail("KVM_SET_USER_MEMORY_REGION", 4);
}

/* All that the user may do is to go on with what is open. */
static void lock_nothing(void)
{
	limit(RLIMIT_MEMLOCK, 0);
	if (setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY))
		fail("setresuid", 3);
	/* So that /proc/self belongs to the user. */
	if (prctl(PR_SET_DUMPABLE, 1))
		fail("prctl", 3);
}

static void log_writes(int vm, char *memory)
{
	int i;

	for (i = 0; i < 2; i++)
		need(set_region(vm, memory, KVM_MEM_LOG_DIRTY_PAGES) && errno == EINVAL,
		     "KVM_MEM_LOG_DIRTY_PAGES");
}

static void add_vms(int first, char *memory)
{
	char *second_memory = make_memory(MAP_PRIVATE), *third_memory = make_memory(MAP_PRIVATE);
	int third;

	(void)memory;
	add(create_vm(0), second_memory);
	close(first);
	third = create_vm(0);
	if (third != first)
		fail("the descriptor is not that of the first VM", 6);
	add(third, third_memory);
	check(second_memory);
	check(third_memory);
}

/* A child does not have the memory, and what it has there instead is its own. */
static int be_child(char *memory)
{
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
	int fds[2];

	if (pipe(fds) || write(fds[1], memory + FIRST, 1) != -1 || errno != EFAULT)
		return 1;
	/* Without a call that gmem.so sees. */
	if (syscall(SYS_mmap, memory, SIZE, prot, flags, -1, 0L) != (long)memory)
		return 2;
	memory[FIRST] = 1;
	return madvise(memory, SIZE, MADV_DONTNEED) || memory[FIRST] ? 3 : 0;
}

static void fork_child(int vm, char *memory)
{
	int status;
	pid_t pid = fork();

	(void)vm;
	if (!pid)
		_exit(be_child(memory));
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		fail("fork", 3);
	if (status) {
		printf("the child ended with status %#x\n", status);
		exit(6);
	}
}

/* KVM lets the VMM do both with ordinary slots. */
static void set_again(int vm, char *memory)
{
	add(vm, memory);
	need(!set_slot(vm, 0, memory, 0, 2 * SIZE, BYTES), "cannot move the slot");
	need(!set_slot(vm, 1, make_memory(MAP_PRIVATE), 0, 0, BYTES), "nothing is left behind");
}

static void add_for_smm(int vm, char *memory)
{
	need(!set_slot(vm, 1 << 16, memory, 0, 0, BYTES), "cannot add the slot once more");
}

/* Return a descriptor of a guest_memfd, or -1. */
static int find_gmem(void)
{
	char path[32], name[64];
	ssize_t length;
	int fd;

	for (fd = 0; fd < 64; fd++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		length = readlink(path, name, sizeof(name) - 1);
		name[length > 0 ? length : 0] = '\0';
		if (strstr(name, "kvm-gmem"))
			return fd;
	}
	return -1;
}

/* Something else takes the place of a page.  Behind it, memory that is given up is still freed. */
static void map_in_the_middle(int vm, char *memory)
{
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
	char *page = memory + 127 * 8 * PAGE, *behind = memory + 127 * 16 * PAGE;

	(void)vm;
	need(mmap(page, PAGE, prot, flags, -1, 0) == page, "mmap");
	*behind = 1;
	need(!madvise(behind, PAGE, MADV_DONTNEED) && !*behind, "behind it, nothing is freed");
}

/* The guest has the memory as long as the slot is there. */
static void map_over(int vm, char *memory)
{
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
	size_t i;

	need(mmap(mapping, SIZE + HUGE, prot, flags, -1, 0) == mapping, "mmap");
	for (i = 0; i < SIZE / PAGE; i++)
		memory[i * PAGE] = i % 127;
	need(find_gmem() >= 0, "the slot has lost its memory");
	need(!set_slot(vm, 0, memory, 0, 0, 0), "cannot delete the slot");
	need(find_gmem() < 0, "the memory is never freed");
}

/* What the VMM has opened meanwhile must not get a hole. */
static void close_file(int vm, char *memory)
{
	int fd = find_gmem(), other = memfd_create("other", 0);
	char byte = 7;

	(void)vm;
	need(fd >= 0 && other >= 0 && dup2(other, fd) == fd, "dup2");
	need(pwrite(fd, &byte, 1, 0) == 1 && !ftruncate(fd, SIZE), "pwrite");
	need(!madvise(memory, SIZE, MADV_DONTNEED), "madvise");
	need(pread(other, &byte, 1, 0) == 1 && byte == 7, "the hole is in the wrong file");
}

/* KVM refuses that, so the memory stays as it was, and is that of a child, too. */
static void add_twice(int vm, char *memory)
{
	char *other = make_memory(MAP_PRIVATE);

	(void)memory;
	need(set_slot(vm, 1, other, 0, 0, BYTES) == -1 && errno == EEXIST, "two slots overlap");
	check(other);
}

static void watch(char *memory)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register area = {
		.range = { (uintptr_t)memory, SIZE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	need(uffd >= 0 && !ioctl(uffd, UFFDIO_API, &api) && !ioctl(uffd, UFFDIO_REGISTER, &area),
	     "userfaultfd");
}

/* A page that is given up is still its own to fill. */
static void fill_page(int vm, char *memory)
{
	struct uffdio_zeropage zero = { .range = { (uintptr_t)memory, PAGE } };

	(void)vm;
	need(!madvise(memory, PAGE, MADV_DONTNEED) && !ioctl(uffd, UFFDIO_ZEROPAGE, &zero),
	     "userfaultfd has lost the memory");
}

/* What happens once KVM has the memory. */
static const struct {
	const char *name;
	void (*run)(int vm, char *memory);
} cases[] = {
	{ "log", log_writes },
	{ "vms", add_vms },
	{ "fork", fork_child },
	{ "again", set_again },
	{ "smm", add_for_smm },
	{ "middle", map_in_the_middle },
	{ "over", map_over },
	{ "closed", close_file },
	{ "twice", add_twice },
	{ "watched", fill_page },
};

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	char *memory = make_memory(!strcmp(what, "shared") ? MAP_SHARED : MAP_PRIVATE);
	size_t i;
	int vm;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (!strcmp(what, "memlock"))
		lock_nothing();
	/* KVM_X86_SW_PROTECTED_VM, whose guest_memfd cannot be mapped. */
	vm = create_vm(!strcmp(what, "private"));
	if (!strcmp(what, "files"))
		limit(RLIMIT_NOFILE, vm + 1);
	if (!strcmp(what, "memory"))
		limit(RLIMIT_AS, used() + (1 << 20));
	if (!strcmp(what, "watched"))
		watch(memory);
	add(vm, memory);
	for (i = 0; i < ARRAY_SIZE(cases); i++)
		if (!strcmp(cases[i].name, what))
			cases[i].run(vm, memory);
	check(memory);
	return 0;
}
