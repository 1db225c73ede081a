// SPDX-License-Identifier: GPL-2.0
/*
 * What guest_memfd costs, beside shmem, hugetlb and anonymous memory: one group of
 * measurements per name of this program, a line per figure:
 *
 *	# <operation>/<memory>/<size>: <count>
 *
 * A figure is the smallest of all rounds; in each round, the measurements of the group run
 * in another order.  The counter is the one that user space can read, which counts
 * instructions when QEMU runs with -icount shift=0, see bench.toml.
 *
 * The kernel without the series runs only the group "plain", which comes first.  So both
 * kernels have run the same calls in the same order whenever their figures are compared.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/kvm.h>
#include <linux/mman.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define PAGE 4096UL
#define HUGE (2UL << 20)
#define SEED 20261129
#define MAX_MEASUREMENTS 64
#define CODE_GPA 0x1000UL
#define DATA_GPA (1UL << 30)
#define MMIO_GPA 0x100000UL		/* no slot is there */

#ifdef __x86_64__
#define FAULTS "pf_taken"
#else
#define FAULTS "exits"			/* KVM on arm64 does not count faults */
#endif

enum kind { NONE, GMEM, GMEM_HUGE, GMEM_MOVABLE, SHMEM, HUGETLB, ANON, NR_KINDS };

static const char *const names[NR_KINDS] = {
	"none", "gmem", "gmem-huge", "gmem-movable", "shmem-huge", "hugetlb", "anon-thp",
};

struct memory {
	enum kind kind;
	size_t size;
	int fd;
	char *host;
	/* The VM that uses it, if any. */
	int vm, vcpu;
	struct kvm_run *run;
	size_t run_size;
	char *code;
};

/* Measure one operation on fresh memory. */
struct measurement {
	const char *operation;
	uint64_t (*run)(struct memory *memory);
	enum kind kind;
	size_t size;
	int rounds;
	uint64_t best;
};

static int kvm;

static void __attribute__((format(printf, 1, 2), noreturn)) fail(const char *format, ...)
{
	va_list args;

	/* init quotes the line after this one as the reason. */
	printf("==== Test Assertion Failure ====\n  ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf(": %s\n", strerror(errno));
	exit(1);
}

#define need(condition, format, ...) do {					\
	if (!(condition))							\
		fail(format, ##__VA_ARGS__);					\
} while (0)

#ifdef __x86_64__

/* With -icount shift=0, the TSC counts instructions. */
static uint64_t now(void)
{
	return __builtin_ia32_rdtsc();
}

/* As clear_page() does on the CPU of this boot. */
static void clear(void *memory, size_t size)
{
	size_t count = size / 8;

	asm volatile("rep stosq" : "+D" (memory), "+c" (count) : "a" (0) : "memory");
}

/* start: mov %eax,(%edi); add %ebx,%edi; dec %ecx; jnz start; hlt; jmp start */
static const unsigned char code[] = {
	0x89, 0x07, 0x01, 0xdf, 0x49, 0x75, 0xf9, 0xf4, 0xeb, 0xf6,
};

static void set_up_vcpu(struct memory *memory)
{
	struct kvm_regs regs = { .rip = CODE_GPA, .rflags = 2, .rbx = PAGE };
	struct kvm_segment *flat, *segments[3];
	struct kvm_sregs sregs;
	size_t i;

	need(!ioctl(memory->vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	segments[0] = &sregs.cs;
	segments[1] = &sregs.ds;
	segments[2] = &sregs.ss;
	for (i = 0; i < ARRAY_SIZE(segments); i++) {
		flat = segments[i];
		flat->base = 0;
		flat->limit = 0xffffffff;
		flat->g = 1;
		flat->db = 1;
		flat->s = 1;
		flat->present = 1;
		flat->type = i ? 3 : 11;
		flat->selector = (i + 1) * 8;
	}
	sregs.es = sregs.ds;
	sregs.cr0 |= 1;
	need(!ioctl(memory->vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	need(!ioctl(memory->vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

/* Let the guest write to the first word of @pages pages. */
static void set_guest_loop(struct memory *memory, size_t pages)
{
	struct kvm_regs regs;

	need(!ioctl(memory->vcpu, KVM_GET_REGS, &regs), "KVM_GET_REGS");
	regs.rdi = DATA_GPA;
	regs.rcx = pages;
	need(!ioctl(memory->vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

static bool guest_is_done(struct kvm_run *run)
{
	return run->exit_reason == KVM_EXIT_HLT;
}

#else

static uint64_t now(void)
{
	uint64_t count, hertz;

	asm volatile("isb; mrs %0, cntvct_el0" : "=r" (count) : : "memory");
	asm volatile("mrs %0, cntfrq_el0" : "=r" (hertz));
	return count * (1000000000 / hertz);
}

static void clear(void *memory, size_t size)
{
	char *at = memory, *end = at + size;
	uint64_t zva;

	asm volatile("mrs %0, dczid_el0" : "=r" (zva));
	for ( ; at < end; at += 4UL << (zva & 15))
		asm volatile("dc zva, %0" : : "r" (at) : "memory");
}

/* start: str w0, [x1]; add x1, x1, x2; subs x3, x3, #1; b.ne start; str w0, [x4]; b start */
static const uint32_t code[] = {
	0xb9000020, 0x8b020021, 0xf1000463, 0x54ffffa1, 0xb9000080, 0x17fffffb,
};

static void set_reg(struct memory *memory, uint64_t id, uint64_t value)
{
	struct kvm_one_reg reg = { .id = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | id,
				   .addr = (uintptr_t)&value };

	need(!ioctl(memory->vcpu, KVM_SET_ONE_REG, &reg), "KVM_SET_ONE_REG");
}

#define X(n) KVM_REG_ARM_CORE_REG(regs.regs[n])

static void set_up_vcpu(struct memory *memory)
{
	struct kvm_vcpu_init init;

	need(!ioctl(memory->vm, KVM_ARM_PREFERRED_TARGET, &init), "KVM_ARM_PREFERRED_TARGET");
	need(!ioctl(memory->vcpu, KVM_ARM_VCPU_INIT, &init), "KVM_ARM_VCPU_INIT");
	set_reg(memory, KVM_REG_ARM_CORE_REG(regs.pc), CODE_GPA);
	set_reg(memory, X(2), PAGE);
	set_reg(memory, X(4), MMIO_GPA);
}

static void set_guest_loop(struct memory *memory, size_t pages)
{
	set_reg(memory, X(1), DATA_GPA);
	set_reg(memory, X(3), pages);
}

static bool guest_is_done(struct kvm_run *run)
{
	return run->exit_reason == KVM_EXIT_MMIO && run->mmio.phys_addr == MMIO_GPA;
}

#endif

static bool is_gmem(enum kind kind)
{
	return kind == GMEM || kind == GMEM_HUGE || kind == GMEM_MOVABLE;
}

/* Without the series, the kernel's headers have no hugepages and no migration. */
#ifdef GUEST_MEMFD_FLAG_ALLOW_HUGEPAGE
#define WITH_SERIES true
#else
#define WITH_SERIES false
#define GUEST_MEMFD_FLAG_ALLOW_HUGEPAGE 0
#define GUEST_MEMFD_FLAG_MIGRATABLE 0
#endif

static uint64_t gmem_flags(enum kind kind)
{
	uint64_t flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;

	if (kind != GMEM)
		flags |= GUEST_MEMFD_FLAG_ALLOW_HUGEPAGE;
	if (kind == GMEM_MOVABLE)
		flags |= GUEST_MEMFD_FLAG_MIGRATABLE;
	return flags;
}

static void set_slot(struct memory *memory, int slot, uint64_t gpa, size_t size, void *host, int fd)
{
	struct kvm_userspace_memory_region2 region = {
		.slot = slot, .guest_phys_addr = gpa, .memory_size = size,
		.userspace_addr = (uintptr_t)host,
	};

	if (fd >= 0) {
		region.flags = KVM_MEM_GUEST_MEMFD;
		region.guest_memfd = fd;
	}
	need(!ioctl(memory->vm, KVM_SET_USER_MEMORY_REGION2, &region), "slot %d", slot);
}

static void bind(struct memory *memory, size_t size)
{
	set_slot(memory, 1, DATA_GPA, size, memory->host, is_gmem(memory->kind) ? memory->fd : -1);
}

static void make_vm(struct memory *memory)
{
	int size;

	memory->vm = ioctl(kvm, KVM_CREATE_VM, 0);
	need(memory->vm >= 0, "KVM_CREATE_VM");
	memory->code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	need(memory->code != MAP_FAILED, "mmap");
	memcpy(memory->code, code, sizeof(code));
	set_slot(memory, 0, CODE_GPA, PAGE, memory->code, -1);
	memory->vcpu = ioctl(memory->vm, KVM_CREATE_VCPU, 0);
	need(memory->vcpu >= 0, "KVM_CREATE_VCPU");
	size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	need(size > 0, "KVM_GET_VCPU_MMAP_SIZE");
	memory->run_size = size;
	memory->run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory->vcpu, 0);
	need(memory->run != MAP_FAILED, "mmap of the vCPU");
	set_up_vcpu(memory);
}

/* For memfd_create(), too. */
static void use_shmem_hugepages(void)
{
	int fd = open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", O_WRONLY | O_CLOEXEC);

	need(fd >= 0 && write(fd, "always", 6) == 6, "shmem_enabled");
	close(fd);
}

static void make(struct memory *memory)
{
	int flags = memory->kind == ANON ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	uintptr_t at;
	char *room;

	memory->fd = -1;
	if (memory->kind == NONE)
		return;
	make_vm(memory);
	if (is_gmem(memory->kind)) {
		struct kvm_create_guest_memfd create = {
			.size = memory->size, .flags = gmem_flags(memory->kind),
		};

		memory->fd = ioctl(memory->vm, KVM_CREATE_GUEST_MEMFD, &create);
	} else if (memory->kind != ANON) {
		memory->fd = memfd_create("bench", memory->kind == HUGETLB ? MFD_HUGETLB : 0);
		if (memory->fd >= 0)
			need(!ftruncate(memory->fd, memory->size), "ftruncate");
	}
	need(memory->kind == ANON || memory->fd >= 0, "memory of kind %s", names[memory->kind]);
	/* Aligned for all, whether the kernel does that by itself or not. */
	room = mmap(NULL, memory->size + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	need(room != MAP_FAILED, "mmap");
	at = ((uintptr_t)room + HUGE - 1) & ~(HUGE - 1);
	munmap(room, memory->size + HUGE);
	memory->host = mmap((void *)at, memory->size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, memory->fd, 0);
	need(memory->host != MAP_FAILED, "mmap of %s", names[memory->kind]);
	if (memory->kind == ANON)
		need(!madvise(memory->host, memory->size, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	bind(memory, memory->size);
}

static void destroy(struct memory *memory)
{
	if (memory->kind == NONE)
		return;
	munmap(memory->run, memory->run_size);
	munmap(memory->code, PAGE);
	close(memory->vcpu);
	close(memory->vm);
	munmap(memory->host, memory->size);
	close(memory->fd);
}

/* A statistic of the vCPU. */
static uint64_t vcpu_stat(struct memory *memory, const char *name)
{
	int fd = ioctl(memory->vcpu, KVM_GET_STATS_FD, NULL);
	struct kvm_stats_header header;
	struct kvm_stats_desc *stat;
	uint64_t value = 0;
	size_t size, i;
	bool found = false;

	need(fd >= 0 && pread(fd, &header, sizeof(header), 0) == sizeof(header), "KVM_GET_STATS_FD");
	size = sizeof(*stat) + header.name_size;
	stat = malloc(size);
	need(stat, "malloc");
	for (i = 0; i < header.num_desc && !found; i++) {
		need(pread(fd, stat, size, header.desc_offset + i * size) == (ssize_t)size, "statistic %zu", i);
		found = !strcmp(stat->name, name);
	}
	errno = ENOENT;
	need(found, "%s", name);
	need(pread(fd, &value, sizeof(value), header.data_offset + stat->offset) == sizeof(value),
	     "value of %s", name);
	free(stat);
	close(fd);
	return value;
}

static long host_faults(void)
{
	struct rusage usage;

	need(!getrusage(RUSAGE_THREAD, &usage), "getrusage");
	return usage.ru_minflt;
}

/* The operations. */

static uint64_t guest_writes(struct memory *memory)
{
	uint64_t start;

	set_guest_loop(memory, memory->size / PAGE);
	start = now();
	do {
		need(!ioctl(memory->vcpu, KVM_RUN, 0), "KVM_RUN");
	} while (memory->run->exit_reason == KVM_EXIT_INTR);
	start = now() - start;
	errno = 0;
	need(guest_is_done(memory->run), "exit reason %u", memory->run->exit_reason);
	return start;
}

/* How often the guest left for the host, while it wrote to all pages for the first time. */
static uint64_t measure_faults(struct memory *memory)
{
	uint64_t before = vcpu_stat(memory, FAULTS);

	guest_writes(memory);
	return vcpu_stat(memory, FAULTS) - before;
}

static uint64_t measure_fallocate(struct memory *memory)
{
	uint64_t start = now();

	need(!fallocate(memory->fd, FALLOC_FL_KEEP_SIZE, 0, memory->size), "fallocate");
	return now() - start;
}


static uint64_t touch(char *from, char *end)
{
	uint64_t start = now();

	for ( ; from < end; from += PAGE)
		*(volatile char *)from = 1;
	return now() - start;
}

/* The limit: memory that is there is cleared as the kernel does, and touched. */
static uint64_t measure_clear(struct memory *memory)
{
	char *target = aligned_alloc(HUGE, memory->size);
	uint64_t start;

	need(target, "aligned_alloc");
	madvise(target, memory->size, MADV_HUGEPAGE);
	memset(target, 1, memory->size);
	start = now();
	clear(target, memory->size);
	start = now() - start;
	start += touch(target, target + memory->size);
	free(target);
	return start;
}

static uint64_t measure_touch(struct memory *memory)
{
	long before = host_faults();
	uint64_t count = touch(memory->host, memory->host + memory->size);
	size_t faults = host_faults() - before;

	/* A figure of hugepages must not be one of single pages.  Stack and code may fault, too. */
	errno = 0;
	need(memory->kind == GMEM || faults <= memory->size / HUGE + 8, "%s of %zu MiB: %zu faults",
	     names[memory->kind], memory->size >> 20, faults);
	return count;
}

/* All of the memory is in use: it is only looked up. */
static uint64_t measure_fallocate_again(struct memory *memory)
{
	measure_touch(memory);
	return measure_fallocate(memory);
}

/* With all of the memory there, unmap it and touch it again. */
static uint64_t measure_touch_again(struct memory *memory)
{
	measure_touch(memory);
	need(!madvise(memory->host, memory->size, MADV_DONTNEED), "MADV_DONTNEED");
	return measure_touch(memory);
}

static uint64_t measure_guest(struct memory *memory)
{
	return guest_writes(memory);
}

static uint64_t measure_guest_again(struct memory *memory)
{
	guest_writes(memory);
	set_slot(memory, 1, DATA_GPA, 0, memory->host, -1);
	bind(memory, memory->size);
	return guest_writes(memory);
}

static void punch_one(struct memory *memory, off_t at, off_t size)
{
	if (memory->fd < 0)
		need(!madvise(memory->host + at, size, MADV_DONTNEED), "MADV_DONTNEED");
	else
		need(!fallocate(memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, size), "hole");
}

/* A hole in every second hugepage, so that none is next to another.  The guest maps all of it. */
static uint64_t punch(struct memory *memory, size_t from, size_t size)
{
	uint64_t start;
	size_t at;

	guest_writes(memory);
	start = now();
	for (at = from; at < memory->size; at += 2 * HUGE)
		punch_one(memory, at, size);
	return now() - start;
}

static uint64_t measure_punch_pages(struct memory *memory)
{
	return punch(memory, HUGE + 5 * PAGE, PAGE);
}

static uint64_t measure_punch_hugepages(struct memory *memory)
{
	return punch(memory, HUGE, HUGE);
}

static uint64_t measure_punch_all(struct memory *memory)
{
	uint64_t start;

	guest_writes(memory);
	start = now();
	punch_one(memory, 0, memory->size);
	return now() - start;
}

static double cpu_time(void)
{
	struct timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

/*
 * Until all of the memory is free and the VM is gone.  Don't count while the thread waits
 * for RCU: the counter goes on when the CPU is idle.
 */
static uint64_t measure_exit(struct memory *memory)
{
	double spent = cpu_time(), scale;
	uint64_t start = now();

	while (now() - start < 1 << 24)
		;
	scale = (now() - start) / (cpu_time() - spent);

	guest_writes(memory);
	spent = cpu_time();
	destroy(memory);
	spent = cpu_time() - spent;
	make(memory);
	return spent * scale;
}

static int node_of(char *page)
{
	int status = -1;

	need(!syscall(SYS_move_pages, 0, 1UL, &page, NULL, &status, 0), "move_pages");
	return status;
}

/* Move all of it to the other node, and leave out pages that move with the one before. */
static uint64_t measure_migrate(struct memory *memory)
{
	size_t i, nr = memory->size / HUGE;
	int to, *nodes, *status;
	uint64_t start;
	char **pages;

	guest_writes(memory);
	measure_touch(memory);
	to = !node_of(memory->host);
	pages = calloc(nr, sizeof(*pages));
	nodes = calloc(nr, sizeof(*nodes));
	status = calloc(nr, sizeof(*status));
	need(pages && nodes && status, "calloc");
	for (i = 0; i < nr; i++) {
		pages[i] = memory->host + i * HUGE;
		nodes[i] = to;
	}
	start = now();
	need(!syscall(SYS_move_pages, 0, nr, pages, nodes, status, 2 /* MPOL_MF_MOVE */), "move_pages");
	start = now() - start;
	for (i = 0; i < nr; i++) {
		errno = -status[i];
		need(status[i] == to, "%s: page %zu did not move", names[memory->kind], i);
	}
	free(pages);
	free(nodes);
	free(status);
	return start;
}

/* A page of each hugepage was punched and is there again. */
static uint64_t measure_collapse(struct memory *memory)
{
	uint64_t start;
	size_t at;

	guest_writes(memory);
	for (at = 0; at < memory->size; at += HUGE)
		punch_one(memory, at, PAGE);
	guest_writes(memory);
	start = now();
	if (is_gmem(memory->kind)) {
#ifdef KVM_GUEST_MEMFD_COLLAPSE
		struct kvm_guest_memfd_collapse range = { .size = memory->size };

		need(!ioctl(memory->fd, KVM_GUEST_MEMFD_COLLAPSE, &range), "KVM_GUEST_MEMFD_COLLAPSE");
		need(!range.size, "0x%llx bytes are not collapsed", range.size);
#endif
	} else {
		need(!madvise(memory->host, memory->size, MADV_COLLAPSE), "MADV_COLLAPSE");
	}
	return now() - start;
}

#define SMALL HUGE
#define MEDIUM (32 * HUGE)
#define LARGE (512 * HUGE)

#define OPERATION(name, function, kind, size, rounds) { name, function, kind, size, rounds, UINT64_MAX }
#define FILES(name, function)						\
	OPERATION(name, function, GMEM_HUGE, MEDIUM, 5),		\
	OPERATION(name, function, SHMEM, MEDIUM, 5),			\
	OPERATION(name, function, HUGETLB, MEDIUM, 5)
#define HUGEPAGES(name, function)					\
	FILES(name, function),						\
	OPERATION(name, function, ANON, MEDIUM, 5)

/* What a kernel without the series can do as well. */
static struct measurement plain[] = {
	OPERATION("plain-fallocate", measure_fallocate, GMEM, MEDIUM, 5),
	OPERATION("plain-fallocate-again", measure_fallocate_again, GMEM, MEDIUM, 5),
	OPERATION("plain-touch", measure_touch, GMEM, MEDIUM, 5),
	OPERATION("plain-touch-again", measure_touch_again, GMEM, MEDIUM, 5),
	OPERATION("plain-guest", measure_guest, GMEM, MEDIUM, 5),
	OPERATION("plain-guest-again", measure_guest_again, GMEM, MEDIUM, 5),
	OPERATION("plain-punch-pages", measure_punch_pages, GMEM, MEDIUM, 5),
	OPERATION("plain-punch-hugepages", measure_punch_hugepages, GMEM, MEDIUM, 5),
	OPERATION("plain-punch-all", measure_punch_all, GMEM, MEDIUM, 5),
	OPERATION("plain-exit", measure_exit, GMEM, MEDIUM, 5),
	OPERATION("plain-fallocate", measure_fallocate, SHMEM, MEDIUM, 5),
	OPERATION("plain-touch", measure_touch, SHMEM, MEDIUM, 5),
	OPERATION("plain-guest", measure_guest, SHMEM, MEDIUM, 5),
	OPERATION("plain-guest-again", measure_guest_again, SHMEM, MEDIUM, 5),
	OPERATION("plain-punch-pages", measure_punch_pages, SHMEM, MEDIUM, 5),
	OPERATION("plain-punch-hugepages", measure_punch_hugepages, SHMEM, MEDIUM, 5),
	OPERATION("plain-migrate", measure_migrate, SHMEM, MEDIUM, 5),
	OPERATION("plain-touch", measure_touch, HUGETLB, MEDIUM, 5),
	OPERATION("plain-touch", measure_touch, ANON, MEDIUM, 5),
	OPERATION("plain-migrate", measure_migrate, ANON, MEDIUM, 5),
};

static struct measurement populate[] = {
	OPERATION("clear", measure_clear, NONE, MEDIUM, 5),
	OPERATION("fallocate", measure_fallocate, GMEM_HUGE, SMALL, 5),
	OPERATION("fallocate", measure_fallocate, GMEM_HUGE, MEDIUM, 5),
	OPERATION("fallocate", measure_fallocate, SHMEM, MEDIUM, 5),
	FILES("fallocate-again", measure_fallocate_again),
	OPERATION("touch", measure_touch, GMEM, MEDIUM, 5),
	HUGEPAGES("touch", measure_touch),
	OPERATION("guest", measure_guest, GMEM_HUGE, SMALL, 5),
	OPERATION("guest", measure_guest, GMEM, MEDIUM, 5),
	HUGEPAGES("guest", measure_guest),
	HUGEPAGES("faults", measure_faults),
};

static struct measurement again[] = {
	FILES("touch-again", measure_touch_again),
	HUGEPAGES("guest-again", measure_guest_again),
};

static struct measurement holes[] = {
	OPERATION("punch-pages", measure_punch_pages, GMEM_HUGE, MEDIUM, 5),
	OPERATION("punch-pages", measure_punch_pages, SHMEM, MEDIUM, 5),
	HUGEPAGES("punch-hugepages", measure_punch_hugepages),
	HUGEPAGES("punch-all", measure_punch_all),
	HUGEPAGES("exit", measure_exit),
};

static struct measurement moves[] = {
	OPERATION("migrate", measure_migrate, GMEM_MOVABLE, MEDIUM, 5),
	OPERATION("migrate", measure_migrate, SHMEM, MEDIUM, 5),
	OPERATION("migrate", measure_migrate, ANON, MEDIUM, 5),
	OPERATION("collapse", measure_collapse, GMEM_MOVABLE, MEDIUM, 5),
	OPERATION("collapse", measure_collapse, SHMEM, MEDIUM, 5),
};

/* Cost against size. */
static struct measurement large[] = {
	OPERATION("fallocate", measure_fallocate, GMEM_HUGE, LARGE, 3),
	OPERATION("fallocate", measure_fallocate, SHMEM, LARGE, 3),
	OPERATION("guest", measure_guest, GMEM_HUGE, LARGE, 3),
	OPERATION("faults", measure_faults, GMEM_HUGE, LARGE, 1),
	OPERATION("punch-all", measure_punch_all, GMEM_HUGE, LARGE, 3),
	OPERATION("punch-all", measure_punch_all, SHMEM, LARGE, 3),
};

static void run(struct measurement *one)
{
	struct memory memory = { .kind = one->kind, .size = one->size };
	uint64_t count;

	make(&memory);
	count = one->run(&memory);
	destroy(&memory);
	if (count < one->best)
		one->best = count;
}

static void measure(struct measurement *all, size_t nr)
{
	struct measurement *order[MAX_MEASUREMENTS], *swap;
	uint32_t random = SEED;
	size_t i, j;
	int round, most = 0;

	errno = E2BIG;
	need(nr <= MAX_MEASUREMENTS, "%zu measurements", nr);
	for (i = 0; i < nr; i++) {
		order[i] = &all[i];
		if (all[i].rounds > most)
			most = all[i].rounds;
	}
	for (round = 0; round < most; round++) {
		for (i = nr - 1; i > 0; i--) {
			random = random * 1664525 + 1013904223;
			j = (random >> 8) % (i + 1);
			swap = order[i];
			order[i] = order[j];
			order[j] = swap;
		}
		for (i = 0; i < nr; i++) {
			if (round < order[i]->rounds)
				run(order[i]);
		}
	}
	for (i = 0; i < nr; i++)
		printf("# %s/%s/%zuM: %llu\n", all[i].operation, names[all[i].kind], all[i].size >> 20,
		       (unsigned long long)all[i].best);
}

#define GROUP(group) { #group, group, ARRAY_SIZE(group) }

int main(int argc __attribute__((unused)), char **argv)
{
	static const struct {
		const char *name;
		struct measurement *all;
		size_t nr;
	} groups[] = {
		GROUP(plain), GROUP(populate), GROUP(again), GROUP(holes), GROUP(moves), GROUP(large),
	};
	const char *name = strrchr(argv[0], '/');
	size_t i;

	setbuf(stdout, NULL);
	use_shmem_hugepages();
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	need(kvm >= 0, "/dev/kvm");
	for (i = 0; i < ARRAY_SIZE(groups); i++) {
		if (name && !strcmp(name + 1, groups[i].name)) {
			if (WITH_SERIES || groups[i].all == plain)
				measure(groups[i].all, groups[i].nr);
			return 0;
		}
	}
	errno = EINVAL;
	fail("no measurements of this name");
}
