// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for kvm_gmem_max_order(), i.e. for the order at which a page of a
 * binding can be mapped into the guest (invariant I6).
 *
 * The function is pure arithmetic and gets compared with an oracle that does not
 * compute anything: it walks over all pages of the hugepage and looks whether
 * each of them is bound, and where.  The oracle runs over a table of bindings that
 * puts their start, length and alignment at, before and after every boundary. The
 * layouts known from real VMs and the mistakes known from review follow as cases
 * of their own, with the expected order written down.
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
 * A hugepage can be mapped if each of its pages is bound, and if the guest frame
 * to which the first one is bound is one at which a hugepage can start.
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

/* Distances of base_gfn from being congruent to pgoff. */
static const unsigned long skews[] = { 0, 1, N / 2, N - 1, N };

/* What a comparison with the oracle has come to. */
struct tally {
	unsigned long checked;
	unsigned long huge;	/* of which the oracle says PMD_ORDER */
	unsigned long bad;
};

/* Compare for one page and folios of every order; only the first mistake is shown. */
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

		kunit_err(test, "index %lu in folio of order %u, pgoff %lu npages %lu base_gfn %llu: order %d, should be %d",
			  index, folio_order, b->pgoff, b->npages, b->base_gfn, got, exp);
	}
}

/*
 * Compare for the first, a middle and the last page of every hugepage which the
 * binding touches, as far as the page is bound.
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
				.base_gfn = c->pgoff + 8 * N + skews[j],
			};

			compare_binding(test, &b, &t);
		}
	}

	KUNIT_EXPECT_EQ(test, t.bad, 0);
	/* The table is of no use unless it has both kinds of answers. */
	KUNIT_EXPECT_GT(test, t.huge, 0);
	KUNIT_EXPECT_GT(test, t.checked, 10 * t.huge);
}

struct layout_case {
	const char *name;
	struct binding b;
	pgoff_t index;
	int expected;
};

/* The layouts of PCs are in KiB, all of which are less than a hugepage. */
#define KB(x)	((x) * SZ_1K / PAGE_SIZE)

static const struct layout_case layout_cases[] = {
	/* All of a PC's memory in one file, with a gap for the VGA window. */
	{ "vga_hole_below", { 0, KB(640), 0 }, 0, 0 },
	{ "vga_hole_last_below", { 0, KB(640), 0 }, KB(640) - 1, 0 },
	{ "vga_hole_above", { KB(1024), 4 * N - KB(1024), KB(1024) }, KB(1024), 0 },
	{ "vga_hole_end_of_hugepage", { KB(1024), 4 * N - KB(1024), KB(1024) }, N - 1, 0 },
	{ "vga_hole_next_hugepage", { KB(1024), 4 * N - KB(1024), KB(1024) }, N, PMD_ORDER },
	{ "vga_hole_last_page", { KB(1024), 4 * N - KB(1024), KB(1024) }, 4 * N - 1, PMD_ORDER },
	/* A slot split at 0xc0000, and a boundary one and a quarter hugepages in. */
	{ "rom_below", { 0, KB(768), 0 }, KB(768) - 1, 0 },
	{ "rom_above", { KB(768), 2 * N - KB(768), KB(768) }, N, PMD_ORDER },
	{ "quarter_below", { 0, N + N / 4, 0 }, N, 0 },
	{ "quarter_below_first", { 0, N + N / 4, 0 }, N - 1, PMD_ORDER },
	{ "quarter_above", { N + N / 4, 3 * N - N / 4, N + N / 4 }, 2 * N - 1, 0 },
	{ "quarter_above_next", { N + N / 4, 3 * N - N / 4, N + N / 4 }, 2 * N, PMD_ORDER },
	/* Two slots share a folio: neither may map it, both may map their own. */
	{ "shared_lower", { 0, N + N / 2, 0 }, N, 0 },
	{ "shared_upper", { N + N / 2, 2 * N - N / 2, 4 * N + N / 2 }, 2 * N - 1, 0 },
	{ "shared_lower_own", { 0, N + N / 2, 0 }, N / 2, PMD_ORDER },
	{ "shared_upper_own", { N + N / 2, 2 * N - N / 2, 4 * N + N / 2 }, 2 * N, PMD_ORDER },
	/* The guest address is elsewhere, which does not matter if congruent ... */
	{ "congruent_elsewhere", { N, N, 7 * N }, N + 5, PMD_ORDER },
	{ "congruent_unaligned", { N / 2, 2 * N, 7 * N + N / 2 }, N, PMD_ORDER },
	/* ... and does if not. */
	{ "incongruent_by_one", { N, 2 * N, 7 * N + 1 }, N + 5, 0 },
	{ "incongruent_by_half", { 0, 2 * N, N / 2 }, 0, 0 },
	/*
	 * https://lore.kernel.org/all/20231027182217.3615211-18-seanjc@google.com
	 * rounded the index up.  That let the folio [0, N) be mapped through a slot
	 * that starts in its middle, and denied every page but the first one of the
	 * last hugepage of a slot.
	 */
	{ "rounded_up_out_of_slot", { N / 2, 4 * N, N / 2 }, N / 2 + 44, 0 },
	{ "rounded_up_last_hugepage", { 0, 2 * N, 0 }, N + 1, PMD_ORDER },
	{ "rounded_up_very_last_page", { 0, 2 * N, 0 }, 2 * N - 1, PMD_ORDER },
	/* At the far end of what a pgoff_t can express nothing may wrap. */
	{ "end_of_file_space", { -N, N, -N }, -1UL, PMD_ORDER },
	{ "end_of_file_space_short", { -N, N - 1, -N }, -2UL, 0 },
};

KUNIT_ARRAY_PARAM_DESC(layout, layout_cases, name);

/* I6: known layouts, and known mistakes. */
static void known_layouts(struct kunit *test)
{
	const struct layout_case *c = test->param_value;

	KUNIT_EXPECT_EQ(test, max_order(c->index, PMD_ORDER, &c->b), c->expected);
}

/* I6: a folio between a page and a hugepage is never reported as what it is. */
static void intermediate_orders(struct kunit *test)
{
	const struct binding b = { 0, 4 * N, 0 };
	unsigned int order;

	for (order = 1; order < PMD_ORDER; order++)
		KUNIT_EXPECT_EQ_MSG(test, max_order(N, order, &b), 0, "order %u", order);
	KUNIT_EXPECT_EQ(test, max_order(N, PMD_ORDER, &b), PMD_ORDER);
}

/* Whoever populates page by page passes a NULL max_order, and gets the same pfn. */
static void null_max_order(struct kunit *test)
{
	struct gmem_kunit_fault fault;
	struct kvm_memory_slot *slot;
	struct gmem_kunit_file *f;
	struct page *page;
	kvm_pfn_t pfn;
	int idx, r;

	gmem_kunit_init_huge(test);

	f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), N, GMEM_HUGE);
	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, N, 0, N), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, N + 3, &fault), 0);
	slot = gmem_kunit_slot(f->kvm, 0);

	idx = srcu_read_lock(&f->kvm->srcu);
	r = kvm_gmem_get_pfn(f->kvm, slot, N + 3, &pfn, &page, NULL);
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
