// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for kvm_gmem_get_huge_folio() and kvm_gmem_get_folio(), i.e. for when
 * guest_memfd backs a range with a hugepage, and for falling back to single pages
 * in all other cases, with nothing leaked (invariants I7, I8 and I11).
 *
 * All tests use real files.  A static stub of the allocation, the one seam there
 * is, makes it fail, or adds a page to the range in the middle of it, which is what
 * a racing fault would do.
 */
#include <kunit/static_stub.h>
#include <kunit/test.h>

#include <linux/kvm_host.h>
#include <linux/memcontrol.h>
#include <linux/pagemap.h>

#include "gmem_kunit_helpers.h"

#define N	GMEM_NR

/* The file has four hugepages. */
#define NPAGES	(4 * N)

struct index_case {
	const char *name;
	pgoff_t index;
};

static const struct index_case index_cases[] = {
	{ "first", 0 },
	{ "second", 1 },
	{ "middle", N / 2 },
	{ "last_of_first_hugepage", N - 1 },
	{ "first_of_second_hugepage", N },
	{ "inside_third_hugepage", 2 * N + 7 },
	{ "first_of_last_hugepage", NPAGES - N },
	{ "last_of_file", NPAGES - 1 },
};

KUNIT_ARRAY_PARAM_DESC(index, index_cases, name);

static struct gmem_kunit_file *open_file(struct kunit *test, u64 flags)
{
	return gmem_kunit_open(test, gmem_kunit_vm(test, 0), NPAGES, flags);
}

static unsigned long nr_allocated(struct gmem_kunit_file *f)
{
	return f->inode->i_mapping->nrpages;
}

/* @folio is the hugepage of @index, and is locked and referenced as promised. */
static void check_huge_folio(struct kunit *test, struct gmem_kunit_file *f,
			     struct folio *folio, pgoff_t index)
{
	KUNIT_ASSERT_NOT_NULL(test, folio);
	KUNIT_EXPECT_EQ(test, folio_order(folio), PMD_ORDER);
	KUNIT_EXPECT_EQ(test, folio->index, index / N * N);
	KUNIT_EXPECT_EQ(test, folio_pfn(folio) % N, 0);
	KUNIT_EXPECT_PTR_EQ(test, folio->mapping, f->inode->i_mapping);
	KUNIT_EXPECT_TRUE(test, folio_test_locked(folio));
	KUNIT_EXPECT_FALSE(test, folio_test_uptodate(folio));
	/* One per page for the page cache, and the caller's. */
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), N + 1);
}

/* There is no hugepage for @index; should there be one, don't leave it locked. */
static void check_no_huge_folio(struct kunit *test, struct gmem_kunit_file *f, pgoff_t index)
{
	struct folio *folio = gmem_kunit_get_huge_folio(f, index);

	KUNIT_EXPECT_NULL(test, folio);
	if (!IS_ERR_OR_NULL(folio))
		gmem_kunit_put_folio(folio);
}

/* Nobody holds the invalidate lock; should it be held, closing the file must not hang. */
static void check_not_locked(struct kunit *test, struct gmem_kunit_file *f)
{
	bool locked = rwsem_is_locked(&f->inode->i_mapping->invalidate_lock);

	KUNIT_EXPECT_FALSE(test, locked);
	if (locked)
		filemap_invalidate_unlock_shared(f->inode->i_mapping);
}

/* I11: a lookup drops the invalidate lock again, with a hugepage and without. */
static void lookup_drops_lock(struct kunit *test)
{
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	struct folio *folio;

	folio = kvm_gmem_get_folio(f->inode, 0);
	KUNIT_ASSERT_FALSE(test, IS_ERR(folio));
	gmem_kunit_put_folio(folio);
	check_not_locked(test, f);

	gmem_kunit_no_hugepages(test);
	folio = kvm_gmem_get_folio(f->inode, N);
	KUNIT_ASSERT_FALSE(test, IS_ERR(folio));
	gmem_kunit_put_folio(folio);
	check_not_locked(test, f);
}

/* I7: hugepages come from where single pages would, but nobody waits or is warned. */
static void neither_stalls_nor_warns(struct kunit *test)
{
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	gfp_t single = mapping_gfp_mask(f->inode->i_mapping);
	gfp_t huge = kvm_gmem_huge_gfp(f->inode->i_mapping);

	KUNIT_EXPECT_EQ(test, (__force u32)(huge & single), (__force u32)single);
	KUNIT_EXPECT_TRUE(test, huge & __GFP_NORETRY);
	KUNIT_EXPECT_TRUE(test, huge & __GFP_NOWARN);
}

/* I7: whatever index is asked for, the hugepage is the aligned one around it. */
static void naturally_aligned(struct kunit *test)
{
	const struct index_case *c = test->param_value;
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	struct folio *folio = gmem_kunit_get_huge_folio(f, c->index);

	check_huge_folio(test, f, folio, c->index);
	KUNIT_EXPECT_EQ(test, nr_allocated(f), N);
	KUNIT_EXPECT_PTR_EQ(test, gmem_kunit_peek(f, c->index / N * N), folio);
	KUNIT_EXPECT_PTR_EQ(test, gmem_kunit_peek(f, c->index / N * N + N - 1), folio);
	gmem_kunit_put_folio(folio);
}

/* I7: kvm_gmem_get_folio() tries a hugepage first. */
static void lookup_uses_hugepage(struct kunit *test)
{
	const struct index_case *c = test->param_value;
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	struct folio *folio = kvm_gmem_get_folio(f->inode, c->index);

	KUNIT_ASSERT_FALSE(test, IS_ERR(folio));
	check_huge_folio(test, f, folio, c->index);
	KUNIT_EXPECT_EQ(test, nr_allocated(f), N);
	gmem_kunit_put_folio(folio);
}

/* I11: there is one folio per hugepage, whichever of its pages is looked up. */
static void second_lookup_finds_first(struct kunit *test)
{
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	struct folio *folio = kvm_gmem_get_folio(f->inode, N + 9);
	static const pgoff_t again[] = { N + 9, N, N + 1, 2 * N - 1 };
	int i;

	KUNIT_ASSERT_FALSE(test, IS_ERR(folio));
	folio_unlock(folio);

	for (i = 0; i < ARRAY_SIZE(again); i++) {
		struct folio *second = kvm_gmem_get_folio(f->inode, again[i]);

		KUNIT_EXPECT_PTR_EQ(test, second, folio);
		gmem_kunit_put_folio(second);
	}

	/* The range is not empty any more. */
	check_no_huge_folio(test, f, N + 9);
	KUNIT_EXPECT_EQ(test, nr_allocated(f), N);
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), N + 1);
	folio_put(folio);
}

/* I8: without the flag there are single pages, and just the one asked for. */
static void flag_off(struct kunit *test)
{
	const struct index_case *c = test->param_value;
	struct gmem_kunit_file *f = open_file(test, GMEM_SHARED);
	struct folio *folio;

	check_no_huge_folio(test, f, c->index);
	KUNIT_EXPECT_EQ(test, nr_allocated(f), 0);

	folio = kvm_gmem_get_folio(f->inode, c->index);
	KUNIT_ASSERT_FALSE(test, IS_ERR(folio));
	KUNIT_EXPECT_EQ(test, folio_order(folio), 0);
	KUNIT_EXPECT_EQ(test, folio->index, c->index);
	KUNIT_EXPECT_EQ(test, nr_allocated(f), 1);
	gmem_kunit_put_folio(folio);
}

/* Add one single page to @f. */
static void add_base_page(struct kunit *test, struct gmem_kunit_file *f, pgoff_t index)
{
	struct folio *folio;

	gmem_kunit_no_hugepages(test);
	folio = kvm_gmem_get_folio(f->inode, index);
	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);

	KUNIT_ASSERT_FALSE(test, IS_ERR(folio));
	KUNIT_ASSERT_EQ(test, folio_order(folio), 0);
	gmem_kunit_put_folio(folio);
}

struct present_case {
	const char *name;
	pgoff_t present;	/* of the second hugepage */
};

static const struct present_case present_cases[] = {
	{ "first", N },
	{ "second", N + 1 },
	{ "middle", N + N / 2 },
	{ "last", 2 * N - 1 },
};

KUNIT_ARRAY_PARAM_DESC(present, present_cases, name);

/* Counts the attempts to allocate a hugepage. */
static struct folio *alloc_is_counted(struct inode *inode, pgoff_t index)
{
	struct kunit *test = kunit_get_current_test();

	(*(int *)test->priv)++;
	return NULL;
}

/*
 * I7: a single page anywhere in the range rules the hugepage out, for each of its
 * pages, while the neighbours are not affected.
 */
static void base_page_present(struct kunit *test)
{
	const struct present_case *c = test->param_value;
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	static const pgoff_t in_range[] = { N, N + N / 2, 2 * N - 1 };
	static const pgoff_t outside[] = { N - 1, 2 * N };
	struct folio *folio;
	int i, attempts = 0;

	add_base_page(test, f, c->present);
	KUNIT_ASSERT_EQ(test, nr_allocated(f), 1);

	/* Known beforehand, i.e. no hugepage is allocated only to be freed again. */
	test->priv = &attempts;
	kunit_activate_static_stub(test, kvm_gmem_alloc_huge_folio, alloc_is_counted);
	for (i = 0; i < ARRAY_SIZE(in_range); i++)
		check_no_huge_folio(test, f, in_range[i]);
	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);
	KUNIT_EXPECT_EQ(test, attempts, 0);
	KUNIT_EXPECT_EQ(test, nr_allocated(f), 1);

	folio = kvm_gmem_get_folio(f->inode, N + 3);
	KUNIT_ASSERT_FALSE(test, IS_ERR(folio));
	KUNIT_EXPECT_EQ(test, folio_order(folio), 0);
	KUNIT_EXPECT_EQ(test, folio->index, N + 3);
	KUNIT_EXPECT_EQ(test, nr_allocated(f), 2);
	gmem_kunit_put_folio(folio);

	for (i = 0; i < ARRAY_SIZE(outside); i++) {
		folio = gmem_kunit_get_huge_folio(f, outside[i]);
		check_huge_folio(test, f, folio, outside[i]);
		gmem_kunit_put_folio(folio);
	}
	KUNIT_EXPECT_EQ(test, nr_allocated(f), 2 + 2 * N);
}

/* I7: if there is no hugepage to be had, there is a single page, not an error. */
static void allocation_fails(struct kunit *test)
{
	const struct index_case *c = test->param_value;
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	struct folio *folio;

	gmem_kunit_no_hugepages(test);

	check_no_huge_folio(test, f, c->index);
	KUNIT_EXPECT_EQ(test, nr_allocated(f), 0);

	folio = kvm_gmem_get_folio(f->inode, c->index);
	KUNIT_ASSERT_FALSE(test, IS_ERR(folio));
	KUNIT_EXPECT_EQ(test, folio_order(folio), 0);
	KUNIT_EXPECT_EQ(test, folio->index, c->index);
	KUNIT_EXPECT_EQ(test, nr_allocated(f), 1);
	gmem_kunit_put_folio(folio);
}

/* What the racing fault below needs to know, and has to tell. */
struct race {
	pgoff_t present;
	struct folio *lost;
};

/* Another fault adds a single page right after the range was found to be empty. */
static struct folio *alloc_loses_race(struct inode *inode, pgoff_t index)
{
	struct kunit *test = kunit_get_current_test();
	struct race *race = test->priv;
	struct folio *folio;

	folio = __filemap_get_folio(inode->i_mapping, race->present,
				    FGP_LOCK | FGP_CREAT,
				    mapping_gfp_mask(inode->i_mapping));
	if (!IS_ERR(folio))
		gmem_kunit_put_folio(folio);

	/* The test's own reference, to see what becomes of the folio. */
	race->lost = folio_alloc(GFP_HIGHUSER, PMD_ORDER);
	if (race->lost)
		folio_get(race->lost);

	return race->lost;
}

/*
 * I7, I11: a hugepage that can't be added because somebody was faster is given
 * back, complete with lock, reference and memcg charge.
 */
static void insertion_fails(struct kunit *test)
{
	const struct present_case *c = test->param_value;
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	struct race race = { .present = c->present };
	struct folio *folio;

	test->priv = &race;
	kunit_activate_static_stub(test, kvm_gmem_alloc_huge_folio, alloc_loses_race);

	check_no_huge_folio(test, f, N + 5);
	KUNIT_ASSERT_NOT_NULL(test, race.lost);
	KUNIT_EXPECT_EQ(test, folio_ref_count(race.lost), 1);
	KUNIT_EXPECT_FALSE(test, folio_test_locked(race.lost));
	KUNIT_EXPECT_NULL(test, race.lost->mapping);
	KUNIT_EXPECT_FALSE(test, folio_memcg_charged(race.lost));
	KUNIT_EXPECT_EQ(test, nr_allocated(f), 1);
	folio_put(race.lost);

	/* And the page that was faster is what everybody gets. */
	folio = kvm_gmem_get_folio(f->inode, c->present);
	KUNIT_ASSERT_FALSE(test, IS_ERR(folio));
	KUNIT_EXPECT_EQ(test, folio_order(folio), 0);
	KUNIT_EXPECT_EQ(test, nr_allocated(f), 1);
	gmem_kunit_put_folio(folio);
}

/* I7: the same for the lookup, which falls back instead of failing. */
static void lookup_falls_back(struct kunit *test)
{
	const struct present_case *c = test->param_value;
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	struct race race = { .present = c->present };
	struct folio *folio;

	test->priv = &race;
	kunit_activate_static_stub(test, kvm_gmem_alloc_huge_folio, alloc_loses_race);

	folio = kvm_gmem_get_folio(f->inode, N + 5);
	KUNIT_ASSERT_FALSE(test, IS_ERR(folio));
	KUNIT_EXPECT_EQ(test, folio_order(folio), 0);
	KUNIT_EXPECT_EQ(test, folio->index, N + 5);
	gmem_kunit_put_folio(folio);
	KUNIT_EXPECT_EQ(test, nr_allocated(f), 2);

	KUNIT_ASSERT_NOT_NULL(test, race.lost);
	KUNIT_EXPECT_EQ(test, folio_ref_count(race.lost), 1);
	folio_put(race.lost);
}

/* I7: no hugepage can reach beyond the end of the file. */
static void beyond_end_of_file(struct kunit *test)
{
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);

	check_no_huge_folio(test, f, NPAGES);
	check_no_huge_folio(test, f, NPAGES + N - 1);
	check_no_huge_folio(test, f, 2 * NPAGES);
	KUNIT_EXPECT_EQ(test, nr_allocated(f), 0);
}

/* Neither index nor offset may be truncated to 32 bits. */
static void above_4gib(struct kunit *test)
{
	const pgoff_t index = (SZ_4G >> PAGE_SHIFT) + 2 * N;
	struct gmem_kunit_file *f;
	struct folio *folio;

	f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), index + N, GMEM_HUGE);

	/* Would be in the way if the index were truncated. */
	add_base_page(test, f, 2 * N);

	folio = gmem_kunit_get_huge_folio(f, index + 11);
	check_huge_folio(test, f, folio, index + 11);
	KUNIT_EXPECT_EQ(test, nr_allocated(f), N + 1);
	gmem_kunit_put_folio(folio);
}

/* I7: fallocate() fills a range with hugepages. */
static void fallocate_uses_hugepages(struct kunit *test)
{
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	pgoff_t index;

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, N + 1, N), 0);
	KUNIT_EXPECT_EQ(test, nr_allocated(f), 2 * N);
	for (index = N; index < 3 * N; index += N) {
		struct folio *folio = gmem_kunit_peek(f, index);

		KUNIT_ASSERT_NOT_NULL(test, folio);
		KUNIT_EXPECT_EQ(test, folio_order(folio), PMD_ORDER);
	}
}

/* I7: a hole that has the size of the hugepage makes room for a new one. */
static void again_after_hole(struct kunit *test)
{
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	struct folio *folio;

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, N, N), 0);
	KUNIT_EXPECT_EQ(test, nr_allocated(f), NPAGES - N);

	folio = gmem_kunit_get_huge_folio(f, N + 1);
	check_huge_folio(test, f, folio, N + 1);
	KUNIT_EXPECT_EQ(test, nr_allocated(f), NPAGES);
	gmem_kunit_put_folio(folio);
}

/*
 * I11: whoever holds the invalidate lock for write, be it to punch a hole or to
 * populate, must not see a new hugepage, and the lookup must not wait for it.
 */
static void no_hugepage_while_invalidating(struct kunit *test)
{
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	struct folio *folio;

	filemap_invalidate_lock(f->inode->i_mapping);
	folio = kvm_gmem_get_folio(f->inode, 3);
	filemap_invalidate_unlock(f->inode->i_mapping);

	KUNIT_ASSERT_FALSE(test, IS_ERR(folio));
	KUNIT_EXPECT_EQ(test, folio_order(folio), 0);
	KUNIT_EXPECT_EQ(test, nr_allocated(f), 1);
	gmem_kunit_put_folio(folio);

	/* The lookup did not leave the lock behind. */
	KUNIT_EXPECT_TRUE(test, filemap_invalidate_trylock_shared(f->inode->i_mapping));
	filemap_invalidate_unlock_shared(f->inode->i_mapping);
}

/*
 * THP=n: the page cache has a limit below PMD_ORDER for everybody else, and there
 * are hugepages nevertheless.
 */
static void without_thp(struct kunit *test)
{
	struct gmem_kunit_file *f;
	struct folio *folio;

	if (IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE))
		kunit_skip(test, "the kernel has THP");

	KUNIT_EXPECT_LT(test, MAX_PAGECACHE_ORDER, PMD_ORDER);

	f = open_file(test, GMEM_HUGE);
	folio = gmem_kunit_get_huge_folio(f, 5);
	check_huge_folio(test, f, folio, 5);
	gmem_kunit_put_folio(folio);
}

/* THP=y: a hugepage can be split, i.e. mm has accepted it as one of its own. */
static void with_thp(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	struct gmem_kunit_file *f;
	struct folio *folio;

	if (!IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE))
		kunit_skip(test, "the kernel has no THP");

	f = open_file(test, GMEM_HUGE);
	folio = gmem_kunit_get_huge_folio(f, 5);
	check_huge_folio(test, f, folio, 5);
	KUNIT_EXPECT_TRUE(test, folio_test_large_rmappable(folio));

	KUNIT_EXPECT_EQ(test, split_folio(folio), 0);
	KUNIT_EXPECT_EQ(test, folio_order(folio), 0);
	KUNIT_EXPECT_EQ(test, nr_allocated(f), N);
	gmem_kunit_put_folio(folio);
#else
	kunit_skip(test, "split_folio_to_list() is exported to no module but KVM");
#endif
}

static struct kunit_case gmem_huge_folio_cases[] = {
	KUNIT_CASE(lookup_drops_lock),
	KUNIT_CASE(neither_stalls_nor_warns),
	KUNIT_CASE_PARAM(naturally_aligned, index_gen_params),
	KUNIT_CASE_PARAM(lookup_uses_hugepage, index_gen_params),
	KUNIT_CASE(second_lookup_finds_first),
	KUNIT_CASE_PARAM(flag_off, index_gen_params),
	KUNIT_CASE_PARAM(base_page_present, present_gen_params),
	KUNIT_CASE_PARAM(allocation_fails, index_gen_params),
	KUNIT_CASE_PARAM(insertion_fails, present_gen_params),
	KUNIT_CASE_PARAM(lookup_falls_back, present_gen_params),
	KUNIT_CASE(beyond_end_of_file),
	KUNIT_CASE(above_4gib),
	KUNIT_CASE(fallocate_uses_hugepages),
	KUNIT_CASE(again_after_hole),
	KUNIT_CASE(no_hugepage_while_invalidating),
	KUNIT_CASE(without_thp),
	KUNIT_CASE(with_thp),
	{}
};

static struct kunit_suite gmem_huge_folio_suite = {
	.name = "kvm_gmem_huge_folio",
	.init = gmem_kunit_init_huge,
	.test_cases = gmem_huge_folio_cases,
};

kunit_test_suite(gmem_huge_folio_suite);
