// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the migration of guest_memfd memory, i.e. for files with
 * GUEST_MEMFD_FLAG_MIGRATABLE: guest and host find the same contents at another
 * physical address, and whatever can't move stays as it is (invariants I1 to I3, I5
 * and I8).
 */
#include <kunit/resource.h>
#include <kunit/test-bug.h>
#include <kunit/test.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/kvm_host.h>
#include <linux/mempolicy.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/nodemask.h>
#include <linux/pagemap.h>
#include <linux/sched.h>
#include <linux/swap.h>
#include <linux/uaccess.h>

#include "gmem_kunit_helpers.h"

#define N	GMEM_NR
#define NPAGES	(2 * N)
#define GFN	GMEM_GFN

static int init(struct kunit *test)
{
	if (!IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST))
		kunit_skip(test, "migrate_pages() is not exported");
	if (!GMEM_MIGRATES)
		kunit_skip(test, "the kernel cannot migrate guest_memfd");

	return gmem_kunit_init(test);
}

struct memory {
	const char *name;
	u64 flags;
	bool mapped;		/* into the host */
	unsigned long offset;	/* of that mapping, see gmem_kunit_map() */
};

enum {
	HUGEPAGE,
	HUGEPAGE_MAPPED,
	HUGEPAGE_MAPPED_BY_PAGE,
	SINGLE_PAGE,
	SINGLE_PAGE_MAPPED,
};

static const struct memory memories[] = {
	[HUGEPAGE] = { "hugepage", GMEM_HUGE },
	[HUGEPAGE_MAPPED] = { "hugepage_mapped", GMEM_HUGE, true },
	[HUGEPAGE_MAPPED_BY_PAGE] = { "hugepage_mapped_by_page", GMEM_HUGE, true, PAGE_SIZE },
	[SINGLE_PAGE] = { "single_page", GMEM_SHARED },
	[SINGLE_PAGE_MAPPED] = { "single_page_mapped", GMEM_SHARED, true },
};

KUNIT_ARRAY_PARAM_DESC(memory, memories, name);

/* Memory that the guest has filled. */
struct used {
	struct gmem_kunit_file *f;
	kvm_pfn_t pfn;			/* first page of the folio */
	unsigned long npages;		/* of the folio */
	int order;
};

static struct used use_memory(struct kunit *test, const struct memory *c, u64 flags)
{
	struct gmem_kunit_fault fault;
	struct used u = {};
	pgoff_t index;

	gmem_kunit_poison_hugepages(test);
	u.f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), NPAGES, c->flags | flags);
	if (c->mapped)
		u.f->addr = gmem_kunit_map(test, u.f, c->offset);
	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(u.f, 0, GFN, 0, NPAGES), 0);

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(u.f->kvm, 0, GFN, &fault), 0);
	u.pfn = fault.pfn;
	u.order = fault.order;
	u.npages = BIT(u.order);
	KUNIT_ASSERT_EQ(test, u.order, c->flags & GUEST_MEMFD_FLAG_ALLOW_HUGEPAGE ? PMD_ORDER : 0);

	for (index = 0; index < u.npages; index++)
		gmem_kunit_fill(u.pfn + index, 1, gmem_kunit_pattern(index));

	if (c->mapped) {
		u8 byte;

		KUNIT_ASSERT_EQ(test, copy_from_user(&byte, (void __user *)u.f->addr, 1), 0);
	}
	return u;
}

/* Count the pages that guest or host find changed; those in @hole must be zero. */
static unsigned long count_lost(struct used *u, const struct gmem_kunit_hole *hole)
{
	struct gmem_kunit_fault fault;
	unsigned long lost = 0;
	pgoff_t index;

	for (index = 0; index < u->npages; index++) {
		bool in_hole = hole && gmem_kunit_in_hole(hole, index);
		u8 byte, expected = in_hole ? 0 : gmem_kunit_pattern(index);

		lost += gmem_kunit_fault(u->f->kvm, 0, GFN + index, &fault) ||
			gmem_kunit_count_not(fault.pfn, 1, expected);
		if (u->f->addr)
			lost += get_user(byte, (u8 __user *)u->f->addr + (index << PAGE_SHIFT)) ||
				byte != expected;
	}
	return lost;
}

/* Check where the memory is, that its contents are unchanged, and that nobody holds it. */
static void check_memory(struct kunit *test, struct used *u, bool moved)
{
	struct gmem_kunit_fault fault;

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(u->f->kvm, 0, GFN, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.pfn != u->pfn, moved);
	KUNIT_EXPECT_EQ(test, fault.order, u->order);
	KUNIT_EXPECT_EQ(test, count_lost(u, NULL), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(u->f, 0), 0);
}

/* I2: migration moves contents, unmaps the guest, and frees the memory that it has left. */
static void moves(struct kunit *test)
{
	struct used u = use_memory(test, test->param_value, GUEST_MEMFD_FLAG_MIGRATABLE);
	unsigned long seq = gmem_kunit_watch_invalidations(u.f->kvm, GFN), free;

	KUNIT_EXPECT_EQ(test, gmem_kunit_migrate(u.f, 0, gmem_kunit_alloc_target), 0);
	gmem_kunit_expect_invalidated(test, u.f->kvm, seq, GFN, GFN + u.npages);
	check_memory(test, &u, true);

	/* Go on, as one lost hugepage could be somebody else's. */
	free = gmem_kunit_nr_free();
	for (int i = 0; i < 4; i++)
		KUNIT_EXPECT_EQ(test, gmem_kunit_migrate(u.f, 0, gmem_kunit_alloc_target), 0);
	KUNIT_EXPECT_GE(test, gmem_kunit_nr_free() + 2 * N, free);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(u.f), u.npages);
}

static struct folio *alloc_on_node(struct folio *src, unsigned long nid)
{
	return __folio_alloc_node(GFP_HIGHUSER_MOVABLE | __GFP_THISNODE | __GFP_NORETRY |
				  __GFP_NOWARN, folio_order(src), nid);
}

/* FileHugePages of a node, in pages. */
static long file_hugepages(int nid)
{
	return atomic_long_read(&NODE_DATA(nid)->vm_stat[NR_FILE_THPS]);
}

/* I7: a node counts the hugepages that have come to it, and none that have left it. */
static void counted_where_it_is(struct kunit *test)
{
	struct used u = use_memory(test, test->param_value, GUEST_MEMFD_FLAG_MIGRATABLE);
	long thp = IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) && u.order ? u.npages : 0;
	int from = page_to_nid(pfn_to_page(u.pfn)), to = next_node_in(from, node_states[N_MEMORY]);
	long at_from = file_hugepages(from), at_to = file_hugepages(to);
	LIST_HEAD(isolated);

	if (to == from)
		kunit_skip(test, "only one node has memory");

	KUNIT_ASSERT_EQ(test, gmem_kunit_isolate(u.f->inode->i_mapping, 0, 1, &isolated), 1);
	KUNIT_ASSERT_EQ(test, gmem_kunit_move(&isolated, alloc_on_node, to), 0);
	check_memory(test, &u, true);
	KUNIT_EXPECT_EQ(test, folio_nid(gmem_kunit_peek(u.f, 0)), to);
	KUNIT_EXPECT_EQ(test, file_hugepages(from), at_from - thp);
	KUNIT_EXPECT_EQ(test, file_hugepages(to), at_to + thp);

	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(u.f, 0, NPAGES), 0);
	KUNIT_EXPECT_EQ(test, file_hugepages(from), at_from - thp);
	KUNIT_EXPECT_EQ(test, file_hugepages(to), at_to);
}

/* I8: without the flag, memory does not move, and the guest is not disturbed. */
static void stays_without_flag(struct kunit *test)
{
	struct used u = use_memory(test, test->param_value, 0);
	unsigned long seq = u.f->kvm->mmu_invalidate_seq;

	KUNIT_EXPECT_NE(test, gmem_kunit_migrate(u.f, 0, gmem_kunit_alloc_target), 0);
	KUNIT_EXPECT_FALSE(test, gmem_kunit_must_retry(u.f->kvm, seq, GFN));
	check_memory(test, &u, false);
}

/* I3: memory does not move while somebody holds a reference to it, nor is the guest disturbed. */
static void stays_in_use(struct kunit *test)
{
	struct used u = use_memory(test, test->param_value, GUEST_MEMFD_FLAG_MIGRATABLE);
	struct folio *pinned = gmem_kunit_pin(test, u.f, 0);
	unsigned long seq = u.f->kvm->mmu_invalidate_seq;

	KUNIT_EXPECT_NE(test, gmem_kunit_migrate(u.f, 0, gmem_kunit_alloc_target), 0);
	KUNIT_EXPECT_FALSE(test, gmem_kunit_must_retry(u.f->kvm, seq, GFN));
	gmem_kunit_unpin(test, pinned);
	check_memory(test, &u, false);

	KUNIT_EXPECT_EQ(test, gmem_kunit_migrate(u.f, 0, gmem_kunit_alloc_target), 0);
	check_memory(test, &u, true);
}

/* I3: an attempt to move memory that a device has pinned doesn't even disturb the guest. */
static void stays_if_pinned(struct kunit *test)
{
	struct used u = use_memory(test, &memories[HUGEPAGE_MAPPED], GUEST_MEMFD_FLAG_MIGRATABLE);
	unsigned long seq = u.f->kvm->mmu_invalidate_seq;
	struct page *page;

	KUNIT_ASSERT_EQ(test, pin_user_pages_fast(u.f->addr, 1, FOLL_WRITE, &page), 1);
	KUNIT_EXPECT_NE(test, gmem_kunit_migrate(u.f, 0, gmem_kunit_alloc_target), 0);
	KUNIT_EXPECT_FALSE(test, gmem_kunit_must_retry(u.f->kvm, seq, GFN));
	unpin_user_page(page);
	check_memory(test, &u, false);
}

static const void *mapped_memory_gen_params(struct kunit *test, const void *prev, char *desc)
{
	const struct memory *c = prev;

	do {
		c = memory_gen_params(test, c, desc);
	} while (c && !c->mapped);

	return c;
}

/* Memory leaves where only movable memory may be before it is pinned for a long time. */
static void pinned_for_long(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	struct used u = use_memory(test, test->param_value, GUEST_MEMFD_FLAG_MIGRATABLE);
	bool moves = !folio_is_longterm_pinnable(pfn_folio(u.pfn));
	struct page *page;

	KUNIT_ASSERT_EQ(test, pin_user_pages_fast(u.f->addr, 1, FOLL_WRITE | FOLL_LONGTERM, &page),
			1);
	KUNIT_EXPECT_TRUE(test, folio_is_longterm_pinnable(page_folio(page)));
	KUNIT_EXPECT_PTR_EQ(test, page_folio(page), gmem_kunit_peek(u.f, 0));
	unpin_user_page(page);
	lru_add_drain_all();
	check_memory(test, &u, moves);
#endif
}

/* I3: memory does not move while a hole is being punched, and neither waits for the other. */
static void stays_beside_hole(struct kunit *test)
{
	struct used u = use_memory(test, test->param_value, GUEST_MEMFD_FLAG_MIGRATABLE);

	filemap_invalidate_lock(u.f->inode->i_mapping);
	KUNIT_EXPECT_NE(test, gmem_kunit_migrate(u.f, 0, gmem_kunit_alloc_target), 0);
	filemap_invalidate_unlock(u.f->inode->i_mapping);
	check_memory(test, &u, false);
}

struct holding {
	struct address_space *mapping;
	struct folio *folio;
};

/* Hold the invalidate lock until a little after migration has locked a folio. */
static int hold_thread(void *data)
{
	struct holding *h = data;

	filemap_invalidate_lock(h->mapping);
	(void)gmem_kunit_wait_until(folio_test_locked(h->folio));
	fsleep(USEC_PER_MSEC);
	filemap_invalidate_unlock(h->mapping);
	return 0;
}

/*
 * I3: a hole that takes a moment does not make migration fail, e.g. that for a pin.  The
 * thread may take longer than a moment: try again.
 */
static void waits_for_hole(struct kunit *test)
{
	struct used u = use_memory(test, test->param_value, GUEST_MEMFD_FLAG_MIGRATABLE);
	struct holding h = { u.f->inode->i_mapping, pfn_folio(u.pfn) };
	struct rw_semaphore *lock = &h.mapping->invalidate_lock;
	int r = -EBUSY, tries;

	for (tries = 0; r && tries < 10; tries++) {
		struct task_struct *task = gmem_kunit_thread(test, hold_thread, &h);

		wake_up_process(task);
		KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(rwsem_is_locked(lock)));
		r = gmem_kunit_migrate(u.f, 0, gmem_kunit_alloc_target);
		gmem_kunit_stop_thread(test, task);
	}
	KUNIT_EXPECT_EQ(test, r, 0);
	check_memory(test, &u, true);
}

/* A hole that waits for a folio while it is being migrated, or one far away. */
struct waiting_hole {
	struct used *u;
	bool refers;		/* whether it refers to the folio, i.e. waits for it */
	bool moved;
	unsigned long waits;	/* how often the migration has gone to sleep */
	bool ended;
};

static int migrate_thread(void *data)
{
	struct waiting_hole *w = data;
	unsigned long before;
	LIST_HEAD(isolated);

	gmem_kunit_isolate(w->u->f->inode->i_mapping, 0, 1, &isolated);
	before = current->nvcsw;
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST) && IS_ENABLED(CONFIG_MIGRATION)
	w->moved = !migrate_pages(&isolated, gmem_kunit_alloc_target, NULL, 0, MIGRATE_SYNC,
				  MR_SYSCALL, NULL);
#endif
	w->waits = current->nvcsw - before;
	/* This sleeps, too: it waits for all CPUs. */
	gmem_kunit_move(&isolated, NULL, 0);
	WRITE_ONCE(w->ended, true);
	return 0;
}

/* Count how often a migration sleeps while somebody holds the invalidate lock. */
static unsigned long count_waits(struct kunit *test, struct used *u, bool refers)
{
	struct waiting_hole w = { u, refers };
	struct task_struct *task = gmem_kunit_thread(test, migrate_thread, &w);
	struct folio *folio = pfn_folio(u->pfn);

	filemap_invalidate_lock(u->f->inode->i_mapping);
	wake_up_process(task);
	while (!folio_test_locked(folio) && !READ_ONCE(w.ended))
		cond_resched();
	if (refers)
		folio_get(folio);
	(void)gmem_kunit_wait_until(READ_ONCE(w.ended));
	if (refers)
		folio_put(folio);
	filemap_invalidate_unlock(u->f->inode->i_mapping);
	gmem_kunit_stop_thread(test, task);

	KUNIT_EXPECT_FALSE(test, w.moved);
	return w.waits;
}

/*
 * The migration doesn't wait for a hole that waits for the folio, with a reference.  The hole
 * waits for all folios in it, and all faults wait for the hole.  The thread that refers to the
 * folio may be early or late: try again.
 */
static void no_wait_if_used(struct kunit *test)
{
	struct used u = use_memory(test, &memories[SINGLE_PAGE], GUEST_MEMFD_FLAG_MIGRATABLE);
	unsigned long usually = count_waits(test, &u, false), least = ULONG_MAX, waits;
	int tries;

	for (tries = 0; least > usually / 16 && tries < 50; tries++) {
		waits = count_waits(test, &u, true);
		/* It was too early: the migration hadn't begun to wait. */
		if (waits)
			least = min(least, waits);
	}
	KUNIT_EXPECT_LE(test, least, usually / 16);
	check_memory(test, &u, false);
}

/* Memory that no memslot uses moves as well. */
static void not_bound(struct kunit *test)
{
	struct used u = use_memory(test, test->param_value, GUEST_MEMFD_FLAG_MIGRATABLE);

	KUNIT_ASSERT_EQ(test, gmem_kunit_unbind(u.f->vm, 0), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_migrate(u.f, 0, gmem_kunit_alloc_target), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(u.f, 0, GFN, 0, NPAGES), 0);
	check_memory(test, &u, true);
}

/* I5: memory that moves before its first use is zeroed nevertheless. */
static void not_used(struct kunit *test)
{
	struct gmem_kunit_file *f;
	struct gmem_kunit_fault fault;

	f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE | GUEST_MEMFD_FLAG_MIGRATABLE);
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, N), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_migrate(f, 0, gmem_kunit_alloc_target), 0);

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.order, PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn, N, 0), 0);
}

/* I1: a hole in a hugepage that was pinned remains a hole when the hugepage moves. */
static void hole_moves(struct kunit *test)
{
	static const struct gmem_kunit_hole hole = { .start = 3, .npages = 5 };
	struct used u = use_memory(test, &memories[HUGEPAGE_MAPPED], GUEST_MEMFD_FLAG_MIGRATABLE);
	struct folio *pinned = gmem_kunit_pin(test, u.f, 0);

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(u.f, hole.start, hole.npages), 0);
	gmem_kunit_unpin(test, pinned);
	KUNIT_ASSERT_EQ(test, gmem_kunit_order(test, u.f, 0), PMD_ORDER);

	KUNIT_EXPECT_EQ(test, gmem_kunit_migrate(u.f, 0, gmem_kunit_alloc_target), 0);
	KUNIT_EXPECT_EQ(test, count_lost(&u, &hole), 0);
}

static struct folio *alloc_single_page(struct folio *src, unsigned long private)
{
	return folio_test_large(src) ? NULL : gmem_kunit_alloc_target(src, private);
}

/*
 * I2, I3: without memory for another hugepage, a hugepage moves as single pages if core MM can
 * split it, i.e. with THP.  Otherwise it stays where it is.
 */
static void no_hugepage(struct kunit *test)
{
	const bool splits = IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE);
	struct used u = use_memory(test, &memories[HUGEPAGE_MAPPED], GUEST_MEMFD_FLAG_MIGRATABLE);
	struct gmem_kunit_fault fault;
	unsigned long moved = 0;
	pgoff_t index;

	KUNIT_EXPECT_EQ(test, !gmem_kunit_migrate(u.f, 0, alloc_single_page), splits);
	for (index = 0; index < u.npages; index++) {
		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(u.f->kvm, 0, GFN + index, &fault), 0);
		KUNIT_ASSERT_EQ(test, fault.order, splits ? 0 : PMD_ORDER);
		moved += fault.pfn != u.pfn + index;
	}
	KUNIT_EXPECT_EQ(test, moved, splits ? u.npages : 0);
	KUNIT_EXPECT_EQ(test, count_lost(&u, NULL), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(u.f, 0), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(u.f), u.npages);
}

/* A file that is closed while its memory is isolated in order to be moved. */
struct closing {
	const char *name;
	bool huge;
	enum { BEFORE_MOVE, DURING_MOVE, INSTEAD_OF_MOVE } when;
};

static const struct closing closings[] = {
	{ "hugepage_before", true, BEFORE_MOVE },
	{ "hugepage_during", true, DURING_MOVE },
	{ "hugepage_instead", true, INSTEAD_OF_MOVE },
	{ "single_pages_before", false, BEFORE_MOVE },
	{ "single_pages_during", false, DURING_MOVE },
	{ "single_pages_instead", false, INSTEAD_OF_MOVE },
};

KUNIT_ARRAY_PARAM_DESC(closing, closings, name);

/* The last reference to the file goes when migration has looked at the first folio. */
static struct folio *close_and_alloc(struct folio *src, unsigned long private)
{
	struct kunit *test = kunit_get_current_test();

	if (test->priv) {
		gmem_kunit_close(test, test->priv);
		test->priv = NULL;
	}
	return gmem_kunit_alloc_target(src, private);
}

static struct gmem_kunit_file *open_with_memory(struct kunit *test, struct gmem_kunit_vm *vm,
						bool huge)
{
	u64 flags = (huge ? GMEM_HUGE : GMEM_SHARED) | GUEST_MEMFD_FLAG_MIGRATABLE;
	struct gmem_kunit_file *f = gmem_kunit_open(test, vm, NPAGES, flags);

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, N), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_order(test, f, 0), huge ? PMD_ORDER : 0);
	return f;
}

static void close_isolated(struct kunit *test, struct gmem_kunit_vm *vm, const struct closing *c)
{
	struct gmem_kunit_file *f = open_with_memory(test, vm, c->huge);
	LIST_HEAD(isolated);

	KUNIT_EXPECT_EQ(test, gmem_kunit_isolate(f->inode->i_mapping, 0, N, &isolated),
			c->huge ? 1 : N);
	if (c->when == DURING_MOVE)
		test->priv = f;
	else
		gmem_kunit_close(test, f);

	if (c->when == INSTEAD_OF_MOVE)
		gmem_kunit_move(&isolated, NULL, 0);
	else
		KUNIT_EXPECT_EQ(test, gmem_kunit_move(&isolated, close_and_alloc, 0), 0);
	KUNIT_EXPECT_TRUE(test, list_empty(&isolated));
	KUNIT_EXPECT_NULL(test, test->priv);
}

/*
 * I3: somebody has isolated memory to move it, but its file is closed before, or while other
 * memory is allocated, or nothing moves after all.  The memory is free afterwards.
 */
static void closed_while_isolated(struct kunit *test)
{
	struct gmem_kunit_vm *vm = gmem_kunit_vm(test, 0);
	unsigned long free = 0;
	int i;

	/* Hugepages that are too large for guest_memfd are too large to be counted here. */
	gmem_kunit_init_huge(test);

	/* Go on, as some lost memory could be somebody else's. */
	for (i = 0; i < 5; i++) {
		close_isolated(test, vm, test->param_value);
		if (!i)
			free = gmem_kunit_nr_free();
	}
	KUNIT_EXPECT_GE(test, gmem_kunit_nr_free() + 2 * N, free);
}

struct moving {
	struct gmem_kunit_file *f;
	bool ended;
};

static int move_thread(void *data)
{
	struct moving *m = data;

	gmem_kunit_migrate(m->f, 0, gmem_kunit_alloc_target);
	WRITE_ONCE(m->ended, true);
	return 0;
}

/* Close a file while its hugepage is locked.  Returns false if this thread is too late. */
static bool close_locked(struct kunit *test, struct gmem_kunit_vm *vm)
{
	struct moving m = { open_with_memory(test, vm, true) };
	struct task_struct *task = gmem_kunit_thread(test, move_thread, &m);
	struct folio *folio = gmem_kunit_folio(test, m.f, 0);
	bool in_time;

	filemap_invalidate_lock(m.f->inode->i_mapping);
	wake_up_process(task);
	(void)gmem_kunit_wait_until(folio_test_locked(folio) || READ_ONCE(m.ended));
	in_time = !READ_ONCE(m.ended);
	filemap_invalidate_unlock(m.f->inode->i_mapping);

	gmem_kunit_close(test, m.f);
	gmem_kunit_stop_thread(test, task);
	return in_time;
}

/*
 * I3: a file is closed while migration holds the lock of its hugepage and waits for the
 * invalidate lock.  The memory is free afterwards, wherever it is by then.
 */
static void closed_while_locked(struct kunit *test)
{
	struct gmem_kunit_vm *vm = gmem_kunit_vm(test, 0);
	unsigned long free = 0, in_time = 0;
	int tries;

	/* Go on, as some lost memory could be somebody else's. */
	for (tries = 0; in_time < 5 && tries < 50; tries++) {
		in_time += close_locked(test, vm);
		if (!tries)
			free = gmem_kunit_nr_free();
	}
	KUNIT_EXPECT_EQ(test, in_time, 5);
	KUNIT_EXPECT_GE(test, gmem_kunit_nr_free() + 2 * N, free);
}

#ifdef CONFIG_ARM64
/* The vCPU begins here.  It writes to an address without memory, so that KVM_RUN returns. */
static const __le32 program[] = {
	cpu_to_le32(0xd2a20001),	/* mov x1, #0x10000000 */
	cpu_to_le32(0xf9000020),	/* str x0, [x1] */
};

struct running_vcpu {
	struct gmem_kunit_vm *vm;
	struct file *file;
	int fd;
	long result;
	bool ended;
};

static void close_vcpu(void *data)
{
	struct running_vcpu *v = data;

	gmem_kunit_close_fd(v->fd);
}

static struct running_vcpu *create_vcpu(struct kunit *test, struct gmem_kunit_vm *vm)
{
	struct running_vcpu *v = kunit_kzalloc(test, sizeof(*v), GFP_KERNEL);
	struct kvm_vcpu_init init = { .target = KVM_ARM_TARGET_GENERIC_V8 };

	KUNIT_ASSERT_NOT_NULL(test, v);
	v->vm = vm;
	v->fd = vm->file->f_op->unlocked_ioctl(vm->file, KVM_CREATE_VCPU, 0);
	KUNIT_ASSERT_GE(test, v->fd, 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, close_vcpu, v), 0);
	v->file = fget(v->fd);
	fput(v->file);
	KUNIT_ASSERT_EQ(test, gmem_kunit_ioctl(vm, v->file, KVM_ARM_VCPU_INIT, &init), 0);

	return v;
}

static int vcpu_thread(void *data)
{
	struct running_vcpu *v = data;

	v->result = gmem_kunit_ioctl(v->vm, v->file, KVM_RUN, NULL);
	WRITE_ONCE(v->ended, true);
	return 0;
}

/* Wait until the vCPU has come back from a fault, or holds a reference. */
static void wait_for_fault(struct running_vcpu *v, struct gmem_kunit_file *f)
{
	struct kvm_vcpu *vcpu = v->file->private_data;

	(void)gmem_kunit_wait_until(READ_ONCE(vcpu->stat.exits) > 2 ||
				    gmem_kunit_extra_refs(f, 0) || READ_ONCE(v->ended));
}
#endif

/*
 * I11: as long as memory is being invalidated, vCPUs that access it fault again and again,
 * but none of these faults holds a reference, which would make the migration fail.
 */
static void vcpu_takes_no_reference(struct kunit *test)
{
#ifdef CONFIG_ARM64
	struct gmem_kunit_file *f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), NPAGES,
						    GMEM_HUGE | GUEST_MEMFD_FLAG_MIGRATABLE);
	struct running_vcpu *v = create_vcpu(test, f->vm);
	struct task_struct *task = gmem_kunit_thread(test, vcpu_thread, v);
	struct gmem_kunit_fault fault;
	struct folio *folio;
	bool ended;
	void *p;
	int refs;

	/* The vCPU begins at address 0. */
	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, 0, 0, NPAGES), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, 0, &fault), 0);
	p = kmap_local_pfn(fault.pfn);
	memcpy(p, program, sizeof(program));
	kunmap_local(p);

	/* A fault that holds a reference waits for the lock, which migration holds, too. */
	folio = filemap_lock_folio(f->inode->i_mapping, 0);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	folio_put(folio);
	gmem_kunit_begin_invalidation(f->kvm, 0, N);

	wake_up_process(task);
	wait_for_fault(v, f);
	refs = gmem_kunit_extra_refs(f, 0);
	ended = READ_ONCE(v->ended);

	gmem_kunit_end_invalidation(f->kvm);
	folio_unlock(folio);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(READ_ONCE(v->ended)));
	KUNIT_EXPECT_EQ(test, v->result, 0);
	KUNIT_EXPECT_FALSE(test, ended);
	KUNIT_EXPECT_EQ(test, refs, 0);
#else
	kunit_skip(test, "a kernel thread cannot run a vCPU here");
#endif
}

static void free_bad_target(void *data)
{
	struct folio *folio = data;

	ClearPageHWPoison(folio_page(folio, folio_nr_pages(folio) - 1));
	if (folio_test_large(folio))
		folio_clear_has_hwpoisoned(folio);
	folio_put(folio);
}

/* The last page has gone bad since the memory was allocated. */
static struct folio *alloc_bad_target(struct folio *src, unsigned long private)
{
	struct folio *folio = gmem_kunit_alloc_target(src, private);

	if (!folio)
		return NULL;

	SetPageHWPoison(folio_page(folio, folio_nr_pages(folio) - 1));
	if (folio_test_large(folio))
		folio_set_has_hwpoisoned(folio);

	folio_get(folio);
	if (kunit_add_action_or_reset(kunit_get_current_test(), free_bad_target, folio)) {
		folio_put(folio);
		return NULL;
	}
	return folio;
}

/* I3: memory does not move to where it would be lost. */
static void stays_if_target_is_bad(struct kunit *test)
{
	struct used u;

	if (!IS_ENABLED(CONFIG_MEMORY_FAILURE))
		kunit_skip(test, "the kernel cannot handle memory errors");

	u = use_memory(test, test->param_value, GUEST_MEMFD_FLAG_MIGRATABLE);
	KUNIT_EXPECT_NE(test, gmem_kunit_migrate(u.f, 0, alloc_bad_target), 0);
	check_memory(test, &u, false);

	KUNIT_EXPECT_EQ(test, gmem_kunit_migrate(u.f, 0, gmem_kunit_alloc_target), 0);
	check_memory(test, &u, true);
}

/* Try to get the physical memory of a hugepage as compaction, CMA and offlining do. */
static int claim(struct used *u)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST) && IS_ENABLED(CONFIG_CONTIG_ALLOC)
	int r = alloc_contig_range(u->pfn, u->pfn + N, ACR_FLAGS_NONE,
				   GFP_KERNEL | __GFP_NOWARN);

	if (!r)
		free_contig_range(u->pfn, N);
	lru_add_drain_all();
	return r;
#else
	return -EOPNOTSUPP;
#endif
}

/*
 * I8: others get the physical memory of a hugepage if, and only if, the hugepage can move.
 * The kernel claims whole pageblocks. Without THP and HugeTLB a pageblock is larger than a
 * hugepage, and foreign memory in it can make the claim fail. Thus try several hugepages.
 */
static void makes_room(struct kunit *test)
{
	struct used u;
	int tries = 16;
	int r;

	if (!IS_ENABLED(CONFIG_CONTIG_ALLOC))
		kunit_skip(test, "the kernel cannot allocate a range of memory");

	u = use_memory(test, &memories[HUGEPAGE], 0);
	KUNIT_EXPECT_EQ(test, claim(&u), -EBUSY);
	check_memory(test, &u, false);

	do {
		u = use_memory(test, &memories[HUGEPAGE], GUEST_MEMFD_FLAG_MIGRATABLE);
		r = claim(&u);
	} while (r && --tries);
	KUNIT_EXPECT_EQ(test, r, 0);
	check_memory(test, &u, true);
}

/* I8: NUMA balancing must not move memory to where the host uses it, as it can't see the guest. */
static void no_numa_balancing(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST) && IS_ENABLED(CONFIG_NUMA)
	struct used u = use_memory(test, &memories[HUGEPAGE_MAPPED], GUEST_MEMFD_FLAG_MIGRATABLE);
	unsigned long other = kunit_vm_mmap(test, NULL, 0, PAGE_SIZE, PROT_READ | PROT_WRITE,
					    MAP_PRIVATE | MAP_ANONYMOUS, 0);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, (void *)other);
	mmap_read_lock(current->mm);
	KUNIT_EXPECT_FALSE(test, vma_policy_mof(vma_lookup(current->mm, u.f->addr)));
	KUNIT_EXPECT_TRUE(test, vma_policy_mof(vma_lookup(current->mm, other)));
	mmap_read_unlock(current->mm);
#else
	kunit_skip(test, "the kernel has no NUMA policies");
#endif
}

static struct kunit_case gmem_migrate_cases[] = {
	KUNIT_CASE_PARAM(moves, memory_gen_params),
	KUNIT_CASE_PARAM(counted_where_it_is, memory_gen_params),
	KUNIT_CASE_PARAM(stays_without_flag, memory_gen_params),
	KUNIT_CASE_PARAM(stays_in_use, memory_gen_params),
	KUNIT_CASE(stays_if_pinned),
	KUNIT_CASE_PARAM(pinned_for_long, mapped_memory_gen_params),
	KUNIT_CASE_PARAM(stays_beside_hole, memory_gen_params),
	KUNIT_CASE_PARAM(waits_for_hole, memory_gen_params),
	KUNIT_CASE(no_wait_if_used),
	KUNIT_CASE_PARAM(not_bound, memory_gen_params),
	KUNIT_CASE(not_used),
	KUNIT_CASE(hole_moves),
	KUNIT_CASE(no_hugepage),
	KUNIT_CASE_PARAM(closed_while_isolated, closing_gen_params),
	KUNIT_CASE(closed_while_locked),
	KUNIT_CASE(vcpu_takes_no_reference),
	KUNIT_CASE_PARAM(stays_if_target_is_bad, memory_gen_params),
	KUNIT_CASE(makes_room),
	KUNIT_CASE(no_numa_balancing),
	{}
};

static struct kunit_suite gmem_migrate_suite = {
	.name = "kvm_gmem_migrate",
	.init = init,
	.test_cases = gmem_migrate_cases,
};

kunit_test_suite(gmem_migrate_suite);
