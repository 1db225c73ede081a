// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for memory errors in hugepages: KVM reports the bad page to whoever
 * accesses it, never touches the page, loses no other page, and whatever happens to
 * the hugepage, nobody gets the bad page again (invariants I1 to I3, I5, I6 and I11).
 *
 * Some tests only mark a page as memory_failure() does, others call memory_failure().
 * At the end of the case the page is good again, so that the kernel can use it.
 */
#include <kunit/resource.h>
#include <kunit/static_stub.h>
#include <kunit/test-bug.h>
#include <kunit/test.h>
#include <linux/fs.h>
#include <linux/kthread.h>
#include <linux/kvm_host.h>
#include <linux/memcontrol.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/shmem_fs.h>
#include <linux/swap.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include "gmem_kunit_helpers.h"

#define N	GMEM_NR
#define NPAGES	(2 * N)
#define GFN	GMEM_GFN

static int init(struct kunit *test)
{
	if (!IS_ENABLED(CONFIG_MEMORY_FAILURE))
		kunit_skip(test, "the kernel has no memory failure handling");

	return gmem_kunit_init(test);
}

struct bad_page {
	const char *name;
	pgoff_t index;
};

static const struct bad_page bad_pages[] = {
	{ "first", 0 },
	{ "second", 1 },
	{ "middle", N / 2 },
	{ "last", N - 1 },
};

KUNIT_ARRAY_PARAM_DESC(bad, bad_pages, name);

static void unmark(void *page)
{
#ifdef CONFIG_MEMORY_FAILURE
	struct folio *folio = page_folio((struct page *)page);

	ClearPageHWPoison((struct page *)page);
	if (folio_test_large(folio))
		folio_clear_has_hwpoisoned(folio);
#endif
}

/* Mark a page of the file as bad until the case ends; returns its pfn. */
static kvm_pfn_t mark_bad(struct kunit *test, struct gmem_kunit_file *f, pgoff_t index)
{
	struct folio *folio = gmem_kunit_folio(test, f, index);
	struct page *page;

	KUNIT_ASSERT_EQ(test, folio_order(folio), PMD_ORDER);
	page = folio_file_page(folio, index);
#ifdef CONFIG_MEMORY_FAILURE
	SetPageHWPoison(page);
	folio_set_has_hwpoisoned(folio);
#endif
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, unmark, page), 0);

	return page_to_pfn(page);
}

/*
 * Check that a fault on the bad page fails, that all other pages of its hugepage
 * contain @byte and are mapped page by page, and that the next hugepage is not
 * affected.
 */
static void check_guest(struct kunit *test, struct gmem_kunit_file *f, pgoff_t bad, u8 byte)
{
	unsigned long refused = 0, huge = 0, lost = 0;
	struct gmem_kunit_fault fault;
	pgoff_t index;

	KUNIT_EXPECT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + bad, &fault), -EHWPOISON);

	for (index = 0; index < N; index++) {
		if (index == bad)
			continue;
		if (gmem_kunit_fault(f->kvm, 0, GFN + index, &fault)) {
			refused++;
			continue;
		}
		huge += fault.order != 0;
		lost += gmem_kunit_count_not(fault.pfn, 1, byte);
	}
	KUNIT_EXPECT_EQ(test, refused, 0);
	KUNIT_EXPECT_EQ(test, huge, 0);
	KUNIT_EXPECT_EQ(test, lost, 0);

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + N + bad, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.order, PMD_ORDER);
}

/* I2, I6: a page in use goes bad. */
static void used_memory(struct kunit *test)
{
	const struct bad_page *c = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	struct gmem_kunit_fault fault;

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	KUNIT_ASSERT_EQ(test, fault.order, PMD_ORDER);
	gmem_kunit_fill(fault.pfn, N, GMEM_DATA);

	mark_bad(test, f, c->index);
	check_guest(test, f, c->index, GMEM_DATA);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(f, c->index), 0);
}

/* I5: if a page goes bad before its first use, zeroing its hugepage skips the page. */
static void unused_memory(struct kunit *test)
{
	const struct bad_page *c = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	kvm_pfn_t bad;

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, N), 0);
	bad = mark_bad(test, f, c->index);
	check_guest(test, f, c->index, 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(bad, 1, GMEM_POISON), 0);
}

/* Check that a host access to the bad page fails, and that the host can read all others. */
static void check_host(struct kunit *test, unsigned long addr, pgoff_t bad)
{
	unsigned long lost = 0;
	pgoff_t index;
	u8 byte;

	for (index = 0; index < N; index++) {
		const void __user *p = (void __user *)(addr + (index << PAGE_SHIFT));

		if (index == bad)
			KUNIT_EXPECT_EQ(test, copy_from_user(&byte, p, 1), 1);
		else
			lost += copy_from_user(&byte, p, 1) || byte != GMEM_DATA;
	}
	KUNIT_EXPECT_EQ(test, lost, 0);
}

/* A page goes bad that the host has not mapped. */
static void host_mapping(struct kunit *test)
{
	const struct bad_page *c = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	struct gmem_kunit_fault fault;

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	gmem_kunit_fill(fault.pfn, N, GMEM_DATA);
	mark_bad(test, f, c->index);

	check_host(test, gmem_kunit_map(test, f, 0), c->index);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(f, c->index), 0);
}

#ifdef CONFIG_MEMORY_FAILURE

/* A hugepage in use, with a page that memory_failure() has handled. */
struct failed {
	struct gmem_kunit_file *f;
	struct folio *pinned;	/* NULL, or an extra reference during memory_failure() */
	unsigned long addr;	/* host mapping of the file */
	kvm_pfn_t head;
	struct page *bad;
	struct page **unpoison;	/* the page that is good again after the case */
};

static void unpoison(void *data)
{
	struct page *page = *(struct page **)data;

	if (page)
		gmem_kunit_unpoison(page);
}

/*
 * Make a page good again at the end of the case.  Call this before a file is opened that
 * contains the page, because that is possible only once the file is closed.
 *
 * Return: where to store the page.
 */
static struct page **unpoison_later(struct kunit *test)
{
	struct page **page = kunit_kzalloc(test, sizeof(*page), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, page);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, unpoison, page), 0);
	return page;
}

/* Let guest and host use a hugepage. */
static void use_memory(struct kunit *test, struct failed *m, bool pinned)
{
	struct gmem_kunit_fault fault;
	u8 byte;

	m->unpoison = unpoison_later(test);
	m->f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(m->f->kvm, 0, GFN, &fault), 0);
	KUNIT_ASSERT_EQ(test, fault.order, PMD_ORDER);
	m->head = fault.pfn;
	gmem_kunit_fill(m->head, N, GMEM_DATA);
	m->addr = gmem_kunit_map(test, m->f, 0);
	KUNIT_ASSERT_EQ(test, copy_from_user(&byte, (void __user *)m->addr, 1), 0);
	m->pinned = pinned ? gmem_kunit_pin(test, m->f, 0) : NULL;
}

/* Let a page of that hugepage fail. */
static void fail_page(struct kunit *test, struct failed *m, pgoff_t index)
{
	pgoff_t start = page_folio(pfn_to_page(m->head))->index;
	unsigned long seq = gmem_kunit_watch_invalidations(m->f->kvm, GFN + start);

	m->bad = pfn_to_page(m->head + index);
	KUNIT_EXPECT_EQ(test, memory_failure(m->head + index, MF_SW_SIMULATED), 0);
	/* No part of the hugepage stays mapped. */
	gmem_kunit_expect_invalidated(test, m->f->kvm, seq, GFN + start, GFN + start + N);

	KUNIT_ASSERT_TRUE(test, PageHWPoison(m->bad));
	*m->unpoison = m->bad;
}

/* Let memory fail in a hugepage that guest and host have in use. */
static void fail_memory(struct kunit *test, struct failed *m, pgoff_t index, bool pinned)
{
	use_memory(test, m, pinned);
	fail_page(test, m, index);
}

static void put_pin(struct kunit *test, struct failed *m)
{
	if (m->pinned)
		gmem_kunit_unpin(test, m->pinned);
	m->pinned = NULL;
}

/* Whether one of the next few allocations of this kind contains a page. */
static bool is_allocated_next(struct page *bad, gfp_t gfp, unsigned int order)
{
	struct page *pages[8];
	bool found = false;
	int i;

	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		pages[i] = alloc_pages_node(page_to_nid(bad), gfp | __GFP_THISNODE |
					    __GFP_NORETRY | __GFP_NOWARN, order);
		if (pages[i] && bad - pages[i] >= 0 && bad - pages[i] < BIT(order))
			found = true;
	}
	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		if (pages[i])
			__free_pages(pages[i], order);
	}
	return found;
}

static __maybe_unused void drain_lists(struct work_struct *work)
{
	drain_local_pages(NULL);
}

/*
 * Whether the page allocator can hand out a page: it is in the buddy allocator, or
 * on a list of free pages or hugepages, from which allocations take it first.  Looking
 * through the lists may return what is on them to the buddy allocator.
 */
static bool is_free(struct page *bad)
{
	static const gfp_t lists[] = {
		GFP_HIGHUSER, GFP_HIGHUSER_MOVABLE, GFP_HIGHUSER | __GFP_RECLAIMABLE,
	};
	int i;

#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	/* Not exported.  Modules don't see what is on the lists of other CPUs. */
	schedule_on_each_cpu(drain_lists);
#endif
	for (i = 0; i < ARRAY_SIZE(lists); i++) {
		if (is_free_buddy_page(bad) || is_allocated_next(bad, lists[i], 0) ||
		    is_allocated_next(bad, lists[i], PMD_ORDER))
			return true;
	}
	return is_free_buddy_page(bad);
}

/*
 * I2: memory_failure() unmaps the bad page from guest and host and takes no other
 * page with it, whether it can split the hugepage or not.
 */
static void memory_failure_in_hugepage(struct kunit *test)
{
	const struct bad_page *c = test->param_value;
	struct failed m;

	fail_memory(test, &m, c->index, false);
	check_guest(test, m.f, c->index, GMEM_DATA);
	check_host(test, m.addr, c->index);
}

static void memory_failure_in_pinned_hugepage(struct kunit *test)
{
	const struct bad_page *c = test->param_value;
	struct failed m;

	fail_memory(test, &m, c->index, true);
	check_guest(test, m.f, c->index, GMEM_DATA);
	check_host(test, m.addr, c->index);
	put_pin(test, &m);
}

/*
 * If KVM accesses the bad page on behalf of the guest, that fails.  It still can access
 * all other pages.  Only failing writes are tested: KVM expects others from vCPUs only.
 */
static void access_by_kvm(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	const struct bad_page *c = test->param_value;
	unsigned long lost = 0;
	int read, write, idx;
	struct failed m;
	pgoff_t index;
	u8 byte = 0;

	use_memory(test, &m, true);
	m.f->addr = m.addr;
	KUNIT_ASSERT_EQ(test, gmem_kunit_unbind(m.f->vm, 0), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(m.f, 0, GFN, 0, NPAGES), 0);
	fail_page(test, &m, c->index);

	idx = srcu_read_lock(&m.f->kvm->srcu);
	read = kvm_read_guest(m.f->kvm, gfn_to_gpa(GFN + c->index), &byte, 1);
	write = kvm_write_guest(m.f->kvm, gfn_to_gpa(GFN + c->index), &byte, 1);
	for (index = 0; index < N; index++) {
		if (index != c->index)
			lost += kvm_read_guest(m.f->kvm, gfn_to_gpa(GFN + index), &byte, 1) ||
				byte != GMEM_DATA;
	}
	srcu_read_unlock(&m.f->kvm->srcu, idx);
	KUNIT_EXPECT_EQ(test, read, -EFAULT);
	KUNIT_EXPECT_EQ(test, write, -EFAULT);
	KUNIT_EXPECT_EQ(test, lost, 0);
	put_pin(test, &m);
#else
	kunit_skip(test, "kvm_read_guest() is not exported to this module");
#endif
}

static const struct single {
	const char *name;
	int flags;
	int result;
} singles[] = {
	{ "accessed", MF_ACTION_REQUIRED, 0 },
	{ "must_kill", MF_ACTION_REQUIRED | MF_MUST_KILL, -EBUSY },
};

KUNIT_ARRAY_PARAM_DESC(single, singles, name);

/*
 * The same for a single page: it stays in its file, and counts as handled unless the
 * task that has accessed it must be killed.
 */
static void memory_failure_in_single_page(struct kunit *test)
{
	const struct single *c = test->param_value;
	struct page **bad = unpoison_later(test);
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_SHARED);
	struct gmem_kunit_fault fault;

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	KUNIT_EXPECT_EQ(test, memory_failure(fault.pfn, MF_SW_SIMULATED | c->flags), c->result);
	*bad = pfn_to_page(fault.pfn);
	KUNIT_EXPECT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), -EHWPOISON);
	KUNIT_EXPECT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + 1, &fault), 0);
}

enum end { HOLE, PIECES, CLOSE, CLOSE_AFTER_VM };

static const struct end_case {
	const char *name;
	pgoff_t bad;
	enum end end;
	bool pinned;		/* during memory_failure() */
	bool still_pinned;	/* at the end */
} end_cases[] = {
	{ "hole", 1, HOLE, false, false },
	{ "hole_after_pin", 0, HOLE, true, false },
	{ "hole_while_pinned", N - 1, HOLE, true, true },
	{ "pieces", N / 2, PIECES, false, false },
	{ "pieces_after_pin", N / 2, PIECES, true, false },
	{ "close", N - 1, CLOSE, false, false },
	{ "close_after_pin", 1, CLOSE, true, false },
	{ "close_while_pinned", 0, CLOSE, true, true },
	{ "close_after_vm", 2, CLOSE_AFTER_VM, false, false },
	{ "close_after_vm_while_pinned", N / 2, CLOSE_AFTER_VM, true, true },
};

KUNIT_ARRAY_PARAM_DESC(end, end_cases, name);

/* How many pages of a hugepage others may have allocated since it was freed. */
#define NR_USED_AGAIN	(N / 4)

/*
 * Check that all pages of what was a hugepage are free, except for the bad one.  The
 * caller must have stayed on this CPU since they were freed.
 */
static void check_freed(struct kunit *test, struct failed *m)
{
	struct page *first = pfn_to_page(m->head);
	unsigned long in_use = 0;
	kvm_pfn_t pfn;

	if (first != m->bad)
		KUNIT_EXPECT_TRUE(test, is_free(first) || page_count(first));
	KUNIT_EXPECT_TRUE(test, PageHWPoison(m->bad));
	KUNIT_EXPECT_FALSE(test, is_free(m->bad));
	KUNIT_EXPECT_FALSE(test, PageLRU(m->bad));
	KUNIT_EXPECT_FALSE(test, folio_memcg_charged(page_folio(m->bad)));
	for (pfn = m->head; pfn < m->head + N; pfn++) {
		if (pfn_to_page(pfn) != m->bad)
			in_use += page_count(pfn_to_page(pfn)) != 0;
	}
	KUNIT_EXPECT_LE(test, in_use, NR_USED_AGAIN);
}

/* Whatever ends a hugepage with a bad page, all pages become free except for that one. */
static void poison_is_never_free(struct kunit *test)
{
	const struct end_case *c = test->param_value;
	unsigned long failed = 0, free;
	struct failed m;
	pgoff_t index;

	fail_memory(test, &m, c->bad, c->pinned);
	if (!c->still_pinned)
		put_pin(test, &m);
	free = gmem_kunit_nr_free();
	migrate_disable();

	switch (c->end) {
	case HOLE:
		KUNIT_EXPECT_EQ(test, gmem_kunit_punch(m.f, 0, N), 0);
		break;
	case PIECES:
		for (index = 0; index < N; index++)
			failed += gmem_kunit_punch(m.f, index, 1) != 0;
		KUNIT_EXPECT_EQ(test, failed, 0);
		break;
	case CLOSE:
		KUNIT_EXPECT_EQ(test, gmem_kunit_unbind(m.f->vm, 0), 0);
		KUNIT_EXPECT_EQ(test, vm_munmap(m.addr, NPAGES << PAGE_SHIFT), 0);
		gmem_kunit_close(test, m.f);
		break;
	case CLOSE_AFTER_VM:
		/* The VM, with its memslot, goes away together with the file. */
		gmem_kunit_close_vm(test, m.f->vm);
		KUNIT_EXPECT_EQ(test, vm_munmap(m.addr, NPAGES << PAGE_SHIFT), 0);
		gmem_kunit_close(test, m.f);
		break;
	}
	if (c->end == HOLE || c->end == PIECES)
		KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(m.f), 0);
	put_pin(test, &m);

	check_freed(test, &m);
	migrate_enable();
	KUNIT_EXPECT_GE(test, gmem_kunit_nr_free(), free + N - NR_USED_AGAIN);
}

/* I1, I2: a hole over the bad page replaces it, and changes no other page. */
static void hole_over_bad_page(struct kunit *test)
{
	const struct bad_page *c = test->param_value;
	struct gmem_kunit_fault fault;
	unsigned long lost = 0;
	struct failed m;
	pgoff_t index;
	u8 byte = 1;

	fail_memory(test, &m, c->index, true);
	put_pin(test, &m);

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(m.f, c->index, 1), 0);
	for (index = 0; index < N; index++) {
		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(m.f->kvm, 0, GFN + index, &fault), 0);
		lost += gmem_kunit_count_not(fault.pfn, 1, index == c->index ? 0 : GMEM_DATA);
	}
	KUNIT_EXPECT_EQ(test, lost, 0);

	/* memory_failure() has unmapped all of the hugepage from the host. */
	KUNIT_EXPECT_EQ(test, copy_from_user(&byte, (void __user *)(m.addr +
			(c->index << PAGE_SHIFT)), 1), 0);
	KUNIT_EXPECT_EQ(test, byte, 0);
}

/* I3: if a pin keeps a hole from replacing the bad page, it fails and changes nothing. */
static void hole_over_pinned_bad_page(struct kunit *test)
{
	const pgoff_t bad = 5;
	struct failed m;

	fail_memory(test, &m, bad, true);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(m.f, bad, 1), -EBUSY);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(m.f, 0, 2 * bad), -EBUSY);
	/* The hole ends in another hugepage. */
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(m.f, 1, N), -EBUSY);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(m.f), N);
	check_guest(test, m.f, bad, GMEM_DATA);
	put_pin(test, &m);
}

/*
 * I3: the same if there is no memory to split the hugepage, which nobody has pinned, and
 * once there is, the hole replaces the page.
 */
static void no_memory_to_replace_bad_page(struct kunit *test)
{
#ifdef CONFIG_FAILSLAB
	struct address_space *mapping;
	const pgoff_t bad = 5;
	unsigned int left;
	struct failed m;
	gfp_t gfp;
	int r;

	fail_memory(test, &m, bad, false);
	mapping = m.f->inode->i_mapping;
	gfp = mapping_gfp_mask(mapping);

	/* Let the next allocation fail that can't reclaim memory. */
	mapping_set_gfp_mask(mapping, gfp & ~__GFP_DIRECT_RECLAIM);
	current->fail_nth = 1;
	r = gmem_kunit_punch(m.f, bad, 1);
	left = current->fail_nth;
	current->fail_nth = 0;
	mapping_set_gfp_mask(mapping, gfp);

	KUNIT_ASSERT_EQ(test, left, 0);
	KUNIT_EXPECT_EQ(test, r, -EBUSY);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(m.f), N);
	check_guest(test, m.f, bad, GMEM_DATA);

	/* check_guest() has faulted in the second hugepage. */
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(m.f, bad, 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(m.f), NPAGES - 1);
#else
	kunit_skip(test, "the kernel cannot let allocations fail");
#endif
}

static void unpin(void *page)
{
	unpin_user_page(page);
}

/* I1, I3: the same for a page that the host has pinned, and after the pin is gone. */
static void hole_over_page_pinned_by_host(struct kunit *test)
{
	const pgoff_t bad = 5;
	struct page *pinned;
	struct failed m;

	use_memory(test, &m, false);
	KUNIT_ASSERT_EQ(test, pin_user_pages_fast(m.addr, 1, FOLL_WRITE, &pinned), 1);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, unpin, pinned), 0);
	fail_page(test, &m, bad);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(m.f, bad, 1), -EBUSY);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(m.f), N);
	check_guest(test, m.f, bad, GMEM_DATA);

	kunit_release_action(test, unpin, pinned);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(m.f, bad, 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(m.f), NPAGES - 1);
}

/* I3: the same if the hole begins in a hugepage without a bad page. */
static void hole_up_to_pinned_bad_page(struct kunit *test)
{
	const pgoff_t bad = 5;
	struct gmem_kunit_fault fault;
	unsigned long lost = 0;
	struct folio *pinned;
	struct failed m;
	pgoff_t index;

	use_memory(test, &m, false);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(m.f->kvm, 0, GFN + N, &fault), 0);
	KUNIT_ASSERT_EQ(test, fault.order, PMD_ORDER);
	gmem_kunit_fill(fault.pfn, N, GMEM_DATA);
	m.head = fault.pfn;
	pinned = gmem_kunit_pin(test, m.f, N);
	fail_page(test, &m, bad);

	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(m.f, N - 3, 3 + bad + 1), -EBUSY);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(m.f), NPAGES);
	for (index = 0; index < NPAGES; index++) {
		if (index == N + bad)
			continue;
		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(m.f->kvm, 0, GFN + index, &fault), 0);
		lost += gmem_kunit_count_not(fault.pfn, 1, GMEM_DATA);
	}
	KUNIT_EXPECT_EQ(test, lost, 0);
	gmem_kunit_unpin(test, pinned);
}

/* I1, I2: holes next to the bad page of a pinned hugepage are holes like any other. */
static void holes_next_to_pinned_bad_page(struct kunit *test)
{
	const pgoff_t bad = 5;
	struct gmem_kunit_fault fault;
	unsigned long lost = 0;
	struct failed m;
	pgoff_t index;

	fail_memory(test, &m, bad, true);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(m.f, 0, bad), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(m.f, bad + 1, bad), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(m.f), N);

	for (index = 0; index < N; index++) {
		int r = gmem_kunit_fault(m.f->kvm, 0, GFN + index, &fault);

		if (index == bad) {
			KUNIT_EXPECT_EQ(test, r, -EHWPOISON);
			continue;
		}
		KUNIT_ASSERT_EQ(test, r, 0);
		lost += gmem_kunit_count_not(fault.pfn, 1, index <= 2 * bad ? 0 : GMEM_DATA);
	}
	KUNIT_EXPECT_EQ(test, lost, 0);
	put_pin(test, &m);
}

/*
 * I1, I4: if a page goes bad while it is in a hole, nothing makes it memory again, and
 * the first hole after the pin is gone replaces it.
 */
static void bad_page_in_hole(struct kunit *test)
{
	const pgoff_t bad = 7;
	struct gmem_kunit_fault fault;
	struct failed m;

	use_memory(test, &m, true);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(m.f, 5, 10), 0);
	fail_page(test, &m, bad);
	KUNIT_EXPECT_EQ(test, gmem_kunit_fault(m.f->kvm, 0, GFN + bad, &fault), -EHWPOISON);
	KUNIT_EXPECT_EQ(test, gmem_kunit_allocate(m.f, 0, N), 0);
	put_pin(test, &m);

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(m.f, 0, 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(m.f), N - 2);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(m.f->kvm, 0, GFN + bad, &fault), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn, 1, 0), 0);
}

/*
 * I1, I2: a hole over a bad page fails while the hugepage is pinned and other pages of it
 * are in use, but not if it covers all that earlier holes have left of it.
 */
static void last_hole_over_bad_page(struct kunit *test)
{
	const struct bad_page *c = test->param_value;
	pgoff_t before = c->index, after = N - 1 - c->index;
	struct failed m;

	fail_memory(test, &m, c->index, true);
	if (before)
		KUNIT_ASSERT_EQ(test, gmem_kunit_punch(m.f, 0, before), 0);
	if (before && after) {
		KUNIT_EXPECT_EQ(test, gmem_kunit_punch(m.f, c->index, 1), -EBUSY);
		KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(m.f), N);
	}
	if (after)
		KUNIT_ASSERT_EQ(test, gmem_kunit_punch(m.f, c->index + 1, after), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(m.f, c->index, 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(m.f), 0);

	migrate_disable();
	put_pin(test, &m);
	check_freed(test, &m);
	migrate_enable();
}

/* The same while pages before it are in use, but none behind it. */
static void not_the_last_hole(struct kunit *test)
{
	struct failed m;

	fail_memory(test, &m, 5, true);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(m.f, 6, N - 6), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(m.f, 5, 1), -EBUSY);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(m.f), N);
	put_pin(test, &m);
}

/* The same in a hugepage that is not the first one of the file. */
static void last_hole_in_second_hugepage(struct kunit *test)
{
	struct page **bad_page = unpoison_later(test);
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, 2 * N, GMEM_HUGE);
	const pgoff_t bad = N + 5;
	struct gmem_kunit_fault fault;
	struct folio *pinned;

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + bad, &fault), 0);
	KUNIT_ASSERT_EQ(test, fault.order, PMD_ORDER);
	pinned = gmem_kunit_pin(test, f, N);
	KUNIT_EXPECT_EQ(test, memory_failure(fault.pfn, MF_SW_SIMULATED), 0);
	*bad_page = pfn_to_page(fault.pfn);

	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, N, 5), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, bad, 1), -EBUSY);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, bad + 1, N - 6), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, bad, 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 0);
	gmem_kunit_unpin(test, pinned);
}

/* I2: a bad page in a hugepage that has left the file while pinned is never free either. */
static void bad_page_left_file(struct kunit *test)
{
	const pgoff_t bad = 3;
	struct gmem_kunit_fault fault;
	struct failed m;

	use_memory(test, &m, true);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(m.f, 0, N), 0);

	m.bad = pfn_to_page(m.head + bad);
	KUNIT_EXPECT_EQ(test, memory_failure(m.head + bad, MF_SW_SIMULATED), -EHWPOISON);
	KUNIT_ASSERT_TRUE(test, PageHWPoison(m.bad));
	*m.unpoison = m.bad;
	KUNIT_EXPECT_FALSE(test, folio_test_locked(m.pinned));
	KUNIT_EXPECT_EQ(test, folio_ref_count(m.pinned), 1);

	/* The file gets a new hugepage, which isn't affected. */
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(m.f->kvm, 0, GFN + bad, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.order, PMD_ORDER);

	put_pin(test, &m);
	KUNIT_EXPECT_TRUE(test, PageHWPoison(m.bad));
	KUNIT_EXPECT_FALSE(test, is_free(m.bad));
	KUNIT_EXPECT_EQ(test, page_count(m.bad), 1);
}

static const struct told {
	const char *name;
	int flags;
	bool dirty;
	bool pinned;
	bool unmapped;
	bool early;		/* the task has asked to be told early */
	int signal;
	int result;
} told_cases[] = {
	{ "clean", MF_ACTION_REQUIRED, .pinned = true },
	{ "dirty", MF_ACTION_REQUIRED, .dirty = true, .pinned = true, .signal = SIGBUS },
	{ "must_kill", MF_ACTION_REQUIRED | MF_MUST_KILL, .pinned = true, .signal = SIGBUS,
	  .result = -EBUSY },
	{ "not_pinned", MF_ACTION_REQUIRED, .dirty = true, .signal = SIGBUS },
	{ "unmapped", MF_ACTION_REQUIRED | MF_MUST_KILL, .dirty = true, .pinned = true,
	  .unmapped = true, .result = -EBUSY },
	{ "not_accessed", MF_MUST_KILL, .dirty = true, .pinned = true },
	{ "early", .dirty = true, .pinned = true, .early = true, .signal = SIGBUS },
	{ "early_clean", .pinned = true, .early = true },
};

KUNIT_ARRAY_PARAM_DESC(told, told_cases, name);

/*
 * As for any other memory, a task that has mapped the bad page learns about the error
 * if the page was modified, or if the architecture says that it can't go on.  If nobody
 * has accessed the page, that goes only for tasks that have asked to be told early.
 * A task that can't go on need not have mapped the page, e.g. that of a vCPU.  So the
 * architecture must not take the error for handled.
 */
static void task_is_told(struct kunit *test)
{
	const struct told *c = test->param_value;
	const pgoff_t bad = 3;
	struct failed m;
	int r, signal;

	use_memory(test, &m, c->pinned);
	if (c->dirty)
		folio_mark_dirty(pfn_folio(m.head));
	if (c->unmapped)
		unmap_mapping_range(m.f->inode->i_mapping, 0, 0, 0);

	/* Kernel threads ignore signals that aren't forced on them. */
	allow_signal(SIGBUS);
	if (c->early)
		current->flags |= PF_MCE_PROCESS | PF_MCE_EARLY;
	r = memory_failure(m.head + bad, MF_SW_SIMULATED | c->flags);
	current->flags &= ~(PF_MCE_PROCESS | PF_MCE_EARLY);
	signal = kernel_dequeue_signal();
	disallow_signal(SIGBUS);
	m.bad = pfn_to_page(m.head + bad);
	*m.unpoison = m.bad;
	KUNIT_EXPECT_EQ(test, r, c->result);
	KUNIT_EXPECT_EQ(test, signal, c->signal);
	check_guest(test, m.f, bad, GMEM_DATA);
	put_pin(test, &m);
}

/* Reading a hugepage page by page doesn't modify it: if it fails, no data is lost. */
static void reader_is_not_told(struct kunit *test)
{
	const pgoff_t bad = 3;
	const void __user *p;
	struct failed m;
	int r, signal;
	u8 byte;

	use_memory(test, &m, true);
	p = (void __user *)(m.addr + (bad << PAGE_SHIFT));
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(m.f, 0, 1), 0);
	KUNIT_EXPECT_EQ(test, copy_from_user(&byte, p, 1), 0);
	KUNIT_EXPECT_EQ(test, byte, GMEM_DATA);

	r = memory_failure(m.head + bad, MF_SW_SIMULATED | MF_ACTION_REQUIRED);
	signal = kernel_dequeue_signal();
	m.bad = pfn_to_page(m.head + bad);
	*m.unpoison = m.bad;
	KUNIT_EXPECT_EQ(test, r, 0);
	KUNIT_EXPECT_EQ(test, signal, 0);
	put_pin(test, &m);
}

/* Unpoisoned memory can be allocated again. */
static void unpoison_afterwards(struct kunit *test)
{
	const struct bad_page *c = test->param_value;
	struct failed m;

	fail_memory(test, &m, c->index, true);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(m.f, 0, N), 0);
	put_pin(test, &m);

	/* Stay on the CPU on whose list the free page is. */
	migrate_disable();
	KUNIT_EXPECT_EQ(test, unpoison_memory(page_to_pfn(m.bad)), 0);
	KUNIT_EXPECT_FALSE(test, PageHWPoison(m.bad));
	KUNIT_EXPECT_EQ(test, page_count(m.bad), 0);
	KUNIT_EXPECT_TRUE(test, is_free(m.bad));
	migrate_enable();
}

/* What a file uses. */
static const struct size {
	const char *name;
	u64 flags;
} sizes[] = {
	{ "single_page", GMEM_SHARED },
	{ "hugepage", GMEM_HUGE },
};

KUNIT_ARRAY_PARAM_DESC(size, sizes, name);

static int memory_failure_thread(void *pfn)
{
	memory_failure((unsigned long)pfn, MF_SW_SIMULATED);
	return 0;
}

/*
 * I11: hole punching locks folios while it holds the invalidate lock.  So a memory
 * error must not hold the folio lock while it waits for the invalidate lock.
 */
static void lock_order(struct kunit *test)
{
	const struct size *c = test->param_value;
	struct page **bad = unpoison_later(test);
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, c->flags);
	struct rw_semaphore *lock = &f->inode->i_mapping->invalidate_lock;
	struct gmem_kunit_fault fault;
	struct task_struct *task;
	bool locked;

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	task = gmem_kunit_thread(test, memory_failure_thread, (void *)fault.pfn);
	*bad = pfn_to_page(fault.pfn);

	filemap_invalidate_lock(f->inode->i_mapping);
	wake_up_process(task);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(gmem_kunit_is_awaited(lock)));
	locked = gmem_kunit_wait_until(folio_trylock(page_folio(pfn_to_page(fault.pfn))));
	KUNIT_EXPECT_TRUE(test, locked);
	if (locked)
		folio_unlock(page_folio(pfn_to_page(fault.pfn)));
	filemap_invalidate_unlock(f->inode->i_mapping);

	gmem_kunit_stop_thread(test, task);
}

/* A memory error in a file that somebody closes. */
struct closing {
	struct kunit *test;
	struct gmem_kunit_file *f;
	struct address_space *mapping;
	struct folio *folio;		/* in which the error is */
	bool kept;			/* the file had its memory right after close() */
};

static int close_thread(void *data)
{
	struct closing *c = data;

	gmem_kunit_close(c->test, c->f);
	c->kept = c->folio && folio_mapping(c->folio) == c->mapping;
	return 0;
}

/*
 * I11: a memory error in a file that is going away neither waits nor lets go of the
 * folio, which the eviction of the inode is waiting for.
 */
static void file_goes_away(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), N, GMEM_HUGE);
	struct address_space *mapping = f->inode->i_mapping;
	struct closing c = { .test = test, .f = f };
	struct task_struct *task;
	struct folio *folio;

	task = gmem_kunit_thread(test, close_thread, &c);
	folio = kvm_gmem_get_folio(f->inode, 0);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);

	wake_up_process(task);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(inode_state_read_once(f->inode) & I_FREEING));
	KUNIT_EXPECT_EQ(test, mapping->a_ops->error_remove_folio(mapping, folio), MF_DELAYED);
	KUNIT_EXPECT_TRUE(test, folio_test_locked(folio));
	KUNIT_EXPECT_PTR_EQ(test, folio->mapping, mapping);
	folio_unlock(folio);

	gmem_kunit_stop_thread(test, task);
	KUNIT_EXPECT_NULL(test, folio->mapping);
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);
	folio_put(folio);
}

struct punching {
	struct gmem_kunit_file *f;
	pgoff_t index;
	int result;
};

static int punch_thread(void *data)
{
	struct punching *p = data;

	p->result = gmem_kunit_punch(p->f, p->index, 1);
	return 0;
}

/*
 * I11: a hole can replace the bad page although memory_failure(), which has told
 * userspace already, waits for the hole and has a reference to the hugepage.
 */
static void hole_meets_memory_failure(struct kunit *test)
{
	struct punching p = { .index = 7, .result = -ESRCH };
	struct task_struct *punch, *failure;
	struct gmem_kunit_fault fault;
	struct rw_semaphore *lock;
	struct folio *folio;
	struct failed m;

	use_memory(test, &m, true);
	p.f = m.f;
	m.bad = pfn_to_page(m.head + p.index);
	folio = m.pinned;
	lock = &m.f->inode->i_mapping->invalidate_lock;
	punch = gmem_kunit_thread(test, punch_thread, &p);
	failure = gmem_kunit_thread(test, memory_failure_thread, (void *)(m.head + p.index));
	*m.unpoison = m.bad;

	/* Let the hole be the first to get the lock, and memory_failure() the second. */
	filemap_invalidate_lock(m.f->inode->i_mapping);
	wake_up_process(punch);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(gmem_kunit_is_awaited(lock)));
	wake_up_process(failure);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(PageHWPoison(m.bad) && !folio_mapped(folio) &&
						      !folio_test_locked(folio) &&
						      !task_is_running(failure)));
	put_pin(test, &m);
	filemap_invalidate_unlock(m.f->inode->i_mapping);

	gmem_kunit_stop_thread(test, punch);
	gmem_kunit_stop_thread(test, failure);
	KUNIT_EXPECT_EQ(test, p.result, 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(m.f->kvm, 0, GFN + p.index, &fault), 0);
	KUNIT_EXPECT_NE(test, fault.pfn, m.head + p.index);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn, 1, 0), 0);
}

static const struct off_lru {
	const char *name;
	bool split;
} off_lru_cases[] = {
	{ "hugepage", false },
	{ "single_page", true },
};

KUNIT_ARRAY_PARAM_DESC(off_lru, off_lru_cases, name);

/*
 * I2, I6: memory_failure() can't get hold of a folio that somebody took off the LRU
 * for a moment.  Nevertheless the bad page is neither mapped nor freed.
 */
static void bad_page_off_lru(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST) && IS_ENABLED(CONFIG_MIGRATION)
	const struct off_lru *c = test->param_value;
	struct gmem_kunit_fault fault;
	const pgoff_t bad = 5;
	LIST_HEAD(isolated);
	struct folio *folio;
	unsigned long seq;
	struct failed m;
	gfn_t start;
	u8 byte;

	use_memory(test, &m, false);
	KUNIT_ASSERT_EQ(test, copy_from_user(&byte, (void __user *)(m.addr +
					     (bad << PAGE_SHIFT)), 1), 0);
	if (c->split) {
		KUNIT_ASSERT_EQ(test, gmem_kunit_punch(m.f, 0, 1), 0);
		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(m.f->kvm, 0, GFN, &fault), 0);
		gmem_kunit_fill(fault.pfn, 1, GMEM_DATA);
	}
	m.bad = pfn_to_page(m.head + bad);
	folio = page_folio(m.bad);
	start = GFN + folio->index;
	KUNIT_ASSERT_TRUE(test, isolate_folio_to_list(folio, &isolated));
	seq = gmem_kunit_watch_invalidations(m.f->kvm, start);
	KUNIT_EXPECT_EQ(test, memory_failure(m.head + bad, MF_SW_SIMULATED), 0);
	gmem_kunit_expect_invalidated(test, m.f->kvm, seq, start, start + folio_nr_pages(folio));
	putback_movable_pages(&isolated);
	/* The LRU cache of a CPU has a reference. */
	lru_add_drain_all();
	KUNIT_ASSERT_TRUE(test, PageHWPoison(m.bad));
	*m.unpoison = m.bad;
	check_host(test, m.addr, bad);
	check_guest(test, m.f, bad, GMEM_DATA);
	migrate_disable();
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(m.f, 0, N), 0);
	check_freed(test, &m);
	migrate_enable();
#else
	kunit_skip(test, "needs functions that are not exported");
#endif
}

#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST) && IS_ENABLED(CONFIG_MIGRATION)

static struct folio *no_target(struct folio *src, unsigned long private)
{
	return NULL;
}

#endif

/* I1: where there is no memory for it, an attempt to migrate a hugepage changes nothing. */
static void no_memory_to_migrate(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST) && IS_ENABLED(CONFIG_MIGRATION)
	struct gmem_kunit_fault fault;
	LIST_HEAD(isolated);
	struct failed m;

	use_memory(test, &m, false);
	KUNIT_ASSERT_TRUE(test, isolate_folio_to_list(pfn_folio(m.head), &isolated));
	KUNIT_EXPECT_NE(test, migrate_pages(&isolated, no_target, NULL, 0, MIGRATE_SYNC,
					    MR_SYSCALL, NULL), 0);
	putback_movable_pages(&isolated);
	lru_add_drain_all();
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(m.f->kvm, 0, GFN, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.pfn, m.head);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(m.head, N, GMEM_DATA), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(m.f, 0), 0);
#else
	kunit_skip(test, "needs functions that are not exported");
#endif
}

static struct folio *alloc_prepared(struct inode *inode, pgoff_t index, gfp_t gfp)
{
	return kunit_get_current_test()->priv;
}

/* Let a page fail in the hugepage that will be allocated next. */
static void fail_next_hugepage(struct kunit *test, struct failed *m, pgoff_t bad)
{
	struct folio *folio;

	m->unpoison = unpoison_later(test);
	folio = folio_alloc(GFP_HIGHUSER, PMD_ORDER);
	KUNIT_ASSERT_NOT_NULL(test, folio);
	m->head = folio_pfn(folio);
	m->bad = folio_page(folio, bad);
	KUNIT_EXPECT_EQ(test, memory_failure(m->head + bad, MF_SW_SIMULATED), -EBUSY);
	*m->unpoison = m->bad;

	test->priv = folio;
	kunit_activate_static_stub(test, kvm_gmem_alloc_huge_folio, alloc_prepared);
}

/* I2, I6: a page fails while its hugepage is not yet in the file. */
static void bad_page_in_new_hugepage(struct kunit *test)
{
	struct gmem_kunit_fault fault;
	const pgoff_t bad = 5;
	struct failed m = {};

	m.f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);
	fail_next_hugepage(test, &m, bad);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(m.f->kvm, 0, GFN, &fault), 0);
	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);
	KUNIT_ASSERT_EQ(test, fault.pfn, m.head);
	KUNIT_ASSERT_TRUE(test, PageHWPoison(m.bad));

	check_guest(test, m.f, bad, 0);
	migrate_disable();
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(m.f, 0, N), 0);
	check_freed(test, &m);
	migrate_enable();
}

/* I2, I3: memory does not collapse into a hugepage that has a bad page. */
static void bad_page_in_collapse_target(struct kunit *test)
{
	struct gmem_kunit_fault fault;
	struct failed m = {};
	int r;

	if (!GMEM_MIGRATES)
		kunit_skip(test, "the kernel cannot migrate guest_memfd");

	m.f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE | GUEST_MEMFD_FLAG_MIGRATABLE);
	gmem_kunit_no_hugepages(test);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(m.f->kvm, 0, GFN + 5, &fault), 0);
	gmem_kunit_fill(fault.pfn, 1, GMEM_DATA);
	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);

	fail_next_hugepage(test, &m, 5);
	migrate_disable();
	r = gmem_kunit_collapse(m.f, 0, N);
	check_freed(test, &m);
	migrate_enable();
	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);

	KUNIT_EXPECT_EQ(test, r, -EHWPOISON);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(m.f->kvm, 0, GFN + 5, &fault), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn, 1, GMEM_DATA), 0);
}

/* I2: a page of a hugepage that somebody uses stays bad, and nobody loses the hugepage. */
static void no_unpoison_in_use(struct kunit *test)
{
	const struct bad_page *c = test->param_value;
	struct failed m;

	fail_memory(test, &m, c->index, true);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(m.f, 0, N), 0);

	KUNIT_EXPECT_EQ(test, unpoison_memory(page_to_pfn(m.bad)), -EBUSY);
	KUNIT_EXPECT_TRUE(test, PageHWPoison(m.bad));
	KUNIT_ASSERT_EQ(test, folio_ref_count(m.pinned), 1);
	put_pin(test, &m);
}

/*
 * A thread that was about to map a page may find all of its hugepage mapped, and a page
 * that went bad in the meantime.
 */
static void fault_under_huge_mapping(struct kunit *test)
{
	struct vm_area_struct *vma;
	struct failed m;
	vm_fault_t r;
	pmd_t *pmd;

	use_memory(test, &m, false);
	pmd = pmd_off(current->mm, m.addr);
	if (!pmd_trans_huge(pmdp_get(pmd)))
		kunit_skip(test, "the host maps hugepages page by page");
	mark_bad(test, m.f, 7);

	mmap_read_lock(current->mm);
	vma = vma_lookup(current->mm, m.addr);
	r = vma->vm_ops->fault(&(struct vm_fault) {
		.vma = vma,
		.address = m.addr + PAGE_SIZE,
		.real_address = m.addr + PAGE_SIZE,
		.pgoff = 1,
		.pmd = pmd,
		.flags = FAULT_FLAG_DEFAULT,
	});
	mmap_read_unlock(current->mm);
	KUNIT_EXPECT_TRUE(test, r == VM_FAULT_NOPAGE);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(m.f, 1), 0);
}

/*
 * I11: a file that is closed while a memory error waits for the invalidate lock exists
 * until the error has been handled.  The closing thread gets the lock first, and has the
 * higher priority, so that on the same CPU, it is done before the error goes on.
 */
static void closed_meanwhile(struct kunit *test)
{
	struct page **bad = unpoison_later(test);
	struct closing c = { .test = test };
	struct task_struct *closer, *handler;
	struct gmem_kunit_fault fault;
	struct rw_semaphore *lock;
	unsigned long free;

	c.f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);
	c.mapping = c.f->inode->i_mapping;
	lock = &c.mapping->invalidate_lock;
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(c.f->kvm, 0, GFN, &fault), 0);
	free = gmem_kunit_nr_free();
	closer = gmem_kunit_thread(test, close_thread, &c);
	handler = gmem_kunit_thread(test, memory_failure_thread, (void *)fault.pfn);
	*bad = pfn_to_page(fault.pfn);
	c.folio = page_folio(*bad);
	kthread_bind(closer, cpumask_first(cpu_online_mask));
	kthread_bind(handler, cpumask_first(cpu_online_mask));
	sched_set_fifo(closer);

	filemap_invalidate_lock(c.mapping);
	wake_up_process(closer);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(gmem_kunit_is_awaited(lock)));
	wake_up_process(handler);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(PageHWPoison(*bad) &&
						      !folio_test_locked(c.folio) &&
						      !task_is_running(handler)));
	filemap_invalidate_unlock(c.mapping);

	gmem_kunit_stop_thread(test, closer);
	gmem_kunit_stop_thread(test, handler);
	KUNIT_EXPECT_TRUE(test, c.kept);
	KUNIT_EXPECT_FALSE(test, is_free(*bad));
	KUNIT_EXPECT_GE(test, gmem_kunit_nr_free(), free + N - NR_USED_AGAIN);
}

/* How many pages fail in rebound_meanwhile(). */
#define NR_FAIL		8

struct rebinding {
	struct gmem_kunit_file *f;
	struct mm_struct *mm;		/* of the test: arm64 looks at what the host maps */
};

static int rebind_thread(void *data)
{
	struct rebinding *b = data;
	struct gmem_kunit_file *f = b->f;
	int r = 0;

	kthread_use_mm(b->mm);
	while (!r && !kthread_should_stop()) {
		r = gmem_kunit_unbind(f->vm, 0) ?: gmem_kunit_bind(f, 0, GFN, 0, NPAGES);
		cond_resched();
	}
	kthread_unuse_mm(b->mm);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	return r;
}

/*
 * I11: while somebody unbinds the bad page and binds it again, a memory error ends each
 * invalidation that it begins.  No memslot gives the page to the guest.
 */
static void rebound_meanwhile(struct kunit *test)
{
	struct gmem_kunit_fault fault;
	unsigned long lost = 0, failed = 0;
	struct rebinding rebinding;
	struct page **bad[NR_FAIL];
	struct gmem_kunit_file *f;
	struct task_struct *task;
	pgoff_t index;
	int i;

	for (i = 0; i < NR_FAIL; i++)
		bad[i] = unpoison_later(test);
	f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	KUNIT_ASSERT_EQ(test, fault.order, PMD_ORDER);
	gmem_kunit_fill(fault.pfn, N, GMEM_DATA);

	rebinding.f = f;
	rebinding.mm = current->mm;
	task = gmem_kunit_thread(test, rebind_thread, &rebinding);
	wake_up_process(task);
	for (i = 0; i < NR_FAIL; i++) {
		failed += memory_failure(fault.pfn + i, MF_SW_SIMULATED) != 0;
		*bad[i] = pfn_to_page(fault.pfn + i);
		schedule_timeout_uninterruptible(1);
	}
	gmem_kunit_stop_thread(test, task);
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_FALSE(test, gmem_kunit_must_retry(f->kvm, f->kvm->mmu_invalidate_seq, GFN));

	for (index = 0; index < N; index++) {
		int r = gmem_kunit_fault(f->kvm, 0, GFN + index, &fault);

		lost += index < NR_FAIL ? r != -EHWPOISON :
			r || gmem_kunit_count_not(fault.pfn, 1, GMEM_DATA);
	}
	KUNIT_EXPECT_EQ(test, lost, 0);
}

/* I2: soft offlining memory fails, and takes neither page nor hugepage from the guest. */
static void soft_offline(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	const struct size *c = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, c->flags);
	struct gmem_kunit_fault fault;
	kvm_pfn_t pfn;
	int order;

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	pfn = fault.pfn;
	order = fault.order;
	gmem_kunit_fill(pfn, 1, GMEM_DATA);

	KUNIT_EXPECT_NE(test, soft_offline_page(pfn, 0), 0);
	if (order)
		KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(f, 0), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.pfn, pfn);
	KUNIT_EXPECT_EQ(test, fault.order, order);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(pfn, 1, GMEM_DATA), 0);
#else
	kunit_skip(test, "soft_offline_page() is not exported");
#endif
}

/* I2: with the flag, soft offlining replaces the page, and guest and host lose nothing. */
static void soft_offline_migratable(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	const struct size *c = test->param_value;
	const bool huge = c->flags & GUEST_MEMFD_FLAG_ALLOW_HUGEPAGE;
	const unsigned long npages = huge ? N : 8;
	struct page **bad = unpoison_later(test);
	struct gmem_kunit_fault fault;
	struct gmem_kunit_file *f;
	unsigned long lost = 0;
	kvm_pfn_t pfn;
	pgoff_t index;

	if (!GMEM_MIGRATES)
		kunit_skip(test, "the kernel cannot migrate guest_memfd");

	f = gmem_kunit_open_bound(test, NPAGES, c->flags | GUEST_MEMFD_FLAG_MIGRATABLE);
	for (index = 0; index < npages; index++) {
		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + index, &fault), 0);
		gmem_kunit_fill(fault.pfn, 1, gmem_kunit_pattern(index));
	}
	pfn = fault.pfn;

	lru_add_drain_all();
	if (huge && !IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE)) {
		/* Nothing splits the hugepage. */
		KUNIT_EXPECT_NE(test, soft_offline_page(pfn, 0), 0);
	} else {
		KUNIT_EXPECT_EQ(test, soft_offline_page(pfn, 0), 0);
		*bad = pfn_to_page(pfn);
		KUNIT_EXPECT_TRUE(test, PageHWPoison(*bad));
		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + npages - 1, &fault), 0);
		KUNIT_EXPECT_NE(test, fault.pfn, pfn);
	}
	for (index = 0; index < npages; index++) {
		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + index, &fault), 0);
		lost += gmem_kunit_count_not(fault.pfn, 1, gmem_kunit_pattern(index));
	}
	KUNIT_EXPECT_EQ(test, lost, 0);
#else
	kunit_skip(test, "soft_offline_page() is not exported");
#endif
}

/*
 * I1, I2: soft offlining a page in a hole of a hugepage, which still has its old contents,
 * does not bring them back.
 */
static void soft_offline_in_hole(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	static const struct gmem_kunit_hole hole = { .start = 5, .npages = 10 };
	const pgoff_t offline = 7;
	struct page **bad = unpoison_later(test);
	struct gmem_kunit_fault fault;
	struct gmem_kunit_file *f;
	unsigned long lost = 0;
	struct folio *pinned;
	kvm_pfn_t head;
	pgoff_t index;
	int r;

	f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE | GUEST_MEMFD_FLAG_MIGRATABLE);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	KUNIT_ASSERT_EQ(test, fault.order, PMD_ORDER);
	head = fault.pfn;
	gmem_kunit_fill(head, N, GMEM_DATA);

	pinned = gmem_kunit_pin(test, f, 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, hole.start, hole.npages), 0);
	gmem_kunit_unpin(test, pinned);

	lru_add_drain_all();
	r = soft_offline_page(head + offline, 0);
	if (!r)
		*bad = pfn_to_page(head + offline);
	KUNIT_EXPECT_EQ(test, !r, GMEM_MIGRATES && IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE));

	for (index = 0; index < N; index++) {
		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + index, &fault), 0);
		lost += gmem_kunit_count_not(fault.pfn, 1, gmem_kunit_in_hole(&hole, index) ?
					     0 : GMEM_DATA);
	}
	KUNIT_EXPECT_EQ(test, lost, 0);
#else
	kunit_skip(test, "soft_offline_page() is not exported");
#endif
}

/* I2: a hugepage with a bad page does not move, as its copy would seem to be good. */
static void not_migrated(struct kunit *test)
{
	const struct bad_page *c = test->param_value;
	struct gmem_kunit_fault fault;
	struct gmem_kunit_file *f;

	f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE | GUEST_MEMFD_FLAG_MIGRATABLE);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	KUNIT_ASSERT_EQ(test, fault.order, PMD_ORDER);
	gmem_kunit_fill(fault.pfn, N, GMEM_DATA);
	mark_bad(test, f, c->index);

	KUNIT_EXPECT_NE(test, gmem_kunit_migrate(f, 0, gmem_kunit_alloc_target), 0);
	check_guest(test, f, c->index, GMEM_DATA);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(f, 0), 0);
}

/* I11: a clean page of another file can still be evicted. */
static void other_file(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	struct file *file = shmem_kernel_file_setup("other", PAGE_SIZE, EMPTY_VMA_FLAGS);
	struct page *page;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, file);
	page = shmem_read_mapping_page(file->f_mapping, 0);
	if (!IS_ERR(page)) {
		put_page(page);
		lru_add_drain_all();
		KUNIT_EXPECT_EQ(test, invalidate_mapping_pages(file->f_mapping, 0, 0), 1);
	}
	__fput_sync(file);
	KUNIT_EXPECT_FALSE(test, IS_ERR(page));
#else
	kunit_skip(test, "lru_add_drain_all() is not exported");
#endif
}

/* I11: an error in a page of another file, which discards the page, is handled. */
static void other_file_fails(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	struct page **bad = unpoison_later(test);
	struct file *file = shmem_kernel_file_setup("other", PAGE_SIZE, EMPTY_VMA_FLAGS);
	struct page *page;
	int r = -ENOMEM;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, file);
	page = shmem_read_mapping_page(file->f_mapping, 0);
	if (!IS_ERR(page)) {
		put_page(page);
		lru_add_drain_all();
		r = memory_failure(page_to_pfn(page), MF_SW_SIMULATED);
		*bad = page;
	}
	__fput_sync(file);
	KUNIT_EXPECT_EQ(test, r, 0);
#else
	kunit_skip(test, "lru_add_drain_all() is not exported");
#endif
}

/* I11: an error in anonymous memory, which has no file, is handled. */
static void anonymous_page_fails(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	unsigned long addr = kunit_vm_mmap(test, NULL, 0, PAGE_SIZE, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS, 0);
	struct page *page;
	u8 byte = GMEM_DATA;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, (void *)addr);
	KUNIT_ASSERT_EQ(test, copy_to_user((void __user *)addr, &byte, 1), 0);
	KUNIT_ASSERT_EQ(test, get_user_pages_unlocked(addr, 1, &page, 0), 1);
	put_page(page);
	lru_add_drain_all();

	KUNIT_EXPECT_EQ(test, memory_failure(page_to_pfn(page), MF_SW_SIMULATED), 0);
	KUNIT_EXPECT_EQ(test, copy_from_user(&byte, (void __user *)addr, 1), 1);
	KUNIT_EXPECT_EQ(test, vm_munmap(addr, PAGE_SIZE), 0);
	KUNIT_EXPECT_EQ(test, unpoison_memory(page_to_pfn(page)), 0);
#else
	kunit_skip(test, "lru_add_drain_all() is not exported");
#endif
}

/* A hugepage that is no guest_memfd. */
struct other {
	const char *name;
	bool is_file;
};

static const struct other others[] = {
	{ "anonymous", false },
	{ "tmpfs", true },
};

KUNIT_ARRAY_PARAM_DESC(other, others, name);

#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST) && IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) && \
	IS_ENABLED(CONFIG_TMPFS)

#define OTHER_SIZE	(2 * PMD_SIZE)

/* A mapping of the test, with a reference to a page of its first hugepage. */
struct other_memory {
	struct vfsmount *mnt;	/* NULL for anonymous memory */
	struct file *file;	/* NULL for anonymous memory */
	unsigned long area;
	unsigned long addr;	/* of the page, which contains GMEM_DATA */
	struct page *page;
};

static void put_other_file(void *data)
{
	struct other_memory *o = data;

	if (o->file)
		__fput_sync(o->file);
	kern_unmount(o->mnt);
}

static void open_other(struct kunit *test, struct other_memory *o)
{
	char options[] = "huge=always";

	o->mnt = vfs_kern_mount(get_fs_type("tmpfs"), SB_KERNMOUNT, "tmpfs", options);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, o->mnt);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, put_other_file, o), 0);
	o->file = shmem_file_setup_with_mnt(o->mnt, "other", OTHER_SIZE, EMPTY_VMA_FLAGS);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, o->file);
}

static struct other_memory *use_other(struct kunit *test)
{
	const struct other *c = test->param_value;
	struct other_memory *o;
	u8 byte = GMEM_DATA;

	gmem_kunit_init_huge(test);
	o = kunit_kzalloc(test, sizeof(*o), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, o);
	if (c->is_file)
		open_other(test, o);
	o->area = kunit_vm_mmap(test, o->file, 0, OTHER_SIZE, PROT_READ | PROT_WRITE,
				o->file ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, 0);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, (void *)o->area);

	o->addr = ALIGN(o->area, PMD_SIZE) + 3 * PAGE_SIZE;
	KUNIT_ASSERT_EQ(test, copy_to_user((void __user *)o->addr, &byte, 1), 0);
	KUNIT_ASSERT_EQ(test, get_user_pages_unlocked(o->addr, 1, &o->page, FOLL_WRITE), 1);
	KUNIT_ASSERT_EQ(test, folio_order(page_folio(o->page)), PMD_ORDER);

	return o;
}

/* Free the memory of @o, and check that its bad page stays out of the allocator. */
static void free_other(struct kunit *test, struct other_memory *o)
{
	KUNIT_EXPECT_EQ(test, vm_munmap(o->area, OTHER_SIZE), 0);
	if (o->mnt)
		kunit_release_action(test, put_other_file, o);
	KUNIT_EXPECT_TRUE(test, PageHWPoison(o->page));
	KUNIT_EXPECT_FALSE(test, is_free(o->page));
	KUNIT_EXPECT_EQ(test, unpoison_memory(page_to_pfn(o->page)), 0);
}

/* I2: other hugepages are still split, and the page moved, when it is taken offline. */
static void other_page_goes_offline(struct kunit *test)
{
	struct other_memory *o = use_other(test);
	u8 byte = 0;

	put_page(o->page);
	KUNIT_EXPECT_EQ(test, soft_offline_page(page_to_pfn(o->page), 0), 0);
	KUNIT_EXPECT_EQ(test, copy_from_user(&byte, (void __user *)o->addr, 1), 0);
	KUNIT_EXPECT_EQ(test, byte, GMEM_DATA);
	free_other(test, o);
}

/*
 * If a page fails in another hugepage, and the hugepage can't be split, the process
 * learns about it.
 */
static void other_page_fails(struct kunit *test)
{
	struct other_memory *o = use_other(test);
	int r, signal;

	r = memory_failure(page_to_pfn(o->page), MF_SW_SIMULATED | MF_ACTION_REQUIRED);
	signal = kernel_dequeue_signal();
	put_page(o->page);
	KUNIT_EXPECT_EQ(test, r, -EHWPOISON);
	KUNIT_EXPECT_EQ(test, signal, SIGBUS);
	free_other(test, o);
}

#else

static void other_page_goes_offline(struct kunit *test)
{
	kunit_skip(test, "needs THP, TMPFS and built-in tests");
}

static void other_page_fails(struct kunit *test)
{
	kunit_skip(test, "needs THP, TMPFS and built-in tests");
}

#endif

#endif /* CONFIG_MEMORY_FAILURE */

static struct kunit_case gmem_poison_cases[] = {
	KUNIT_CASE_PARAM(used_memory, bad_gen_params),
	KUNIT_CASE_PARAM(unused_memory, bad_gen_params),
	KUNIT_CASE_PARAM(host_mapping, bad_gen_params),
#ifdef CONFIG_MEMORY_FAILURE
	KUNIT_CASE_PARAM(memory_failure_in_hugepage, bad_gen_params),
	KUNIT_CASE_PARAM(memory_failure_in_pinned_hugepage, bad_gen_params),
	KUNIT_CASE_PARAM(access_by_kvm, bad_gen_params),
	KUNIT_CASE_PARAM(memory_failure_in_single_page, single_gen_params),
	KUNIT_CASE_PARAM(poison_is_never_free, end_gen_params),
	KUNIT_CASE_PARAM(hole_over_bad_page, bad_gen_params),
	KUNIT_CASE(hole_over_pinned_bad_page),
	KUNIT_CASE(no_memory_to_replace_bad_page),
	KUNIT_CASE(hole_over_page_pinned_by_host),
	KUNIT_CASE(hole_up_to_pinned_bad_page),
	KUNIT_CASE(holes_next_to_pinned_bad_page),
	KUNIT_CASE(bad_page_in_hole),
	KUNIT_CASE_PARAM(last_hole_over_bad_page, bad_gen_params),
	KUNIT_CASE(not_the_last_hole),
	KUNIT_CASE(last_hole_in_second_hugepage),
	KUNIT_CASE(bad_page_left_file),
	KUNIT_CASE_PARAM(task_is_told, told_gen_params),
	KUNIT_CASE(reader_is_not_told),
	KUNIT_CASE_PARAM(unpoison_afterwards, bad_gen_params),
	KUNIT_CASE_PARAM(no_unpoison_in_use, bad_gen_params),
	KUNIT_CASE_PARAM(lock_order, size_gen_params),
	KUNIT_CASE(file_goes_away),
	KUNIT_CASE(hole_meets_memory_failure),
	KUNIT_CASE_PARAM(bad_page_off_lru, off_lru_gen_params),
	KUNIT_CASE(no_memory_to_migrate),
	KUNIT_CASE(bad_page_in_new_hugepage),
	KUNIT_CASE(bad_page_in_collapse_target),
	KUNIT_CASE(fault_under_huge_mapping),
	KUNIT_CASE(closed_meanwhile),
	KUNIT_CASE(rebound_meanwhile),
	KUNIT_CASE_PARAM(soft_offline, size_gen_params),
	KUNIT_CASE_PARAM(soft_offline_migratable, size_gen_params),
	KUNIT_CASE(soft_offline_in_hole),
	KUNIT_CASE_PARAM(not_migrated, bad_gen_params),
	KUNIT_CASE(other_file),
	KUNIT_CASE(other_file_fails),
	KUNIT_CASE(anonymous_page_fails),
	KUNIT_CASE_PARAM(other_page_goes_offline, other_gen_params),
	KUNIT_CASE_PARAM(other_page_fails, other_gen_params),
#endif
	{}
};

static struct kunit_suite gmem_poison_suite = {
	.name = "kvm_gmem_poison",
	.init = init,
	.test_cases = gmem_poison_cases,
};

kunit_test_suite(gmem_poison_suite);
