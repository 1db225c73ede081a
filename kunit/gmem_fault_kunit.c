// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for guest and host faults: they return the right page with the right
 * order, and never expose old data (invariants I5 and I6).
 *
 * Guest faults use kvm_gmem_get_pfn() with real memslots, host faults use a real
 * mapping.  New hugepages contain old data, so that the tests detect a page that
 * KVM does not zero.
 */
#include <kunit/test.h>
#include <linux/kthread.h>
#include <linux/kvm_host.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#ifdef CONFIG_ARM64
#include <asm/kvm_mmu.h>
#endif

#include "../kvm_mm.h"
#include "gmem_kunit_helpers.h"

#ifdef CONFIG_X86
#include "mmu/mmu_internal.h"
#endif

#define N	GMEM_NR
#define NPAGES	(4 * N)

/* The guest frame at which most tests bind a file. */
#define GFN	GMEM_GFN

/* The number of free pages to poison: more than KVM needs for one fault. */
#define NR_POISONED	256

/* Create a file whose hugepages contain old data, without binding it. */
static struct gmem_kunit_file *open_unbound(struct kunit *test, u64 flags)
{
	gmem_kunit_poison_hugepages(test);
	return gmem_kunit_open(test, gmem_kunit_vm(test, 0), NPAGES, flags);
}

static struct gmem_kunit_fault fault_in(struct kunit *test, struct gmem_kunit_file *f,
					gfn_t gfn)
{
	struct gmem_kunit_fault fault = { .order = -1 };

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, gfn, &fault), 0);
	return fault;
}

struct page_case {
	const char *name;
	pgoff_t index;
};

static const struct page_case page_cases[] = {
	{ "first", 0 },
	{ "second", 1 },
	{ "middle", N / 2 },
	{ "last_of_hugepage", N - 1 },
	{ "next_hugepage", N },
	{ "last_of_slot", NPAGES - 1 },
};

KUNIT_ARRAY_PARAM_DESC(page, page_cases, name);

/* I5: the first fault zeroes the whole hugepage, whichever page it accesses. */
static void guest_sees_zeros(struct kunit *test)
{
	const struct page_case *c = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	struct gmem_kunit_fault fault = fault_in(test, f, GFN + c->index);

	KUNIT_EXPECT_EQ(test, fault.order, PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn - c->index % N, N, 0), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(f, c->index), 0);
}

/* I5: later faults on the hugepage do not zero it again. */
static void second_fault_keeps_data(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	const pgoff_t accessed = 3;
	kvm_pfn_t head = fault_in(test, f, GFN + accessed).pfn - accessed;
	int i;

	gmem_kunit_fill(head, N, GMEM_DATA);

	for (i = 0; i < ARRAY_SIZE(page_cases) && page_cases[i].index < N; i++) {
		pgoff_t index = page_cases[i].index;
		struct gmem_kunit_fault fault = fault_in(test, f, GFN + index);

		KUNIT_EXPECT_EQ(test, fault.pfn, head + index);
	}
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(head, N, GMEM_DATA), 0);
}

/* I5: the first fault zeroes memory that fallocate() allocated. */
static void zeros_after_fallocate(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	struct gmem_kunit_fault fault;

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	fault = fault_in(test, f, GFN + N + 1);
	KUNIT_EXPECT_EQ(test, fault.order, PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn - 1, N, 0), 0);
}

/* I5: the first fault after a hole was punched zeroes the new memory. */
static void zeros_after_hole(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	struct gmem_kunit_fault fault = fault_in(test, f, GFN);
	const pgoff_t index = 9;

	gmem_kunit_fill(fault.pfn, N, GMEM_DATA);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, 0, N), 0);

	fault = fault_in(test, f, GFN + index);
	KUNIT_EXPECT_EQ(test, fault.order, PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn - index, N, 0), 0);
}

/* Fill free pages with old data, so that the next allocation almost certainly gets one. */
static void poison_free_pages(struct kunit *test)
{
	LIST_HEAD(pages);
	struct page *page, *next;
	int i;

	for (i = 0; i < NR_POISONED; i++) {
		page = alloc_page(GFP_HIGHUSER);
		KUNIT_ASSERT_NOT_NULL(test, page);
		gmem_kunit_fill(page_to_pfn(page), 1, GMEM_POISON);
		list_add(&page->lru, &pages);
	}
	list_for_each_entry_safe(page, next, &pages, lru) {
		list_del(&page->lru);
		__free_page(page);
	}
}

/* I5, I8: a fault zeroes single pages, too. */
static void guest_sees_zeros_in_base_pages(struct kunit *test)
{
	const struct page_case *c = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_SHARED);
	struct gmem_kunit_fault fault;

	poison_free_pages(test);
	fault = fault_in(test, f, GFN + c->index);
	KUNIT_EXPECT_EQ(test, fault.order, 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn, 1, 0), 0);
}

/* I6: pfn and gfn are congruent modulo the hugepage, and the pfn is that of the page. */
static void pfn_congruent_to_gfn(struct kunit *test)
{
	const struct page_case *c = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	struct gmem_kunit_fault fault = fault_in(test, f, GFN + c->index);
	struct folio *folio = gmem_kunit_folio(test, f, c->index);

	KUNIT_EXPECT_EQ(test, fault.order, PMD_ORDER);
	KUNIT_EXPECT_EQ(test, fault.pfn % N, (GFN + c->index) % N);
	KUNIT_EXPECT_EQ(test, fault.pfn, folio_pfn(folio) + c->index % N);
}

struct slot_case {
	const char *name;
	gfn_t base_gfn;
	pgoff_t pgoff;
	unsigned long npages;
	pgoff_t index;
	int order;
};

static const struct slot_case slot_cases[] = {
	{ "whole_file", GFN, 0, NPAGES, N + 5, PMD_ORDER },
	{ "one_hugepage", GFN, N, N, N + 5, PMD_ORDER },
	{ "congruent_unaligned", GFN + 7, 7, 3 * N, N, PMD_ORDER },
	{ "cut_at_start", GFN + 7, 7, 3 * N, 9, 0 },
	{ "cut_at_end", GFN, 0, N + 7, N + 6, 0 },
	{ "incongruent", GFN + 1, 0, NPAGES, N + 5, 0 },
	{ "incongruent_by_half", GFN + N / 2, 0, NPAGES, N + 5, 0 },
	{ "short_slot", GFN, N + 3, 4, N + 5, 0 },
};

KUNIT_ARRAY_PARAM_DESC(slot, slot_cases, name);

/* I6: a fault respects the bounds of the memslot, and returns the right page. */
static void order_of_slot(struct kunit *test)
{
	const struct slot_case *c = test->param_value;
	struct gmem_kunit_file *f = open_unbound(test, GMEM_HUGE);
	struct gmem_kunit_fault fault;
	struct folio *folio;

	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, c->base_gfn, c->pgoff, c->npages), 0);
	fault = fault_in(test, f, c->base_gfn + c->index - c->pgoff);

	folio = gmem_kunit_folio(test, f, c->index);
	KUNIT_EXPECT_EQ(test, folio_order(folio), PMD_ORDER);
	KUNIT_EXPECT_EQ(test, fault.order, c->order);
	KUNIT_EXPECT_EQ(test, fault.pfn, folio_pfn(folio) + c->index % N);
}

/*
 * I6: a lookup without a fault allocates nothing.  After a fault, it returns what
 * the fault returned.
 */
static void lookup_without_fault(struct kunit *test)
{
	const struct slot_case *c = test->param_value;
	struct gmem_kunit_file *f = open_unbound(test, GMEM_HUGE);
	gfn_t gfn = c->base_gfn + c->index - c->pgoff;
	struct gmem_kunit_fault fault;
	struct kvm_memory_slot *slot;
	kvm_pfn_t pfn;

	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, c->base_gfn, c->pgoff, c->npages), 0);
	slot = gmem_kunit_slot(test, f->kvm, 0);

	KUNIT_EXPECT_EQ(test, kvm_gmem_lookup_pfn(slot, gfn, &pfn), 0);
	KUNIT_EXPECT_EQ(test, pfn, KVM_PFN_ERR_FAULT);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 0);

	fault = fault_in(test, f, gfn);
	KUNIT_EXPECT_EQ(test, kvm_gmem_lookup_pfn(slot, gfn, &pfn), fault.order);
	KUNIT_EXPECT_EQ(test, pfn, fault.pfn);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(f, c->index), 0);

	/* The memslot still exists after the file is closed. */
	gmem_kunit_close(test, f);
	KUNIT_EXPECT_EQ(test, kvm_gmem_lookup_pfn(slot, gfn, &pfn), 0);
	KUNIT_EXPECT_EQ(test, pfn, KVM_PFN_ERR_FAULT);
}

/* A mapping of the guest and the lookups in it, protected by the mmu_lock. */
struct lookups {
	struct kvm *kvm;
	struct kvm_memory_slot *slot;
	pgoff_t index;		/* of the page that is mapped, or of its hugepage */
	kvm_pfn_t pfn;
	int order;		/* -1: there is no mapping */
	unsigned long seq;	/* when the fault began */
	unsigned long nr;	/* lookups so far */
	unsigned long wrong;	/* those with a wrong result */
};

/*
 * Look up a page as KVM does in order to recover hugepages: with mmu_lock held, and only
 * if there is a mapping, i.e. if no hole has removed it.
 */
static void look_up(struct lookups *l, unsigned long offset)
{
	kvm_pfn_t pfn;
	pgoff_t index;
	int order;

	KVM_MMU_LOCK(l->kvm);
	index = l->order > 0 ? l->index + offset : l->index;
	if (l->order >= 0 && !mmu_invalidate_retry_gfn(l->kvm, l->seq, GFN + index)) {
		order = kvm_gmem_lookup_pfn(l->slot, GFN + index, &pfn);
		l->wrong += order != l->order || pfn != l->pfn + index - l->index;
		WRITE_ONCE(l->nr, l->nr + 1);
	}
	KVM_MMU_UNLOCK(l->kvm);
}

static int look_up_thread(void *data)
{
	unsigned long offset = 0;

	while (!kthread_should_stop()) {
		look_up(data, offset++ % N);
		cond_resched();
	}
	return 0;
}

/* Fault in a page, and wait until it has been looked up. */
static void map_and_wait(struct kunit *test, struct lookups *l, pgoff_t index, int order)
{
	struct gmem_kunit_fault fault;
	unsigned long seq, nr;

	seq = l->kvm->mmu_invalidate_seq;
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(l->kvm, 0, GFN + index, &fault), 0);
	KUNIT_ASSERT_EQ(test, fault.order, order);

	KVM_MMU_LOCK(l->kvm);
	l->index = round_down(index, BIT(order));
	l->pfn = fault.pfn - (index - l->index);
	l->order = order;
	l->seq = seq;
	nr = l->nr;
	KVM_MMU_UNLOCK(l->kvm);
	KUNIT_ASSERT_TRUE(test, gmem_kunit_wait_until(READ_ONCE(l->nr) != nr));
}

/* How often lookup_beside_holes() punches all of a hugepage. */
#define ROUNDS		20

/*
 * I4, I6: while there is a mapping, lookups without a fault find what it maps, although
 * somebody punches holes, and no lookup keeps the memory of a hole.
 */
static void lookup_beside_holes(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_bound(test, NPAGES, GMEM_HUGE);
	struct lookups *l = kunit_kzalloc(test, sizeof(*l), GFP_KERNEL);
	unsigned long kept = 0, failed = 0;
	struct task_struct *task;
	int i;

	KUNIT_ASSERT_NOT_NULL(test, l);
	l->kvm = f->kvm;
	l->order = -1;
	l->slot = gmem_kunit_slot(test, f->kvm, 0);
	task = gmem_kunit_thread(test, look_up_thread, l);
	wake_up_process(task);

	for (i = 0; i < ROUNDS; i++) {
		map_and_wait(test, l, N + i, PMD_ORDER);
		failed += gmem_kunit_punch(f, N + 5 + i, 10) != 0;
		kept += gmem_kunit_nr_pages(f) != N - 10;

		/* What is left of it. */
		map_and_wait(test, l, N + i, 0);
		failed += gmem_kunit_punch(f, N, N) != 0;
		kept += gmem_kunit_nr_pages(f) != 0;
	}

	gmem_kunit_stop_thread(test, task);
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, kept, 0);
	KUNIT_EXPECT_EQ(test, l->wrong, 0);
}

/*
 * I6: without a fault, the mapping level on x86 depends on the existing folio, and
 * the lookup allocates nothing.
 */
static void x86_level_without_fault(struct kunit *test)
{
#ifndef CONFIG_X86
	kunit_skip(test, "only x86 looks up memory without a fault");
#elif IS_MODULE(CONFIG_KVM_GMEM_KUNIT_TEST)
	kunit_skip(test, "kvm_mmu_max_mapping_level() is not exported to modules");
#else
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	struct kvm_memory_slot *slot = gmem_kunit_slot(test, f->kvm, 0);
	const gfn_t gfn = GFN + 3;
	int before, after;

	write_lock(&f->kvm->mmu_lock);
	before = kvm_mmu_max_mapping_level(f->kvm, NULL, slot, gfn);
	write_unlock(&f->kvm->mmu_lock);
	KUNIT_EXPECT_EQ(test, before, PG_LEVEL_4K);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 0);

	fault_in(test, f, GFN);
	write_lock(&f->kvm->mmu_lock);
	after = kvm_mmu_max_mapping_level(f->kvm, NULL, slot, gfn);
	write_unlock(&f->kvm->mmu_lock);
	KUNIT_EXPECT_EQ(test, after, PG_LEVEL_2M);
#endif
}

/*
 * I6: arm64 maps a block only if the folio is large enough and, for a nested guest,
 * its own stage 2 maps a block, too.  No nested guest can run here, so that this
 * case calls only the function that chooses the size.
 */
static void arm64_mapping_size(struct kunit *test)
{
#ifndef CONFIG_ARM64
	kunit_skip(test, "only arm64 considers the stage 2 of a nested guest");
#else
	static const unsigned long nested[] = {
		PAGE_SIZE, PMD_SIZE / 2, PMD_SIZE - 1, PMD_SIZE, PMD_SIZE + 1, 2 * PMD_SIZE,
	};
	int order, i;

	for (order = 0; order <= PMD_ORDER + 1; order++) {
		for (i = 0; i < ARRAY_SIZE(nested); i++) {
			bool block = order >= PMD_ORDER && nested[i] >= PMD_SIZE;

			KUNIT_EXPECT_EQ(test, kvm_gmem_mapping_size(order, nested[i]),
					block ? PMD_SIZE : PAGE_SIZE);
		}
	}
#endif
}

/* I6: two memslots that share a hugepage access it page by page. */
static void folio_shared_by_two_slots(struct kunit *test)
{
	struct gmem_kunit_file *f = open_unbound(test, GMEM_HUGE);
	struct gmem_kunit_fault lower, upper;

	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, GFN, 0, N / 2), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 1, GFN + N / 2, N / 2, N / 2), 0);

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &lower), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 1, GFN + N / 2, &upper), 0);
	KUNIT_EXPECT_EQ(test, lower.order, 0);
	KUNIT_EXPECT_EQ(test, upper.order, 0);
	KUNIT_EXPECT_EQ(test, upper.pfn, lower.pfn + N / 2);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), N);
}

/* A fault on a gfn outside the memslot fails and allocates nothing. */
static void unbound_gfn(struct kunit *test)
{
	struct gmem_kunit_file *f = open_unbound(test, GMEM_HUGE);
	struct gmem_kunit_fault fault;

	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, GFN, N, N), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + N, &fault), -EIO);
	KUNIT_EXPECT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN - 1, &fault), -EIO);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 0);
}

struct waiting {
	struct gmem_kunit_file *f;
	int result;
	bool ended;
};

static int fault_thread(void *data)
{
	struct waiting *w = data;
	struct gmem_kunit_fault fault;

	allow_signal(SIGKILL);
	w->result = gmem_kunit_fault(w->f->kvm, 0, GFN, &fault);
	WRITE_ONCE(w->ended, true);
	return 0;
}

/*
 * A fault waits until a hole has been punched, which can take long.  A process that is
 * killed doesn't wait: others can wait for the vCPU.
 */
static void killed_beside_hole(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	struct rw_semaphore *lock = &f->inode->i_mapping->invalidate_lock;
	struct waiting w = { f };
	struct task_struct *task = gmem_kunit_thread(test, fault_thread, &w);
	bool waits, ended;

	fault_in(test, f, GFN);

	down_write(lock);
	wake_up_process(task);
	waits = gmem_kunit_wait_until(gmem_kunit_is_awaited(lock));
	send_sig(SIGKILL, task, 1);
	ended = gmem_kunit_wait_until(READ_ONCE(w.ended));
	up_write(lock);
	gmem_kunit_stop_thread(test, task);

	KUNIT_EXPECT_TRUE(test, waits);
	KUNIT_EXPECT_TRUE(test, ended);
	KUNIT_EXPECT_EQ(test, w.result, -EINTR);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(f, 0), 0);
}

/* After the file is closed, a fault on its memslot fails with -EFAULT. */
static void closed_file(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	struct gmem_kunit_fault fault = fault_in(test, f, GFN);
	struct gmem_kunit_vm *vm = f->vm;

	gmem_kunit_close(test, f);
	KUNIT_EXPECT_EQ(test, gmem_kunit_fault(vm->kvm, 0, GFN, &fault), -EFAULT);
	KUNIT_EXPECT_EQ(test, gmem_kunit_unbind(vm, 0), 0);
}

/* The file keeps its memory when a memslot is deleted; the next memslot gets it. */
static void binding_reused(struct kunit *test)
{
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	struct gmem_kunit_fault before, after;

	before = fault_in(test, f, GFN + N);
	gmem_kunit_fill(before.pfn, N, GMEM_DATA);
	KUNIT_ASSERT_EQ(test, gmem_kunit_unbind(f->vm, 0), 0);

	/* Only one memslot at a time can be bound to a range. */
	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, 2 * GFN + 1, N, N), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_bind(f, 1, 3 * GFN, N, N), -EEXIST);
	after = fault_in(test, f, 2 * GFN + 1);
	KUNIT_EXPECT_EQ(test, after.pfn, before.pfn);
	KUNIT_EXPECT_EQ(test, after.order, 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_unbind(f->vm, 0), 0);

	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, 2 * GFN, N, N), 0);
	after = fault_in(test, f, 2 * GFN);
	KUNIT_EXPECT_EQ(test, after.pfn, before.pfn);
	KUNIT_EXPECT_EQ(test, after.order, PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(after.pfn, N, GMEM_DATA), 0);
}

/* I5: the host can read each page of a hugepage without SIGBUS, and reads zeros. */
static void host_sees_zeros(struct kunit *test)
{
	const struct page_case *c = test->param_value;
	struct gmem_kunit_file *f = open_unbound(test, GMEM_HUGE);
	unsigned long addr = gmem_kunit_map(test, f, 0);
	const unsigned int offset = 5;
	struct folio *folio;
	u8 byte = 1;

	KUNIT_ASSERT_EQ(test, copy_from_user(&byte, (void __user *)(addr +
			(c->index << PAGE_SHIFT) + offset), 1), 0);
	KUNIT_EXPECT_EQ(test, byte, 0);

	folio = gmem_kunit_folio(test, f, c->index);
	KUNIT_EXPECT_EQ(test, folio_order(folio), PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(folio_pfn(folio), N, 0), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(f, c->index), 0);
}

/*
 * Host and guest access the same page: each reads what the other wrote, whether the
 * host maps the folio page by page or at once.
 */
static void host_writes_guest_reads(struct kunit *test)
{
	const struct page_case *c = test->param_value;
	struct gmem_kunit_file *f = gmem_kunit_open_poisoned(test, NPAGES, GMEM_HUGE);
	unsigned long addr = gmem_kunit_map(test, f, PAGE_SIZE);
	unsigned long aligned = gmem_kunit_map(test, f, 0);
	static const char by_host[] = "written", by_guest[] = "xxxxxxx";
	struct gmem_kunit_fault fault;
	char seen[sizeof(by_host)] = {};
	void *p;

	KUNIT_ASSERT_EQ(test, copy_to_user((void __user *)(addr +
			(c->index << PAGE_SHIFT)), by_host, sizeof(by_host)), 0);

	fault = fault_in(test, f, GFN + c->index);
	p = kmap_local_pfn(fault.pfn);
	memcpy(seen, p, sizeof(seen));
	memcpy(p, by_guest, sizeof(by_guest));
	kunmap_local(p);
	KUNIT_EXPECT_STREQ(test, seen, by_host);
	/* All other pages contain zeros. */
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn - c->index % N, N, 0), 1);

	KUNIT_ASSERT_EQ(test, copy_from_user(seen, (void __user *)(aligned +
			(c->index << PAGE_SHIFT)), sizeof(seen)), 0);
	KUNIT_EXPECT_STREQ(test, seen, by_guest);
}

/* The host cannot access private memory, even if the file allows hugepages. */
static void host_cannot_map_private(struct kunit *test)
{
	u64 flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_ALLOW_HUGEPAGE;
	struct gmem_kunit_file *f = open_unbound(test, flags);
	unsigned long addr = gmem_kunit_map(test, f, 0);
	u8 byte;

	KUNIT_EXPECT_EQ(test, copy_from_user(&byte, (void __user *)addr, 1), 1);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(f), 0);
}

static struct kunit_case gmem_fault_cases[] = {
	KUNIT_CASE_PARAM(guest_sees_zeros, page_gen_params),
	KUNIT_CASE(second_fault_keeps_data),
	KUNIT_CASE(zeros_after_fallocate),
	KUNIT_CASE(zeros_after_hole),
	KUNIT_CASE_PARAM(guest_sees_zeros_in_base_pages, page_gen_params),
	KUNIT_CASE_PARAM(pfn_congruent_to_gfn, page_gen_params),
	KUNIT_CASE_PARAM(order_of_slot, slot_gen_params),
	KUNIT_CASE_PARAM(lookup_without_fault, slot_gen_params),
	KUNIT_CASE(lookup_beside_holes),
	KUNIT_CASE(x86_level_without_fault),
	KUNIT_CASE(arm64_mapping_size),
	KUNIT_CASE(folio_shared_by_two_slots),
	KUNIT_CASE(unbound_gfn),
	KUNIT_CASE(killed_beside_hole),
	KUNIT_CASE(closed_file),
	KUNIT_CASE(binding_reused),
	KUNIT_CASE_PARAM(host_sees_zeros, page_gen_params),
	KUNIT_CASE_PARAM(host_writes_guest_reads, page_gen_params),
	KUNIT_CASE(host_cannot_map_private),
	{}
};

static struct kunit_suite gmem_fault_suite = {
	.name = "kvm_gmem_fault",
	.init = gmem_kunit_init_huge,
	.test_cases = gmem_fault_cases,
};

kunit_test_suite(gmem_fault_suite);
