// SPDX-License-Identifier: GPL-2.0
/*
 * The calls of a VMM, for what QEMU cannot be made to do.  It registers memory of
 * which gmem.so can replace:
 *
 *	odd	all, although it begins and ends in the middle of hugepages
 *	files	nothing, because no file can be opened
 *	memory	nothing, because nothing can be mapped
 *	shared	nothing, because other processes could have mapped it
 *	private	nothing, because the VM has no guest_memfd that can be mapped
 *
 * It succeeds if KVM takes the memory, and if the contents stay.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <fcntl.h>
#include <unistd.h>
#include <linux/kvm.h>

#define SIZE (16UL << 20)
#define PAGE 4096
#define HUGE (2UL << 20)
#define FIRST (3 * PAGE)
#define BYTES (SIZE - 8 * PAGE)

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

int main(int argc, char **argv)
{
	struct kvm_userspace_memory_region region = { .memory_size = BYTES };
	const char *what = argc > 1 ? argv[1] : "";
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, i;
	/* KVM_X86_SW_PROTECTED_VM, whose guest_memfd cannot be mapped. */
	long type = !strcmp(what, "private");
	int flags = !strcmp(what, "shared") ? MAP_SHARED : MAP_PRIVATE;
	char *memory;

	memory = mmap(NULL, SIZE + HUGE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED) {
		perror("mmap");
		return 3;
	}
	memory += -(uintptr_t)memory % HUGE;
	for (i = 0; i < (int)(SIZE / PAGE); i++)
		memory[i * PAGE] = i % 127;
	vm = ioctl(kvm, KVM_CREATE_VM, type);
	if (vm < 0) {
		perror("KVM_CREATE_VM");
		return 3;
	}
	region.userspace_addr = (uintptr_t)memory + FIRST;
	if (!strcmp(what, "files"))
		limit(RLIMIT_NOFILE, vm + 1);
	if (!strcmp(what, "memory"))
		limit(RLIMIT_AS, used() + (1 << 20));
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region)) {
		perror("KVM_SET_USER_MEMORY_REGION");
		return 4;
	}
	for (i = 0; i < (int)(SIZE / PAGE); i++)
		if (memory[i * PAGE] != i % 127) {
			printf("page %d has changed\n", i);
			return 5;
		}
	return 0;
}
