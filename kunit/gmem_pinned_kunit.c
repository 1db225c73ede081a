// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for holes in hugepages that cannot be split, because somebody has
 * pinned them through a host mapping (invariants I1 to I4).
 *
 * KVM remembers which pages of such a hugepage have been punched.  It frees them as
 * soon as it can, i.e. with the first hole after the pin is gone, or together with
 * the last page of the hugepage, but never a page that is in use again.
 */
#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/kthread.h>
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <linux/uaccess.h>

#include "gmem_kunit_helpers.h"

#define N	GMEM_NR
#define NPAGES	(2 * N)
#define GFN	GMEM_GFN

/* A file of two hugepages; the guest has filled the first, and the host has pinned it. */
struct pinned {
	struct gmem_kunit_file *f;
	unsigned long addr;	/* host mapping of the file */
	kvm_pfn_t pfn;		/* first page of the hugepage */
	struct page *page;	/* the pinned page, NULL once it is unpinned */
};

static void unpin(void *data)
{
	struct pinned *p = data;

	if (p->page)
		unpin_user_page(p->page);
	p->page = NULL;
}

static struct pinned *open_pinned(struct kunit *test)
{
	struct gmem_kunit_fault fault;
	struct pinned *p;

	p = kunit_kzalloc(test, sizeof(*p), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, p);
	p->f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	p->addr = gmem_kunit_map(test, p->f, 0);

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(p->f->kvm, 0, GFN, &fault), 0);
	KUNIT_ASSERT_EQ(test, fault.order, PMD_ORDER);
	p->pfn = fault.pfn;
	gmem_kunit_fill(p->pfn, N, GMEM_DATA);

	KUNIT_ASSERT_EQ(test, pin_user_pages_fast(p->addr, 1, FOLL_WRITE, &p->page), 1);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, unpin, p), 0);
	KUNIT_ASSERT_EQ(test, page_to_pfn(p->page), p->pfn);

	return p;
}

static void __user *host(struct pinned *p, pgoff_t index)
{
	return (void __user *)(p->addr + (index << PAGE_SHIFT));
}

/* Punch [first, first + nr) page by page. */
static void punch_pieces(struct kunit *test, struct pinned *p, pgoff_t first,
			 unsigned long nr)
{
	unsigned long failed = 0, i;

	for (i = 0; i < nr; i++)
		failed += gmem_kunit_punch(p->f, first + i, 1) != 0;
	KUNIT_EXPECT_EQ(test, failed, 0);
}

/* How many pages others may allocate in the meantime. */
#define NR_USED		(N / 4)

/* I4: the last of many holes frees the hugepage, even while it is pinned. */
static void freed_by_last_hole(struct kunit *test)
{
	static const pgoff_t last[] = { 0, N / 4, N - 1 };
	int i;

	for (i = 0; i < ARRAY_SIZE(last); i++) {
		struct pinned *p = open_pinned(test);
		unsigned long free = gmem_kunit_nr_free();
		pgoff_t index = last[i];

		if (index)
			KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 0, index), 0);
		if (index < N / 2) {
			punch_pieces(test, p, N / 2, N / 2);
			KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, index + 1,
							       N / 2 - index - 1), 0);
		}
		KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(p->f), N);

		KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, index, 1), 0);
		KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(p->f), 0);

		/* The pin was the last to keep the memory. */
		unpin(p);
		KUNIT_EXPECT_GE(test, gmem_kunit_nr_free(), free + N - NR_USED);
	}
}

/*
 * I1, I2, I4: the same if the last hole begins or ends in a neighbour, which is freed
 * as far as the hole goes.
 */
static void freed_by_longer_hole(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	struct pinned *p = open_pinned(test);
	struct gmem_kunit_fault fault;
	struct folio *pinned;
	const pgoff_t kept = 3;

	/* The hole begins in the pinned hugepage. */
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(p->f->kvm, 0, GFN + N, &fault), 0);
	gmem_kunit_fill(fault.pfn, N, GMEM_DATA);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 0, N - 5), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, N - 5, 5 + N - kept), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(p->f), kept);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(p->f->kvm, 0, GFN + NPAGES - 1, &fault), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn, 1, GMEM_DATA), 0);

	/* It ends there. */
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	gmem_kunit_fill(fault.pfn, N, GMEM_DATA);
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, N, N), 0);
	pinned = gmem_kunit_pin(test, f, N);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, N + 5, N - 5), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, kept, N - kept + 5), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), kept);
	gmem_kunit_unpin(test, pinned);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + kept - 1, &fault), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn, 1, GMEM_DATA), 0);
}

/* I2, I4: the first hole after the pin is gone frees those before it, and no more. */
static void freed_after_unpin(struct kunit *test)
{
	struct pinned *p = open_pinned(test);
	struct gmem_kunit_fault fault;
	unsigned long lost = 0;
	pgoff_t index;

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 5, 10), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, N - 3, 3), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(p->f), N);

	unpin(p);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 0, 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(p->f), N - 14);

	for (index = 0; index < N; index++) {
		bool hole = !index || (index >= 5 && index < 15) || index >= N - 3;

		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(p->f->kvm, 0, GFN + index, &fault), 0);
		lost += gmem_kunit_count_not(fault.pfn, 1, hole ? 0 : GMEM_DATA);
	}
	KUNIT_EXPECT_EQ(test, lost, 0);
}

enum who { GUEST, HOST, FALLOCATE };

static const struct use {
	const char *name;
	enum who who;
} uses[] = {
	{ "guest", GUEST },
	{ "host", HOST },
	{ "fallocate", FALLOCATE },
};

KUNIT_ARRAY_PARAM_DESC(use, uses, name);

/* Use the page at @index again; returns its pfn. */
static kvm_pfn_t use_again(struct kunit *test, struct pinned *p, pgoff_t index, enum who who)
{
	struct gmem_kunit_fault fault;
	u8 byte = GMEM_DATA;

	switch (who) {
	case GUEST:
		break;
	case HOST:
		KUNIT_ASSERT_EQ(test, copy_to_user(host(p, index), &byte, 1), 0);
		break;
	case FALLOCATE:
		KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(p->f, index, 1), 0);
		return p->pfn + index;
	}

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(p->f->kvm, 0, GFN + index, &fault), 0);
	return fault.pfn;
}

/*
 * I1, I2: a page that was punched and is used again reads as zeros, whatever was
 * written to it through the pin in between, and no later hole frees it.
 */
static void used_again(struct kunit *test)
{
	const enum who who = ((const struct use *)test->param_value)->who;
	struct pinned *p = open_pinned(test);
	const pgoff_t index = 5;
	struct gmem_kunit_fault fault;
	kvm_pfn_t pfn;
	u8 byte;

	/* Have it mapped in the host before, too. */
	KUNIT_ASSERT_EQ(test, copy_from_user(&byte, host(p, index), 1), 0);

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 1, N - 2), 0);
	gmem_kunit_fill(p->pfn + index, 1, GMEM_POISON);

	pfn = use_again(test, p, index, who);
	KUNIT_EXPECT_EQ(test, pfn, p->pfn + index);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(pfn, 1, 0), who == HOST ? 1 : 0);
	gmem_kunit_fill(pfn, 1, GMEM_DATA);

	/* All others are holes. */
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 0, 1), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, N - 1, 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(p->f), N);

	unpin(p);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 0, 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(p->f), 1);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(p->f->kvm, 0, GFN + index, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.pfn, pfn);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(pfn, 1, GMEM_DATA), 0);
}

/*
 * I1, I2: fallocate() over the whole hugepage fills all of its holes and keeps the
 * rest, and no later hole frees what it filled.
 */
static void allocated_again(struct kunit *test)
{
	struct pinned *p = open_pinned(test);
	struct gmem_kunit_fault fault;
	unsigned long lost = 0;
	pgoff_t index;

	/* It does not end at the last hole. */
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 5, 10), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(p->f, 0, N), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(p->f->kvm, 0, GFN, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.order, PMD_ORDER);

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 5, 10), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, N - 3, 3), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(p->f, 0, N), 0);

	unpin(p);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 0, 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(p->f), N - 1);
	for (index = 1; index < N; index++) {
		bool hole = (index >= 5 && index < 15) || index >= N - 3;

		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(p->f->kvm, 0, GFN + index, &fault), 0);
		lost += gmem_kunit_count_not(fault.pfn, 1, hole ? 0 : GMEM_DATA);
	}
	KUNIT_EXPECT_EQ(test, lost, 0);
}

/* I1: memory that was allocated but never used reads as zeros after a hole, too. */
static void never_used(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	struct gmem_kunit_fault fault;
	struct folio *pinned;

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, N), 0);
	pinned = gmem_kunit_pin(test, f, 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, 5, 10), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + 5, &fault), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn - 5, N, 0), 0);
	gmem_kunit_unpin(test, pinned);
}

/* I2, I4: a hole stays one while the host uses the pages next to it. */
static void host_uses_neighbours(struct kunit *test)
{
	struct pinned *p = open_pinned(test);
	u8 byte;
	int i;

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 5, 10), 0);
	/* The second fault finds a page table. */
	for (i = 20; i < 22; i++) {
		KUNIT_EXPECT_EQ(test, copy_from_user(&byte, host(p, i), 1), 0);
		KUNIT_EXPECT_EQ(test, byte, GMEM_DATA);
	}
	unpin(p);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, N - 1, 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(p->f), N - 11);
}

/* Fault as core MM does if there is a marker of userfaultfd. */
static vm_fault_t fault_on_marker(struct vm_area_struct *vma, pgoff_t index, struct page **page)
{
	const unsigned long addr = vma->vm_start + (index << PAGE_SHIFT);
	struct vm_fault vmf = {
		.vma = vma,
		.address = addr,
		.real_address = addr,
		.pgoff = index,
		.pmd = pmd_off(vma->vm_mm, addr),
		.orig_pte = make_pte_marker(PTE_MARKER_UFFD_WP),
		.flags = FAULT_FLAG_DEFAULT | FAULT_FLAG_ORIG_PTE_VALID,
	};
	vm_fault_t r = vma->vm_ops->fault(&vmf);

	*page = vmf.page;
	return r;
}

/*
 * I1, I2: core MM maps a page itself if there is a marker of userfaultfd.  It maps all
 * of the hugepage if the page table is gone by then, so the holes are memory again.
 */
static void host_fault_on_marker(struct kunit *test)
{
	struct pinned *p = open_pinned(test);
	struct gmem_kunit_fault fault;
	unsigned long lost = 0;
	struct page *page;
	pgoff_t index;
	vm_fault_t r;

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 5, 10), 0);
	mmap_read_lock(current->mm);
	r = fault_on_marker(vma_lookup(current->mm, p->addr), 20, &page);
	mmap_read_unlock(current->mm);
	KUNIT_ASSERT_TRUE(test, r == VM_FAULT_LOCKED);
	gmem_kunit_put_folio(page_folio(page));

	/* Use memory in the hole as the host does if it maps all of the hugepage. */
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(p->pfn + 5, 10, 0), 0);
	gmem_kunit_fill(p->pfn + 5, 10, GMEM_DATA);
	unpin(p);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, N - 1, 1), 0);
	for (index = 0; index < N - 1; index++) {
		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(p->f->kvm, 0, GFN + index, &fault), 0);
		lost += gmem_kunit_count_not(fault.pfn, 1, GMEM_DATA);
	}
	KUNIT_EXPECT_EQ(test, lost, 0);
}

/* I6: while a hugepage has holes, it is mapped page by page. */
static void mapped_by_page(struct kunit *test)
{
	struct pinned *p = open_pinned(test);
	struct gmem_kunit_fault fault;

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 5, 2), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(p->f->kvm, 0, GFN, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.order, 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(p->f->kvm, 0, GFN + 5, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.order, 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(p->f->kvm, 0, GFN + 6, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.order, PMD_ORDER);
}

/* A new hugepage after the last hole has no holes. */
static void new_hugepage(struct kunit *test)
{
	struct pinned *p = open_pinned(test);
	struct gmem_kunit_fault fault;

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 5, 2), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 0, N), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(p->f), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(p->f->kvm, 0, GFN + 6, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.order, PMD_ORDER);
	gmem_kunit_fill(fault.pfn - 6, N, GMEM_DATA);

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 0, 5), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(p->f), N - 5);
}

/*
 * I1, I2, I4: holes outlive a split by core MM, e.g. for MADV_COLD: they read as zeros,
 * and the next hole frees those that are not in use.
 */
static void split_from_outside(struct kunit *test)
{
	struct gmem_kunit_fault fault;
	struct folio *folio;
	struct pinned *p;

	gmem_kunit_needs_split(test);

	p = open_pinned(test);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 5, 10), 0);
	unpin(p);
	gmem_kunit_split(test, p->f, 0, 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(p->f), N);

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(p->f->kvm, 0, GFN + 7, &fault), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn, 1, 0), 0);
	gmem_kunit_fill(fault.pfn, 1, GMEM_DATA);

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, N - 1, 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(p->f), N - 10);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(p->f->kvm, 0, GFN + 7, &fault), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn, 1, GMEM_DATA), 0);

	/* That goes for a hole, too, that ends with the first page of the hugepage. */
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(p->f, N, N), 0);
	folio = gmem_kunit_pin(test, p->f, N);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(p->f, N + 5, 10), 0);
	gmem_kunit_unpin(test, folio);
	gmem_kunit_split(test, p->f, N, 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, N - 1, 2), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(p->f), 2 * N - 10 - 11);
}

/* The size of the folios into which debugfs, e.g., can split a hugepage. */
#define PART_ORDER	5
#define PART		BIT(PART_ORDER)

/* Use a hugepage and split it into smaller large folios, after a hole if there is one. */
static struct gmem_kunit_file *open_parts(struct kunit *test, pgoff_t hole)
{
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	struct gmem_kunit_fault fault;
	struct folio *folio;

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	KUNIT_ASSERT_EQ(test, fault.order, PMD_ORDER);
	gmem_kunit_fill(fault.pfn, N, GMEM_DATA);
	if (hole) {
		folio = gmem_kunit_pin(test, f, 0);
		KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, hole, 1), 0);
		gmem_kunit_unpin(test, folio);
	}

	gmem_kunit_split(test, f, 0, PART_ORDER);
	KUNIT_ASSERT_EQ(test, gmem_kunit_order(test, f, PART), PART_ORDER);
	return f;
}

/* Count the pages outside of [start, end) whose data is gone. */
static unsigned long count_lost(struct kunit *test, struct gmem_kunit_file *f,
				pgoff_t start, pgoff_t end)
{
	struct gmem_kunit_fault fault;
	unsigned long lost = 0;
	pgoff_t index;

	for (index = 0; index < N; index++) {
		if (index >= start && index < end)
			continue;
		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + index, &fault), 0);
		lost += gmem_kunit_count_not(fault.pfn, 1, GMEM_DATA);
	}
	return lost;
}

/* I1, I2, I4: the same holds for a part of a hugepage that is a large folio itself. */
static void split_into_large(struct kunit *test)
{
	const pgoff_t index = PART + 8;
	struct gmem_kunit_file *f;
	struct folio *pinned;

	gmem_kunit_needs_split(test);

	/* The hole is in a part that is pinned. */
	f = open_parts(test, 0);
	pinned = gmem_kunit_pin(test, f, index);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, index, 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N);
	KUNIT_EXPECT_EQ(test, count_lost(test, f, index, index + 1), 0);
	gmem_kunit_unpin(test, pinned);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, index + 1, 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N - 2);
	KUNIT_EXPECT_EQ(test, count_lost(test, f, index, index + 2), 0);

	/* The parts came after the hole, and one of them is pinned. */
	f = open_parts(test, index);
	pinned = gmem_kunit_pin(test, f, index);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, index + 1, PART), 0);
	KUNIT_EXPECT_EQ(test, count_lost(test, f, index, index + 1 + PART), 0);
	gmem_kunit_unpin(test, pinned);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, PART, PART), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N - PART - 9);
	KUNIT_EXPECT_EQ(test, count_lost(test, f, PART, index + 1 + PART), 0);

	/* All of a part is punched in pieces while it is pinned. */
	f = open_parts(test, 0);
	pinned = gmem_kunit_pin(test, f, PART);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, PART, 8), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, index, PART - 8), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N - PART);
	KUNIT_EXPECT_EQ(test, count_lost(test, f, PART, 2 * PART), 0);
	gmem_kunit_unpin(test, pinned);
}

/* A hole, and a reference that put_thread() drops while the hole waits for it. */
struct brief {
	struct gmem_kunit_file *f;
	struct folio *folio;		/* NULL once the reference is dropped */
	unsigned long seq;
	struct completion over;		/* the hole */
	int result;
};

static int hole_thread(void *data)
{
	struct brief *b = data;

	b->result = gmem_kunit_punch(b->f, 5, 10);
	complete(&b->over);
	return 0;
}

/*
 * The thread that punches runs on the same CPU and has the higher priority.  So whenever
 * this one runs between begin and end of the hole, the other one sleeps, and will look at
 * the references again.  It must not run between the check and the put.
 */
static int put_thread(void *data)
{
	struct brief *b = data;

	while (b->folio && !completion_done(&b->over)) {
		preempt_disable();
		if (READ_ONCE(b->f->kvm->mmu_invalidate_seq) == b->seq &&
		    mmu_invalidate_retry_gfn_unsafe(b->f->kvm, b->seq, GFN + 5)) {
			folio_put(b->folio);
			b->folio = NULL;
		}
		preempt_enable();
		cond_resched();
	}
	return 0;
}

/* How many holes must have met a reference, and how often brief_reference() tries. */
#define MEETINGS	10
#define ATTEMPTS	100

/* I4: a hole waits a moment for a reference that is no pin, and then frees its memory. */
static void brief_reference(struct kunit *test)
{
	struct brief b = { .f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE) };
	unsigned int in_time = 0, freed = 0, failed = 0;
	struct task_struct *putter, *puncher;
	int i;

	for (i = 0; i < ATTEMPTS && in_time < MEETINGS; i++) {
		KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(b.f, 0, N), 0);
		init_completion(&b.over);
		b.seq = b.f->kvm->mmu_invalidate_seq;
		putter = gmem_kunit_thread(test, put_thread, &b);
		puncher = gmem_kunit_thread(test, hole_thread, &b);
		kthread_bind(putter, cpumask_first(cpu_online_mask));
		kthread_bind(puncher, cpumask_first(cpu_online_mask));
		sched_set_fifo_low(putter);
		sched_set_fifo(puncher);

		b.folio = gmem_kunit_folio(test, b.f, 0);
		folio_get(b.folio);
		wake_up_process(puncher);
		wake_up_process(putter);
		wait_for_completion(&b.over);
		gmem_kunit_stop_thread(test, puncher);
		gmem_kunit_stop_thread(test, putter);

		failed += b.result != 0;
		if (!b.folio) {
			in_time++;
			freed += gmem_kunit_nr_pages(b.f) == N - 10;
		} else {
			folio_put(b.folio);
		}
		KUNIT_ASSERT_EQ(test, gmem_kunit_punch(b.f, 0, N), 0);
	}
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, in_time, MEETINGS);
	KUNIT_EXPECT_EQ(test, freed, in_time);
}

#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)

/* A page in a hole, and another page that is punched while the first is used again. */
#define USED		7
#define PUNCHED		(N - 1)

static int use_thread(void *data)
{
	struct gmem_kunit_file *f = data;
	struct gmem_kunit_fault fault;

	return gmem_kunit_fault(f->kvm, 0, GFN + USED, &fault);
}

static int punch_thread(void *data)
{
	return gmem_kunit_punch(data, PUNCHED, 1);
}

/*
 * I2: a page in a hole that is used again is not freed by a hole that waits for this
 * lookup.  The thread that punches has the higher priority, so it runs, on the same CPU,
 * at the very moment when the lookup drops the lock for which it waits.
 */
static void used_while_hole_waits(struct kunit *test)
{
	struct pinned *p = open_pinned(test);
	struct rw_semaphore *lock = &p->f->inode->i_mapping->invalidate_lock;
	struct task_struct *user, *puncher;
	struct folio *folio;

	/* Holes in single pages: each of them has a lock of its own. */
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 5, 10), 0);
	unpin(p);
	folio = filemap_lock_folio(p->f->inode->i_mapping, 0);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	unmap_mapping_pages(p->f->inode->i_mapping, 0, N, false);
	KUNIT_EXPECT_EQ(test, split_unmapped_file_folio(folio), 0);
	gmem_kunit_put_folio(folio);
	KUNIT_ASSERT_EQ(test, gmem_kunit_nr_pages(p->f), N);

	user = gmem_kunit_thread(test, use_thread, p->f);
	puncher = gmem_kunit_thread(test, punch_thread, p->f);
	kthread_bind(user, cpumask_first(cpu_online_mask));
	kthread_bind(puncher, cpumask_first(cpu_online_mask));
	sched_set_fifo(puncher);

	folio = filemap_lock_folio(p->f->inode->i_mapping, USED);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	wake_up_process(user);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(rwsem_is_locked(lock) &&
						      !task_is_running(user)));
	wake_up_process(puncher);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(gmem_kunit_is_awaited(lock)));
	gmem_kunit_put_folio(folio);

	gmem_kunit_stop_thread(test, user);
	gmem_kunit_stop_thread(test, puncher);
	KUNIT_EXPECT_NOT_NULL(test, gmem_kunit_peek(p->f, USED));
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(p->f), N - 10);
}

/* A host fault that meets a marker, and a lock that is held until it is over. */
struct meeting {
	struct pinned *p;
	struct vm_area_struct *vma;
	struct completion over;
	vm_fault_t result;
};

static int marker_thread(void *data)
{
	struct meeting *m = data;
	struct page *page;

	m->result = fault_on_marker(m->vma, 20, &page);
	if (m->result == VM_FAULT_LOCKED)
		gmem_kunit_put_folio(page_folio(page));
	complete(&m->over);
	return 0;
}

static int lock_thread(void *data)
{
	struct meeting *m = data;

	filemap_invalidate_lock(m->p->f->inode->i_mapping);
	wait_for_completion_timeout(&m->over, 10 * HZ);
	filemap_invalidate_unlock(m->p->f->inode->i_mapping);
	return 0;
}

/*
 * I2, I11: if somebody waits for the lock that it needs to make memory of the holes, a
 * host fault on a marker starts again.  Core MM must not map the hugepage.
 */
static void marker_while_hole_waits(struct kunit *test)
{
	struct pinned *p = open_pinned(test);
	struct rw_semaphore *lock = &p->f->inode->i_mapping->invalidate_lock;
	struct task_struct *user, *writer;
	struct meeting m = { .p = p };
	struct folio *folio;

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, 5, 10), 0);
	init_completion(&m.over);
	mmap_read_lock(current->mm);
	m.vma = vma_lookup(current->mm, p->addr);
	mmap_read_unlock(current->mm);
	user = gmem_kunit_thread(test, marker_thread, &m);
	writer = gmem_kunit_thread(test, lock_thread, &m);

	folio = page_folio(p->page);
	folio_lock(folio);
	wake_up_process(user);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(rwsem_is_locked(lock)));
	wake_up_process(writer);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(gmem_kunit_is_awaited(lock)));
	folio_unlock(folio);
	gmem_kunit_stop_thread(test, user);
	gmem_kunit_stop_thread(test, writer);

	KUNIT_EXPECT_TRUE(test, m.result == VM_FAULT_NOPAGE);
	unpin(p);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(p->f, N - 1, 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(p->f), N - 11);
}

#endif /* KVM_GMEM_KUNIT_TEST=y */

/* A split that fails changes nothing, and says why it failed. */
static void split_fails(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);
	unsigned long addr = gmem_kunit_map(test, f, 0);
	struct folio *folio;
	u8 byte;

	KUNIT_ASSERT_EQ(test, copy_from_user(&byte, (void __user *)addr, 1), 0);
	folio = kvm_gmem_get_folio(f->inode, 0);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	KUNIT_EXPECT_EQ(test, split_unmapped_file_folio(folio), -EBUSY);

	unmap_mapping_pages(f->inode->i_mapping, 0, N, false);
	folio_attach_private(folio, f);
	KUNIT_EXPECT_EQ(test, split_unmapped_file_folio(folio), -EBUSY);
	KUNIT_EXPECT_PTR_EQ(test, folio_detach_private(folio), (void *)f);
	folio_start_writeback(folio);
	KUNIT_EXPECT_EQ(test, split_unmapped_file_folio(folio), -EBUSY);
	folio_end_writeback(folio);
	folio_get(folio);
	KUNIT_EXPECT_EQ(test, split_unmapped_file_folio(folio), -EAGAIN);
	folio_put(folio);
	KUNIT_EXPECT_EQ(test, folio_order(folio), PMD_ORDER);
	KUNIT_EXPECT_PTR_EQ(test, gmem_kunit_peek(f, N - 1), folio);
	folio_unlock(folio);

	/* The folio has been truncated. */
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, 0, N), 0);
	folio_lock(folio);
	KUNIT_EXPECT_EQ(test, split_unmapped_file_folio(folio), -EBUSY);
	gmem_kunit_put_folio(folio);
#else
	kunit_skip(test, "split_unmapped_file_folio() is not exported to this module");
#endif
}

static struct kunit_case gmem_pinned_cases[] = {
	KUNIT_CASE(freed_by_last_hole),
	KUNIT_CASE(freed_by_longer_hole),
	KUNIT_CASE(freed_after_unpin),
	KUNIT_CASE_PARAM(used_again, use_gen_params),
	KUNIT_CASE(allocated_again),
	KUNIT_CASE(never_used),
	KUNIT_CASE(host_uses_neighbours),
	KUNIT_CASE(host_fault_on_marker),
	KUNIT_CASE(mapped_by_page),
	KUNIT_CASE(new_hugepage),
	KUNIT_CASE(split_from_outside),
	KUNIT_CASE(split_into_large),
	KUNIT_CASE(brief_reference),
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	KUNIT_CASE(used_while_hole_waits),
	KUNIT_CASE(marker_while_hole_waits),
#endif
	KUNIT_CASE(split_fails),
	{}
};

static struct kunit_suite gmem_pinned_suite = {
	.name = "kvm_gmem_pinned",
	.init = gmem_kunit_init_huge,
	.test_cases = gmem_pinned_cases,
};

kunit_test_suite(gmem_pinned_suite);
