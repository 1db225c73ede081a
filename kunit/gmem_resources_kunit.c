// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the resources of a hugepage: the cgroup that is charged for it, the
 * NUMA node from which it is allocated, and what happens when there is no memory
 * (invariants I1, I2, I4 and I7).
 *
 * The tests create a real cgroup with a limit, through a private mount of cgroup2.
 */
#include <kunit/resource.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/cgroup.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/kvm_host.h>
#include <linux/math.h>
#include <linux/memcontrol.h>
#include <linux/mempolicy.h>
#include <linux/mman.h>
#include <linux/mmzone.h>
#include <linux/mount.h>
#include <linux/namei.h>
#include <linux/pagemap.h>
#include <linux/rwsem.h>
#include <linux/sched/mm.h>
#include <linux/uaccess.h>
#include <linux/vmstat.h>

#include "gmem_kunit_helpers.h"

#define N	GMEM_NR
#define NPAGES	(2 * N)

#ifdef CONFIG_MEMCG

#define GROUP	"gmem_kunit"

/* A cgroup with a limit, in which the test allocates memory. */
struct group {
	struct vfsmount *mnt;
	struct cgroup *cgrp;
	struct cgroup_subsys_state *css;
	struct mem_cgroup *memcg;
};

static void put_group(void *data)
{
	struct group *g = data;
	struct dentry *dentry;

	if (g->css)
		css_put(g->css);
	if (g->cgrp)
		cgroup_put(g->cgrp);

	dentry = start_removing_noperm(g->mnt->mnt_root, &QSTR(GROUP));
	if (!IS_ERR(dentry)) {
		vfs_rmdir(&nop_mnt_idmap, d_inode(g->mnt->mnt_root), dentry, NULL);
		end_removing(dentry);
	}
	kern_unmount(g->mnt);
}

static void write_knob(struct kunit *test, struct group *g, const char *name,
		       const char *value)
{
	const struct path root = { .mnt = g->mnt, .dentry = g->mnt->mnt_root };
	struct file *file = file_open_root(&root, name, O_WRONLY, 0);
	loff_t pos = 0;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, file);
	KUNIT_EXPECT_EQ(test, kernel_write(file, value, strlen(value), &pos), strlen(value));
	fput(file);
}

/* Create a cgroup with a limit of @npages. */
static struct group *make_group(struct kunit *test, unsigned long npages)
{
	struct file_system_type *type = get_fs_type("cgroup2");
	struct dentry *dentry;
	struct group *g;
	char value[24];

	KUNIT_ASSERT_NOT_NULL(test, type);
	g = kunit_kzalloc(test, sizeof(*g), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, g);
	g->mnt = kern_mount(type);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, g->mnt);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, put_group, g), 0);

	write_knob(test, g, "cgroup.subtree_control", "+memory");
	dentry = start_creating_noperm(g->mnt->mnt_root, &QSTR(GROUP));
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dentry);
	dentry = vfs_mkdir(&nop_mnt_idmap, d_inode(g->mnt->mnt_root), dentry, 0755, NULL);
	end_creating(dentry);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dentry);

	g->cgrp = cgroup_get_from_path("/" GROUP);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, g->cgrp);
	g->css = cgroup_get_e_css(g->cgrp, &memory_cgrp_subsys);
	g->memcg = mem_cgroup_from_css(g->css);

	snprintf(value, sizeof(value), "%lu", npages << PAGE_SHIFT);
	write_knob(test, g, GROUP "/memory.max", value);

	return g;
}

static unsigned long charged(struct group *g)
{
	return page_counter_read(&g->memcg->memory);
}

/* How often a cgroup at its limit may be asked for memory on behalf of a hugepage. */
#define FEW_TRIES	4

/* What memory.events of the cgroup has. */
static long events(struct group *g, enum memcg_memory_event event)
{
	return atomic_long_read(&g->memcg->memory_events[event]);
}

/* Look up a folio as a thread in the cgroup does. */
static struct folio *lookup_in_group(struct group *g, struct gmem_kunit_file *f, pgoff_t index)
{
	struct mem_cgroup *old = set_active_memcg(g->memcg);
	struct folio *folio = kvm_gmem_get_folio(f->inode, index);

	set_active_memcg(old);
	return folio;
}

static bool is_charged_to(struct folio *folio, struct group *g)
{
	guard(rcu)();
	return folio_memcg(folio) == g->memcg;
}

/* The cgroup is charged for the whole hugepage, and uncharged when it is freed. */
static void hugepage_is_charged(struct kunit *test)
{
	struct gmem_kunit_file *f;
	struct folio *folio;
	struct group *g;
	unsigned long before;

	g = make_group(test, 4 * N);
	f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), NPAGES, GMEM_HUGE);
	before = charged(g);

	folio = lookup_in_group(g, f, 3);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	KUNIT_EXPECT_EQ(test, folio_order(folio), PMD_ORDER);
	KUNIT_EXPECT_TRUE(test, is_charged_to(folio, g));
	KUNIT_EXPECT_GE(test, charged(g), before + N);
	gmem_kunit_put_folio(folio);

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, 0, N), 0);
	KUNIT_EXPECT_LT(test, charged(g), before + N / 2);
}

/*
 * I7: if a hugepage would exceed the limit of the cgroup, the lookup allocates a
 * single page.  It neither fails nor kills a task, and charges only the single page.
 */
static void limit_falls_back(struct kunit *test)
{
	const pgoff_t index = N + 3;
	struct gmem_kunit_file *f;
	struct folio *folio;
	struct group *g;

	g = make_group(test, N / 2);
	f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), NPAGES, GMEM_HUGE);

	folio = lookup_in_group(g, f, index);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	KUNIT_EXPECT_EQ(test, folio_order(folio), 0);
	KUNIT_EXPECT_EQ(test, folio->index, index);
	KUNIT_EXPECT_TRUE(test, is_charged_to(folio, g));
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 1);
	KUNIT_EXPECT_EQ(test, gmem_kunit_stat(f, gmem_huge_memcg), GMEM_HAS_STATS);
	KUNIT_EXPECT_LE(test, charged(g), N / 2);
	KUNIT_EXPECT_LE(test, events(g, MEMCG_MAX), FEW_TRIES);
	KUNIT_EXPECT_EQ(test, events(g, MEMCG_OOM_KILL), 0);
	gmem_kunit_put_folio(folio);

	/* Outside the cgroup, the lookup allocates hugepages. */
	folio = kvm_gmem_get_folio(f->inode, 3);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	KUNIT_EXPECT_EQ(test, folio_order(folio), PMD_ORDER);
	gmem_kunit_put_folio(folio);
}

/*
 * I4: pages that are punched one by one are free, and not only gone from the file.  The
 * CPUs keep some of the charge in reserve.
 */
static void holes_are_uncharged(struct kunit *test)
{
	struct group *g = make_group(test, 4 * N);
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);
	struct folio *folio = lookup_in_group(g, f, 0);
	unsigned long failed = 0;
	pgoff_t index;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	gmem_kunit_put_folio(folio);
	KUNIT_EXPECT_GE(test, charged(g), N);
	for (index = 0; index < N; index++)
		failed += gmem_kunit_punch(f, index, 1) != 0;
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_LT(test, charged(g), N / 2);
}

/*
 * If no memory is left for single pages either, fallocate() and faults fail.  What has
 * been allocated stays, and fallocate() continues once there is memory.
 */
static void no_memory_to_allocate(struct kunit *test)
{
	struct group *g = make_group(test, N / 2);
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);
	struct address_space *mapping = f->inode->i_mapping;
	gfp_t gfp = mapping_gfp_mask(mapping);
	struct gmem_kunit_fault fault;
	struct mem_cgroup *old;
	unsigned long nr_pages;
	int allocated, faulted;
	bool locked;

	/* Each CPU keeps some memory of the cgroup in reserve: use only one. */
	migrate_disable();
	/* Without direct reclaim, there is no OOM killer either. */
	mapping_set_gfp_mask(mapping, gfp & ~__GFP_DIRECT_RECLAIM);
	old = set_active_memcg(g->memcg);
	allocated = gmem_kunit_allocate(f, 0, N);
	nr_pages = gmem_kunit_nr_pages(f);
	faulted = gmem_kunit_fault(f->kvm, 0, GMEM_GFN + N - 1, &fault);
	set_active_memcg(old);
	mapping_set_gfp_mask(mapping, gfp);
	migrate_enable();

	/* If the lock was held, closing the file would hang. */
	locked = rwsem_is_locked(&mapping->invalidate_lock);
	if (locked)
		filemap_invalidate_unlock_shared(mapping);

	KUNIT_EXPECT_EQ(test, allocated, -ENOMEM);
	KUNIT_EXPECT_EQ(test, faulted, -ENOMEM);
	KUNIT_EXPECT_GT(test, nr_pages, 0);
	KUNIT_EXPECT_LE(test, nr_pages, N / 2);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), nr_pages);
	KUNIT_EXPECT_FALSE(test, locked);

	KUNIT_EXPECT_EQ(test, gmem_kunit_allocate(f, 0, N), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N);
}

/* Allocate all memory that is left to the cgroup. */
static void use_up(struct group *g, struct list_head *pages)
{
	struct mem_cgroup *old = set_active_memcg(g->memcg);
	struct page *page;

	while ((page = alloc_page(GFP_NOWAIT | __GFP_ACCOUNT)))
		list_add(&page->lru, pages);
	set_active_memcg(old);
}

static int split_locked(struct gmem_kunit_file *f)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	struct folio *folio = filemap_lock_folio(f->inode->i_mapping, 0);
	int r;

	if (IS_ERR(folio))
		return PTR_ERR(folio);

	r = split_unmapped_file_folio(folio);
	gmem_kunit_put_folio(folio);
	return r;
#else
	/* split_unmapped_file_folio() is not exported to this module. */
	return -ENOMEM;
#endif
}

/*
 * I1, I2, I4: if there is no memory to split a hugepage, the pages in a hole stay and
 * read as zeros, as in a pinned hugepage, and the next hole frees them.
 */
static void no_memory_to_split(struct kunit *test)
{
	const struct gmem_kunit_hole hole = { "ten_pages", 5, 10 };
	struct group *g = make_group(test, N + N / 2);
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);
	struct address_space *mapping = f->inode->i_mapping;
	gfp_t gfp = mapping_gfp_mask(mapping);
	unsigned long nr_pages = 0, lost = 0;
	struct gmem_kunit_fault fault;
	struct page *page, *next;
	unsigned int order = 0;
	struct folio *folio;
	LIST_HEAD(pages);
	int split = 0, r = 0;
	pgoff_t index;

	/* Each CPU keeps some memory of the cgroup in reserve: use only one. */
	migrate_disable();
	folio = lookup_in_group(g, f, 0);
	if (!IS_ERR(folio)) {
		order = folio_order(folio);
		gmem_kunit_put_folio(folio);
		use_up(g, &pages);
		mapping_set_gfp_mask(mapping, gfp & ~__GFP_DIRECT_RECLAIM);
		r = gmem_kunit_fault(f->kvm, 0, GMEM_GFN, &fault);
		if (!r)
			gmem_kunit_fill(fault.pfn, BIT(order), GMEM_DATA);
		split = split_locked(f);
		r = r ?: gmem_kunit_punch(f, hole.start, hole.npages);
		nr_pages = gmem_kunit_nr_pages(f);
		mapping_set_gfp_mask(mapping, gfp);
		list_for_each_entry_safe(page, next, &pages, lru)
			__free_page(page);
	}
	migrate_enable();

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	KUNIT_ASSERT_EQ(test, order, PMD_ORDER);
	KUNIT_EXPECT_EQ(test, split, -ENOMEM);
	KUNIT_EXPECT_EQ(test, r, 0);
	KUNIT_EXPECT_EQ(test, nr_pages, N);

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, N - 1, 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N - hole.npages - 1);
	for (index = 0; index < N; index++) {
		bool empty = gmem_kunit_in_hole(&hole, index) || index == N - 1;

		KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GMEM_GFN + index, &fault), 0);
		lost += gmem_kunit_count_not(fault.pfn, 1, empty ? 0 : GMEM_DATA);
	}
	KUNIT_EXPECT_EQ(test, lost, 0);
}

/*
 * A split that fails because of a reference gives back the memory that it has taken.
 * The CPUs keep some of the charge in reserve.
 */
static void failed_split_is_uncharged(struct kunit *test)
{
	struct gmem_kunit_file *f;
	unsigned long before, failed = 0;
	struct folio *folio;
	struct group *g;
	int i;

	if (!IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST))
		kunit_skip(test, "split_unmapped_file_folio() is not exported");

	g = make_group(test, 4 * N);
	f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), NPAGES, GMEM_HUGE);
	folio = lookup_in_group(g, f, 0);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	folio_unlock(folio);

	/* Each attempt needs more than a page. */
	before = charged(g);
	for (i = 0; i < N; i++)
		failed += split_locked(f) == -EAGAIN;
	KUNIT_EXPECT_EQ(test, failed, N);
	KUNIT_EXPECT_LT(test, charged(g), before + N / 2);
	folio_put(folio);
}

/* I7: after a hole in a hugepage of a cgroup, the thread uses its own memory again. */
static void split_charges_nothing_else(struct kunit *test)
{
	struct group *g = make_group(test, 4 * N);
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);
	struct folio *folio = lookup_in_group(g, f, 0);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	gmem_kunit_put_folio(folio);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, 5, 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N - 1);

	folio = kvm_gmem_get_folio(f->inode, N);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	KUNIT_EXPECT_FALSE(test, is_charged_to(folio, g));
	gmem_kunit_put_folio(folio);
}

/* Remove a cgroup whose memory is free. */
static void check_released(struct kunit *test, struct group *g)
{
	struct cgroup *cgrp = g->cgrp;
	int *nr_dying = &cgrp->nr_dying_subsys[memory_cgrp_id];

	cgroup_get(cgrp);
	kunit_release_action(test, put_group, g);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(!READ_ONCE(*nr_dying)));
	cgroup_put(cgrp);
}

/* A cgroup that is removed after its hugepage has been split is released. */
static void split_keeps_no_cgroup(struct kunit *test)
{
	struct group *g = make_group(test, 4 * N);
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);
	struct folio *folio = lookup_in_group(g, f, 0);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	gmem_kunit_put_folio(folio);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, 5, 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N - 1);
	gmem_kunit_close(test, f);
	check_released(test, g);
}

/* Collapse a range as a thread in the cgroup does. */
static int collapse_in_group(struct group *g, struct gmem_kunit_file *f)
{
	struct mem_cgroup *old = set_active_memcg(g->memcg);
	int r = gmem_kunit_collapse(f, 0, N);

	set_active_memcg(old);
	return r;
}

/* Open a file with single pages that are charged to the cgroup. */
static struct gmem_kunit_file *open_in_group(struct kunit *test, struct group *g)
{
	struct mem_cgroup *old;
	struct gmem_kunit_file *f;
	int r;

	if (!GMEM_MIGRATES)
		kunit_skip(test, "the kernel cannot migrate guest_memfd");

	f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), NPAGES,
			    GMEM_HUGE | GUEST_MEMFD_FLAG_MIGRATABLE);
	gmem_kunit_no_hugepages(test);
	old = set_active_memcg(g->memcg);
	r = gmem_kunit_allocate(f, 0, N);
	set_active_memcg(old);
	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);
	KUNIT_ASSERT_EQ(test, r, 0);
	KUNIT_ASSERT_GE(test, charged(g), N);
	return f;
}

/* A hugepage is charged in place of the pages that it replaces. */
static void collapse_is_charged(struct kunit *test)
{
	struct group *g = make_group(test, 4 * N);
	struct gmem_kunit_file *f = open_in_group(test, g);

	KUNIT_ASSERT_EQ(test, collapse_in_group(g, f), 0);
	KUNIT_EXPECT_TRUE(test, is_charged_to(gmem_kunit_folio(test, f, 0), g));
	KUNIT_EXPECT_GE(test, charged(g), N);
	KUNIT_EXPECT_LT(test, charged(g), N + N / 2);

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, 0, N), 0);
	KUNIT_EXPECT_LT(test, charged(g), N / 2);
}

/*
 * I3, I7: if the hugepage would exceed the limit while both are there, nothing changes, no
 * task is killed, and nothing remains charged.
 */
static void limit_prevents_collapse(struct kunit *test)
{
	struct group *g = make_group(test, N + N / 2);
	struct gmem_kunit_file *f = open_in_group(test, g);
	long before;

	KUNIT_EXPECT_EQ(test, collapse_in_group(g, f), -ENOMEM);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, 0), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N);
	KUNIT_EXPECT_LE(test, charged(g), N + N / 2);
	KUNIT_EXPECT_EQ(test, events(g, MEMCG_OOM_KILL), 0);

	/* Whoever is outside the cgroup can't evade the limit, or have it reclaim for long. */
	before = events(g, MEMCG_MAX);
	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, 0, N), -ENOMEM);
	KUNIT_EXPECT_NE(test, events(g, MEMCG_MAX), before);
	KUNIT_EXPECT_LE(test, events(g, MEMCG_MAX), before + FEW_TRIES);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, 0), 0);

	write_knob(test, g, GROUP "/memory.max", "max");
	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, 0, N), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, 0), PMD_ORDER);
}

/* The memory stays in its cgroup, whoever collapses it, and the caller in its own. */
static void collapse_from_outside(struct kunit *test)
{
	struct group *g = make_group(test, 4 * N);
	struct gmem_kunit_file *f = open_in_group(test, g);
	struct folio *folio;

	KUNIT_ASSERT_EQ(test, gmem_kunit_collapse(f, 0, N), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_order(test, f, 0), PMD_ORDER);
	KUNIT_EXPECT_TRUE(test, is_charged_to(gmem_kunit_folio(test, f, 0), g));
	KUNIT_EXPECT_GE(test, charged(g), N);
	KUNIT_EXPECT_LT(test, charged(g), N + N / 2);

	folio = kvm_gmem_get_folio(f->inode, N);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	KUNIT_EXPECT_FALSE(test, is_charged_to(folio, g));
	gmem_kunit_put_folio(folio);
}

struct move {
	struct folio *page;	/* the copy of a page, which is in the page cache already */
	unsigned long cgroup;
	struct task_struct *mover;
};

/* The last steps of migrate_folio(), after a while. */
static int finish_move(void *data)
{
	struct move *move = data;

	fsleep(20 * USEC_PER_MSEC);
	move->page->memcg_data = move->cgroup;
	folio_unlock(move->page);
	return 0;
}

/* Leave the first page as migrate_folio() does: in the page cache, locked, not charged. */
static struct folio *alloc_while_page_moves(struct inode *inode, pgoff_t index, gfp_t gfp)
{
	struct move *move = kunit_get_current_test()->priv;

	folio_lock(move->page);
	move->cgroup = move->page->memcg_data;
	move->page->memcg_data = 0;
	wake_up_process(move->mover);

	return folio_alloc(GFP_HIGHUSER, PMD_ORDER);
}

/*
 * I7: a page that moves is charged only when it is in the page cache already.  No
 * hugepage escapes from the cgroup because its first page is just moving.
 */
static void collapse_while_page_moves(struct kunit *test)
{
	struct group *g = make_group(test, 4 * N);
	struct gmem_kunit_file *f = open_in_group(test, g);
	struct move *move = kunit_kzalloc(test, sizeof(*move), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, move);
	move->page = gmem_kunit_folio(test, f, 0);
	move->mover = gmem_kunit_thread(test, finish_move, move);
	test->priv = move;
	kunit_activate_static_stub(test, kvm_gmem_alloc_huge_folio, alloc_while_page_moves);

	KUNIT_ASSERT_EQ(test, gmem_kunit_collapse(f, 0, N), 0);
	KUNIT_EXPECT_TRUE(test, is_charged_to(gmem_kunit_folio(test, f, 0), g));
	KUNIT_EXPECT_GE(test, charged(g), N);
}

#if IS_ENABLED(CONFIG_MEMORY_FAILURE) && IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
static int collapse_thread(void *data)
{
	return gmem_kunit_collapse(data, 0, N);
}
#endif

/*
 * I7: a bad page is not charged any more.  No hugepage escapes from the cgroup because a
 * hole replaces the page, which is the first, while the collapse waits.
 */
static void collapse_beside_hole_in_bad_page(struct kunit *test)
{
#if IS_ENABLED(CONFIG_MEMORY_FAILURE) && IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	struct group *g = make_group(test, 4 * N);
	struct gmem_kunit_file *f = open_in_group(test, g);
	struct task_struct *task = gmem_kunit_thread(test, collapse_thread, f);
	struct address_space *mapping = f->inode->i_mapping;
	struct page *page = folio_page(gmem_kunit_folio(test, f, 0), 0);
	struct folio *folio;

	KUNIT_ASSERT_EQ(test, memory_failure(page_to_pfn(page), MF_SW_SIMULATED), 0);

	filemap_invalidate_lock(mapping);
	wake_up_process(task);
	(void)gmem_kunit_wait_until(gmem_kunit_is_awaited(&mapping->invalidate_lock) ||
				    task->exit_state);
	truncate_inode_pages_range(mapping, 0, PAGE_SIZE - 1);
	filemap_invalidate_unlock(mapping);
	gmem_kunit_stop_thread(test, task);

	folio = gmem_kunit_folio(test, f, 1);
	KUNIT_EXPECT_TRUE(test, is_charged_to(folio, g));
	gmem_kunit_unpoison(page);
#else
	kunit_skip(test, "memory cannot fail, or the suites are a module");
#endif
}

/* A cgroup that is removed after its memory has been collapsed is released. */
static void collapse_keeps_no_cgroup(struct kunit *test)
{
	struct group *g = make_group(test, 4 * N);
	struct gmem_kunit_file *f = open_in_group(test, g);

	KUNIT_ASSERT_EQ(test, gmem_kunit_collapse(f, 0, N), 0);
	gmem_kunit_close(test, f);
	check_released(test, g);
}

/* I3: a collapse that fails because a page is in use leaves nothing charged. */
static void failed_collapse_is_uncharged(struct kunit *test)
{
	struct group *g = make_group(test, 16 * N);
	struct gmem_kunit_file *f = open_in_group(test, g);
	struct folio *pinned = gmem_kunit_pin(test, f, 0);

	KUNIT_EXPECT_EQ(test, collapse_in_group(g, f), -EBUSY);
	gmem_kunit_unpin(test, pinned);
	KUNIT_EXPECT_LT(test, charged(g), N + N / 2);
}

struct moved_memory {
	const char *name;
	bool huge;
};

static const struct moved_memory moved_memories[] = {
	{ "hugepage", true },
	{ "single_pages", false },
};

/* Allocate the memory to which a folio moves on this node. */
static struct folio *alloc_on_node(struct folio *src, unsigned long node)
{
	gfp_t gfp = GFP_HIGHUSER_MOVABLE | __GFP_THISNODE | __GFP_NOWARN;

	return __folio_alloc_node(gfp, folio_order(src), node);
}

/* Count the pages of all files on a node. */
static long nr_file_pages(int node)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	return node_page_state(NODE_DATA(node), NR_FILE_PAGES);
#else
	return 0;
#endif
}

/*
 * Move the memory to a node, and check that all of it is there, and charged once to the
 * same cgroup.  The CPUs keep some of the charge in reserve.
 */
static void move_charged(struct kunit *test, struct group *g, struct gmem_kunit_file *f, int node)
{
	unsigned long elsewhere = 0, lost = 0;
	LIST_HEAD(isolated);
	pgoff_t index;

	KUNIT_ASSERT_GT(test, gmem_kunit_isolate(f->inode->i_mapping, 0, N, &isolated), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_move(&isolated, alloc_on_node, node), 0);

	for (index = 0; index < N; index++) {
		struct folio *folio = gmem_kunit_folio(test, f, index);

		elsewhere += folio_nid(folio) != node;
		lost += !is_charged_to(folio, g);
	}
	KUNIT_EXPECT_EQ(test, elsewhere, 0);
	KUNIT_EXPECT_EQ(test, lost, 0);
	KUNIT_EXPECT_GE(test, charged(g), N);
	KUNIT_EXPECT_LT(test, charged(g), N + N / 2);
}

/*
 * Memory that moves to another node and back is charged to its cgroup as before, and counts
 * as memory of the node where it is.  When it is freed, the cgroup gets all of it back.
 */
static void migration_keeps_charge(struct kunit *test)
{
	const struct moved_memory *c = test->param_value;
	int first = first_online_node, second = next_online_node(first);
	struct gmem_kunit_file *f;
	long on_first, on_second;
	struct group *g;
	int i;

	if (!IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST))
		kunit_skip(test, "migrate_pages() is not exported");
	if (num_online_nodes() < 2)
		kunit_skip(test, "needs two NUMA nodes");

	g = make_group(test, 8 * N);
	f = open_in_group(test, g);
	if (c->huge)
		KUNIT_ASSERT_EQ(test, gmem_kunit_collapse(f, 0, N), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_order(test, f, 0), c->huge ? PMD_ORDER : 0);
	move_charged(test, g, f, first);

	on_first = nr_file_pages(first);
	on_second = nr_file_pages(second);
	for (i = 0; i < 2; i++) {
		move_charged(test, g, f, second);
		KUNIT_EXPECT_LT(test, abs_diff(nr_file_pages(first), on_first - (long)N), N / 2);
		KUNIT_EXPECT_LT(test, abs_diff(nr_file_pages(second), on_second + (long)N), N / 2);

		move_charged(test, g, f, first);
		KUNIT_EXPECT_LT(test, abs_diff(nr_file_pages(first), on_first), N / 2);
		KUNIT_EXPECT_LT(test, abs_diff(nr_file_pages(second), on_second), N / 2);
	}
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, f, 0), c->huge ? PMD_ORDER : 0);

	gmem_kunit_close(test, f);
	KUNIT_EXPECT_LT(test, charged(g), N / 2);
	check_released(test, g);
}

#else /* CONFIG_MEMCG */

static const struct moved_memory {
	const char *name;
} moved_memories[] = {
	{ "no_cgroups" },
};

static void migration_keeps_charge(struct kunit *test)
{
	kunit_skip(test, "the kernel has no memory cgroups");
}

static void collapse_is_charged(struct kunit *test)
{
	kunit_skip(test, "the kernel has no memory cgroups");
}

static void collapse_beside_hole_in_bad_page(struct kunit *test)
{
	kunit_skip(test, "the kernel has no memory cgroups");
}

static void collapse_from_outside(struct kunit *test)
{
	kunit_skip(test, "the kernel has no memory cgroups");
}

static void collapse_while_page_moves(struct kunit *test)
{
	kunit_skip(test, "the kernel has no memory cgroups");
}

static void collapse_keeps_no_cgroup(struct kunit *test)
{
	kunit_skip(test, "the kernel has no memory cgroups");
}

static void limit_prevents_collapse(struct kunit *test)
{
	kunit_skip(test, "the kernel has no memory cgroups");
}

static void failed_collapse_is_uncharged(struct kunit *test)
{
	kunit_skip(test, "the kernel has no memory cgroups");
}

static void split_keeps_no_cgroup(struct kunit *test)
{
	kunit_skip(test, "the kernel has no memory cgroups");
}

static void failed_split_is_uncharged(struct kunit *test)
{
	kunit_skip(test, "the kernel has no memory cgroups");
}

static void split_charges_nothing_else(struct kunit *test)
{
	kunit_skip(test, "the kernel has no memory cgroups");
}

static void holes_are_uncharged(struct kunit *test)
{
	kunit_skip(test, "the kernel has no memory cgroups");
}

static void no_memory_to_allocate(struct kunit *test)
{
	kunit_skip(test, "the kernel has no memory cgroups");
}

static void no_memory_to_split(struct kunit *test)
{
	kunit_skip(test, "the kernel has no memory cgroups");
}

static void hugepage_is_charged(struct kunit *test)
{
	kunit_skip(test, "the kernel has no memory cgroups");
}

static void limit_falls_back(struct kunit *test)
{
	kunit_skip(test, "the kernel has no memory cgroups");
}

#endif /* CONFIG_MEMCG */

KUNIT_ARRAY_PARAM_DESC(moved_memory, moved_memories, name);

#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
/* Whether the hugepage is in a pageblock whose contents are supposed to be able to move. */
static bool is_placed_with_movable(struct folio *folio)
{
	return is_migrate_movable(get_pageblock_migratetype(&folio->page));
}

/* Open a file that consists of hugepages. */
static struct gmem_kunit_file *open_allocated(struct kunit *test, u64 flags)
{
	struct gmem_kunit_file *f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), NPAGES, flags);

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_order(test, f, 0), PMD_ORDER);
	return f;
}
#endif

/*
 * I8: memory that can't move doesn't take the place of memory that can, where it would be in
 * the way of others for good.  Only memory that can move, also after a collapse, goes there.
 */
static void placement(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	struct gmem_kunit_file *f;
	int i;

	/* The kernel may put a part of a pageblock to any use. */
	if (pageblock_order > PMD_ORDER)
		kunit_skip(test, "a pageblock is larger than a hugepage");
	if (page_group_by_mobility_disabled)
		kunit_skip(test, "the kernel does not group memory by mobility");

	f = open_allocated(test, GMEM_HUGE);
	for (i = 0; i < NPAGES / N; i++)
		KUNIT_EXPECT_FALSE(test, is_placed_with_movable(gmem_kunit_folio(test, f, i * N)));

	if (!GMEM_MIGRATES)
		return;

	f = open_allocated(test, GMEM_HUGE | GUEST_MEMFD_FLAG_MIGRATABLE);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, N + 5, 3), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_collapse(f, N, N), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_order(test, f, N), PMD_ORDER);
	for (i = 0; i < NPAGES / N; i++)
		KUNIT_EXPECT_TRUE(test, is_placed_with_movable(gmem_kunit_folio(test, f, i * N)));
#else
	kunit_skip(test, "get_pfnblock_migratetype() is not exported");
#endif
}

#if defined(CONFIG_NUMA) && defined(CONFIG_TMPFS) && IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)

/* Count the references to the NUMA policy of a mapped file. */
static int policy_refs(struct kunit *test, unsigned long addr)
{
	struct mempolicy *policy = NULL;
	struct vm_area_struct *vma;
	pgoff_t ignored;
	int refs;

	mmap_read_lock(current->mm);
	vma = vma_lookup(current->mm, addr);
	if (vma)
		policy = vma->vm_ops->get_policy(vma, addr, &ignored);
	mmap_read_unlock(current->mm);
	KUNIT_ASSERT_NOT_NULL(test, policy);

	refs = atomic_read(&policy->refcnt);
	mpol_cond_put(policy);
	return refs;
}

/* Map part of a file and set its NUMA policy as mbind() does; returns the address. */
static unsigned long bind_to_node(struct kunit *test, struct gmem_kunit_file *f,
				  pgoff_t first, unsigned long npages, int node)
{
	struct vm_area_struct *vma;
	struct mempolicy *policy;
	unsigned long addr;
	char name[16];

	snprintf(name, sizeof(name), "bind:%d", node);
	KUNIT_ASSERT_EQ(test, mpol_parse_str(name, &policy), 0);
	addr = kunit_vm_mmap(test, f->file, 0, npages << PAGE_SHIFT, PROT_READ | PROT_WRITE,
			     MAP_SHARED, first << PAGE_SHIFT);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, (void *)addr);

	mmap_write_lock(current->mm);
	vma = vma_lookup(current->mm, addr);
	KUNIT_EXPECT_NOT_NULL(test, vma);
	if (vma)
		KUNIT_EXPECT_EQ(test, vma->vm_ops->set_policy(vma, policy), 0);
	mmap_write_unlock(current->mm);
	mpol_put(policy);
	return addr;
}

/*
 * I7: hugepages are allocated according to the NUMA policy of the file, as single
 * pages are, and hold no reference to the policy.
 */
static void numa_policy(struct kunit *test)
{
	static const u64 flags[] = { GMEM_HUGE, GMEM_SHARED };
	int node, i;

	if (num_online_nodes() < 2)
		kunit_skip(test, "needs two NUMA nodes");

	for_each_online_node(node) {
		for (i = 0; i < ARRAY_SIZE(flags); i++) {
			struct gmem_kunit_file *f;
			struct folio *folio;
			unsigned long addr;
			int refs;

			f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), NPAGES, flags[i]);
			addr = bind_to_node(test, f, 0, NPAGES, node);
			refs = policy_refs(test, addr);
			folio = kvm_gmem_get_folio(f->inode, N + 1);
			KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
			KUNIT_EXPECT_EQ(test, folio_order(folio), i ? 0 : PMD_ORDER);
			KUNIT_EXPECT_EQ(test, folio_nid(folio), node);
			gmem_kunit_put_folio(folio);
			KUNIT_EXPECT_EQ(test, policy_refs(test, addr), refs);
		}
	}
}

/* Check the order and the node of the memory that a lookup returns. */
static void check_node(struct kunit *test, struct gmem_kunit_file *f, pgoff_t index,
		       unsigned int order, int node)
{
	struct folio *folio = kvm_gmem_get_folio(f->inode, index);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	KUNIT_EXPECT_EQ(test, folio_order(folio), order);
	KUNIT_EXPECT_EQ(test, folio_nid(folio), node);
	gmem_kunit_put_folio(folio);
}

/*
 * I7: no hugepage extends over the boundary of a policy; its pages follow the policy
 * of their own index.
 */
static void policy_boundary(struct kunit *test)
{
	int first = first_online_node, second = next_online_node(first);
	struct gmem_kunit_file *f;

	if (num_online_nodes() < 2)
		kunit_skip(test, "needs two NUMA nodes");

	f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), 5 * N, GMEM_HUGE);
	bind_to_node(test, f, 0, N / 2, first);
	bind_to_node(test, f, N / 2, N / 2, second);
	bind_to_node(test, f, N, N, second);
	bind_to_node(test, f, 2 * N + 1, 1, second);
	bind_to_node(test, f, 3 * N, N / 2, second);
	bind_to_node(test, f, 3 * N + N / 2, N / 2, second);
	bind_to_node(test, f, 5 * N - 1, 1, second);

	check_node(test, f, 1, 0, first);
	check_node(test, f, N - 1, 0, second);
	check_node(test, f, N + 1, PMD_ORDER, second);
	check_node(test, f, 2 * N + 1, 0, second);
	check_node(test, f, 5 * N - 1, 0, second);
	/* Policies that were set separately count as different, even if they are equal. */
	check_node(test, f, 3 * N + 1, 0, second);

	/* The second page of the first hugepage found the range occupied. */
	KUNIT_EXPECT_EQ(test, gmem_kunit_stat(f, gmem_huge_policy), 4 * GMEM_HAS_STATS);
	KUNIT_EXPECT_EQ(test, gmem_kunit_stat(f, gmem_huge_occupied), GMEM_HAS_STATS);
}

/*
 * A collapse follows the policy of the range, wherever the pages are, and leaves them
 * alone if different policies apply.
 */
static void collapse_follows_policy(struct kunit *test)
{
	int first = first_online_node, second = next_online_node(first);
	struct gmem_kunit_file *f;

	if (!GMEM_MIGRATES)
		kunit_skip(test, "the kernel cannot migrate guest_memfd");
	if (num_online_nodes() < 2)
		kunit_skip(test, "needs two NUMA nodes");

	f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), NPAGES,
			    GMEM_HUGE | GUEST_MEMFD_FLAG_MIGRATABLE);
	bind_to_node(test, f, 0, NPAGES, first);
	gmem_kunit_no_hugepages(test);
	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);

	bind_to_node(test, f, 0, N, second);
	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, 0, N), 0);
	check_node(test, f, 3, PMD_ORDER, second);

	bind_to_node(test, f, N + 3, 1, second);
	KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, N, N), -EINVAL);
	check_node(test, f, N + 3, 0, first);
}

/* Open a file that has a single page, which is on this node. */
static struct gmem_kunit_file *open_on_node(struct kunit *test, pgoff_t index, int node)
{
	struct gmem_kunit_file *f;
	struct folio *folio;

	f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), NPAGES,
			    GMEM_HUGE | GUEST_MEMFD_FLAG_MIGRATABLE);
	folio = __folio_alloc_node(GFP_HIGHUSER | __GFP_THISNODE, 0, node);
	KUNIT_ASSERT_NOT_NULL(test, folio);
	KUNIT_EXPECT_EQ(test, filemap_add_folio(f->inode->i_mapping, folio, index, GFP_KERNEL), 0);
	folio_unlock(folio);
	folio_put(folio);
	return f;
}

static void needs_to_collapse_on_nodes(struct kunit *test)
{
	if (!GMEM_MIGRATES)
		kunit_skip(test, "the kernel cannot migrate guest_memfd");
	if (num_online_nodes() < 2)
		kunit_skip(test, "needs two NUMA nodes");
}

/* Without a policy, memory stays on its node, wherever the caller runs. */
static void collapse_stays_on_node(struct kunit *test)
{
	static const pgoff_t only[] = { N, N + 5, 2 * N - 1 };
	struct gmem_kunit_file *f;
	int node, i;

	needs_to_collapse_on_nodes(test);
	for_each_online_node(node) {
		for (i = 0; i < ARRAY_SIZE(only); i++) {
			f = open_on_node(test, only[i], node);
			KUNIT_EXPECT_EQ(test, gmem_kunit_collapse(f, N, N), 0);
			check_node(test, f, N + 3, PMD_ORDER, node);
			gmem_kunit_close(test, f);
		}
	}
}

/* Memory that is allocated for the first time comes from the local node, whatever is next to it. */
static void neighbor_on_other_node(struct kunit *test)
{
	struct gmem_kunit_file *f;
	struct folio *folio;
	int node, local;

	needs_to_collapse_on_nodes(test);
	for_each_online_node(node) {
		f = open_on_node(test, N, node);
		migrate_disable();
		local = numa_mem_id();
		folio = kvm_gmem_get_folio(f->inode, 5);
		migrate_enable();
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
		KUNIT_EXPECT_EQ(test, folio_order(folio), PMD_ORDER);
		KUNIT_EXPECT_EQ(test, folio_nid(folio), local);
		gmem_kunit_put_folio(folio);
	}
}

/* Take all hugepages of a node. */
static void take_hugepages(struct list_head *taken, int node)
{
	gfp_t gfp = GFP_HIGHUSER | __GFP_THISNODE | __GFP_NORETRY | __GFP_NOWARN;
	struct folio *folio;

	while ((folio = __folio_alloc_node(gfp, PMD_ORDER, node)))
		list_add(&folio->lru, taken);
}

/*
 * The same while another node has hugepages, but this one has none: memory that moves
 * there would remain there.
 */
static void collapse_stays_on_full_node(struct kunit *test)
{
	struct folio *folio, *next;
	struct gmem_kunit_file *f;
	LIST_HEAD(taken);
	int node, r;

	needs_to_collapse_on_nodes(test);
	for_each_online_node(node) {
		f = open_on_node(test, N + 5, node);
		take_hugepages(&taken, node);
		r = gmem_kunit_collapse(f, N, N);
		list_for_each_entry_safe(folio, next, &taken, lru) {
			list_del_init(&folio->lru);
			folio_put(folio);
		}

		/* Compaction may have found one. */
		if (r)
			KUNIT_EXPECT_EQ(test, r, -ENOMEM);
		check_node(test, f, N + 5, r ? 0 : PMD_ORDER, node);
	}
}

#else

static void collapse_stays_on_node(struct kunit *test)
{
	kunit_skip(test, "needs NUMA, TMPFS (to parse a policy) and built-in tests");
}

static void collapse_stays_on_full_node(struct kunit *test)
{
	kunit_skip(test, "needs NUMA, TMPFS (to parse a policy) and built-in tests");
}

static void neighbor_on_other_node(struct kunit *test)
{
	kunit_skip(test, "needs NUMA, TMPFS (to parse a policy) and built-in tests");
}

static void collapse_follows_policy(struct kunit *test)
{
	kunit_skip(test, "needs NUMA, TMPFS (to parse a policy) and built-in tests");
}

static void policy_boundary(struct kunit *test)
{
	kunit_skip(test, "needs NUMA, TMPFS (to parse a policy) and built-in tests");
}

static void numa_policy(struct kunit *test)
{
	kunit_skip(test, "needs NUMA, TMPFS (to parse a policy) and built-in tests");
}

#endif

static struct kunit_case gmem_resources_cases[] = {
	KUNIT_CASE(hugepage_is_charged),
	KUNIT_CASE(limit_falls_back),
	KUNIT_CASE(holes_are_uncharged),
	KUNIT_CASE(no_memory_to_allocate),
	KUNIT_CASE(no_memory_to_split),
	KUNIT_CASE(failed_split_is_uncharged),
	KUNIT_CASE(split_charges_nothing_else),
	KUNIT_CASE(split_keeps_no_cgroup),
	KUNIT_CASE(collapse_is_charged),
	KUNIT_CASE(collapse_from_outside),
	KUNIT_CASE(collapse_while_page_moves),
	KUNIT_CASE(collapse_beside_hole_in_bad_page),
	KUNIT_CASE(collapse_keeps_no_cgroup),
	KUNIT_CASE(limit_prevents_collapse),
	KUNIT_CASE(failed_collapse_is_uncharged),
	KUNIT_CASE_PARAM(migration_keeps_charge, moved_memory_gen_params),
	KUNIT_CASE(placement),
	KUNIT_CASE(numa_policy),
	KUNIT_CASE(policy_boundary),
	KUNIT_CASE(collapse_follows_policy),
	KUNIT_CASE(collapse_stays_on_node),
	KUNIT_CASE(collapse_stays_on_full_node),
	KUNIT_CASE(neighbor_on_other_node),
	{}
};

static struct kunit_suite gmem_resources_suite = {
	.name = "kvm_gmem_resources",
	.init = gmem_kunit_init_huge,
	.test_cases = gmem_resources_cases,
};

kunit_test_suite(gmem_resources_suite);
