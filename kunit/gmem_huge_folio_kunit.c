// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for kvm_gmem_get_huge_folio() and kvm_gmem_get_folio(): they check when
 * guest_memfd backs a range with a hugepage, and that it falls back to single pages
 * in all other cases without leaking anything (invariants I7, I8 and I11).
 *
 * All tests use real files.  Only the allocation of hugepages is replaced by static
 * stubs.  They make it fail, or add a page to the range as a racing fault would.
 */
#include <kunit/static_stub.h>
#include <kunit/test.h>

#include <linux/kvm_host.h>
#include <linux/list.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/sizes.h>

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

/* Check that @folio is a new hugepage that contains @index, locked and referenced. */
static void check_huge_folio(struct kunit *test, struct gmem_kunit_file *f,
			     struct folio *folio, pgoff_t index)
{
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	KUNIT_EXPECT_EQ(test, folio_order(folio), PMD_ORDER);
	KUNIT_EXPECT_EQ(test, folio->index, index / N * N);
	KUNIT_EXPECT_EQ(test, folio_pfn(folio) % N, 0);
	KUNIT_EXPECT_PTR_EQ(test, folio->mapping, f->inode->i_mapping);
	KUNIT_EXPECT_TRUE(test, folio_test_locked(folio));
	KUNIT_EXPECT_FALSE(test, folio_test_uptodate(folio));
	/* The page cache holds one reference per page, and the caller holds one. */
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), N + 1);
}

/* Check that there is no hugepage for @index; if there is one, release it. */
static void check_no_huge_folio(struct kunit *test, struct gmem_kunit_file *f, pgoff_t index)
{
	struct folio *folio = gmem_kunit_get_huge_folio(f, index);

	KUNIT_EXPECT_NULL(test, folio);
	if (!IS_ERR_OR_NULL(folio))
		gmem_kunit_put_folio(folio);
}

/* Check that nobody holds the invalidate lock; otherwise closing the file would hang. */
static void check_not_locked(struct kunit *test, struct gmem_kunit_file *f)
{
	bool locked = rwsem_is_locked(&f->inode->i_mapping->invalidate_lock);

	KUNIT_EXPECT_FALSE(test, locked);
	if (locked)
		filemap_invalidate_unlock_shared(f->inode->i_mapping);
}

/* I11: a lookup drops the invalidate lock, whether it finds a hugepage or not. */
static void lookup_drops_lock(struct kunit *test)
{
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	struct folio *folio;

	folio = kvm_gmem_get_folio(f->inode, 0);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	gmem_kunit_put_folio(folio);
	check_not_locked(test, f);

	gmem_kunit_no_hugepages(test);
	folio = kvm_gmem_get_folio(f->inode, N);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	gmem_kunit_put_folio(folio);
	check_not_locked(test, f);
}

/* memory_is_short() uses up to so much memory. */
#define ENOUGH_MEMORY	SZ_4G

static void free_pages_of(struct list_head *list, unsigned int order)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, list, lru)
		__free_pages(page, order);
}

/* I7: if there is no hugepage left, KVM uses single pages, and nobody is warned. */
static void memory_is_short(struct kunit *test)
{
	const gfp_t gfp = GFP_HIGHUSER | __GFP_NORETRY | __GFP_NOWARN;
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	unsigned long i, left = 0;
	LIST_HEAD(hugepages);
	LIST_HEAD(pages);
	struct folio *folio;
	struct page *page;

	if (totalram_pages() > ENOUGH_MEMORY >> PAGE_SHIFT)
		kunit_skip(test, "there is too much memory to use it up");

	/*
	 * Take every other page of some hugepages, and all others as a whole.  Leave a
	 * quarter of the memory: the CPUs keep up to an eighth on their lists, where it
	 * doesn't count as free.
	 */
	while ((page = alloc_pages(gfp, PMD_ORDER))) {
		if (left >= totalram_pages() / 4) {
			list_add(&page->lru, &hugepages);
			continue;
		}

		split_page(page, PMD_ORDER);
		for (i = 0; i < N; i += 2) {
			list_add(&page[i].lru, &pages);
			__free_page(&page[i + 1]);
		}
		left += N / 2;
	}

	folio = kvm_gmem_get_folio(f->inode, 3);
	free_pages_of(&hugepages, PMD_ORDER);
	free_pages_of(&pages, 0);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	KUNIT_EXPECT_EQ(test, folio_order(folio), 0);
	gmem_kunit_put_folio(folio);
}

/* I7: for each index, the hugepage is the aligned one that contains the index. */
static void naturally_aligned(struct kunit *test)
{
	const struct index_case *c = test->param_value;
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	struct folio *folio = gmem_kunit_get_huge_folio(f, c->index);
	pgoff_t head = c->index / N * N;

	check_huge_folio(test, f, folio, c->index);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N);
	KUNIT_EXPECT_PTR_EQ(test, gmem_kunit_peek(f, head), folio);
	KUNIT_EXPECT_PTR_EQ(test, gmem_kunit_peek(f, head + N - 1), folio);
	gmem_kunit_put_folio(folio);
}

/* I7: kvm_gmem_get_folio() tries a hugepage first. */
static void lookup_uses_hugepage(struct kunit *test)
{
	const struct index_case *c = test->param_value;
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	struct folio *folio = kvm_gmem_get_folio(f->inode, c->index);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	check_huge_folio(test, f, folio, c->index);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N);
	gmem_kunit_put_folio(folio);
}

/* I11: lookups of different pages of a hugepage return the same folio. */
static void second_lookup_finds_first(struct kunit *test)
{
	static const pgoff_t again[] = { N + 9, N, N + 1, 2 * N - 1 };
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	struct folio *folio = kvm_gmem_get_folio(f->inode, again[0]);
	int i;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	folio_unlock(folio);

	for (i = 0; i < ARRAY_SIZE(again); i++) {
		struct folio *second = kvm_gmem_get_folio(f->inode, again[i]);

		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, second);
		KUNIT_EXPECT_PTR_EQ(test, second, folio);
		gmem_kunit_put_folio(second);
	}

	/* The range is no longer empty. */
	check_no_huge_folio(test, f, again[0]);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N);
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), N + 1);
	folio_put(folio);
}

/* I8: without the flag, a lookup allocates only the single page at its index. */
static void flag_off(struct kunit *test)
{
	const struct index_case *c = test->param_value;
	struct gmem_kunit_file *f = open_file(test, GMEM_SHARED);
	struct folio *folio;

	check_no_huge_folio(test, f, c->index);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 0);

	folio = kvm_gmem_get_folio(f->inode, c->index);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	KUNIT_EXPECT_EQ(test, folio_order(folio), 0);
	KUNIT_EXPECT_EQ(test, folio->index, c->index);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 1);
	gmem_kunit_put_folio(folio);
}

/* I8: without the flag, a lookup doesn't wait for somebody who punches a hole. Hangs if it does. */
static void no_lock_without_flag(struct kunit *test)
{
	struct gmem_kunit_file *f = open_file(test, GMEM_SHARED);
	struct folio *folio;

	filemap_invalidate_lock(f->inode->i_mapping);
	folio = kvm_gmem_get_folio(f->inode, 0);
	filemap_invalidate_unlock(f->inode->i_mapping);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	gmem_kunit_put_folio(folio);
}

/* Allocate a single page of @f. */
static void add_base_page(struct kunit *test, struct gmem_kunit_file *f, pgoff_t index)
{
	struct folio *folio;

	gmem_kunit_no_hugepages(test);
	folio = kvm_gmem_get_folio(f->inode, index);
	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	KUNIT_ASSERT_EQ(test, folio_order(folio), 0);
	gmem_kunit_put_folio(folio);
}

struct present_case {
	const char *name;
	pgoff_t present;	/* a page in the range of the second hugepage */
};

static const struct present_case present_cases[] = {
	{ "first", N },
	{ "second", N + 1 },
	{ "middle", N + N / 2 },
	{ "last", 2 * N - 1 },
};

KUNIT_ARRAY_PARAM_DESC(present, present_cases, name);

/* Count the attempts to allocate a hugepage. */
static struct folio *alloc_is_counted(struct inode *inode, pgoff_t index, gfp_t gfp)
{
	struct kunit *test = kunit_get_current_test();

	(*(int *)test->priv)++;
	return NULL;
}

/*
 * I7: a single page anywhere in the range of a hugepage prevents this hugepage, but
 * not its neighbours.
 */
static void base_page_present(struct kunit *test)
{
	const struct present_case *c = test->param_value;
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	static const pgoff_t in_range[] = { N, N + N / 2, 2 * N - 1 };
	static const pgoff_t outside[] = { N - 1, 2 * N };
	struct folio *folio;
	const pgoff_t other = N + 3;
	int i, attempts = 0;

	add_base_page(test, f, c->present);
	KUNIT_ASSERT_EQ(test, gmem_kunit_nr_pages(f), 1);

	/* KVM does not allocate a hugepage that it cannot insert. */
	test->priv = &attempts;
	kunit_activate_static_stub(test, kvm_gmem_alloc_huge_folio, alloc_is_counted);
	for (i = 0; i < ARRAY_SIZE(in_range); i++)
		check_no_huge_folio(test, f, in_range[i]);
	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);
	KUNIT_EXPECT_EQ(test, attempts, 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 1);

	folio = kvm_gmem_get_folio(f->inode, other);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	KUNIT_EXPECT_EQ(test, folio_order(folio), 0);
	KUNIT_EXPECT_EQ(test, folio->index, other);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 2);
	gmem_kunit_put_folio(folio);

	for (i = 0; i < ARRAY_SIZE(outside); i++) {
		folio = gmem_kunit_get_huge_folio(f, outside[i]);
		check_huge_folio(test, f, folio, outside[i]);
		gmem_kunit_put_folio(folio);
	}
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 2 + ARRAY_SIZE(outside) * N);
}

/* I7: if no hugepage is available, a lookup allocates a single page. */
static void allocation_fails(struct kunit *test)
{
	const struct index_case *c = test->param_value;
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	struct folio *folio;

	gmem_kunit_no_hugepages(test);

	check_no_huge_folio(test, f, c->index);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 0);

	folio = kvm_gmem_get_folio(f->inode, c->index);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	KUNIT_EXPECT_EQ(test, folio_order(folio), 0);
	KUNIT_EXPECT_EQ(test, folio->index, c->index);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 1);
	gmem_kunit_put_folio(folio);
}

struct race {
	pgoff_t present;	/* the page that the racing fault adds */
	struct folio *lost;	/* the hugepage that cannot be inserted */
};

/* Add a single page after KVM found the range empty, as a racing fault would. */
static struct folio *alloc_loses_race(struct inode *inode, pgoff_t index, gfp_t gfp)
{
	struct kunit *test = kunit_get_current_test();
	struct race *race = test->priv;
	struct folio *folio;

	folio = __filemap_get_folio(inode->i_mapping, race->present,
				    FGP_LOCK | FGP_CREAT,
				    mapping_gfp_mask(inode->i_mapping));
	if (!IS_ERR(folio))
		gmem_kunit_put_folio(folio);

	/* This reference lets the test check the folio after KVM has dropped its own. */
	race->lost = folio_alloc(GFP_HIGHUSER, PMD_ORDER);
	if (race->lost)
		folio_get(race->lost);

	return race->lost;
}

/*
 * I7, I11: when a hugepage loses the race and cannot be inserted, KVM releases its
 * lock, reference and memcg charge.
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
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 1);
	folio_put(race.lost);

	/* Lookups return the page that won the race. */
	folio = kvm_gmem_get_folio(f->inode, c->present);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	KUNIT_EXPECT_EQ(test, folio_order(folio), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 1);
	gmem_kunit_put_folio(folio);
}

/* I7: when the hugepage loses the race, a lookup falls back to a single page. */
static void lookup_falls_back(struct kunit *test)
{
	const struct present_case *c = test->param_value;
	const pgoff_t index = N + 5;
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	struct race race = { .present = c->present };
	struct folio *folio;

	test->priv = &race;
	kunit_activate_static_stub(test, kvm_gmem_alloc_huge_folio, alloc_loses_race);

	folio = kvm_gmem_get_folio(f->inode, index);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	KUNIT_EXPECT_EQ(test, folio_order(folio), 0);
	KUNIT_EXPECT_EQ(test, folio->index, index);
	gmem_kunit_put_folio(folio);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 2);

	KUNIT_ASSERT_NOT_NULL(test, race.lost);
	KUNIT_EXPECT_EQ(test, folio_ref_count(race.lost), 1);
	folio_put(race.lost);
}

/* I7: there are no hugepages beyond the end of the file. */
static void beyond_end_of_file(struct kunit *test)
{
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);

	check_no_huge_folio(test, f, NPAGES);
	check_no_huge_folio(test, f, NPAGES + N - 1);
	check_no_huge_folio(test, f, 2 * NPAGES);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 0);
}

/* Neither the index nor the offset is truncated to 32 bits. */
static void above_4gib(struct kunit *test)
{
	const pgoff_t truncated = 2 * N, head = (SZ_4G >> PAGE_SHIFT) + truncated;
	const pgoff_t index = head + 11;
	struct gmem_kunit_file *f;
	struct folio *folio;

	f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), head + N, GMEM_HUGE);

	/* If the offset were truncated, this page would prevent the hugepage. */
	add_base_page(test, f, truncated);

	folio = gmem_kunit_get_huge_folio(f, index);
	check_huge_folio(test, f, folio, index);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N + 1);
	gmem_kunit_put_folio(folio);
}

/* I7: fallocate() allocates hugepages. */
static void fallocate_uses_hugepages(struct kunit *test)
{
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	pgoff_t index;

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, N + 1, N), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 2 * N);
	for (index = N; index < 3 * N; index += N)
		KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, index), PMD_ORDER);
}

/* I7: after a hole that covers a whole hugepage, a new hugepage can be allocated. */
static void again_after_hole(struct kunit *test)
{
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	struct folio *folio;

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, N, N), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), NPAGES - N);

	folio = gmem_kunit_get_huge_folio(f, N + 1);
	check_huge_folio(test, f, folio, N + 1);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), NPAGES);
	gmem_kunit_put_folio(folio);
}

static int lookup_thread(void *data)
{
	struct gmem_kunit_file *f = data;
	struct folio *folio = kvm_gmem_get_folio(f->inode, 3);

	if (!IS_ERR(folio))
		gmem_kunit_put_folio(folio);
	return 0;
}

/*
 * I7, I11: while somebody punches a hole, a lookup waits, without a reference to what
 * is there.  Afterwards it gets a hugepage.
 */
static void waits_for_hole(struct kunit *test)
{
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	struct rw_semaphore *lock = &f->inode->i_mapping->invalidate_lock;
	struct task_struct *task = gmem_kunit_thread(test, lookup_thread, f);

	filemap_invalidate_lock(f->inode->i_mapping);
	wake_up_process(task);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(gmem_kunit_is_awaited(lock)));
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 0);
	filemap_invalidate_unlock(f->inode->i_mapping);

	gmem_kunit_stop_thread(test, task);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N);

	/* The same goes for memory that is present: a reference would prevent a split. */
	task = gmem_kunit_thread(test, lookup_thread, f);
	filemap_invalidate_lock(f->inode->i_mapping);
	wake_up_process(task);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(gmem_kunit_is_awaited(lock)));
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(f, 3), 0);
	filemap_invalidate_unlock(f->inode->i_mapping);

	gmem_kunit_stop_thread(test, task);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N);
}

/* A lookup that tells when it begins. */
struct late_lookup {
	struct gmem_kunit_file *f;
	bool begun;
};

static int late_lookup_thread(void *data)
{
	struct late_lookup *l = data;

	WRITE_ONCE(l->begun, true);
	return lookup_thread(l->f);
}

static int punch_thread(void *data)
{
	return gmem_kunit_punch(data, N, N);
}

/*
 * I7, I11: the same if somebody else, who has allocated memory, keeps the hole waiting.
 * The lookup could get the lock if it was not for the hole, but comes after it.
 */
static void waits_behind_hole(struct kunit *test)
{
	struct gmem_kunit_file *f = open_file(test, GMEM_HUGE);
	struct rw_semaphore *lock = &f->inode->i_mapping->invalidate_lock;
	struct late_lookup l = { .f = f };
	struct task_struct *lookup, *hole;

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, N, N), 0);
	lookup = gmem_kunit_thread(test, late_lookup_thread, &l);
	hole = gmem_kunit_thread(test, punch_thread, f);

	filemap_invalidate_lock_shared(f->inode->i_mapping);
	wake_up_process(hole);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(gmem_kunit_is_awaited(lock)));
	wake_up_process(lookup);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(READ_ONCE(l.begun) &&
						      !task_is_running(lookup)));
	/* Neither the hole nor the lookup has changed anything yet. */
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N);
	filemap_invalidate_unlock_shared(f->inode->i_mapping);

	gmem_kunit_stop_thread(test, lookup);
	gmem_kunit_stop_thread(test, hole);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, 3), PMD_ORDER);
}

/*
 * Without THP, the page cache limits other large folios to an order below PMD_ORDER.
 * guest_memfd has hugepages nevertheless.
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

/* With THP, core MM can split a hugepage. */
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
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N);
	gmem_kunit_put_folio(folio);
#else
	kunit_skip(test, "split_folio_to_list() is not exported");
#endif
}

static struct kunit_case gmem_huge_folio_cases[] = {
	KUNIT_CASE(lookup_drops_lock),
	KUNIT_CASE(memory_is_short),
	KUNIT_CASE_PARAM(naturally_aligned, index_gen_params),
	KUNIT_CASE_PARAM(lookup_uses_hugepage, index_gen_params),
	KUNIT_CASE(second_lookup_finds_first),
	KUNIT_CASE_PARAM(flag_off, index_gen_params),
	KUNIT_CASE(no_lock_without_flag),
	KUNIT_CASE_PARAM(base_page_present, present_gen_params),
	KUNIT_CASE_PARAM(allocation_fails, index_gen_params),
	KUNIT_CASE_PARAM(insertion_fails, present_gen_params),
	KUNIT_CASE_PARAM(lookup_falls_back, present_gen_params),
	KUNIT_CASE(beyond_end_of_file),
	KUNIT_CASE(above_4gib),
	KUNIT_CASE(fallocate_uses_hugepages),
	KUNIT_CASE(again_after_hole),
	KUNIT_CASE(waits_for_hole),
	KUNIT_CASE(waits_behind_hole),
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
