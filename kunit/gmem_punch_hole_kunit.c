// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for punching holes into hugepages: what was in the hole is gone for
 * everybody, and nothing else ever is (invariants I1 to I4).
 *
 * One body, many holes: the table puts the edges of the hole at, before and after
 * every boundary of a file of four hugepages.  Each hole is punched into memory
 * that was used, memory that somebody has pinned, and memory that was allocated but
 * never used.  What has to be found afterwards follows from the hole alone, page
 * by page.
 *
 * Punching ten pages out of a hugepage used to destroy the other 502, see
 * kvm_gmem_punch_edge().
 */
#include <kunit/test.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/kvm_host.h>
#include <linux/pagemap.h>

#include "gmem_kunit_helpers.h"

#define N	GMEM_NR
#define NPAGES	(4 * N)
#define GFN	GMEM_GFN

struct hole {
	const char *name;
	pgoff_t start;
	unsigned long npages;
};

static const struct hole holes[] = {
	{ "first_page", 0, 1 },
	{ "ten_pages", 5, 10 },
	{ "last_page_of_hugepage", N - 1, 1 },
	{ "first_half", 0, N / 2 },
	{ "second_half", N / 2, N / 2 },
	{ "all_but_first_page", 1, N - 1 },
	{ "all_but_last_page", 0, N - 1 },
	{ "inside_last_hugepage", NPAGES - N + 1, N - 2 },
	{ "one_hugepage", N, N },
	{ "two_hugepages", N, 2 * N },
	{ "across_boundary", N - 3, 6 },
	{ "across_whole_hugepage", N - 1, N + 2 },
	{ "across_two_whole_hugepages", N / 2, 3 * N },
	{ "cut_at_start_only", N + 3, 2 * N - 3 },
	{ "cut_at_end_only", N, N + 3 },
	{ "up_to_end_of_file", NPAGES - 5, 5 },
	{ "beyond_end_of_file", NPAGES - 5, 2 * N },
	{ "whole_file", 0, NPAGES },
};

KUNIT_ARRAY_PARAM_DESC(hole, holes, name);

/* For what needs a fault per page, or does not depend on where the edges are. */
static const struct hole few_holes[] = {
	{ "ten_pages", 5, 10 },
	{ "across_whole_hugepage", N - 1, N + 2 },
	{ "whole_file", 0, NPAGES },
};

KUNIT_ARRAY_PARAM_DESC(few, few_holes, name);

static bool in_hole(const struct hole *h, pgoff_t index)
{
	return index >= h->start && index < h->start + h->npages;
}

/* Pages of the file, from @from to @to, that are in the hole. */
static unsigned long nr_in_hole(const struct hole *h, pgoff_t from, pgoff_t to)
{
	pgoff_t first = max(from, h->start), last = min(to, h->start + h->npages);

	return first < last ? last - first : 0;
}

/* Pages that are freed if no hugepage can be split, i.e. only whole ones are. */
static unsigned long nr_in_whole_hugepages(const struct hole *h)
{
	unsigned long nr = 0;
	pgoff_t block;

	for (block = 0; block < NPAGES; block += N) {
		if (nr_in_hole(h, block, block + N) == N)
			nr += N;
	}

	return nr;
}

static struct gmem_kunit_file *open_bound(struct kunit *test)
{
	gmem_kunit_poison_hugepages(test);
	return gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);
}

/* Have the guest use all of the file, and write a pattern to it. */
static void write_pattern(struct kunit *test, struct gmem_kunit_file *f)
{
	struct gmem_kunit_fault fault;
	pgoff_t index, i;

	for (index = 0; index < NPAGES; index += BIT(fault.order)) {
		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + index, &fault), 0);
		for (i = 0; i < BIT(fault.order); i++)
			gmem_kunit_fill(fault.pfn + i, 1, gmem_kunit_pattern(index + i));
	}
	KUNIT_ASSERT_EQ(test, f->inode->i_mapping->nrpages, NPAGES);
}

/* I4: no folio is left behind that is neither a single page nor a hugepage. */
static unsigned long nr_odd_orders(struct gmem_kunit_file *f)
{
	unsigned long odd = 0;
	pgoff_t index;

	for (index = 0; index < NPAGES; index++) {
		struct folio *folio = gmem_kunit_peek(f, index);

		if (folio && folio_order(folio) && folio_order(folio) != PMD_ORDER)
			odd++;
	}

	return odd;
}

/* Nobody has kept a folio, i.e. all of them can be freed. */
static unsigned long nr_kept(struct gmem_kunit_file *f)
{
	unsigned long kept = 0;
	pgoff_t index;

	for (index = 0; index < NPAGES; index++)
		kept += gmem_kunit_extra_refs(f, index) != 0;

	return kept;
}

/*
 * I1 and I2: have the guest look at all of the file. @outside is what it finds
 * outside of the hole: the pattern, or zeros if the memory was never used.
 */
static void check_contents(struct kunit *test, struct gmem_kunit_file *f,
			   const struct hole *h, bool used)
{
	unsigned long not_zero = 0, lost = 0;
	struct gmem_kunit_fault fault;
	pgoff_t index, i;

	for (index = 0; index < NPAGES; index += BIT(fault.order)) {
		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + index, &fault), 0);

		for (i = index; i < index + BIT(fault.order); i++) {
			kvm_pfn_t pfn = fault.pfn + i - index;

			if (in_hole(h, i))
				not_zero += gmem_kunit_count_not(pfn, 1, 0);
			else
				lost += gmem_kunit_count_not(pfn, 1,
							     used ? gmem_kunit_pattern(i) : 0);
		}
	}

	KUNIT_EXPECT_EQ(test, not_zero, 0);
	KUNIT_EXPECT_EQ(test, lost, 0);
}

/*
 * I1, I2, I4: without an extra reference the memory of the hole is freed if the
 * kernel can split hugepages; whole hugepages are freed in any case.
 */
static void used_memory(struct kunit *test)
{
	const struct hole *h = test->param_value;
	struct gmem_kunit_file *f = open_bound(test);
	unsigned long freed;

	write_pattern(test, f);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, h->start, h->npages), 0);

	freed = IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) ? nr_in_hole(h, 0, NPAGES) :
							  nr_in_whole_hugepages(h);
	KUNIT_EXPECT_EQ(test, f->inode->i_mapping->nrpages, NPAGES - freed);
	KUNIT_EXPECT_EQ(test, nr_odd_orders(f), 0);
	KUNIT_EXPECT_EQ(test, nr_kept(f), 0);
	check_contents(test, f, h, true);
}

/* Punch a hole while somebody else holds a reference to each hugepage. */
static void punch_pinned(struct kunit *test, struct gmem_kunit_file *f, const struct hole *h)
{
	struct folio *pinned[NPAGES / N];
	unsigned long nr_pages;
	int i;

	for (i = 0; i < ARRAY_SIZE(pinned); i++) {
		pinned[i] = filemap_get_folio(f->inode->i_mapping, i * N);
		KUNIT_ASSERT_FALSE(test, IS_ERR(pinned[i]));
	}

	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, h->start, h->npages), 0);
	nr_pages = f->inode->i_mapping->nrpages;

	for (i = 0; i < ARRAY_SIZE(pinned); i++)
		folio_put(pinned[i]);

	KUNIT_EXPECT_EQ(test, nr_pages, NPAGES - nr_in_whole_hugepages(h));
}

/*
 * I1, I2, I4: if somebody else holds a reference to each hugepage, those that are
 * cut are zeroed in place.
 */
static void pinned_memory(struct kunit *test)
{
	const struct hole *h = test->param_value;
	struct gmem_kunit_file *f = open_bound(test);

	write_pattern(test, f);
	punch_pinned(test, f, h);
	KUNIT_EXPECT_EQ(test, nr_odd_orders(f), 0);
	KUNIT_EXPECT_EQ(test, nr_kept(f), 0);
	check_contents(test, f, h, true);
}

/* I1, I5: memory that was allocated but never used is zeroed upon first use. */
static void unused_memory(struct kunit *test)
{
	const struct hole *h = test->param_value;
	struct gmem_kunit_file *f = open_bound(test);

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, h->start, h->npages), 0);
	KUNIT_EXPECT_EQ(test, nr_odd_orders(f), 0);
	check_contents(test, f, h, false);
}

/* I1, I5: the same where hugepages can't be split: there is nothing to zero in place. */
static void unused_pinned_memory(struct kunit *test)
{
	const struct hole *h = test->param_value;
	struct gmem_kunit_file *f = open_bound(test);

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	punch_pinned(test, f, h);
	KUNIT_EXPECT_EQ(test, nr_odd_orders(f), 0);
	check_contents(test, f, h, false);
}

/* Nothing there to be punched: nothing happens. */
static void unallocated_memory(struct kunit *test)
{
	const struct hole *h = test->param_value;
	struct gmem_kunit_file *f = open_bound(test);

	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, h->start, h->npages), 0);
	KUNIT_EXPECT_EQ(test, f->inode->i_mapping->nrpages, 0);
}

/* Punching the same hole twice makes no difference. */
static void punched_twice(struct kunit *test)
{
	const struct hole *h = test->param_value;
	struct gmem_kunit_file *f = open_bound(test);
	unsigned long nr_pages;

	write_pattern(test, f);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, h->start, h->npages), 0);
	nr_pages = f->inode->i_mapping->nrpages;
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, h->start, h->npages), 0);
	KUNIT_EXPECT_EQ(test, f->inode->i_mapping->nrpages, nr_pages);
	check_contents(test, f, h, true);
}

/* I4: memory that was zeroed in place is freed by a hole over the whole hugepage. */
static void freed_by_whole_hole(struct kunit *test)
{
	struct gmem_kunit_file *f = open_bound(test);
	struct folio *folio;

	write_pattern(test, f);
	folio = filemap_get_folio(f->inode->i_mapping, N);
	KUNIT_ASSERT_FALSE(test, IS_ERR(folio));
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, N + 1, 10), 0);
	folio_put(folio);
	KUNIT_EXPECT_EQ(test, f->inode->i_mapping->nrpages, NPAGES);

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, N, N), 0);
	KUNIT_EXPECT_EQ(test, f->inode->i_mapping->nrpages, NPAGES - N);
}

/* I2: a page outside of the hole keeps its place, so does every mapping of it. */
static void rest_keeps_pfn(struct kunit *test)
{
	struct gmem_kunit_file *f = open_bound(test);
	struct gmem_kunit_fault before, after;

	write_pattern(test, f);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + 20, &before), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, 5, 10), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + 20, &after), 0);
	KUNIT_EXPECT_EQ(test, after.pfn, before.pfn);
	/* Once split, the rest can only be mapped page by page. */
	KUNIT_EXPECT_EQ(test, after.order,
			IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) ? 0 : PMD_ORDER);
}

/* I1: the guest's mappings of the hole are gone, and faults in flight will retry. */
static void guest_is_zapped(struct kunit *test)
{
	struct gmem_kunit_file *f = open_bound(test);
	unsigned long seq;

	write_pattern(test, f);
	seq = f->kvm->mmu_invalidate_seq;
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, 5, 10), 0);
	KUNIT_EXPECT_NE(test, f->kvm->mmu_invalidate_seq, seq);
	KUNIT_EXPECT_EQ(test, f->kvm->mmu_invalidate_in_progress, 0);

	/* What is not bound does not concern the guest. */
	KUNIT_ASSERT_EQ(test, gmem_kunit_unbind(f->kvm, 0), 0);
	seq = f->kvm->mmu_invalidate_seq;
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, N + 5, 10), 0);
	KUNIT_EXPECT_EQ(test, f->kvm->mmu_invalidate_seq, seq);
}

/*
 * I1: x86 compares a fault with nothing but its gfn with the range that is being
 * invalidated.  All of a hugepage has to be in there, otherwise a fault next to the
 * hole maps what is about to be freed.  Single pages are nobody else's business.
 */
static void holds_off_faults(struct kunit *test)
{
	const struct hole *h = test->param_value;
	struct gmem_kunit_file *f = open_bound(test);
	pgoff_t end = min(h->start + h->npages, NPAGES);

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, h->start, h->npages), 0);
	KUNIT_EXPECT_EQ(test, f->kvm->mmu_invalidate_range_start, GFN + h->start / N * N);
	KUNIT_EXPECT_EQ(test, f->kvm->mmu_invalidate_range_end, GFN + DIV_ROUND_UP(end, N) * N);

	f = gmem_kunit_open_bound(test, NPAGES, GMEM_SHARED);
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, h->start, h->npages), 0);
	KUNIT_EXPECT_EQ(test, f->kvm->mmu_invalidate_range_start, GFN + h->start);
	KUNIT_EXPECT_EQ(test, f->kvm->mmu_invalidate_range_end, GFN + end);
}

struct bad_call {
	const char *name;
	int mode;
	loff_t offset;
	loff_t len;
	int error;
};

#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static const struct bad_call bad_calls[] = {
	{ "unaligned_offset", PUNCH, 1, PAGE_SIZE, -EINVAL },
	{ "unaligned_length", PUNCH, 0, PAGE_SIZE + 1, -EINVAL },
	{ "empty", PUNCH, 0, 0, -EINVAL },
	{ "negative_offset", PUNCH, -PAGE_SIZE, PAGE_SIZE, -EINVAL },
	{ "without_keep_size", FALLOC_FL_PUNCH_HOLE, 0, PAGE_SIZE, -EOPNOTSUPP },
	{ "zero_range", FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, PAGE_SIZE, -EOPNOTSUPP },
	{ "collapse_range", FALLOC_FL_COLLAPSE_RANGE, 0, PMD_SIZE, -EOPNOTSUPP },
};

KUNIT_ARRAY_PARAM_DESC(bad_call, bad_calls, name);

/* I3: a call that fails changes nothing. */
static void failure_changes_nothing(struct kunit *test)
{
	static const struct hole nothing = { "nothing", 0, 0 };
	const struct bad_call *c = test->param_value;
	struct gmem_kunit_file *f = open_bound(test);

	write_pattern(test, f);
	KUNIT_EXPECT_EQ(test, vfs_fallocate(f->file, c->mode, c->offset, c->len), c->error);
	KUNIT_EXPECT_EQ(test, f->inode->i_mapping->nrpages, NPAGES);
	KUNIT_EXPECT_EQ(test, folio_order(gmem_kunit_peek(f, 0)), PMD_ORDER);
	check_contents(test, f, &nothing, true);
}

/* I8: without the flag a hole frees exactly its pages, on every kernel. */
static void flag_off(struct kunit *test)
{
	const struct hole *h = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_SHARED);

	write_pattern(test, f);
	KUNIT_EXPECT_EQ(test, folio_order(gmem_kunit_peek(f, 0)), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, h->start, h->npages), 0);
	KUNIT_EXPECT_EQ(test, f->inode->i_mapping->nrpages,
			NPAGES - nr_in_hole(h, 0, NPAGES));
	check_contents(test, f, h, true);
}

static struct kunit_case gmem_punch_hole_cases[] = {
	KUNIT_CASE_PARAM(used_memory, hole_gen_params),
	KUNIT_CASE_PARAM(pinned_memory, hole_gen_params),
	KUNIT_CASE_PARAM(unused_memory, few_gen_params),
	KUNIT_CASE_PARAM(unused_pinned_memory, few_gen_params),
	KUNIT_CASE_PARAM(unallocated_memory, few_gen_params),
	KUNIT_CASE_PARAM(punched_twice, few_gen_params),
	KUNIT_CASE(freed_by_whole_hole),
	KUNIT_CASE(rest_keeps_pfn),
	KUNIT_CASE(guest_is_zapped),
	KUNIT_CASE_PARAM(holds_off_faults, hole_gen_params),
	KUNIT_CASE_PARAM(failure_changes_nothing, bad_call_gen_params),
	KUNIT_CASE_PARAM(flag_off, few_gen_params),
	{}
};

static struct kunit_suite gmem_punch_hole_suite = {
	.name = "kvm_gmem_punch_hole",
	.init = gmem_kunit_init_huge,
	.test_cases = gmem_punch_hole_cases,
};

kunit_test_suite(gmem_punch_hole_suite);
