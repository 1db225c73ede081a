// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the statistics of guest_memfd: userspace learns how many hugepages it
 * got, why it got no more, and what became of them.
 */
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/kthread.h>
#include <linux/kvm_host.h>
#include <linux/pagemap.h>
#include <linux/sched.h>

#include "gmem_kunit_helpers.h"

#define N	GMEM_NR
#define NPAGES	(3 * N)
#define GFN	GMEM_GFN
#define FLAGS	(GMEM_HUGE | GUEST_MEMFD_FLAG_MIGRATABLE)

/* The statistics of a VM. */
struct stats {
	u64 alloc;
	u64 occupied;
	u64 policy;
	u64 nomem;
	u64 memcg;
	u64 split;
	u64 split_fail;
	u64 collapse;
	u64 huge_migrate;
	u64 page_migrate;
};

static int init(struct kunit *test)
{
	if (!GMEM_HAS_STATS)
		kunit_skip(test, "the kernel has no statistics of guest_memfd");

	return gmem_kunit_init_huge(test);
}

static void check_stats(struct kunit *test, struct gmem_kunit_file *f, struct stats expected)
{
	struct stats seen = {
		.alloc = gmem_kunit_stat(f, gmem_huge_alloc),
		.occupied = gmem_kunit_stat(f, gmem_huge_occupied),
		.policy = gmem_kunit_stat(f, gmem_huge_policy),
		.nomem = gmem_kunit_stat(f, gmem_huge_nomem),
		.memcg = gmem_kunit_stat(f, gmem_huge_memcg),
		.split = gmem_kunit_stat(f, gmem_huge_split),
		.split_fail = gmem_kunit_stat(f, gmem_huge_split_fail),
		.collapse = gmem_kunit_stat(f, gmem_huge_collapse),
		.huge_migrate = gmem_kunit_stat(f, gmem_huge_migrate),
		.page_migrate = gmem_kunit_stat(f, gmem_page_migrate),
	};

	KUNIT_EXPECT_MEMEQ(test, &seen, &expected, sizeof(seen));
}

/* Each hugepage counts once, whoever allocates it, and however often it is used. */
static void allocations(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, FLAGS);
	struct gmem_kunit_fault fault;

	check_stats(test, f, (struct stats) {});
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + 3, &fault), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + 4, &fault), 0);
	check_stats(test, f, (struct stats) { .alloc = 1 });
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	check_stats(test, f, (struct stats) { .alloc = 3 });
}

/* A single page counts once, with the reason why it is no hugepage. */
static void fallbacks(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, FLAGS);
	struct gmem_kunit_fault fault;

	gmem_kunit_no_hugepages(test);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + 3, &fault), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + 3, &fault), 0);
	check_stats(test, f, (struct stats) { .nomem = 1 });

	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, 8), 0);
	check_stats(test, f, (struct stats) { .nomem = 1, .occupied = 7 });
}

/* Add a page to the range as a racing fault does, which makes the insertion fail. */
static struct folio *alloc_loses_race(struct inode *inode, pgoff_t index, gfp_t gfp)
{
	struct folio *page = folio_alloc(GFP_HIGHUSER, 0);

	if (!page)
		return NULL;
	if (!filemap_add_folio(inode->i_mapping, page, index + 1, GFP_KERNEL))
		folio_unlock(page);
	folio_put(page);

	return folio_alloc(GFP_HIGHUSER, PMD_ORDER);
}

/* Whoever comes second finds the range occupied. */
static void lost_race(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, FLAGS);
	struct gmem_kunit_fault fault;

	kunit_activate_static_stub(test, kvm_gmem_alloc_huge_folio, alloc_loses_race);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	check_stats(test, f, (struct stats) { .occupied = 1 });
}

/* One of two vCPUs that use a hugepage for the first time, at once. */
struct first_user {
	struct gmem_kunit_file *f;
	atomic_t *arrived;
	pgoff_t index;
	struct gmem_kunit_fault fault;
	int r;
	struct completion done;
};

static int use_first(void *data)
{
	struct first_user *me = data;

	atomic_inc(me->arrived);
	while (atomic_read(me->arrived) < 2)
		cond_resched();

	me->r = gmem_kunit_fault(me->f->kvm, 0, GFN + me->index, &me->fault);
	if (!me->r)
		gmem_kunit_fill(me->fault.pfn, 1, gmem_kunit_pattern(me->index));

	complete(&me->done);
	return 0;
}

/*
 * I5, I11: of two vCPUs that use a hugepage for the first time at once, one gets it and
 * the other finds it.  It is cleared once, before either has written to it.
 */
static void first_use_by_two(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, FLAGS);
	unsigned long round, failed = 0, apart = 0, lost = 0;
	const unsigned long rounds = 50;

	for (round = 0; round < rounds; round++) {
		atomic_t arrived = ATOMIC_INIT(0);
		struct first_user users[] = {
			{ .f = f, .arrived = &arrived, .index = 0 },
			{ .f = f, .arrived = &arrived, .index = N - 1 },
		};
		struct task_struct *tasks[ARRAY_SIZE(users)];
		int i;

		for (i = 0; i < ARRAY_SIZE(users); i++) {
			init_completion(&users[i].done);
			tasks[i] = gmem_kunit_thread(test, use_first, &users[i]);
		}
		for (i = 0; i < ARRAY_SIZE(users); i++)
			wake_up_process(tasks[i]);
		for (i = 0; i < ARRAY_SIZE(users); i++) {
			wait_for_completion(&users[i].done);
			gmem_kunit_stop_thread(test, tasks[i]);
		}
		for (i = 0; i < ARRAY_SIZE(users); i++) {
			struct first_user *me = &users[i];

			failed += me->r || me->fault.order != PMD_ORDER;
			apart += me->fault.pfn - me->index != users[0].fault.pfn;
			lost += !me->r && gmem_kunit_count_not(me->fault.pfn, 1,
							       gmem_kunit_pattern(me->index));
		}
		KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, 0, N), 0);
	}

	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, apart, 0);
	KUNIT_EXPECT_EQ(test, lost, 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_stat(f, gmem_huge_alloc), rounds);
}

/* Without the flag nobody wants hugepages, so nothing is missing. */
static void flag_off(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_SHARED);

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, N), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, 0, 1), 0);
	check_stats(test, f, (struct stats) {});
}

/* Each hugepage that a hole splits, or can't split, counts; one that it covers does not. */
static void splits(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, FLAGS);
	struct folio *pinned, *other;

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, 2 * N, N), 0);
	check_stats(test, f, (struct stats) { .alloc = 3 });

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, 5, 3), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, 8, 3), 0);
	check_stats(test, f, (struct stats) { .alloc = 3, .split = 1 });

	pinned = gmem_kunit_pin(test, f, N);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, N + 5, 3), 0);
	check_stats(test, f, (struct stats) { .alloc = 3, .split = 1, .split_fail = 1 });

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 2 * N, N), 0);
	other = gmem_kunit_pin(test, f, 2 * N);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, 2 * N - 3, 6), 0);
	check_stats(test, f, (struct stats) { .alloc = 4, .split = 1, .split_fail = 3 });

	gmem_kunit_unpin(test, pinned);
	gmem_kunit_unpin(test, other);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, 2 * N - 3, 6), 0);
	check_stats(test, f, (struct stats) { .alloc = 4, .split = 3, .split_fail = 3 });
}

/* A hugepage that comes back counts, one that is there already does not, nor does a failure. */
static void collapses(struct kunit *test)
{
	struct gmem_kunit_file *f;
	struct folio *pinned;

	if (!GMEM_MIGRATES)
		kunit_skip(test, "the kernel cannot migrate guest_memfd");

	f = gmem_kunit_open_bound(test, NPAGES, FLAGS);
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, N), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, 5, 3), 0);
	pinned = gmem_kunit_pin(test, f, 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_collapse(f, 0, N), -EBUSY);
	gmem_kunit_unpin(test, pinned);
	check_stats(test, f, (struct stats) { .alloc = 1, .split = 1 });

	KUNIT_ASSERT_EQ(test, gmem_kunit_collapse(f, 0, NPAGES), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_collapse(f, 0, NPAGES), 0);
	check_stats(test, f, (struct stats) { .alloc = 1, .split = 1, .collapse = 1 });
}

/* What has moved counts, by its size. */
static void migrations(struct kunit *test)
{
	struct gmem_kunit_file *f;
	struct folio *pinned;

	if (!IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST))
		kunit_skip(test, "migrate_pages() is not exported");
	if (!GMEM_MIGRATES)
		kunit_skip(test, "the kernel cannot migrate guest_memfd");

	f = gmem_kunit_open_bound(test, NPAGES, FLAGS);
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, 2 * N), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, N + 5, 3), 0);
	pinned = gmem_kunit_pin(test, f, 0);
	KUNIT_ASSERT_NE(test, gmem_kunit_migrate(f, 0, gmem_kunit_alloc_target), 0);
	gmem_kunit_unpin(test, pinned);
	check_stats(test, f, (struct stats) { .alloc = 2, .split = 1 });

	KUNIT_ASSERT_EQ(test, gmem_kunit_migrate(f, 0, gmem_kunit_alloc_target), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_migrate(f, N, gmem_kunit_alloc_target), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_migrate(f, N + 1, gmem_kunit_alloc_target), 0);
	check_stats(test, f, (struct stats) {
		.alloc = 2, .split = 1, .huge_migrate = 1, .page_migrate = 2,
	});
}

/* The statistics are those of a VM. */
static void other_vm(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, FLAGS);
	struct gmem_kunit_file *other = gmem_kunit_open_bound(test, NPAGES, FLAGS);
	struct gmem_kunit_file *second = gmem_kunit_open(test, f->vm, NPAGES, FLAGS);

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, N), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(second, 0, N), 0);
	check_stats(test, f, (struct stats) { .alloc = 2 });
	check_stats(test, other, (struct stats) {});
}

static struct kunit_case gmem_stats_cases[] = {
	KUNIT_CASE(allocations),
	KUNIT_CASE(fallbacks),
	KUNIT_CASE(lost_race),
	KUNIT_CASE(first_use_by_two),
	KUNIT_CASE(flag_off),
	KUNIT_CASE(splits),
	KUNIT_CASE(collapses),
	KUNIT_CASE(migrations),
	KUNIT_CASE(other_vm),
	{}
};

static struct kunit_suite gmem_stats_suite = {
	.name = "kvm_gmem_stats",
	.init = init,
	.test_cases = gmem_stats_cases,
};

kunit_test_suite(gmem_stats_suite);
