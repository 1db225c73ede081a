// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for punching holes into hugepages: the hole loses its contents, and
 * nothing outside the hole changes (invariants I1 to I4).
 *
 * The tests share a table of holes, which puts the edges of the hole at, before and
 * after every boundary in a file of four hugepages.  Each hole is punched into memory
 * in use, into pinned memory, and into memory that was allocated but never used.
 * The hole alone determines the expected contents of each page afterwards.
 *
 * Without kvm_gmem_split_edge(), punching ten pages of a hugepage would destroy the
 * other 502 pages.
 */
#include <kunit/static_stub.h>
#include <kunit/test-bug.h>
#include <kunit/test.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/kvm_host.h>
#include <linux/pagemap.h>
#include <linux/sched.h>
#include <linux/srcu.h>

#include "gmem_kunit_helpers.h"

#ifdef CONFIG_X86
#include "x86.h"
#endif

#define N	GMEM_NR
#define NPAGES	(4 * N)
#define GFN	GMEM_GFN

/* A small hole in the first hugepage. */
#define TEN_PAGES	{ "ten_pages", 5, 10 }

static const struct gmem_kunit_hole ten_pages = TEN_PAGES;

static const struct gmem_kunit_hole holes[] = {
	{ "first_page", 0, 1 },
	TEN_PAGES,
	{ "last_page_of_hugepage", N - 1, 1 },
	{ "first_half", 0, N / 2 },
	{ "second_half", N / 2, N / 2 },
	{ "all_but_first_page", 1, N - 1 },
	{ "all_but_last_page", 0, N - 1 },
	{ "inside_last_hugepage", NPAGES - N + 1, N - 2 },
	{ "one_hugepage", N, N },
	{ "two_hugepages", N, 2 * N },
	{ "across_boundary", N - 3, 6 },
	{ "two_pages_across_boundary", N - 1, 2 },
	{ "across_whole_hugepage", N - 1, N + 2 },
	{ "across_two_whole_hugepages", N / 2, 3 * N },
	{ "cut_at_start_only", N + 3, 2 * N - 3 },
	{ "cut_at_end_only", N, N + 3 },
	{ "up_to_end_of_file", NPAGES - 5, 5 },
	{ "beyond_end_of_file", NPAGES - 5, 2 * N },
	{ "whole_file", 0, NPAGES },
};

KUNIT_ARRAY_PARAM_DESC(hole, holes, name);

/* For cases that need a fault per page, or that do not depend on the edges. */
static const struct gmem_kunit_hole few_holes[] = {
	TEN_PAGES,
	{ "across_whole_hugepage", N - 1, N + 2 },
	{ "whole_file", 0, NPAGES },
};

KUNIT_ARRAY_PARAM_DESC(few, few_holes, name);

/* Count the pages in [@from, @to) that are in the hole. */
static unsigned long nr_in_hole(const struct gmem_kunit_hole *h, pgoff_t from, pgoff_t to)
{
	pgoff_t first = max(from, h->start), last = min(to, h->start + h->npages);

	return first < last ? last - first : 0;
}

/* Count the pages that are freed if no hugepage can be split: those of whole hugepages. */
static unsigned long nr_in_whole_hugepages(const struct gmem_kunit_hole *h)
{
	unsigned long nr = 0;
	pgoff_t block;

	for (block = 0; block < NPAGES; block += N) {
		if (nr_in_hole(h, block, block + N) == N)
			nr += N;
	}

	return nr;
}

/* Write a pattern to the whole file from the guest. */
static void write_pattern(struct kunit *test, struct gmem_kunit_file *f)
{
	struct gmem_kunit_fault fault;
	pgoff_t index, i;

	for (index = 0; index < NPAGES; index += BIT(fault.order)) {
		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + index, &fault), 0);
		for (i = 0; i < BIT(fault.order); i++)
			gmem_kunit_fill(fault.pfn + i, 1, gmem_kunit_pattern(index + i));
	}
	KUNIT_ASSERT_EQ(test, gmem_kunit_nr_pages(f), NPAGES);
}

/* I4: count the pages whose folio is neither a single page nor a hugepage. */
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

/* Count the pages that cannot be freed because somebody holds a reference. */
static unsigned long nr_kept(struct gmem_kunit_file *f)
{
	unsigned long kept = 0;
	pgoff_t index;

	for (index = 0; index < NPAGES; index++)
		kept += gmem_kunit_extra_refs(f, index) != 0;

	return kept;
}

/* I2, I6: count the hugepages next to the hole that are not mapped as hugepages. */
static unsigned long nr_small_neighbours(struct kunit *test, struct gmem_kunit_file *f,
					 const struct gmem_kunit_hole *h)
{
	struct gmem_kunit_fault fault;
	unsigned long small = 0;
	pgoff_t block;

	for (block = 0; block < NPAGES; block += N) {
		if (nr_in_hole(h, block, block + N))
			continue;
		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + block, &fault), 0);
		small += fault.order != PMD_ORDER;
	}

	return small;
}

/*
 * I1, I2: read the whole file from the guest.  The hole must contain zeros.  All
 * other pages must contain the pattern if the file was @used, and zeros otherwise.
 */
static void check_contents(struct kunit *test, struct gmem_kunit_file *f,
			   const struct gmem_kunit_hole *h, bool used)
{
	unsigned long not_zero = 0, lost = 0;
	struct gmem_kunit_fault fault;
	pgoff_t index, next, i;

	for (index = 0; index < NPAGES; index = next) {
		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + index, &fault), 0);

		/* The last page that fills a hole makes a hugepage of all others. */
		next = round_down(index, BIT(fault.order)) + BIT(fault.order);
		for (i = index; i < next; i++) {
			kvm_pfn_t pfn = fault.pfn + i - index;

			if (gmem_kunit_in_hole(h, i))
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
 * I1, I2, I4: without an extra reference, the memory of the hole is freed if the
 * kernel can split hugepages.  Whole hugepages are always freed.
 */
static void used_memory(struct kunit *test)
{
	const struct gmem_kunit_hole *h = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);

	write_pattern(test, f);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, h->start, h->npages), 0);

	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), NPAGES - nr_in_hole(h, 0, NPAGES));
	KUNIT_EXPECT_EQ(test, nr_odd_orders(f), 0);
	KUNIT_EXPECT_EQ(test, nr_small_neighbours(test, f, h), 0);
	KUNIT_EXPECT_EQ(test, nr_kept(f), 0);
	check_contents(test, f, h, true);
}

/* Punch a hole while somebody else holds a reference to each hugepage. */
static void punch_pinned(struct kunit *test, struct gmem_kunit_file *f,
			 const struct gmem_kunit_hole *h)
{
	struct folio *pinned[NPAGES / N];
	unsigned long nr_pages;
	int i;

	for (i = 0; i < ARRAY_SIZE(pinned); i++)
		pinned[i] = gmem_kunit_pin(test, f, i * N);

	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, h->start, h->npages), 0);
	nr_pages = gmem_kunit_nr_pages(f);

	for (i = 0; i < ARRAY_SIZE(pinned); i++)
		gmem_kunit_unpin(test, pinned[i]);

	KUNIT_EXPECT_EQ(test, nr_pages, NPAGES - nr_in_whole_hugepages(h));
}

/*
 * I1, I2, I4: if somebody else holds a reference to each hugepage, those that the hole
 * covers in part stay, and the hole reads as zeros.
 */
static void pinned_memory(struct kunit *test)
{
	const struct gmem_kunit_hole *h = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);

	write_pattern(test, f);
	punch_pinned(test, f, h);
	KUNIT_EXPECT_EQ(test, nr_odd_orders(f), 0);
	KUNIT_EXPECT_EQ(test, nr_small_neighbours(test, f, h), 0);
	KUNIT_EXPECT_EQ(test, nr_kept(f), 0);
	check_contents(test, f, h, true);
}

/* I1, I5: memory that was allocated but never used is zeroed on first use. */
static void unused_memory(struct kunit *test)
{
	const struct gmem_kunit_hole *h = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, h->start, h->npages), 0);
	KUNIT_EXPECT_EQ(test, nr_odd_orders(f), 0);
	check_contents(test, f, h, false);
}

/* I1, I5: the same holds if the hugepages are pinned and thus cannot be split. */
static void unused_pinned_memory(struct kunit *test)
{
	const struct gmem_kunit_hole *h = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	punch_pinned(test, f, h);
	KUNIT_EXPECT_EQ(test, nr_odd_orders(f), 0);
	check_contents(test, f, h, false);
}

/* Punching a hole into an empty file succeeds and allocates nothing. */
static void unallocated_memory(struct kunit *test)
{
	const struct gmem_kunit_hole *h = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);

	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, h->start, h->npages), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 0);
}

/* Punching the same hole a second time changes nothing. */
static void punched_twice(struct kunit *test)
{
	const struct gmem_kunit_hole *h = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	unsigned long nr_pages;

	write_pattern(test, f);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, h->start, h->npages), 0);
	nr_pages = gmem_kunit_nr_pages(f);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, h->start, h->npages), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), nr_pages);
	check_contents(test, f, h, true);
}

/* I4: a hole per page frees a hugepage page by page, as a balloon does. */
static void page_by_page(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	unsigned long failed = 0, kept = 0;
	pgoff_t index;

	write_pattern(test, f);
	for (index = 0; index < N; index++) {
		failed += gmem_kunit_punch(f, index, 1) != 0;
		kept += gmem_kunit_nr_pages(f) != NPAGES - index - 1;
	}
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, kept, 0);
}

/* I4: a hole over the whole hugepage frees a hugepage that was kept before. */
static void freed_by_whole_hole(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	struct folio *folio;

	write_pattern(test, f);
	folio = gmem_kunit_pin(test, f, N);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, N + 1, 10), 0);
	gmem_kunit_unpin(test, folio);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), NPAGES);

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, N, N), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), NPAGES - N);
}

/* I2: a page outside the hole keeps its pfn. */
static void rest_keeps_pfn(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	const struct gmem_kunit_hole *h = &ten_pages;
	const gfn_t outside = GFN + h->start + h->npages + 5;
	struct gmem_kunit_fault before, after;

	write_pattern(test, f);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, outside, &before), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, h->start, h->npages), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, outside, &after), 0);
	KUNIT_EXPECT_EQ(test, after.pfn, before.pfn);
	/* After a split, the other pages are mapped page by page. */
	KUNIT_EXPECT_EQ(test, after.order, 0);
}

/* I2: pages outside the hole stay on the list of unevictable memory. */
static void rest_stays_on_lru(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	unsigned long lost = 0;
	pgoff_t index;

	write_pattern(test, f);
	KUNIT_ASSERT_TRUE(test, folio_test_lru(gmem_kunit_folio(test, f, 0)));
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, ten_pages.start, ten_pages.npages), 0);

	for (index = 0; index < N; index++) {
		struct folio *folio = gmem_kunit_peek(f, index);

		if (folio)
			lost += !folio_test_lru(folio) || !folio_test_unevictable(folio);
	}
	KUNIT_EXPECT_EQ(test, lost, 0);
}

/* I1: punching a hole makes faults in flight retry. */
static void guest_is_zapped(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	const struct gmem_kunit_hole *h = &ten_pages;
	unsigned long seq;

	write_pattern(test, f);
	seq = f->kvm->mmu_invalidate_seq;
	KUNIT_EXPECT_FALSE(test, gmem_kunit_must_retry(f->kvm, seq, GFN + h->start));
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, h->start, h->npages), 0);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_must_retry(f->kvm, seq, GFN + h->start));
	seq = f->kvm->mmu_invalidate_seq;
	KUNIT_EXPECT_FALSE(test, gmem_kunit_must_retry(f->kvm, seq, GFN + h->start));

	/* Without a binding, there is nothing to zap. */
	KUNIT_ASSERT_EQ(test, gmem_kunit_unbind(f->vm, 0), 0);
	seq = f->kvm->mmu_invalidate_seq;
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, N + h->start, h->npages), 0);
	KUNIT_EXPECT_FALSE(test, gmem_kunit_must_retry(f->kvm, seq, GFN + h->start));
}

struct told {
	struct gmem_kunit_file *f;
	unsigned int nr;	/* how often the architecture was told that memory goes away */
	unsigned long npages;	/* in the file, when it was told first */
};

static void count_told(struct kvm *kvm)
{
	struct told *told = kunit_get_current_test()->priv;

	if (!told->nr++)
		told->npages = gmem_kunit_nr_pages(told->f);
}

static void expect_told(struct kunit *test, struct told *told, bool expected,
			unsigned long npages)
{
	KUNIT_EXPECT_EQ(test, told->nr > 0, expected);
	KUNIT_EXPECT_EQ(test, told->npages, expected ? npages : 0);
	told->nr = 0;
	told->npages = 0;
}

/*
 * Before memory is freed that the guest had mapped, the architecture is told: for SEV guests
 * it writes back caches.  The host has not mapped the memory, i.e. MMU notifiers don't do that.
 */
static void arch_is_told(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);
	struct gmem_kunit_vm *vm = f->vm;
	struct told told = { f };

	write_pattern(test, f);
	test->priv = &told;
	kunit_activate_static_stub(test, kvm_gmem_memory_reclaimed, count_told);

	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, 5, 1), 0);
	expect_told(test, &told, true, NPAGES);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, N, N), 0);
	expect_told(test, &told, true, NPAGES - 1);

	/* Deleting the memslot tells by itself, so the guest has nothing mapped any more. */
	KUNIT_ASSERT_EQ(test, gmem_kunit_unbind(vm, 0), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, 2 * N, N), 0);
	expect_told(test, &told, false, 0);

	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, GFN, 0, NPAGES), 0);
	expect_told(test, &told, false, 0);
	gmem_kunit_close(test, f);
	KUNIT_EXPECT_GT(test, told.nr, 0);
	kunit_deactivate_static_stub(test, kvm_gmem_memory_reclaimed);
}

#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST) && defined(CONFIG_X86_64)
static int delete_thread(void *data)
{
	struct gmem_kunit_file *f = data;

	return gmem_kunit_unbind(f->vm, 0);
}

static struct kvm_memory_slot *find_slot(struct kvm *kvm)
{
	return id_to_memslot(kvm_memslots(kvm), 0);
}

/* What a vCPU does that is the first to run a nested guest. */
static int give_rmaps(struct kvm *kvm)
{
	struct kvm_memory_slot *slot;
	int r;

	mutex_lock(&kvm->slots_arch_lock);
	slot = find_slot(kvm);
	r = memslot_rmap_alloc(slot, slot->npages);
	if (!r) {
		/* Pairs with smp_load_acquire() in kvm_shadow_root_allocated(). */
		smp_store_release(&kvm->arch.shadow_root_allocated, true);
	}
	mutex_unlock(&kvm->slots_arch_lock);

	return r;
}
#endif

/*
 * I1: a hole in memory whose memslot is just being deleted.  On x86, the first nested guest
 * starts in the meantime: the VM has rmaps from then on, but not this memslot.
 */
static void memslot_is_dying(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST) && defined(CONFIG_X86_64)
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);
	struct task_struct *task = gmem_kunit_thread(test, delete_thread, f);
	struct kvm *kvm = f->kvm;
	bool dying;
	int idx;

	write_pattern(test, f);

	/* The deletion waits for readers, as it does for a vCPU that waits for a userfault. */
	idx = srcu_read_lock(&kvm->srcu);
	wake_up_process(task);
	dying = gmem_kunit_wait_until(find_slot(kvm)->flags & KVM_MEMSLOT_INVALID);
	KUNIT_EXPECT_TRUE(test, dying);
	if (dying) {
		KUNIT_EXPECT_EQ(test, give_rmaps(kvm), 0);
		KUNIT_EXPECT_EQ(test, gmem_kunit_punch(f, N + 5, 1), 0);
		KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), NPAGES - 1);
	}
	srcu_read_unlock(&kvm->srcu, idx);

	gmem_kunit_stop_thread(test, task);
	mutex_lock(&kvm->slots_lock);
	KUNIT_EXPECT_NULL(test, find_slot(kvm));
	mutex_unlock(&kvm->slots_lock);
#else
	kunit_skip(test, "only memslots of x86 have rmaps, and the suites must be built in");
#endif
}

struct punching {
	struct gmem_kunit_file *f;
	const struct gmem_kunit_hole *hole;
};

static int punch_thread(void *data)
{
	struct punching *p = data;

	return gmem_kunit_punch(p->f, p->hole->start, p->hole->npages);
}

/* Stop in the middle of the hole, and check which faults have to retry. */
static void check_held_off(struct kunit *test, u64 flags, unsigned int align)
{
	const struct gmem_kunit_hole *h = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, flags);
	const pgoff_t start = round_down(h->start, align);
	const pgoff_t end = round_up(min(h->start + h->npages, NPAGES), align);
	struct punching p = { .f = f, .hole = h };
	unsigned long seq, wrong = 0;
	struct task_struct *task;
	struct folio *folio;
	pgoff_t index;

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	task = gmem_kunit_thread(test, punch_thread, &p);
	seq = f->kvm->mmu_invalidate_seq;

	/* The hole waits for the lock.  Its reference keeps the folio in the file. */
	folio = gmem_kunit_folio(test, f, h->start);
	folio_lock(folio);
	wake_up_process(task);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(gmem_kunit_must_retry(f->kvm, seq,
									    GFN + h->start)));
	for (index = 0; index < NPAGES; index++)
		wrong += gmem_kunit_must_retry(f->kvm, seq, GFN + index) !=
			 (index >= start && index < end);
	folio_unlock(folio);

	gmem_kunit_stop_thread(test, task);
	KUNIT_EXPECT_EQ(test, wrong, 0);
}

/*
 * I1: while a hole is punched, faults in all of a hugepage have to retry.  x86 looks
 * only at the gfn of a fault, and one next to the hole could map memory that is about
 * to be freed.  Faults in other hugepages, or in single pages next to the hole, go on.
 */
static void holds_off_faults(struct kunit *test)
{
	check_held_off(test, GMEM_HUGE, N);
	check_held_off(test, GMEM_SHARED, 1);

	gmem_kunit_no_hugepages(test);
	check_held_off(test, GMEM_HUGE, 1);
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
	static const struct gmem_kunit_hole nothing = { "nothing", 0, 0 };
	const struct bad_call *c = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);

	write_pattern(test, f);
	KUNIT_EXPECT_EQ(test, vfs_fallocate(f->file, c->mode, c->offset, c->len), c->error);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), NPAGES);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, 0), PMD_ORDER);
	check_contents(test, f, &nothing, true);
}

/* With THP, a hugepage counts as one, e.g. in /proc/meminfo, until a hole splits it. */
static void counts_as_hugepage(struct kunit *test)
{
	unsigned long before = global_node_page_state(NR_FILE_THPS);
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);
	unsigned long nr = IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) ? N : 0;

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, N), 0);
	KUNIT_EXPECT_EQ(test, global_node_page_state(NR_FILE_THPS), before + nr);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, 5, 10), 0);
	KUNIT_EXPECT_EQ(test, global_node_page_state(NR_FILE_THPS), before);
}

/* I8: without the flag, a hole frees exactly its pages, with and without THP. */
static void flag_off(struct kunit *test)
{
	const struct gmem_kunit_hole *h = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_SHARED);

	write_pattern(test, f);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, 0), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, h->start, h->npages), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f),
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
	KUNIT_CASE(page_by_page),
	KUNIT_CASE(freed_by_whole_hole),
	KUNIT_CASE(rest_keeps_pfn),
	KUNIT_CASE(rest_stays_on_lru),
	KUNIT_CASE(counts_as_hugepage),
	KUNIT_CASE(guest_is_zapped),
	KUNIT_CASE(arch_is_told),
	KUNIT_CASE(memslot_is_dying),
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
