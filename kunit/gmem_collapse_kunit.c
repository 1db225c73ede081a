// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for KVM_GUEST_MEMFD_COLLAPSE: single pages become a hugepage with the same
 * contents, or everything stays as it is (invariants I1 to I5, I7 and I8).
 */
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/kvm_host.h>
#include <linux/math.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/pagemap.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/swap.h>
#include <linux/uaccess.h>
#include <linux/vmstat.h>

#include "gmem_kunit_helpers.h"

#define N	GMEM_NR
#define NPAGES	(3 * N)
#define LAST	(NPAGES - N)	/* hugepage-size range, since the first one hides wrong offsets */
#define GFN	GMEM_GFN
#define FLAGS	(GMEM_HUGE | GUEST_MEMFD_FLAG_MIGRATABLE)

static int init(struct kunit *test)
{
	if (!GMEM_MIGRATES)
		kunit_skip(test, "the kernel cannot migrate guest_memfd");

	return gmem_kunit_init_huge(test);
}

/* The single pages of the first hugepage-size range that the guest has filled. */
struct memory {
	const char *name;
	unsigned long first;
	unsigned long step;
	bool mapped;		/* all of them are mapped into the host as well */
	bool mlocked;		/* by mlockall() */
};

static const struct memory memories[] = {
	{ "all_pages", 0, 1, false },
	{ "all_pages_mapped", 0, 1, true },
	{ "all_pages_mlocked", 0, 1, true, true },
	{ "first_page", 0, N, false },
	{ "last_page_mapped", N - 1, N, true },
	{ "every_third_page", 1, 3, false },
};

KUNIT_ARRAY_PARAM_DESC(memory, memories, name);

static bool is_used(const struct memory *c, pgoff_t index)
{
	return index >= c->first && (index - c->first) % c->step == 0;
}

/* How many pages the guest has filled. */
static unsigned long nr_used(const struct memory *c)
{
	return DIV_ROUND_UP(N - c->first, c->step);
}

static struct gmem_kunit_file *use_memory(struct kunit *test, const struct memory *c)
{
	struct gmem_kunit_file *f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), NPAGES, FLAGS);
	struct gmem_kunit_fault fault;
	pgoff_t index;
	u8 byte;

	if (c->mlocked)
		current->mm->def_flags |= VM_LOCKED | VM_LOCKONFAULT;
	if (c->mapped)
		f->addr = gmem_kunit_map(test, f, 0);
	current->mm->def_flags &= ~(VM_LOCKED | VM_LOCKONFAULT);
	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, GFN, 0, NPAGES), 0);

	gmem_kunit_no_hugepages(test);
	for (index = c->first; index < N; index += c->step) {
		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + index, &fault), 0);
		KUNIT_ASSERT_EQ(test, fault.order, 0);
		gmem_kunit_fill(fault.pfn, 1, gmem_kunit_pattern(index));
		if (c->mapped)
			KUNIT_ASSERT_EQ(test, copy_from_user(&byte, (u8 __user *)f->addr +
							     (index << PAGE_SHIFT), 1), 0);
	}
	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);

	/* Whatever isn't copied must be zeroed. */
	gmem_kunit_poison_hugepages(test);
	return f;
}

/* Count the pages that guest or host find changed; those that were not used must be zero. */
static unsigned long count_lost(struct gmem_kunit_file *f, const struct memory *c)
{
	struct gmem_kunit_fault fault;
	unsigned long lost = 0;
	pgoff_t index;

	for (index = 0; index < N; index++) {
		u8 byte, expected = is_used(c, index) ? gmem_kunit_pattern(index) : 0;

		lost += gmem_kunit_fault(f->kvm, 0, GFN + index, &fault) ||
			gmem_kunit_count_not(fault.pfn, 1, expected);
		if (f->addr)
			lost += get_user(byte, (u8 __user *)f->addr + (index << PAGE_SHIFT)) ||
				byte != expected;
	}
	return lost;
}

static void check_hugepage(struct kunit *test, struct gmem_kunit_file *f, const struct memory *c)
{
	struct gmem_kunit_fault fault;

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.order, PMD_ORDER);
	KUNIT_EXPECT_EQ(test, count_lost(f, c), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(f, 0), 0);
	KUNIT_EXPECT_FALSE(test, gmem_kunit_must_retry(f->kvm, f->kvm->mmu_invalidate_seq, GFN));
	KUNIT_EXPECT_FALSE(test, rwsem_is_locked(&f->inode->i_mapping->invalidate_lock));
}

/*
 * Check that the file still has exactly the pages it had, with their contents, and that
 * nothing is in the way of another try.
 */
static void check_unchanged(struct kunit *test, struct gmem_kunit_file *f, const struct memory *c)
{
	struct gmem_kunit_fault fault;
	unsigned long lost = 0;
	pgoff_t index;

	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), nr_used(c));
	for (index = c->first; index < N; index += c->step) {
		lost += gmem_kunit_fault(f->kvm, 0, GFN + index, &fault) || fault.order ||
			gmem_kunit_count_not(fault.pfn, 1, gmem_kunit_pattern(index));
	}
	KUNIT_EXPECT_EQ(test, lost, 0);

	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, 0, N), 0);
	check_hugepage(test, f, c);
}

/* Check that the guest finds its data in a hugepage, except for a hole. */
static void check_around_hole(struct kunit *test, struct gmem_kunit_file *f,
			      const struct gmem_kunit_hole *hole)
{
	pgoff_t end = hole->start + hole->npages;
	struct gmem_kunit_fault fault;

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + LAST, &fault), 0);
	KUNIT_ASSERT_EQ(test, fault.order, PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn, hole->start, GMEM_DATA), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn + hole->start, hole->npages, 0), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn + end, N - end, GMEM_DATA), 0);
}

/* Open a file whose last hugepage the guest has filled. */
static struct gmem_kunit_file *use_hugepage(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, FLAGS);
	struct gmem_kunit_fault fault;

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + LAST, &fault), 0);
	KUNIT_ASSERT_EQ(test, fault.order, PMD_ORDER);
	gmem_kunit_fill(fault.pfn, N, GMEM_DATA);
	return f;
}

/* Punch a hole into it while it is pinned, so that it can't be split. */
static void punch_pinned(struct kunit *test, struct gmem_kunit_file *f,
			 const struct gmem_kunit_hole *hole)
{
	struct folio *pinned = gmem_kunit_pin(test, f, LAST);

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, LAST + hole->start, hole->npages), 0);
	gmem_kunit_unpin(test, pinned);
	KUNIT_ASSERT_EQ(test, gmem_kunit_order(test, f, LAST), PMD_ORDER);
}

static const struct gmem_kunit_hole hole = { .start = 3, .npages = 5 };

/* I2, I5: guest and host find the contents in a hugepage, and zeros where nothing was. */
static void keeps_contents(struct kunit *test)
{
	const struct memory *c = test->param_value;
	struct gmem_kunit_file *f = use_memory(test, c);
	unsigned long seq = gmem_kunit_watch_invalidations(f->kvm, GFN);

	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, 0, N), 0);
	/* What the guest has mapped is gone. */
	gmem_kunit_expect_invalidated(test, f->kvm, seq, GFN, GFN + N);
	check_hugepage(test, f, c);
}

/* In contrast to global_node_page_state(), this doesn't hide that a number is negative. */
static long nr_pages(enum node_stat_item item)
{
	return atomic_long_read(&vm_node_stat[item]);
}

/* A guest on another CPU, which keeps that CPU busy until a fault of its has been served. */
struct busy {
	struct gmem_kunit_file *f;
	unsigned long end;
	bool started;
	bool served;
};

static int fault_and_wait(void *data)
{
	struct busy *b = data;
	struct kvm *kvm = b->f->kvm;
	unsigned long seq = kvm->mmu_invalidate_seq;
	struct gmem_kunit_fault fault;
	int r;

	/* The page joins the batch of this CPU. */
	r = gmem_kunit_fault(kvm, 0, GFN + 2, &fault);

	preempt_disable();
	WRITE_ONCE(b->started, true);
	while (!r && READ_ONCE(kvm->mmu_invalidate_seq) == seq && time_before(jiffies, b->end))
		cpu_relax();
	b->served = READ_ONCE(kvm->mmu_invalidate_seq) != seq;
	preempt_enable();
	return 0;
}

/*
 * The guest doesn't have to wait for other CPUs, one of which could be busy with the guest.
 * A vCPU that faults in the range tries again until the invalidation has ended.
 */
static void other_cpu_is_busy(struct kunit *test)
{
	struct busy b = { .f = use_memory(test, &memories[5]), .end = jiffies };
	unsigned int cpu = cpumask_any_but(cpu_online_mask, raw_smp_processor_id());
	struct task_struct *task = gmem_kunit_thread(test, fault_and_wait, &b);

	/* A single CPU can't be busy with both. */
	if (cpu < nr_cpu_ids) {
		kthread_bind(task, cpu);
		b.end += 5 * HZ;
	}
	wake_up_process(task);
	while (!READ_ONCE(b.started))
		cond_resched();

	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(b.f, 0, N), 0);
	gmem_kunit_stop_thread(test, task);
	KUNIT_EXPECT_EQ(test, b.served, cpu < nr_cpu_ids);
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	KUNIT_EXPECT_FALSE(test, lru_cache_disabled());
#endif
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, b.f, 0), PMD_ORDER);
}

#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
/* A fault that began before the collapse, and holds a reference. */
struct late {
	struct gmem_kunit_file *f;
	struct folio *folio;
	struct task_struct *collapses;
	bool ended;		/* the collapse */
};

/* Drop the reference once the collapse sleeps with the lock held, or has given up. */
static int put_late(void *data)
{
	struct late *late = data;
	struct rw_semaphore *lock = &late->f->inode->i_mapping->invalidate_lock;

	(void)gmem_kunit_wait_until((lru_cache_disabled() && rwsem_is_locked(lock) &&
				     !task_is_running(late->collapses)) ||
				    READ_ONCE(late->ended));
	folio_put(late->folio);
	return 0;
}
#endif

/*
 * The collapse waits for faults that began before it, which take a moment.  The thread may
 * be late: try again.
 */
static void waits_for_faults(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	struct late late = { .f = use_memory(test, &memories[0]), .collapses = current };
	int r = -EBUSY, tries;

	for (tries = 0; r == -EBUSY && tries < 10; tries++) {
		struct task_struct *task = gmem_kunit_thread(test, put_late, &late);

		late.folio = gmem_kunit_folio(test, late.f, 0);
		folio_get(late.folio);
		late.ended = false;
		wake_up_process(task);
		r = gmem_kunit_collapse(late.f, 0, N);
		WRITE_ONCE(late.ended, true);
		gmem_kunit_stop_thread(test, task);
	}
	KUNIT_EXPECT_EQ(test, r, 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, late.f, 0), PMD_ORDER);
#else
	kunit_skip(test, "lru_disable_count is not exported");
#endif
}

/* memory_failure() tells a VMM about an error at once only if the memory is dirty. */
static void stays_dirty(struct kunit *test)
{
	struct gmem_kunit_file *f = use_memory(test, &memories[0]);

	folio_mark_dirty(gmem_kunit_folio(test, f, N / 2));
	KUNIT_ASSERT_EQ(test, gmem_kunit_collapse(f, 0, N), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_order(test, f, 0), PMD_ORDER);
	KUNIT_EXPECT_TRUE(test, folio_test_dirty(gmem_kunit_folio(test, f, 0)));
}

/* I4: the pages that a hugepage replaces are free, and no longer part of any statistics. */
static void frees_pages(struct kunit *test)
{
	struct gmem_kunit_file *f = use_hugepage(test);
	long nr_file = nr_pages(NR_FILE_PAGES), nr_huge = nr_pages(NR_FILE_THPS);
	unsigned long free = gmem_kunit_nr_free();
	int i;

	/* Go on, as a few hugepages could be those of files that are just being closed. */
	for (i = 0; i < 16; i++) {
		KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, LAST + hole.start, hole.npages), 0);
		KUNIT_ASSERT_EQ(test, gmem_kunit_order(test, f, LAST), 0);
		KUNIT_ASSERT_EQ(test, gmem_kunit_collapse(f, LAST, N), 0);
		check_around_hole(test, f, &hole);
	}
	KUNIT_EXPECT_GE(test, gmem_kunit_nr_free() + 2 * N, free);
	KUNIT_EXPECT_LE(test, abs_diff(nr_pages(NR_FILE_PAGES), nr_file), (long)(4 * N));
	KUNIT_EXPECT_LE(test, abs_diff(nr_pages(NR_FILE_THPS), nr_huge), (long)(4 * N));
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, LAST, N), 0);
	KUNIT_EXPECT_GE(test, gmem_kunit_nr_free() + N, free);
}

/* I1: a hole reads as zeros, whether its pages are in use again, allocated or missing. */
static void after_hole(struct kunit *test)
{
	struct gmem_kunit_file *f = use_hugepage(test);
	struct gmem_kunit_fault fault;

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, LAST + hole.start, hole.npages), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + LAST + hole.start, &fault), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, LAST + hole.start + 1, 1), 0);

	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, LAST, N), 0);
	check_around_hole(test, f, &hole);
}

/* I1: the same holds for a hole in a hugepage that could not be split and still isn't. */
static void after_hole_in_place(struct kunit *test)
{
	struct gmem_kunit_file *f = use_hugepage(test);

	punch_pinned(test, f, &hole);
	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, LAST, N), 0);
	check_around_hole(test, f, &hole);
}

/* I1, I2: and it holds while the hugepage is still pinned, as it does not move. */
static void after_hole_while_pinned(struct kunit *test)
{
	struct gmem_kunit_file *f = use_hugepage(test);
	struct folio *pinned = gmem_kunit_pin(test, f, LAST);

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, LAST + hole.start, hole.npages), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, LAST, N), 0);
	KUNIT_EXPECT_PTR_EQ(test, gmem_kunit_peek(f, LAST), pinned);
	check_around_hole(test, f, &hole);
	gmem_kunit_unpin(test, pinned);
}

/* I1: and it holds if somebody has split the hugepage since then. */
static void after_split(struct kunit *test)
{
	struct gmem_kunit_file *f;

	gmem_kunit_needs_split(test);

	f = use_hugepage(test);
	punch_pinned(test, f, &hole);
	gmem_kunit_split(test, f, LAST, 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, LAST, N), 0);
	check_around_hole(test, f, &hole);
}

#define PART_ORDER	5

/*
 * I1, I2, I3: large folios that are no hugepages collapse like single pages.  While there
 * is a hole in one of them, which still has its old contents, all stays as it is.
 */
static void large_folios(struct kunit *test)
{
	static const struct gmem_kunit_hole none = { .start = N / 2 };
	struct gmem_kunit_file *f;

	gmem_kunit_needs_split(test);

	f = use_hugepage(test);
	gmem_kunit_split(test, f, LAST, PART_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, LAST, N), 0);
	check_around_hole(test, f, &none);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N);

	punch_pinned(test, f, &hole);
	gmem_kunit_split(test, f, LAST, PART_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, LAST, N), -EBUSY);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, LAST), PART_ORDER);

	/* Put the hole to use. */
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, LAST + hole.start, hole.npages), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, LAST, N), 0);
	check_around_hole(test, f, &hole);
}

/* I5: memory that has not been used yet is zero, also if nothing but that is there. */
static void not_used(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, FLAGS);
	struct gmem_kunit_fault fault;
	pgoff_t index;

	gmem_kunit_no_hugepages(test);
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, N / 2), 0);
	for (index = 0; index < N / 2; index++)
		gmem_kunit_fill(folio_pfn(gmem_kunit_folio(test, f, index)), 1, GMEM_POISON);
	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);
	gmem_kunit_poison_hugepages(test);

	KUNIT_ASSERT_EQ(test, gmem_kunit_collapse(f, 0, N), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.order, PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn, N, 0), 0);
}

/* A range without memory stays so: the first access will get a hugepage anyway. */
static void nothing_allocated(struct kunit *test)
{
	struct gmem_kunit_file *f = use_memory(test, &memories[0]);

	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, 0, NPAGES), 0);
	check_hugepage(test, f, &memories[0]);
}

/* I3: a hugepage stays where it is, but the guest has to map it again. */
static void hugepage_already(struct kunit *test)
{
	struct gmem_kunit_file *f = use_hugepage(test);
	struct gmem_kunit_fault fault, again;
	unsigned long seq;

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + LAST, &fault), 0);
	seq = gmem_kunit_watch_invalidations(f->kvm, GFN + LAST);

	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, LAST, N), 0);
	gmem_kunit_expect_invalidated(test, f->kvm, seq, GFN + LAST, GFN + LAST + N);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + LAST, &again), 0);
	KUNIT_EXPECT_EQ(test, again.pfn, fault.pfn);
	KUNIT_EXPECT_EQ(test, again.order, PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn, N, GMEM_DATA), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(f, LAST), 0);
}

/* Memory that no memslot uses becomes a hugepage as well. */
static void not_bound(struct kunit *test)
{
	const struct memory *c = &memories[0];
	struct gmem_kunit_file *f = use_memory(test, c);

	KUNIT_ASSERT_EQ(test, gmem_kunit_unbind(f->vm, 0), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, 0, N), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, GFN, 0, NPAGES), 0);
	check_hugepage(test, f, c);
}

/* I3: a range in which somebody holds a reference stays as it is. */
static void in_use(struct kunit *test)
{
	const struct memory *c = test->param_value;
	struct gmem_kunit_file *f = use_memory(test, c);
	pgoff_t index = c->first + (nr_used(c) - 1) * c->step;
	struct folio *pinned = gmem_kunit_pin(test, f, index);

	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, 0, N), -EBUSY);
	KUNIT_EXPECT_PTR_EQ(test, gmem_kunit_peek(f, index), pinned);
	gmem_kunit_unpin(test, pinned);
	check_unchanged(test, f, c);
}

/* I3: what a device has pinned stays where it is, and what it writes is not lost. */
static void pinned(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	const struct memory *c = &memories[1];
	struct gmem_kunit_file *f = use_memory(test, c);
	unsigned long addr = f->addr + (5 << PAGE_SHIFT);
	struct gmem_kunit_fault fault;
	struct page *page;

	/* Not for a long time: that would move the page first. */
	KUNIT_ASSERT_EQ(test, pin_user_pages_fast(addr, 1, FOLL_WRITE, &page), 1);
	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, 0, N), -EBUSY);
	gmem_kunit_fill(page_to_pfn(page), 1, GMEM_DATA);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + 5, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.pfn, page_to_pfn(page));
	gmem_kunit_fill(page_to_pfn(page), 1, gmem_kunit_pattern(5));
	unpin_user_page(page);
	check_unchanged(test, f, c);
#else
	kunit_skip(test, "pin_user_pages_fast() is not exported");
#endif
}

/* I3: a range with a bad page stays as it is, and nobody reads the bad page. */
static void poisoned(struct kunit *test)
{
	const struct memory *c = test->param_value;
	pgoff_t index = c->first + (nr_used(c) - 1) * c->step;
	struct gmem_kunit_file *f;
	struct folio *folio;

	if (!IS_ENABLED(CONFIG_MEMORY_FAILURE))
		kunit_skip(test, "the kernel has no memory failure handling");

	f = use_memory(test, c);
	folio = gmem_kunit_folio(test, f, index);
	SetPageHWPoison(&folio->page);
	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, 0, N), -EHWPOISON);
	KUNIT_EXPECT_PTR_EQ(test, gmem_kunit_peek(f, index), folio);
	ClearPageHWPoison(&folio->page);
	check_unchanged(test, f, c);
}

/* I3, I7: without memory for a hugepage, everything stays as it is. */
static void no_memory(struct kunit *test)
{
	const struct memory *c = test->param_value;
	struct gmem_kunit_file *f = use_memory(test, c);

	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);
	gmem_kunit_no_hugepages(test);
	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, 0, N), -ENOMEM);
	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);
	check_unchanged(test, f, c);
}

/* The caller learns which hugepage is in the way, and can go on behind it. */
static void reports_progress(struct kunit *test)
{
#ifdef KVM_GUEST_MEMFD_COLLAPSE
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, FLAGS);
	struct kvm_guest_memfd_collapse args = { .size = NPAGES << PAGE_SHIFT };
	struct folio *pinned;

	gmem_kunit_no_hugepages(test);
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);
	pinned = gmem_kunit_pin(test, f, 2 * N - 1);

	KUNIT_EXPECT_EQ(test, gmem_kunit_ioctl(f->vm, f->file, KVM_GUEST_MEMFD_COLLAPSE, &args), 0);
	KUNIT_EXPECT_EQ(test, args.offset, N << PAGE_SHIFT);
	KUNIT_EXPECT_EQ(test, args.size, 2 * N << PAGE_SHIFT);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, 0), PMD_ORDER);

	KUNIT_EXPECT_EQ(test, gmem_kunit_ioctl(f->vm, f->file, KVM_GUEST_MEMFD_COLLAPSE, &args),
			-EBUSY);
	KUNIT_EXPECT_EQ(test, args.offset, N << PAGE_SHIFT);
	KUNIT_EXPECT_EQ(test, args.size, 2 * N << PAGE_SHIFT);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, N), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, 2 * N), 0);

	args.offset += N << PAGE_SHIFT;
	args.size -= N << PAGE_SHIFT;
	KUNIT_EXPECT_EQ(test, gmem_kunit_ioctl(f->vm, f->file, KVM_GUEST_MEMFD_COLLAPSE, &args), 0);
	KUNIT_EXPECT_EQ(test, args.offset, NPAGES << PAGE_SHIFT);
	KUNIT_EXPECT_EQ(test, args.size, 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, 2 * N), PMD_ORDER);
	gmem_kunit_unpin(test, pinned);
#endif
}

#ifdef KVM_GUEST_MEMFD_COLLAPSE
/* Call ioctl() on the file. */
static long call_ioctl(struct gmem_kunit_file *f, unsigned int cmd, unsigned long addr)
{
	return f->file->f_op->unlocked_ioctl(f->file, cmd, addr);
}

/* Map a page that contains the argument of the ioctl. */
static unsigned long map_args(struct kunit *test, struct gmem_kunit_file *f, unsigned long prot)
{
	unsigned long addr = kunit_vm_mmap(test, f->file, 0, PAGE_SIZE, prot, MAP_SHARED, 0);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, (void *)addr);
	return addr;
}
#endif

/* I3: the ioctl reads its argument from userspace, and writes back how far it came. */
static void through_ioctl(struct kunit *test)
{
#ifdef KVM_GUEST_MEMFD_COLLAPSE
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, FLAGS);
	struct gmem_kunit_file *memory = gmem_kunit_open(test, f->vm, 1, GMEM_SHARED);
	const struct kvm_guest_memfd_collapse all = { .size = NPAGES << PAGE_SHIFT };
	const struct kvm_guest_memfd_collapse first = { .size = N << PAGE_SHIFT };
	unsigned long addr = map_args(test, memory, PROT_READ | PROT_WRITE);
	unsigned long readonly = map_args(test, memory, PROT_READ);
	unsigned long unreadable = map_args(test, memory, PROT_NONE);
	struct kvm_guest_memfd_collapse args = all;
	struct folio *pinned;

	gmem_kunit_no_hugepages(test);
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);
	pinned = gmem_kunit_pin(test, f, 2 * N - 1);

	/* Neither of these does anything. */
	KUNIT_ASSERT_EQ(test, copy_to_user((void __user *)addr, &args, sizeof(args)), 0);
	KUNIT_EXPECT_EQ(test, call_ioctl(f, KVM_GUEST_MEMFD_COLLAPSE + 1, addr), -ENOTTY);
	KUNIT_EXPECT_EQ(test, call_ioctl(f, KVM_GUEST_MEMFD_COLLAPSE, unreadable), -EFAULT);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, 0), 0);

	/* The pinned page ends the call. */
	KUNIT_EXPECT_EQ(test, call_ioctl(f, KVM_GUEST_MEMFD_COLLAPSE, addr), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, 0), PMD_ORDER);
	KUNIT_ASSERT_EQ(test, copy_from_user(&args, (void __user *)addr, sizeof(args)), 0);
	KUNIT_EXPECT_EQ(test, args.offset, N << PAGE_SHIFT);
	KUNIT_EXPECT_EQ(test, args.size, 2 * N << PAGE_SHIFT);

	/* An error isn't hidden by the buffer, to which nothing is written. */
	KUNIT_EXPECT_EQ(test, call_ioctl(f, KVM_GUEST_MEMFD_COLLAPSE, readonly), -EBUSY);
	KUNIT_ASSERT_EQ(test, copy_to_user((void __user *)addr, &first, sizeof(first)), 0);
	KUNIT_EXPECT_EQ(test, call_ioctl(f, KVM_GUEST_MEMFD_COLLAPSE, readonly), -EFAULT);
	gmem_kunit_unpin(test, pinned);
#endif
}

/* I2: the range of a call is exact. */
static void other_ranges_stay(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, FLAGS);

	gmem_kunit_no_hugepages(test);
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);

	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, N, N), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, 0), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, N), PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, 2 * N), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), NPAGES);
}

/* I3: a range without memory remains so, whatever is next to it. */
static void empty_range_stays_empty(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, FLAGS);

	gmem_kunit_no_hugepages(test);
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, N - 1, 1), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 2 * N, 1), 0);
	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);

	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, N, N), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 2);
}

/* I3: a signal ends the call. */
static void interrupted(struct kunit *test)
{
	struct gmem_kunit_file *f = use_memory(test, &memories[0]);

	set_tsk_thread_flag(current, TIF_SIGPENDING);
	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, 0, NPAGES), -EINTR);
	clear_tsk_thread_flag(current, TIF_SIGPENDING);
	check_unchanged(test, f, &memories[0]);
}

struct bad_range {
	const char *name;
	u64 offset;
	u64 size;
	u64 flags;
};

#define SIZE	((u64)NPAGES << PAGE_SHIFT)

static const struct bad_range bad_ranges[] = {
	{ "empty", 0, 0 },
	{ "size_of_a_page", 0, PAGE_SIZE },
	{ "size_not_aligned", 0, PMD_SIZE + PAGE_SIZE },
	{ "offset_not_aligned", PAGE_SIZE, PMD_SIZE },
	{ "beyond_end", SIZE, PMD_SIZE },
	{ "exceeds_end", PMD_SIZE, SIZE },
	{ "larger_than_file", 0, SIZE + PMD_SIZE },
	{ "end_wraps", -PMD_SIZE, 2 * PMD_SIZE },
	{ "size_wraps", PMD_SIZE, -PMD_SIZE },
	{ "negative_offset", 1ULL << 63, PMD_SIZE },
	{ "negative_size", 0, 1ULL << 63 },
	{ "first_flag", 0, PMD_SIZE, 1 },
	{ "last_flag", 0, PMD_SIZE, 1ULL << 63 },
};

KUNIT_ARRAY_PARAM_DESC(bad_range, bad_ranges, name);

struct collapsing {
	struct gmem_kunit_file *f;
	int result;
	bool ended;
};

static int collapse_thread(void *data)
{
	struct collapsing *c = data;

	c->result = gmem_kunit_collapse(c->f, 0, N);
	WRITE_ONCE(c->ended, true);
	return 0;
}

/*
 * I3: if somebody has locked a page, e.g. to move it, the collapse fails at once.  All
 * faults wait for it, and who moves the range would lock the next page while it waits.
 */
static void locked_page(struct kunit *test)
{
	struct gmem_kunit_file *f = use_memory(test, &memories[0]);
	struct collapsing c = { f };
	struct task_struct *task = gmem_kunit_thread(test, collapse_thread, &c);
	struct folio *folio = filemap_lock_folio(f->inode->i_mapping, N / 2);
	bool ended;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	wake_up_process(task);
	ended = gmem_kunit_wait_until(READ_ONCE(c.ended));
	gmem_kunit_put_folio(folio);
	gmem_kunit_stop_thread(test, task);

	KUNIT_EXPECT_TRUE(test, ended);
	KUNIT_EXPECT_EQ(test, c.result, -EBUSY);
	check_unchanged(test, f, &memories[0]);
}

/* I3: a range or a flag that is not valid changes nothing. */
static void refused(struct kunit *test)
{
#ifdef KVM_GUEST_MEMFD_COLLAPSE
	const struct bad_range *c = test->param_value;
	struct gmem_kunit_file *f = use_memory(test, &memories[0]);
	struct kvm_guest_memfd_collapse args = {
		.offset = c->offset,
		.size = c->size,
		.flags = c->flags,
	};

	KUNIT_EXPECT_EQ(test, gmem_kunit_ioctl(f->vm, f->file, KVM_GUEST_MEMFD_COLLAPSE, &args),
			-EINVAL);
	check_unchanged(test, f, &memories[0]);
#endif
}

/* I8: files without hugepages, or whose memory must not move, are refused. */
static void without_flags(struct kunit *test)
{
	static const u64 flags[] = {
		GMEM_SHARED, GMEM_SHARED | GUEST_MEMFD_FLAG_MIGRATABLE, GMEM_HUGE,
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, flags[i]);

		gmem_kunit_no_hugepages(test);
		KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, N), 0);
		kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);
		KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, 0, N), -EOPNOTSUPP);
		KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, 0), 0);
	}
}

static struct kunit_case gmem_collapse_cases[] = {
	KUNIT_CASE_PARAM(keeps_contents, memory_gen_params),
	KUNIT_CASE(other_cpu_is_busy),
	KUNIT_CASE(waits_for_faults),
	KUNIT_CASE(stays_dirty),
	KUNIT_CASE(frees_pages),
	KUNIT_CASE(after_hole),
	KUNIT_CASE(after_hole_in_place),
	KUNIT_CASE(after_hole_while_pinned),
	KUNIT_CASE(after_split),
	KUNIT_CASE(large_folios),
	KUNIT_CASE(not_used),
	KUNIT_CASE(nothing_allocated),
	KUNIT_CASE(hugepage_already),
	KUNIT_CASE(not_bound),
	KUNIT_CASE_PARAM(in_use, memory_gen_params),
	KUNIT_CASE(pinned),
	KUNIT_CASE_PARAM(poisoned, memory_gen_params),
	KUNIT_CASE_PARAM(no_memory, memory_gen_params),
	KUNIT_CASE(reports_progress),
	KUNIT_CASE(through_ioctl),
	KUNIT_CASE(other_ranges_stay),
	KUNIT_CASE(empty_range_stays_empty),
	KUNIT_CASE(interrupted),
	KUNIT_CASE(locked_page),
	KUNIT_CASE_PARAM(refused, bad_range_gen_params),
	KUNIT_CASE(without_flags),
	{}
};

static struct kunit_suite gmem_collapse_suite = {
	.name = "kvm_gmem_collapse",
	.init = init,
	.test_cases = gmem_collapse_cases,
};

kunit_test_suite(gmem_collapse_suite);
