// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for memory errors in hugepages: KVM reports the bad page to whoever
 * accesses it, never touches the page, and loses no other page (invariants I2, I5
 * and I6).
 *
 * Most tests mark a page as memory_failure() does.  The mark is removed at the end of
 * the case, so that the kernel can use the memory again.  One test calls
 * memory_failure() itself.
 */
#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/uaccess.h>

#include "gmem_kunit_helpers.h"

#define N	GMEM_NR
#define NPAGES	(2 * N)
#define GFN	GMEM_GFN

static int init(struct kunit *test)
{
	if (!IS_ENABLED(CONFIG_MEMORY_FAILURE))
		kunit_skip(test, "the kernel has no memory failure handling");

	return gmem_kunit_init_huge(test);
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

/* I1, I2: a hole in a pinned hugepage is zeroed in place except for the bad page. */
static void hole_in_place(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	const pgoff_t start = 3, bad = 5, end = 13;
	struct gmem_kunit_fault fault;
	struct folio *pinned;
	kvm_pfn_t head;

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	head = fault.pfn;
	gmem_kunit_fill(head, N, GMEM_DATA);
	KUNIT_ASSERT_EQ(test, mark_bad(test, f, bad), head + bad);

	pinned = gmem_kunit_pin(test, f, 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, start, end - start), 0);
	folio_put(pinned);

	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(head + start, bad - start, 0), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(head + bad, 1, GMEM_DATA), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(head + bad + 1, end - bad - 1, 0), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(head + end, N - end, GMEM_DATA), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + bad, &fault), -EHWPOISON);
}

/* A host fault on the bad page fails; the host can read all other pages. */
static void host_mapping(struct kunit *test)
{
	const struct bad_page *c = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	struct gmem_kunit_fault fault;
	unsigned long addr, lost = 0;
	pgoff_t index;
	u8 byte;

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	gmem_kunit_fill(fault.pfn, N, GMEM_DATA);
	mark_bad(test, f, c->index);

	addr = gmem_kunit_map(test, f, 0);
	for (index = 0; index < N; index++) {
		const void __user *p = (void __user *)(addr + (index << PAGE_SHIFT));

		if (index == c->index)
			KUNIT_EXPECT_EQ(test, copy_from_user(&byte, p, 1), 1);
		else
			lost += copy_from_user(&byte, p, 1) || byte != GMEM_DATA;
	}
	KUNIT_EXPECT_EQ(test, lost, 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(f, c->index), 0);
}

/* I2: memory_failure() itself handles a page of a hugepage. */
static void memory_failure_in_hugepage(struct kunit *test)
{
#ifdef CONFIG_MEMORY_FAILURE
	const struct bad_page *c = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	struct gmem_kunit_fault fault;
	struct page *page;

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	KUNIT_ASSERT_EQ(test, fault.order, PMD_ORDER);
	gmem_kunit_fill(fault.pfn, N, GMEM_DATA);

	/* Ignore the result, which depends on whether the hugepage can be split. */
	page = pfn_to_page(fault.pfn + c->index);
	memory_failure(page_to_pfn(page), MF_SW_SIMULATED);
	KUNIT_ASSERT_TRUE(test, PageHWPoison(page));
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, unmark, page), 0);

	/* If it can be split, the other pages are single pages now. */
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, (c->index + 1) % N),
			IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) ? 0 : PMD_ORDER);
	check_guest(test, f, c->index, GMEM_DATA);
#endif
}

static void put(void *page)
{
	put_page(page);
}

/* I6: the search for poison does not include the page after the folio. */
static void next_to_folio(struct kunit *test)
{
#ifdef CONFIG_MEMORY_FAILURE
	struct page *page = alloc_pages(GFP_KERNEL, 1), *next = page + 1;

	KUNIT_ASSERT_NOT_NULL(test, page);
	split_page(page, 1);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, put, next), 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, put, page), 0);

	SetPageHWPoison(next);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, unmark, next), 0);

	KUNIT_EXPECT_TRUE(test, kvm_gmem_has_poison(page_folio(next)));
	KUNIT_EXPECT_FALSE(test, kvm_gmem_has_poison(page_folio(page)));
#endif
}

static struct kunit_case gmem_poison_cases[] = {
	KUNIT_CASE_PARAM(used_memory, bad_gen_params),
	KUNIT_CASE_PARAM(unused_memory, bad_gen_params),
	KUNIT_CASE(hole_in_place),
	KUNIT_CASE_PARAM(host_mapping, bad_gen_params),
	KUNIT_CASE_PARAM(memory_failure_in_hugepage, bad_gen_params),
	KUNIT_CASE(next_to_folio),
	{}
};

static struct kunit_suite gmem_poison_suite = {
	.name = "kvm_gmem_poison",
	.init = init,
	.test_cases = gmem_poison_cases,
};

kunit_test_suite(gmem_poison_suite);
