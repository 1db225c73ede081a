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

#define SIZE (16UL << 20)
#define PAGE 4096
#define HUGE (2UL << 20)
#define FIRST (3 * PAGE)
#define BYTES (SIZE - 8 * PAGE)
#define NOBODY 65534

static int kvm;

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

	memory = mmap(NULL, SIZE + HUGE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		fail("mmap", 3);
	memory += -(uintptr_t)memory % HUGE;
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

static int set_region(int vm, char *memory, __u32 flags)
{
	struct kvm_userspace_memory_region region = {
		.flags = flags,
		.memory_size = BYTES,
		.userspace_addr = (uintptr_t)memory + FIRST,
	};

	return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
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
		if (!set_region(vm, memory, KVM_MEM_LOG_DIRTY_PAGES) || errno != EINVAL)
			fail("KVM_MEM_LOG_DIRTY_PAGES", 6);
}

static void add_vms(int first)
{
	char *second_memory = make_memory(MAP_PRIVATE), *third_memory = make_memory(MAP_PRIVATE);
	int third;

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

static void fork_child(char *memory)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(be_child(memory));
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		fail("fork", 3);
	if (status) {
		printf("the child ended with status %#x\n", status);
		exit(6);
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	char *memory = make_memory(!strcmp(what, "shared") ? MAP_SHARED : MAP_PRIVATE);
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
	add(vm, memory);
	if (!strcmp(what, "log"))
		log_writes(vm, memory);
	if (!strcmp(what, "vms"))
		add_vms(vm);
	if (!strcmp(what, "fork"))
		fork_child(memory);
	check(memory);
	return 0;
}
