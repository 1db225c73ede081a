/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers shared by the KUnit suites for guest_memfd: real VMs, files and memslots
 * that are released at the end of the test case, and access to guest memory.
 *
 * The suites check the following invariants.  The comment on a test case names
 * those that the case checks.
 *
 * I1	After a successful PUNCH_HOLE, whoever reads the range next, guest or host,
 *	reads zeros.
 * I2	No byte outside the range of a call changes or disappears.
 * I3	A call that fails changes nothing.
 * I4	PUNCH_HOLE frees the memory of the hole before it returns, unless somebody
 *	has pinned the hugepage.  Then the next hole after the pin is gone frees
 *	it, or the hole that punches the last page of the hugepage.
 * I5	KVM zeroes a page before the guest or the host can access it, and does
 *	not zero it again afterwards.
 * I6	The order that KVM reports is 0 or PMD_ORDER.  It is PMD_ORDER only if
 *	the hugepage lies inside the binding, and gfn and file offset are congruent
 *	modulo the hugepage size.
 * I7	Hugepages are best effort: if no hugepage is available, KVM uses single
 *	pages, returns no error, and leaks nothing.
 * I8	Without GUEST_MEMFD_FLAG_ALLOW_HUGEPAGE, behaviour does not change.
 * I9	KVM checks sizes and flags in the same way with and without THP.
 * I10	Where hugepages cannot work, the capability is 0 and the flag is rejected.
 * I11	Concurrent operations on a hugepage leave one folio and lose no byte.
 */
#ifndef __KVM_GMEM_KUNIT_HELPERS_H
#define __KVM_GMEM_KUNIT_HELPERS_H

#include <kunit/test.h>
#include <linux/iopoll.h>
#include <linux/kvm_host.h>
#include <linux/migrate.h>
#include <linux/pagemap.h>
#include <linux/rwsem.h>
#include <linux/sizes.h>

#include "../guest_memfd.h"

/* Number of pages in a hugepage. */
#define GMEM_NR		BIT(PMD_ORDER)

/* The guest frame at which gmem_kunit_open_bound() binds a file. */
#define GMEM_GFN	(8 * GMEM_NR)

/* The flags of files that can be bound on every architecture. */
#define GMEM_SHARED	(GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)
#define GMEM_HUGE	(GMEM_SHARED | GUEST_MEMFD_FLAG_ALLOW_HUGEPAGE)

/* The suites also build and hold without the part of the series that adds migration. */
#ifndef GUEST_MEMFD_FLAG_MIGRATABLE
#define GUEST_MEMFD_FLAG_MIGRATABLE	0
#endif

/* Whether memory can move. */
#define GMEM_MIGRATES	(GUEST_MEMFD_FLAG_MIGRATABLE != 0 && IS_ENABLED(CONFIG_MIGRATION))

/*
 * The value of a counter in the statistics of the VM that uses a file.  The part of the
 * series that adds migration adds them, too.
 */
#ifdef KVM_CAP_GUEST_MEMFD_COLLAPSE
#define GMEM_HAS_STATS	1
#define gmem_kunit_stat(f, name)	atomic64_read(&(f)->kvm->stat.generic.name)
#else
#define GMEM_HAS_STATS	0
#define gmem_kunit_stat(f, name)	0
#endif

/* What tests write as the guest's data. */
#define GMEM_DATA	0x77

/* Wait until @cond holds, but not forever.  Evaluates to whether it holds. */
#define gmem_kunit_wait_until(cond)						\
	(!poll_timeout_us(bool __holds = (cond), __holds, USEC_PER_MSEC,	\
			  30 * USEC_PER_SEC, false))

/* Old data that gmem_kunit_poison_hugepages() writes to new hugepages. */
#define GMEM_POISON	0xa5

/* Enough for the argument of each ioctl here, and as many at a time as fit in a page. */
#define GMEM_ARGS_SIZE	256
#define GMEM_NR_ARGS	(SZ_4K / GMEM_ARGS_SIZE)

/* A VM that is used as userspace does, by ioctls of its file. */
struct gmem_kunit_vm {
	struct kvm *kvm;
	struct file *file;
	int fd;
	unsigned long args;	/* address of a page for their arguments, in userspace */
	DECLARE_BITMAP(used, GMEM_NR_ARGS);	/* what ioctls that run use of that page */
};

/* A guest_memfd file; @inode is valid while the file is open. */
struct gmem_kunit_file {
	struct gmem_kunit_vm *vm;
	struct kvm *kvm;
	struct file *file;
	struct inode *inode;
	int fd;
	unsigned long addr;	/* of a host mapping that memslots refer to, or 0 */
};

/* The result of kvm_gmem_get_pfn(). */
struct gmem_kunit_fault {
	kvm_pfn_t pfn;
	int order;
};

/* A hole to punch, usually an entry in a table of parameters. */
struct gmem_kunit_hole {
	const char *name;
	pgoff_t start;
	unsigned long npages;
};

int gmem_kunit_init(struct kunit *test);
int gmem_kunit_init_huge(struct kunit *test);

struct gmem_kunit_vm *gmem_kunit_vm(struct kunit *test, unsigned long type);
void gmem_kunit_close_fd(int fd);
void gmem_kunit_close_vm(struct kunit *test, struct gmem_kunit_vm *vm);
long gmem_kunit_ioctl(struct gmem_kunit_vm *vm, struct file *file, unsigned int cmd,
		      void *args);
int gmem_kunit_check_extension(struct gmem_kunit_vm *vm, long cap);
int gmem_kunit_create(struct gmem_kunit_vm *vm, u64 size, u64 flags);

struct gmem_kunit_file *gmem_kunit_open(struct kunit *test, struct gmem_kunit_vm *vm,
					unsigned long npages, u64 flags);
struct gmem_kunit_file *gmem_kunit_open_bound(struct kunit *test,
					      unsigned long npages, u64 flags);
struct gmem_kunit_file *gmem_kunit_open_poisoned(struct kunit *test,
						 unsigned long npages, u64 flags);
void gmem_kunit_close(struct kunit *test, struct gmem_kunit_file *f);

int gmem_kunit_bind(struct gmem_kunit_file *f, int id, gfn_t base_gfn,
		    pgoff_t pgoff, unsigned long npages);
int gmem_kunit_add_memory(struct gmem_kunit_vm *vm, int id, gfn_t base_gfn,
			  unsigned long addr, unsigned long npages);
int gmem_kunit_unbind(struct gmem_kunit_vm *vm, int id);
unsigned long gmem_kunit_map(struct kunit *test, struct gmem_kunit_file *f,
			     unsigned long offset);
struct kvm_memory_slot *gmem_kunit_slot(struct kunit *test, struct kvm *kvm, int id);

int gmem_kunit_get_pfn(struct kvm *kvm, int id, gfn_t gfn,
		       struct gmem_kunit_fault *fault, struct page **page);
int gmem_kunit_fault(struct kvm *kvm, int id, gfn_t gfn,
		     struct gmem_kunit_fault *fault);
int gmem_kunit_allocate(struct gmem_kunit_file *f, pgoff_t index,
			unsigned long npages);
int gmem_kunit_punch(struct gmem_kunit_file *f, pgoff_t index,
		     unsigned long npages);
bool gmem_kunit_in_hole(const struct gmem_kunit_hole *hole, pgoff_t index);
struct folio *gmem_kunit_alloc_target(struct folio *src, unsigned long private);
unsigned long gmem_kunit_isolate(struct address_space *mapping, pgoff_t index,
				 unsigned long npages, struct list_head *isolated);
int gmem_kunit_move(struct list_head *isolated, new_folio_t alloc, unsigned long private);
int gmem_kunit_migrate(struct gmem_kunit_file *f, pgoff_t index, new_folio_t alloc);
int gmem_kunit_collapse(struct gmem_kunit_file *f, pgoff_t index,
			unsigned long npages);
void gmem_kunit_needs_split(struct kunit *test);
void gmem_kunit_split(struct kunit *test, struct gmem_kunit_file *f, pgoff_t index,
		      unsigned int order);

struct folio *gmem_kunit_get_huge_folio(struct gmem_kunit_file *f, pgoff_t index);
void gmem_kunit_put_folio(struct folio *folio);
struct folio *gmem_kunit_peek(struct gmem_kunit_file *f, pgoff_t index);
struct folio *gmem_kunit_folio(struct kunit *test, struct gmem_kunit_file *f,
			       pgoff_t index);
unsigned int gmem_kunit_order(struct kunit *test, struct gmem_kunit_file *f,
			      pgoff_t index);
struct folio *gmem_kunit_pin(struct kunit *test, struct gmem_kunit_file *f,
			     pgoff_t index);
void gmem_kunit_unpin(struct kunit *test, struct folio *folio);
int gmem_kunit_extra_refs(struct gmem_kunit_file *f, pgoff_t index);
unsigned long gmem_kunit_nr_pages(struct gmem_kunit_file *f);
unsigned long gmem_kunit_nr_free(void);

void gmem_kunit_no_hugepages(struct kunit *test);
void gmem_kunit_poison_hugepages(struct kunit *test);
struct task_struct *gmem_kunit_thread(struct kunit *test, int (*fn)(void *), void *data);
void gmem_kunit_unpoison(struct page *page);
bool gmem_kunit_must_retry(struct kvm *kvm, unsigned long seq, gfn_t gfn);
void gmem_kunit_begin_invalidation(struct kvm *kvm, gfn_t start, gfn_t end);
void gmem_kunit_end_invalidation(struct kvm *kvm);
unsigned long gmem_kunit_watch_invalidations(struct kvm *kvm, gfn_t start);
void gmem_kunit_expect_invalidated(struct kunit *test, struct kvm *kvm, unsigned long seq,
				   gfn_t start, gfn_t end);
bool gmem_kunit_is_awaited(struct rw_semaphore *lock);
void gmem_kunit_stop_thread(struct kunit *test, struct task_struct *task);
void gmem_kunit_fill(kvm_pfn_t pfn, unsigned long npages, u8 byte);
u8 gmem_kunit_pattern(pgoff_t index);
unsigned long gmem_kunit_count_not(kvm_pfn_t pfn, unsigned long npages, u8 byte);

#endif /* __KVM_GMEM_KUNIT_HELPERS_H */
