// SPDX-License-Identifier: GPL-2.0
/*
 * gmem.so: give a VMM of today memory from guest_memfd.  Preload it; see README.md.
 *
 * A VMM registers memory of its own with KVM.  When it registers memory of one of
 * its anonymous mappings for the first time, create a guest_memfd of that size, copy
 * to it what the memory has, and map it in its place.  Slots in it are then bound to
 * the file.  All other memory, and each slot that KVM refuses to bind, remains what it
 * was: an ordinary slot, which KVM reaches through the host address.
 *
 * No other thread may write to memory while the VMM registers it for the first time.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <linux/iommufd.h>
#include <linux/kvm.h>
#include <linux/magic.h>
#include <linux/userfaultfd.h>
#include <linux/vfio.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define PUBLIC __attribute__((visibility("default")))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define PAGEMAP_USED (3ULL << 62)	/* present or swapped: admin-guide/mm/pagemap.rst */
#define PAGEMAP_PAGES 512
#define SMALL (1UL << 21)
#define DONTNEED_LOCKED 24		/* MADV_DONTNEED_LOCKED, since Linux 5.18 */
#define NEEDED (GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)

/* An anonymous mapping that the VMM has made; unused if it is empty. */
struct mapping {
	uintptr_t start, end;
};

/*
 * Memory of the VMM that is a mapping of a guest_memfd now; unused without a base.  KVM
 * does not keep the file open, so a block that is mapped nowhere any more stays while a
 * slot is bound to it.
 */
struct block {
	uintptr_t start, end;
	uintptr_t base;			/* the host address of offset 0 */
	int vm, fd;
};

/* A slot; unused without a size. */
struct slot {
	int vm;
	__u32 id;
	struct block *block;		/* to which it is bound; NULL: an ordinary slot */
	__u64 gpa, size;
	uintptr_t start;		/* its host address */
};

/* A vCPU; unused if it is not mapped. */
struct vcpu {
	int vm, fd;
	struct kvm_run *run;
};

/*
 * Protects all of the following.  An allocator may call mmap() while it holds a lock of
 * its own, which fork() takes as well: don't hold this one across fork(), and allocate
 * nothing while holding it.
 */
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

/* Comes before it, and holds off fork() while slots change: KVM creates files that children inherit. */
static pthread_mutex_t no_fork = PTHREAD_MUTEX_INITIALIZER;

static struct mapping mappings[512];
static unsigned int next_mapping;
static struct block blocks[64];
static struct slot slots[1024];
static struct vcpu vcpus[1024];

static enum { TRY, REQUIRE, OFF } mode;
static __u64 wanted;
static bool seen_vm;
static unsigned int complaints;

/* Print one line. */
static void __attribute__((format(printf, 1, 2))) say(const char *format, ...)
{
	char line[512];
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(line, sizeof(line) - 1, format, args);
	va_end(args);
	length = MIN(length, (int)sizeof(line) - 2);
	line[length++] = '\n';
	if (write(STDERR_FILENO, line, length) < 0)
		return;
}

static void __attribute__((noreturn)) refuse(const char *what, const char *why)
{
	say("gmem: %s %s", what, why);
	_exit(2);
}

/* With errno, unless that is 0. */
static void lacks(const char *what, const char *why)
{
	const char *colon = errno ? ": " : "", *error = errno ? strerror(errno) : "";

	complaints++;
	if (mode == REQUIRE) {
		say("gmem: %s: %s%s%s; the VMM ends, because of GMEM=require", what, why, colon,
		    error);
		_exit(1);
	}
	say("gmem: %s: %s%s%s; going on without", what, why, colon, error);
}

static long sys_ioctl(int fd, unsigned long request, const void *arg)
{
	return syscall(SYS_ioctl, fd, request, arg);
}

static long check_extension(int fd, unsigned long capability)
{
	return syscall(SYS_ioctl, fd, KVM_CHECK_EXTENSION, capability);
}

static size_t round_up(size_t value, size_t to)
{
	return (value + to - 1) / to * to;
}

/* Take [start, end) away from a range.  Of two rests, leave the first. */
static void trim(uintptr_t *from, uintptr_t *to, uintptr_t start, uintptr_t end)
{
	if (start >= *to || end <= *from)
		return;
	if (start > *from)
		*to = start;
	else if (end < *to)
		*from = end;
	else
		*from = *to = 0;
}

/* The newest mapping comes first; the oldest is forgotten, and its memory stays as it is. */
static void remember_mapping(uintptr_t start, uintptr_t end)
{
	mappings[next_mapping++ % ARRAY_SIZE(mappings)] = (struct mapping){ start, end };
}

static void forget_mappings(uintptr_t start, uintptr_t end)
{
	struct mapping *one;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(mappings); i++) {
		one = &mappings[i];
		if (start > one->start && end < one->end)
			remember_mapping(end, one->end);
		trim(&one->start, &one->end, start, end);
	}
}

static struct mapping *find_mapping(uintptr_t start, uintptr_t end)
{
	struct mapping *one;
	size_t i;

	for (i = 1; i <= ARRAY_SIZE(mappings); i++) {
		one = &mappings[(next_mapping - i) % ARRAY_SIZE(mappings)];
		if (start >= one->start && end <= one->end)
			return one;
	}
	return NULL;
}

/*
 * Shrink the range to what is private, anonymous, readable and writable memory now,
 * around [start, end), which has to be.  Return why it is not, or NULL.
 */
static const char *shrink(uintptr_t start, uintptr_t end, struct mapping *range)
{
	uintptr_t from, to, reached = range->start;
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	static char text[1 << 13];	/* protected by the lock */
	char *line = text, *next, perms[5];
	size_t length = 0;
	unsigned long inode;
	ssize_t count;

	if (fd < 0)
		return "cannot read /proc/self/maps";
	while ((count = read(fd, text + length, sizeof(text) - 1 - length)) > 0) {
		length += count;
		text[length] = '\0';
		for (line = text; (next = strchr(line, '\n')); line = next + 1) {
			if (sscanf(line, "%lx-%lx %4s %*s %*s %lu", &from, &to, perms, &inode) != 4 ||
			    to <= reached)
				continue;
			if (from >= range->end)
				break;
			if (!strcmp(perms, "rw-p") && !inode) {
				if (from > reached && from <= start)
					range->start = from;	/* behind a hole */
				else if (from > reached)
					range->end = reached;
			} else if (to <= start) {
				range->start = to;
			} else {
				range->end = MIN(range->end, MAX(from, reached));
			}
			reached = to;
		}
		length -= line - text;
		memmove(text, line, length + 1);
	}
	close(fd);
	range->end = MIN(range->end, reached);
	return range->start <= start && range->end >= end ? NULL :
	       "it is not private anonymous memory";
}

/* Copy the pages that are in use and not zero. */
static const char *copy_used(char *to, const char *from, size_t size)
{
	static const char zeros[1 << 16];
	__u64 entries[PAGEMAP_PAGES];
	size_t page = sysconf(_SC_PAGESIZE), at = 0, i;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ssize_t count;

	if (fd < 0)
		return "cannot read /proc/self/pagemap";
	while (at < size) {
		count = MIN((size - at) / page, (size_t)PAGEMAP_PAGES) * sizeof(entries[0]);
		if (pread(fd, entries, count,
			  ((uintptr_t)from + at) / page * sizeof(entries[0])) != count) {
			close(fd);
			return "cannot read /proc/self/pagemap";
		}
		for (i = 0; i < count / sizeof(entries[0]); i++, at += page)
			if (entries[i] & PAGEMAP_USED && memcmp(from + at, zeros, page))
				memcpy(to + at, from + at, page);
	}
	close(fd);
	return NULL;
}

static const char *create(struct block *block, size_t huge)
{
	struct kvm_create_guest_memfd gmem = {
		.size = block->end - block->base,
		.flags = NEEDED | (wanted & check_extension(block->vm, KVM_CAP_GUEST_MEMFD_FLAGS)),
	};

	if (gmem.flags & GUEST_MEMFD_FLAG_ALLOW_HUGEPAGE)
		gmem.size = round_up(gmem.size, huge);
	block->fd = sys_ioctl(block->vm, KVM_CREATE_GUEST_MEMFD, &gmem);
	if (block->fd < 0)
		return "KVM_CREATE_GUEST_MEMFD failed";
	fcntl(block->fd, F_SETFD, FD_CLOEXEC);
	return NULL;
}

/* Map the file in place of the memory, whose contents stay. */
static const char *replace(struct block *block)
{
	size_t size = block->end - block->start;
	const char *why;
	void *memory;

	memory = (void *)syscall(SYS_mmap, NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
				 block->fd, block->start - block->base);
	if (memory == MAP_FAILED)
		return "cannot map the guest_memfd";
	/* A child gets no copy of shared memory; better none than the VM's own. */
	syscall(SYS_madvise, memory, size, MADV_DONTFORK);
	why = copy_used(memory, (char *)block->start, size);
	if (why) {
		syscall(SYS_munmap, memory, size);
		return why;
	}
	/* If that fails, what was mapped there may be gone. */
	if (syscall(SYS_mremap, memory, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, block->start) == -1) {
		say("gmem: cannot move a mapping: %s; the VMM ends", strerror(errno));
		_exit(1);
	}
	return NULL;
}

static struct block *find_block(uintptr_t start, uintptr_t end)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(blocks); i++)
		if (start >= blocks[i].start && end <= blocks[i].end)
			return &blocks[i];
	return NULL;
}

static struct slot *find_slot(int vm, __u32 id)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(slots); i++)
		if (slots[i].size && slots[i].vm == vm && slots[i].id == id)
			return &slots[i];
	return NULL;
}

static struct slot *unused_slot(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(slots); i++)
		if (!slots[i].size)
			return &slots[i];
	return NULL;
}

static struct block *unused_block(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(blocks); i++)
		if (!blocks[i].base)
			return &blocks[i];
	return NULL;
}

/* Whether a descriptor still is what it was: a VMM may close some that it does not know. */
static bool is_gmem(int fd)
{
	struct statfs fs;

	return !fstatfs(fd, &fs) && fs.f_type == GUEST_MEMFD_MAGIC;
}

static void drop_block(struct block *block)
{
	int fd = block->fd;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(slots); i++)
		if (slots[i].block == block)
			slots[i].block = NULL;
	*block = (struct block){};
	if (is_gmem(fd))
		close(fd);
}

/* Drop a block that is mapped nowhere, unless the guest uses its memory. */
static void drop_unused_block(struct block *block)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(slots); i++)
		if (slots[i].block == block)
			return;
	if (!block->end)
		drop_block(block);
}

/* Let the rest of a block, from start on, be a block of its own. */
static void split_block(const struct block *block, uintptr_t start)
{
	struct block *rest = unused_block();
	int fd = rest ? fcntl(block->fd, F_DUPFD_CLOEXEC, 0) : -1;

	if (fd < 0)
		return;
	*rest = *block;
	rest->start = start;
	rest->fd = fd;
}

/* The VMM has unmapped this, or mapped something else there. */
static void forget_blocks(uintptr_t start, uintptr_t end)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(blocks); i++) {
		if (!blocks[i].base)
			continue;
		if (start > blocks[i].start && end < blocks[i].end)
			split_block(&blocks[i], end);
		trim(&blocks[i].start, &blocks[i].end, start, end);
		drop_unused_block(&blocks[i]);
	}
}

/* Let KVM bind the slot to the block; return its answer. */
static long bind_slot(int vm, struct kvm_userspace_memory_region2 region, struct block *block)
{
	region.flags |= KVM_MEM_GUEST_MEMFD;
	region.guest_memfd = block->fd;
	region.guest_memfd_offset = region.userspace_addr - block->base;
	return sys_ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &region);
}

static long delete_slot(int vm, struct kvm_userspace_memory_region2 region)
{
	region.memory_size = 0;
	return sys_ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &region);
}

/* Make a block of the mapping in which the slot is, unless KVM would not bind the slot to it. */
static struct block *make_block(int vm, const struct kvm_userspace_memory_region2 *region)
{
	size_t huge = MAX(check_extension(vm, KVM_CAP_GUEST_MEMFD_HUGEPAGE_PMD_SIZE), 0);
	uintptr_t start = region->userspace_addr, end = start + region->memory_size;
	struct mapping *one = find_mapping(start, end), range;
	struct block *block = unused_block(), made = { .vm = vm };
	const char *why;
	char what[64];

	/* Firmware, video memory and the like; and what this library does not know. */
	if (!one || one->end - one->start < MAX(huge, SMALL))
		return NULL;
	range = *one;
	errno = 0;
	why = block ? shrink(start, end, &range) : "too many pieces of memory";
	made.start = range.start;
	made.end = range.end;
	made.base = range.start - (huge ? range.start % huge : 0);
	snprintf(what, sizeof(what), "%zu MiB at %#zx", (made.end - made.start) >> 20, made.start);
	if (!why)
		why = create(&made, huge);
	if (!why) {
		if (bind_slot(vm, *region, &made) || delete_slot(vm, *region))
			why = "KVM does not bind it";
		else
			why = replace(&made);
		if (why)
			close(made.fd);
	}
	forget_mappings(range.start, range.end);	/* not anonymous any more, or said once */
	if (why) {
		lacks(what, why);
		return NULL;
	}
	say("gmem: %s: guest_memfd%s", what,
	    huge && wanted & GUEST_MEMFD_FLAG_ALLOW_HUGEPAGE ? " with hugepages" : "");
	*block = made;
	return block;
}

static bool usable(int vm)
{
	return (MAX(check_extension(vm, KVM_CAP_GUEST_MEMFD_FLAGS), 0) & NEEDED) == NEEDED;
}

static long create_vm(int fd, const void *arg)
{
	long vm = sys_ioctl(fd, KVM_CREATE_VM, arg);
	size_t i;

	if (vm < 0)
		return vm;
	pthread_mutex_lock(&lock);
	seen_vm = true;
	/* Forget a VM that had this descriptor. */
	for (i = 0; i < ARRAY_SIZE(blocks); i++)
		if (blocks[i].base && blocks[i].vm == vm)
			drop_block(&blocks[i]);
	for (i = 0; i < ARRAY_SIZE(slots); i++)
		if (slots[i].size && slots[i].vm == vm)
			slots[i] = (struct slot){};
	errno = 0;
	if (!usable(vm))
		lacks("KVM", "has no guest_memfd that a VMM can map (Linux has it since 6.18)");
	else if (wanted & ~check_extension(vm, KVM_CAP_GUEST_MEMFD_FLAGS))
		lacks("KVM", "lacks something that GMEM_FLAGS asks for (default: hugepage)");
	pthread_mutex_unlock(&lock);
	return vm;
}

/* A VMM changes a slot that is bound, e.g. its flags.  KVM refuses that. */
static long change_slot(int vm, const struct kvm_userspace_memory_region2 *region,
			struct block *block)
{
	long result = bind_slot(vm, *region, block);
	static bool said;
	int why = errno;

	if (result && region->flags & KVM_MEM_LOG_DIRTY_PAGES && !said) {
		said = true;
		say("gmem: slot %u: KVM cannot log writes to guest_memfd, which migration needs",
		    region->slot);
	}
	errno = why;
	return result;
}

/*
 * Whether a slot should be bound.  KVM has no read-only slots of guest_memfd, and none that
 * log writes.  Nor does it bind memory twice, and in the upper half of its number a slot
 * has that of its address space: the second one is what x86 sees in SMM.
 */
static bool should_bind(int vm, const struct kvm_userspace_memory_region2 *region)
{
	return !region->flags && !(region->slot >> 16) && usable(vm);
}

/* Return the block for a slot, or NULL if the slot can only be an ordinary one. */
static struct block *block_for(int vm, const struct kvm_userspace_memory_region2 *region)
{
	uintptr_t start = region->userspace_addr;
	struct block *block;

	if (!should_bind(vm, region))
		return NULL;
	block = find_block(start, start + region->memory_size) ?: make_block(vm, region);
	return block && block->vm == vm ? block : NULL;
}

/* Tell once why memory is not guest_memfd, unless that was told already. */
static void complain(int vm, const struct kvm_userspace_memory_region2 *region, bool refused)
{
	static bool said;
	char what[64];

	if (!should_bind(vm, region) || region->memory_size < SMALL || (said && mode != REQUIRE))
		return;
	said = true;
	snprintf(what, sizeof(what), "slot %u remains an ordinary slot", region->slot);
	lacks(what, refused ? "KVM does not bind it" :
	      "its memory is shared, of a file or hugetlb, in use by a device, or not from mmap()");
}

static long add_slot(int vm, unsigned long request, const void *arg,
		     const struct kvm_userspace_memory_region2 *region)
{
	unsigned int before = complaints;
	struct block *block = block_for(vm, region);
	struct slot *slot = unused_slot();
	long result = -1;

	errno = 0;
	if (block && slot)
		result = bind_slot(vm, *region, block);
	if (result) {
		if (complaints == before)
			complain(vm, region, block);
		block = NULL;
		result = sys_ioctl(vm, request, arg);
	}
	if (!result && slot)
		*slot = (struct slot){ vm, region->slot, block, region->guest_phys_addr,
				       region->memory_size, region->userspace_addr };
	return result;
}

static long set_region(int vm, unsigned long request, const void *arg)
{
	struct kvm_userspace_memory_region2 region = {};
	struct block *block;
	struct slot *slot;
	bool same;
	long result;

	memcpy(&region, arg, request == KVM_SET_USER_MEMORY_REGION ?
	       sizeof(struct kvm_userspace_memory_region) : sizeof(region));
	pthread_mutex_lock(&no_fork);
	pthread_mutex_lock(&lock);
	slot = find_slot(vm, region.slot);
	block = slot ? slot->block : NULL;
	same = block && !region.flags && region.memory_size == slot->size &&
	       region.userspace_addr == slot->start;
	if (!region.memory_size) {
		result = sys_ioctl(vm, request, arg);
		if (!result && slot)
			*slot = (struct slot){};
		if (!result && block)
			drop_unused_block(block);
	} else if (same && region.guest_phys_addr == slot->gpa) {
		result = 0;	/* nothing changes, which KVM accepts of ordinary slots only */
	} else if (same) {
		/* It moves, which KVM allows for ordinary slots only. */
		*slot = (struct slot){};
		result = delete_slot(vm, region) ?: add_slot(vm, request, arg, &region);
	} else if (block) {
		result = change_slot(vm, &region, slot->block);
	} else if (slot || region.flags & KVM_MEM_GUEST_MEMFD) {
		/* An ordinary slot changes, or the VMM knows guest_memfd. */
		result = sys_ioctl(vm, request, arg);
	} else {
		result = add_slot(vm, request, arg, &region);
	}
	pthread_mutex_unlock(&lock);
	pthread_mutex_unlock(&no_fork);
	return result;
}

/* A device has these pages from now on, or somebody else fills them: they must stay where they are. */
static long leave_alone(long result, uintptr_t start, size_t size)
{
	if (result)
		return result;
	pthread_mutex_lock(&lock);
	forget_mappings(start, start + size);
	pthread_mutex_unlock(&lock);
	return result;
}

static long map_for_device(int fd, unsigned long request, const void *arg)
{
	const struct vfio_iommu_type1_dma_map *vfio = arg;
	const struct iommu_ioas_map *ioas = arg;
	const struct uffdio_register *uffd = arg;
	long result = sys_ioctl(fd, request, arg);

	switch (request) {
	case VFIO_IOMMU_MAP_DMA:
		return leave_alone(result, vfio->vaddr, vfio->size);
	case IOMMU_IOAS_MAP:
		return leave_alone(result, ioas->user_va, ioas->length);
	}
	return leave_alone(result, uffd->range.start, uffd->range.len);
}

static long create_vcpu(int vm, const void *arg)
{
	long fd = sys_ioctl(vm, KVM_CREATE_VCPU, arg);
	struct vcpu *vcpu = NULL;
	size_t i;

	if (fd < 0)
		return fd;
	pthread_mutex_lock(&lock);
	for (i = 0; i < ARRAY_SIZE(vcpus); i++) {
		if (vcpus[i].vm && vcpus[i].fd == fd)
			vcpus[i].vm = 0;	/* the descriptor is of another vCPU now */
		if (!vcpus[i].vm)
			vcpu = &vcpus[i];
	}
	if (vcpu)
		*vcpu = (struct vcpu){ vm, fd, NULL };
	pthread_mutex_unlock(&lock);
	return fd;
}

/* Return the host address at which the guest has met a memory error, or 0. */
static uintptr_t bad_address(int fd)
{
	struct kvm_run *run = NULL;
	uintptr_t address = 0;
	__u64 gpa;
	int vm = 0;
	size_t i;

	pthread_mutex_lock(&lock);
	for (i = 0; i < ARRAY_SIZE(vcpus); i++) {
		if (vcpus[i].vm && vcpus[i].fd == fd) {
			run = vcpus[i].run;
			vm = vcpus[i].vm;
		}
	}
	if (run && run->exit_reason == KVM_EXIT_MEMORY_FAULT) {
		gpa = run->memory_fault.gpa;
		for (i = 0; i < ARRAY_SIZE(slots); i++)
			if (slots[i].block && slots[i].vm == vm && gpa >= slots[i].gpa &&
			    gpa - slots[i].gpa < slots[i].size)
				address = slots[i].start + (gpa - slots[i].gpa);
	}
	pthread_mutex_unlock(&lock);
	return address;
}

/*
 * For other memory KVM sends SIGBUS to the vCPU's thread when its guest meets a memory
 * error, and a VMM can tell the guest.  For guest_memfd KVM_RUN fails, which no VMM
 * expects that does not know guest_memfd.
 */
static long run_vcpu(int fd, const void *arg)
{
	long result = sys_ioctl(fd, KVM_RUN, arg);
	siginfo_t info = { .si_signo = SIGBUS, .si_code = BUS_MCEERR_AR };
	uintptr_t address;

	if (result >= 0 || errno != EHWPOISON)
		return result;
	address = bad_address(fd);
	if (!address) {
		errno = EHWPOISON;
		return result;
	}
	info.si_addr = (void *)address;
	info.si_addr_lsb = __builtin_ctzl(sysconf(_SC_PAGESIZE));
	syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGBUS, &info);
	errno = EINTR;
	return -1;
}

PUBLIC int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (mode == OFF)
		return sys_ioctl(fd, request, arg);
	switch (request) {
	case KVM_RUN:
		return run_vcpu(fd, arg);
	case KVM_CREATE_VCPU:
		return create_vcpu(fd, arg);
	case KVM_CREATE_VM:
		return create_vm(fd, arg);
	case KVM_SET_USER_MEMORY_REGION:
	case KVM_SET_USER_MEMORY_REGION2:
		return set_region(fd, request, arg);
	case VFIO_IOMMU_MAP_DMA:
	case IOMMU_IOAS_MAP:
	case UFFDIO_REGISTER:
		return map_for_device(fd, request, arg);
	}
	return sys_ioctl(fd, request, arg);
}

PUBLIC void *mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset)
{
	long result = syscall(SYS_mmap, addr, size, prot, flags, fd, offset);
	uintptr_t start = result, end = start + round_up(size, sysconf(_SC_PAGESIZE));
	size_t i;

	if (result == -1 || mode == OFF)
		return (void *)result;
	pthread_mutex_lock(&lock);
	forget_mappings(start, end);
	forget_blocks(start, end);
	if (flags & MAP_ANONYMOUS && !(flags & MAP_SHARED) && size >= SMALL)
		remember_mapping(start, end);
	for (i = 0; i < ARRAY_SIZE(vcpus) && !(flags & MAP_ANONYMOUS) && !offset; i++)
		if (vcpus[i].vm && vcpus[i].fd == fd)
			vcpus[i].run = (struct kvm_run *)result;
	pthread_mutex_unlock(&lock);
	return (void *)result;
}

PUBLIC void *mmap64(void *addr, size_t size, int prot, int flags, int fd, off_t offset)
{
	return mmap(addr, size, prot, flags, fd, offset);
}

PUBLIC int munmap(void *addr, size_t size)
{
	uintptr_t start = (uintptr_t)addr, end = start + round_up(size, sysconf(_SC_PAGESIZE));
	int result;

	if (mode == OFF)
		return syscall(SYS_munmap, addr, size);
	/* Nobody else must map and register memory there before it is forgotten. */
	pthread_mutex_lock(&lock);
	result = syscall(SYS_munmap, addr, size);
	if (!result) {
		forget_mappings(start, end);
		forget_blocks(start, end);
	}
	pthread_mutex_unlock(&lock);
	return result;
}

PUBLIC void *mremap(void *old, size_t old_size, size_t size, int flags, ...)
{
	size_t page = sysconf(_SC_PAGESIZE);
	uintptr_t from = (uintptr_t)old, to;
	bool known;
	va_list args;
	long result;

	va_start(args, flags);
	to = flags & MREMAP_FIXED ? va_arg(args, uintptr_t) : 0;
	va_end(args);
	if (mode == OFF)
		return (void *)syscall(SYS_mremap, old, old_size, size, flags, to);
	pthread_mutex_lock(&lock);
	result = syscall(SYS_mremap, old, old_size, size, flags, to);
	if (result != -1) {
		to = result;
		known = find_mapping(from, from + round_up(old_size, page));
		forget_mappings(from, from + round_up(old_size, page));
		forget_blocks(from, from + round_up(old_size, page));
		forget_mappings(to, to + round_up(size, page));
		forget_blocks(to, to + round_up(size, page));
		if (known)
			remember_mapping(to, to + round_up(size, page));
	}
	pthread_mutex_unlock(&lock);
	return (void *)result;
}

/* Memory that the VMM gives up, e.g. for a balloon: only a hole in the file frees it. */
PUBLIC int madvise(void *addr, size_t size, int advice)
{
	uintptr_t start = (uintptr_t)addr, end, from, to;
	int result = syscall(SYS_madvise, addr, size, advice);
	struct block *block;
	size_t i;

	if (result || mode == OFF || (advice != MADV_DONTNEED && advice != DONTNEED_LOCKED))
		return result;
	end = start + round_up(size, sysconf(_SC_PAGESIZE));
	pthread_mutex_lock(&lock);
	for (i = 0; i < ARRAY_SIZE(blocks) && !result; i++) {
		block = &blocks[i];
		from = MAX(start, block->start);
		to = MIN(end, block->end);
		if (from < to && is_gmem(block->fd))
			result = fallocate(block->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					   from - block->base, to - from);
	}
	pthread_mutex_unlock(&lock);
	return result;
}

static void before_fork(void)
{
	pthread_mutex_lock(&no_fork);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&no_fork);
}

/* A child has neither the VMs nor the memory of its parent; it must not punch holes in it. */
static void in_child(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(blocks); i++)
		if (blocks[i].base)
			drop_block(&blocks[i]);
	/* Another thread of the parent may have held it, and does not exist here. */
	lock = (pthread_mutex_t)PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
	no_fork = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

static void __attribute__((constructor)) begin(void)
{
	static const struct {
		const char *name;
		__u64 flag;
	} flags[] = {
		{ "hugepage", GUEST_MEMFD_FLAG_ALLOW_HUGEPAGE },
		{ "migratable", GUEST_MEMFD_FLAG_MIGRATABLE },
	};
	const char *asked = getenv("GMEM"), *names = getenv("GMEM_FLAGS");
	size_t length, i;

	if (asked && !strcmp(asked, "require"))
		mode = REQUIRE;
	else if (asked && !strcmp(asked, "off"))
		mode = OFF;
	else if (asked && strcmp(asked, "try"))
		refuse("GMEM", "must be try, require or off");
	for (names = names ? names : "hugepage"; *names; names += length + !!names[length]) {
		length = strcspn(names, ",");
		for (i = 0; i < ARRAY_SIZE(flags); i++)
			if (!strncmp(names, flags[i].name, length) && !flags[i].name[length])
				break;
		if (i == ARRAY_SIZE(flags))
			refuse("GMEM_FLAGS", "must be a list of hugepage and migratable");
		wanted |= flags[i].flag;
	}
	pthread_atfork(before_fork, after_fork, in_child);
}

static void __attribute__((destructor)) end(void)
{
	if (mode == REQUIRE && !seen_vm)
		say("gmem: GMEM=require, but this program has created no VM; does it use KVM?");
}
