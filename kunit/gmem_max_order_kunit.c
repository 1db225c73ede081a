// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for kvm_gmem_max_order(), which returns the order at which a page of a
 * binding can be mapped into the guest (invariant I6).
 *
 * The function is pure arithmetic.  The tests compare it with an oracle that uses no
 * arithmetic: the oracle visits all pages of the hugepage and checks that each of
 * them is bound.  A table of bindings puts start, length and alignment at, before
 * and after every boundary.  A second table has the layouts of real VMs and the
 * mistakes known from review, each with the expected order.
 */
#include <kunit/test.h>
#include <linux/kvm_host.h>

#include "gmem_kunit_helpers.h"

#define N	GMEM_NR

struct binding {
	pgoff_t pgoff;
	unsigned long npages;
	gfn_t base_gfn;
};

/*
 * A hugepage can be mapped if each of its pages is bound, and if the guest frame of
 * its first page is aligned to the hugepage size.
 */
static int oracle(pgoff_t index, unsigned int folio_order, const struct binding *b)
{
	gfn_t first_gfn;
	pgoff_t i;

	if (folio_order < PMD_ORDER)
		return 0;

	while (index % N)
		index--;

	for (i = index; i < index + N; i++) {
		if (i < b->pgoff || i >= b->pgoff + b->npages)
			return 0;
	}

	first_gfn = b->base_gfn + (index - b->pgoff);
	return first_gfn % N ? 0 : PMD_ORDER;
}

static int max_order(pgoff_t index, unsigned int folio_order, const struct binding *b)
{
	return kvm_gmem_max_order(index, folio_order, b->pgoff, b->npages, b->base_gfn);
}

struct start_case {
	const char *name;
	pgoff_t pgoff;
};

static const struct start_case start_cases[] = {
	{ "pgoff_0", 0 },
	{ "pgoff_1", 1 },
	{ "pgoff_half_less_1", N / 2 - 1 },
	{ "pgoff_half", N / 2 },
	{ "pgoff_N_less_1", N - 1 },
	{ "pgoff_N", N },
	{ "pgoff_N_and_1", N + 1 },
	{ "pgoff_3N", 3 * N },
};

KUNIT_ARRAY_PARAM_DESC(start, start_cases, name);

static const unsigned long lengths[] = { 1, N - 1, N, N + 1, 2 * N, 3 * N };

/* Distances of base_gfn from a guest frame that is congruent to pgoff. */
static const unsigned long skews[] = { 0, 1, N / 2, N - 1, N };

/* Results of the comparison with the oracle. */
struct tally {
	unsigned long checked;
	unsigned long huge;	/* the oracle expects PMD_ORDER */
	unsigned long bad;	/* the function disagrees with the oracle */
};

/* The table must have this many times more answers than it has PMD_ORDER answers. */
#define MIN_RATIO	10

/* Compare one page in folios of every order; print only the first mismatch. */
static void compare_page(struct kunit *test, const struct binding *b, pgoff_t index,
			 struct tally *t)
{
	int huge_order = oracle(index, PMD_ORDER, b);
	unsigned int folio_order;

	for (folio_order = 0; folio_order <= PMD_ORDER; folio_order++) {
		int exp = folio_order < PMD_ORDER ? 0 : huge_order;
		int got = max_order(index, folio_order, b);

		t->checked++;
		t->huge += exp == PMD_ORDER;
		if (got == exp || t->bad++)
			continue;

		kunit_err(test, "index %lu, folio order %u, pgoff %lu, npages %lu, base_gfn %llu: got order %d, expected %d",
			  index, folio_order, b->pgoff, b->npages, b->base_gfn, got, exp);
	}
}

/*
 * Compare the first, the middle and the last bound page of each hugepage that
 * overlaps with the binding.
 */
static void compare_binding(struct kunit *test, const struct binding *b, struct tally *t)
{
	pgoff_t last = b->pgoff + b->npages - 1, block;

	for (block = round_down(b->pgoff, N); block <= last; block += N) {
		compare_page(test, b, max(block, b->pgoff), t);
		compare_page(test, b, clamp(block + N / 2, b->pgoff, last), t);
		compare_page(test, b, min(block + N - 1, last), t);
	}
}

/* I6: the order agrees with the oracle, for every length and alignment. */
static void agrees_with_oracle(struct kunit *test)
{
	const struct start_case *c = test->param_value;
	struct tally t = {};
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		for (j = 0; j < ARRAY_SIZE(skews); j++) {
			const struct binding b = {
				.pgoff = c->pgoff,
				.npages = lengths[i],
				.base_gfn = c->pgoff + GMEM_GFN + skews[j],
			};

			compare_binding(test, &b, &t);
		}
	}

	KUNIT_EXPECT_EQ(test, t.bad, 0);
	/* The table must cover both answers. */
	KUNIT_EXPECT_GT(test, t.huge, 0);
	KUNIT_EXPECT_GT(test, t.checked, MIN_RATIO * t.huge);
}

struct layout_case {
	const char *name;
	struct binding b;
	pgoff_t index;
	int expected;
};

/* Pages in a number of KiB: the boundaries in a PC are smaller than a hugepage. */
#define KB(x)	((x) * SZ_1K / PAGE_SIZE)

static const struct layout_case layout_cases[] = {
	/* One file has all memory of a PC, with a hole for the VGA window. */
	{ "vga_hole_below", { 0, KB(640), 0 }, 0, 0 },
	{ "vga_hole_last_below", { 0, KB(640), 0 }, KB(640) - 1, 0 },
	{ "vga_hole_above", { KB(1024), 4 * N - KB(1024), KB(1024) }, KB(1024), 0 },
	{ "vga_hole_end_of_hugepage", { KB(1024), 4 * N - KB(1024), KB(1024) }, N - 1, 0 },
	{ "vga_hole_next_hugepage", { KB(1024), 4 * N - KB(1024), KB(1024) }, N, PMD_ORDER },
	{ "vga_hole_last_page", { KB(1024), 4 * N - KB(1024), KB(1024) }, 4 * N - 1, PMD_ORDER },
	/* A memslot is split at 0xc0000, or after one and a quarter hugepages. */
	{ "rom_below", { 0, KB(768), 0 }, KB(768) - 1, 0 },
	{ "rom_above", { KB(768), 2 * N - KB(768), KB(768) }, N, PMD_ORDER },
	{ "quarter_below", { 0, N + N / 4, 0 }, N, 0 },
	{ "quarter_below_first", { 0, N + N / 4, 0 }, N - 1, PMD_ORDER },
	{ "quarter_above", { N + N / 4, 3 * N - N / 4, N + N / 4 }, 2 * N - 1, 0 },
	{ "quarter_above_next", { N + N / 4, 3 * N - N / 4, N + N / 4 }, 2 * N, PMD_ORDER },
	/* Two memslots share a folio: both can map only their other hugepages. */
	{ "shared_lower", { 0, N + N / 2, 0 }, N, 0 },
	{ "shared_upper", { N + N / 2, 2 * N - N / 2, 4 * N + N / 2 }, 2 * N - 1, 0 },
	{ "shared_lower_own", { 0, N + N / 2, 0 }, N / 2, PMD_ORDER },
	{ "shared_upper_own", { N + N / 2, 2 * N - N / 2, 4 * N + N / 2 }, 2 * N, PMD_ORDER },
	/* The guest frame may be elsewhere if it is congruent ... */
	{ "congruent_elsewhere", { N, N, 7 * N }, N + 5, PMD_ORDER },
	{ "congruent_unaligned", { N / 2, 2 * N, 7 * N + N / 2 }, N, PMD_ORDER },
	/* ... but not otherwise. */
	{ "incongruent_by_one", { N, 2 * N, 7 * N + 1 }, N + 5, 0 },
	{ "incongruent_by_half", { 0, 2 * N, N / 2 }, 0, 0 },
	/*
	 * https://lore.kernel.org/all/20231027182217.3615211-18-seanjc@google.com
	 * rounded the index up.  As a result, a memslot that starts in the middle of
	 * the folio [0, N) could map the folio (reported for N 512, pgoff 256 and index
	 * 300), and every page but the first one in the last hugepage of a memslot
	 * was mapped as a single page.
	 */
	{ "rounded_up_out_of_slot", { N / 2, 4 * N, N / 2 }, N / 2 + 44, 0 },
	{ "rounded_up_last_hugepage", { 0, 2 * N, 0 }, N + 1, PMD_ORDER },
	{ "rounded_up_very_last_page", { 0, 2 * N, 0 }, 2 * N - 1, PMD_ORDER },
	/* Nothing wraps at the maximum of pgoff_t. */
	{ "end_of_file_space", { -N, N, -N }, -1UL, PMD_ORDER },
	{ "end_of_file_space_short", { -N, N - 1, -N }, -2UL, 0 },
};

KUNIT_ARRAY_PARAM_DESC(layout, layout_cases, name);

/* I6: the order is right for the layouts of real VMs and for known mistakes. */
static void known_layouts(struct kunit *test)
{
	const struct layout_case *c = test->param_value;

	KUNIT_EXPECT_EQ(test, max_order(c->index, PMD_ORDER, &c->b), c->expected);
}

/* I6: a folio larger than a page and smaller than a hugepage is mapped page by page. */
static void intermediate_orders(struct kunit *test)
{
	const struct binding b = { 0, 4 * N, 0 };
	unsigned int order;

	for (order = 1; order < PMD_ORDER; order++)
		KUNIT_EXPECT_EQ_MSG(test, max_order(N, order, &b), 0, "order %u", order);
	KUNIT_EXPECT_EQ(test, max_order(N, PMD_ORDER, &b), PMD_ORDER);
}

/* A caller that passes a NULL max_order, because it populates pages, gets the same pfn. */
static void null_max_order(struct kunit *test)
{
	const gfn_t base_gfn = N, gfn = base_gfn + 3;
	struct gmem_kunit_fault fault;
	struct kvm_memory_slot *slot;
	struct gmem_kunit_file *f;
	struct page *page;
	kvm_pfn_t pfn;
	int idx, r;

	gmem_kunit_init_huge(test);

	f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), N, GMEM_HUGE);
	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, base_gfn, 0, N), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, gfn, &fault), 0);
	slot = gmem_kunit_slot(test, f->kvm, 0);

	idx = srcu_read_lock(&f->kvm->srcu);
	r = kvm_gmem_get_pfn(f->kvm, slot, gfn, &pfn, &page, NULL);
	srcu_read_unlock(&f->kvm->srcu, idx);

	KUNIT_ASSERT_EQ(test, r, 0);
	KUNIT_EXPECT_EQ(test, pfn, fault.pfn);
	KUNIT_EXPECT_EQ(test, page_to_pfn(page), pfn);
	put_page(page);
}

static struct kunit_case gmem_max_order_cases[] = {
	KUNIT_CASE_PARAM(agrees_with_oracle, start_gen_params),
	KUNIT_CASE_PARAM(known_layouts, layout_gen_params),
	KUNIT_CASE(intermediate_orders),
	KUNIT_CASE(null_max_order),
	{}
};

static struct kunit_suite gmem_max_order_suite = {
	.name = "kvm_gmem_max_order",
	.test_cases = gmem_max_order_cases,
};

kunit_test_suite(gmem_max_order_suite);
