// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for allocating memory with fallocate(): it fills holes, with hugepages
 * where possible, and never changes existing memory (invariants I2, I3, I7 and I8).
 */
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <kunit/test-bug.h>
#include <linux/delay.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/kvm_host.h>
#include <linux/pagemap.h>
#include <linux/rwsem.h>
#include <linux/sched/signal.h>

#include "gmem_kunit_helpers.h"

#define N	GMEM_NR
#define NPAGES	(4 * N)
#define GFN	GMEM_GFN

/* Write to a page from the guest, so that KVM allocates a single page for it. */
static kvm_pfn_t write_base_page(struct kunit *test, struct gmem_kunit_file *f,
				 pgoff_t index, u8 byte)
{
	struct gmem_kunit_fault fault;

	gmem_kunit_no_hugepages(test);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + index, &fault), 0);
	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);

	gmem_kunit_fill(fault.pfn, 1, byte);
	return fault.pfn;
}

struct range_case {
	const char *name;
	pgoff_t start;
	unsigned long npages;
	unsigned long allocated;	/* expected number of pages with hugepages */
};

static const struct range_case range_cases[] = {
	{ "one_page", N + 1, 1, N },
	{ "one_hugepage", N, N, N },
	{ "across_boundary", N - 1, 2, 2 * N },
	{ "whole_file", 0, NPAGES, NPAGES },
	{ "last_page", NPAGES - 1, 1, N },
};

KUNIT_ARRAY_PARAM_DESC(range, range_cases, name);

/* I7: fallocate() allocates exactly the hugepages that overlap with the range. */
static void fills_range(struct kunit *test)
{
	const struct range_case *c = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, c->start, c->npages), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), c->allocated);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, c->start), PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, c->start + c->npages - 1), PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(f, c->start), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(f, c->start + c->npages - 1), 0);
}

/* I8: without the flag, fallocate() allocates exactly the range, in single pages. */
static void flag_off(struct kunit *test)
{
	const struct range_case *c = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_SHARED);

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, c->start, c->npages), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), c->npages);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, c->start), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, c->start + c->npages - 1), 0);
}

/*
 * I2, I7: next to existing single pages, fallocate() allocates single pages, and
 * hugepages elsewhere.  The existing pages keep their pfn and their contents.
 */
static void mixed_with_base_pages(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);
	const u8 first_byte = 0x11, last_byte = 0x22;
	struct gmem_kunit_fault fault;
	kvm_pfn_t first, last;

	first = write_base_page(test, f, N, first_byte);
	last = write_base_page(test, f, 3 * N - 1, last_byte);
	KUNIT_ASSERT_EQ(test, gmem_kunit_nr_pages(f), 2);

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), NPAGES);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, 0), PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, N + 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, 2 * N), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, 3 * N), PMD_ORDER);

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + N, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.pfn, first);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(first, 1, first_byte), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + 3 * N - 1, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.pfn, last);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(last, 1, last_byte), 0);
}

/* I2: allocating memory again changes nothing, whether the memory is in use or not. */
static void idempotent(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);
	struct gmem_kunit_fault before, after;

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + N, &before), 0);
	gmem_kunit_fill(before.pfn, N, GMEM_DATA);

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), NPAGES);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + N, &after), 0);
	KUNIT_EXPECT_EQ(test, after.pfn, before.pfn);
	KUNIT_EXPECT_EQ(test, after.order, PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(after.pfn, N, GMEM_DATA), 0);
}

/* fallocate() fills a hole again, and the memory reads as zeros. */
static void refills_hole(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);
	const pgoff_t start = 5, inside = 9, end = 15;
	struct gmem_kunit_fault fault;

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	gmem_kunit_fill(fault.pfn, N, GMEM_DATA);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, start, end - start), 0);

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), NPAGES);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + inside, &fault), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn, 1, 0), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + end, &fault), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn, 1, GMEM_DATA), 0);
}

/* I7: if no hugepage is available, fallocate() allocates single pages. */
static void without_hugepages(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);

	gmem_kunit_no_hugepages(test);
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, N - 1, N + 2), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N + 2);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, N), 0);
}

/* I3: a signal that is already pending interrupts before the first allocation. */
static void interrupted(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);

	set_tsk_thread_flag(current, TIF_SIGPENDING);
	KUNIT_EXPECT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), -EINTR);
	clear_tsk_thread_flag(current, TIF_SIGPENDING);

	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 0);
	KUNIT_EXPECT_FALSE(test, rwsem_is_locked(&f->inode->i_mapping->invalidate_lock));
}

static struct folio *alloc_is_interrupted(struct inode *inode, pgoff_t index, gfp_t gfp)
{
	set_tsk_thread_flag(current, TIF_SIGPENDING);
	return folio_alloc(GFP_HIGHUSER, PMD_ORDER);
}

/* After a signal, allocated memory stays allocated, and the next call continues. */
static void interrupted_half_way(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);

	kunit_activate_static_stub(test, kvm_gmem_alloc_huge_folio, alloc_is_interrupted);
	KUNIT_EXPECT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), -EINTR);
	clear_tsk_thread_flag(current, TIF_SIGPENDING);
	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);

	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N);
	KUNIT_EXPECT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), NPAGES);
}

/* A thread that waits for the invalidate lock, as one that punches a hole does. */
struct waiter {
	struct address_space *mapping;
	struct task_struct *task;
	bool had_lock;
	bool in_time;	/* while fallocate() still had memory to allocate */
};

static int take_invalidate_lock(void *data)
{
	struct waiter *w = data;

	filemap_invalidate_lock(w->mapping);
	WRITE_ONCE(w->had_lock, true);
	filemap_invalidate_unlock(w->mapping);
	return 0;
}

/*
 * Succeed, but the first time only after the thread waits for the lock that fallocate()
 * holds.  The last time, the thread should have had its turn.  It need not be the next in
 * turn: a reader can steal an rwsem from a writer that has waited for a few ms only.
 */
static struct folio *alloc_while_hole_waits(struct inode *inode, pgoff_t index, gfp_t gfp)
{
	struct kunit *test = kunit_get_current_test();
	struct rw_semaphore *lock = &inode->i_mapping->invalidate_lock;
	struct waiter *w = test->priv;

	if (index == NPAGES - N) {
		w->in_time = READ_ONCE(w->had_lock);
	} else if (index) {
		msleep(20);
	} else {
		wake_up_process(w->task);
		KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(gmem_kunit_is_awaited(lock)));
	}

	return folio_alloc(GFP_HIGHUSER, PMD_ORDER);
}

/*
 * I7: if somebody waits for the invalidate lock to punch a hole, fallocate() lets it go
 * first, and still allocates only hugepages.  The thread may get no CPU for a while: try
 * again.
 */
static void hole_waits(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);
	struct waiter w = { .mapping = f->inode->i_mapping };
	pgoff_t index;
	int tries;

	test->priv = &w;
	kunit_activate_static_stub(test, kvm_gmem_alloc_huge_folio, alloc_while_hole_waits);

	for (tries = 0; !w.in_time && tries < 10; tries++) {
		KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, 0, NPAGES), 0);
		w.had_lock = false;
		w.task = gmem_kunit_thread(test, take_invalidate_lock, &w);
		KUNIT_EXPECT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
		gmem_kunit_stop_thread(test, w.task);
	}
	KUNIT_EXPECT_TRUE(test, w.in_time);

	for (index = 0; index < NPAGES; index += N)
		KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, index), PMD_ORDER);
}

struct bad_range {
	const char *name;
	loff_t offset;
	loff_t len;
};

static const struct bad_range bad_ranges[] = {
	{ "beyond_end", (loff_t)NPAGES << PAGE_SHIFT, PAGE_SIZE },
	{ "across_end", (loff_t)(NPAGES - 1) << PAGE_SHIFT, 2 * PAGE_SIZE },
	{ "unaligned_offset", 1, PAGE_SIZE },
	{ "unaligned_length", 0, PAGE_SIZE - 1 },
	{ "empty", 0, 0 },
};

KUNIT_ARRAY_PARAM_DESC(bad_range, bad_ranges, name);

/* I3: fallocate() rejects an invalid range and allocates nothing. */
static void refused(struct kunit *test)
{
	const struct bad_range *c = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);

	KUNIT_EXPECT_EQ(test, vfs_fallocate(f->file, FALLOC_FL_KEEP_SIZE, c->offset, c->len),
			-EINVAL);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 0);
}

/* I3: fallocate() rejects a call that could change the size of the file. */
static void without_keep_size(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);

	KUNIT_EXPECT_EQ(test, vfs_fallocate(f->file, 0, 0, PMD_SIZE), -EOPNOTSUPP);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 0);
}

static struct kunit_case gmem_fallocate_cases[] = {
	KUNIT_CASE_PARAM(fills_range, range_gen_params),
	KUNIT_CASE_PARAM(flag_off, range_gen_params),
	KUNIT_CASE(mixed_with_base_pages),
	KUNIT_CASE(idempotent),
	KUNIT_CASE(refills_hole),
	KUNIT_CASE(without_hugepages),
	KUNIT_CASE(interrupted),
	KUNIT_CASE(interrupted_half_way),
	KUNIT_CASE(hole_waits),
	KUNIT_CASE_PARAM(refused, bad_range_gen_params),
	KUNIT_CASE(without_keep_size),
	{}
};

static struct kunit_suite gmem_fallocate_suite = {
	.name = "kvm_gmem_fallocate",
	.init = gmem_kunit_init_huge,
	.test_cases = gmem_fallocate_cases,
};

kunit_test_suite(gmem_fallocate_suite);
