// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for what a fault hands out: the right page, at the right order, and
 * never with somebody else's data (invariants I5 and I6).
 *
 * Guest faults go through kvm_gmem_get_pfn() with real memslots, host faults
 * through a real mapping.  New hugepages are filled with a pattern before they are
 * added to the file, so that a page that was not zeroed shows.
 */
#include <kunit/test.h>
#include <linux/kvm_host.h>
#include <linux/uaccess.h>

#ifdef CONFIG_ARM64
#include <asm/kvm_mmu.h>
#endif

#include "gmem_kunit_helpers.h"

#ifdef CONFIG_X86
#include "mmu/mmu_internal.h"
#endif

#define N	GMEM_NR
#define NPAGES	(4 * N)

/* Where the tests bind a file, unless they are about the address. */
#define GFN	GMEM_GFN

static struct gmem_kunit_file *open_poisoned(struct kunit *test, u64 flags)
{
	gmem_kunit_poison_hugepages(test);
	return gmem_kunit_open(test, gmem_kunit_vm(test, 0), NPAGES, flags);
}

static struct gmem_kunit_file *open_bound(struct kunit *test, u64 flags)
{
	gmem_kunit_poison_hugepages(test);
	return gmem_kunit_open_bound(test, NPAGES, flags);
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

/* I5: whichever page is touched first, all of the hugepage is zeroed. */
static void guest_sees_zeros(struct kunit *test)
{
	const struct page_case *c = test->param_value;
	struct gmem_kunit_file *f = open_bound(test, GMEM_HUGE);
	struct gmem_kunit_fault fault = fault_in(test, f, GFN + c->index);

	KUNIT_EXPECT_EQ(test, fault.order, PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn - c->index % N, N, 0), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(f, c->index), 0);
}

/* I5: a second fault, on any page of the hugepage, does not zero again. */
static void second_fault_keeps_data(struct kunit *test)
{
	struct gmem_kunit_file *f = open_bound(test, GMEM_HUGE);
	struct gmem_kunit_fault first = fault_in(test, f, GFN + 3);
	int i;

	gmem_kunit_fill(first.pfn - 3, N, 0x77);

	for (i = 0; i < ARRAY_SIZE(page_cases) - 2; i++) {
		pgoff_t index = page_cases[i].index;
		struct gmem_kunit_fault fault = fault_in(test, f, GFN + index);

		KUNIT_EXPECT_EQ(test, fault.pfn, first.pfn - 3 + index);
	}
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(first.pfn - 3, N, 0x77), 0);
}

/* I5: fallocate() need not zero, the first fault after it has to. */
static void zeros_after_fallocate(struct kunit *test)
{
	struct gmem_kunit_file *f = open_bound(test, GMEM_HUGE);
	struct gmem_kunit_fault fault;

	KUNIT_ASSERT_EQ(test, gmem_kunit_allocate(f, 0, NPAGES), 0);
	fault = fault_in(test, f, GFN + N + 1);
	KUNIT_EXPECT_EQ(test, fault.order, PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn - 1, N, 0), 0);
}

/* I5: memory that comes back after a hole is zeroed again. */
static void zeros_after_hole(struct kunit *test)
{
	struct gmem_kunit_file *f = open_bound(test, GMEM_HUGE);
	struct gmem_kunit_fault fault = fault_in(test, f, GFN);

	gmem_kunit_fill(fault.pfn, N, 0x77);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(f, 0, N), 0);

	fault = fault_in(test, f, GFN + 9);
	KUNIT_EXPECT_EQ(test, fault.order, PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn - 9, N, 0), 0);
}

/* Make it likely, in practice certain, that the next pages to be had contain data. */
static void poison_free_pages(struct kunit *test)
{
	LIST_HEAD(pages);
	struct page *page, *next;
	int i;

	for (i = 0; i < 256; i++) {
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

/* I5, I8: single pages are zeroed as ever. */
static void guest_sees_zeros_in_base_pages(struct kunit *test)
{
	const struct page_case *c = test->param_value;
	struct gmem_kunit_file *f = open_bound(test, GMEM_SHARED);
	struct gmem_kunit_fault fault;

	poison_free_pages(test);
	fault = fault_in(test, f, GFN + c->index);
	KUNIT_EXPECT_EQ(test, fault.order, 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn, 1, 0), 0);
}

/* I6: within a hugepage, pfn and gfn are congruent, and the pfn is that of the page. */
static void pfn_congruent_to_gfn(struct kunit *test)
{
	const struct page_case *c = test->param_value;
	struct gmem_kunit_file *f = open_bound(test, GMEM_HUGE);
	struct gmem_kunit_fault fault = fault_in(test, f, GFN + c->index);
	struct folio *folio = gmem_kunit_peek(f, c->index);

	KUNIT_ASSERT_NOT_NULL(test, folio);
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

/* I6: the order of a real memslot, and the page is right even if the order is 0. */
static void order_of_slot(struct kunit *test)
{
	const struct slot_case *c = test->param_value;
	struct gmem_kunit_file *f = open_poisoned(test, GMEM_HUGE);
	struct gmem_kunit_fault fault;
	struct folio *folio;

	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, c->base_gfn, c->pgoff, c->npages), 0);
	fault = fault_in(test, f, c->base_gfn + c->index - c->pgoff);

	folio = gmem_kunit_peek(f, c->index);
	KUNIT_ASSERT_NOT_NULL(test, folio);
	KUNIT_EXPECT_EQ(test, folio_order(folio), PMD_ORDER);
	KUNIT_EXPECT_EQ(test, fault.order, c->order);
	KUNIT_EXPECT_EQ(test, fault.pfn, folio_pfn(folio) + c->index % N);
}

/*
 * I6: looking without a fault gives the same answer as a fault, once there was one,
 * and otherwise allocates nothing.
 */
static void lookup_without_fault(struct kunit *test)
{
	const struct slot_case *c = test->param_value;
	struct gmem_kunit_file *f = open_poisoned(test, GMEM_HUGE);
	gfn_t gfn = c->base_gfn + c->index - c->pgoff;
	struct gmem_kunit_fault fault;
	struct kvm_memory_slot *slot;
	kvm_pfn_t pfn;

	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, c->base_gfn, c->pgoff, c->npages), 0);
	slot = gmem_kunit_slot(f->kvm, 0);

	KUNIT_EXPECT_EQ(test, kvm_gmem_lookup_pfn(slot, gfn, &pfn), 0);
	KUNIT_EXPECT_EQ(test, pfn, KVM_PFN_ERR_FAULT);
	KUNIT_EXPECT_EQ(test, f->inode->i_mapping->nrpages, 0);

	fault = fault_in(test, f, gfn);
	KUNIT_EXPECT_EQ(test, kvm_gmem_lookup_pfn(slot, gfn, &pfn), fault.order);
	KUNIT_EXPECT_EQ(test, pfn, fault.pfn);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(f, c->index), 0);

	/* A memslot outlives its file. */
	gmem_kunit_close(test, f);
	KUNIT_EXPECT_EQ(test, kvm_gmem_lookup_pfn(slot, gfn, &pfn), 0);
	KUNIT_EXPECT_EQ(test, pfn, KVM_PFN_ERR_FAULT);
}

/* I6: where x86 has no fault to tell, it maps what is there, and allocates nothing. */
static void x86_level_without_fault(struct kunit *test)
{
#ifndef CONFIG_X86
	kunit_skip(test, "only x86 asks without a fault");
#elif IS_MODULE(CONFIG_KVM_GMEM_KUNIT_TEST)
	kunit_skip(test, "kvm_mmu_max_mapping_level() is not exported to modules");
#else
	struct gmem_kunit_file *f = open_bound(test, GMEM_HUGE);
	struct kvm_memory_slot *slot = gmem_kunit_slot(f->kvm, 0);
	int before, after;

	write_lock(&f->kvm->mmu_lock);
	before = kvm_mmu_max_mapping_level(f->kvm, NULL, slot, GFN + 3);
	write_unlock(&f->kvm->mmu_lock);
	KUNIT_EXPECT_EQ(test, before, PG_LEVEL_4K);
	KUNIT_EXPECT_EQ(test, f->inode->i_mapping->nrpages, 0);

	fault_in(test, f, GFN);
	write_lock(&f->kvm->mmu_lock);
	after = kvm_mmu_max_mapping_level(f->kvm, NULL, slot, GFN + 3);
	write_unlock(&f->kvm->mmu_lock);
	KUNIT_EXPECT_EQ(test, after, PG_LEVEL_2M);
#endif
}

/*
 * I6: arm64 maps a block only if both folio and, for a nested guest, which can't run
 * here, that guest's own stage 2 are large enough.
 */
static void arm64_mapping_size(struct kunit *test)
{
#ifndef CONFIG_ARM64
	kunit_skip(test, "only arm64 has to respect a guest's own stage 2");
#else
	static const unsigned long nested[] = {
		PAGE_SIZE, PMD_SIZE / 2, PMD_SIZE - 1, PMD_SIZE, PMD_SIZE + 1, 2 * PMD_SIZE,
	};
	int order, i;

	for (order = 0; order <= PMD_ORDER + 1; order++) {
		for (i = 0; i < ARRAY_SIZE(nested); i++) {
			bool block = order >= PMD_ORDER && i >= 3;

			KUNIT_EXPECT_EQ(test, kvm_gmem_mapping_size(order, nested[i]),
					block ? PMD_SIZE : PAGE_SIZE);
		}
	}
#endif
}

/* I6: two slots that share a hugepage get at the same memory, page by page. */
static void folio_shared_by_two_slots(struct kunit *test)
{
	struct gmem_kunit_file *f = open_poisoned(test, GMEM_HUGE);
	struct gmem_kunit_fault lower, upper;

	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, GFN, 0, N / 2), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 1, GFN + N / 2, N / 2, N / 2), 0);

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN, &lower), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(f->kvm, 1, GFN + N / 2, &upper), 0);
	KUNIT_EXPECT_EQ(test, lower.order, 0);
	KUNIT_EXPECT_EQ(test, upper.order, 0);
	KUNIT_EXPECT_EQ(test, upper.pfn, lower.pfn + N / 2);
	KUNIT_EXPECT_EQ(test, f->inode->i_mapping->nrpages, N);
}

/* A gfn that the memslot does not have is an error, and allocates nothing. */
static void unbound_gfn(struct kunit *test)
{
	struct gmem_kunit_file *f = open_poisoned(test, GMEM_HUGE);
	struct gmem_kunit_fault fault;

	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, GFN, N, N), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN + N, &fault), -EIO);
	KUNIT_EXPECT_EQ(test, gmem_kunit_fault(f->kvm, 0, GFN - 1, &fault), -EIO);
	KUNIT_EXPECT_EQ(test, f->inode->i_mapping->nrpages, 0);
}

/* A memslot outlives its file; faults then fail, and say so. */
static void closed_file(struct kunit *test)
{
	struct gmem_kunit_file *f = open_bound(test, GMEM_HUGE);
	struct kvm *kvm = f->kvm;
	struct gmem_kunit_fault fault = fault_in(test, f, GFN);

	gmem_kunit_close(test, f);
	KUNIT_EXPECT_EQ(test, gmem_kunit_fault(kvm, 0, GFN, &fault), -EFAULT);
	KUNIT_EXPECT_EQ(test, gmem_kunit_unbind(kvm, 0), 0);
}

/* Memory belongs to the file: it survives the memslot, and moves with the next one. */
static void binding_reused(struct kunit *test)
{
	struct gmem_kunit_file *f = open_bound(test, GMEM_HUGE);
	struct gmem_kunit_fault before, after;

	before = fault_in(test, f, GFN + N);
	gmem_kunit_fill(before.pfn, N, 0x77);
	KUNIT_ASSERT_EQ(test, gmem_kunit_unbind(f->kvm, 0), 0);

	/* The same range is taken once, another slot may have it afterwards. */
	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, 2 * GFN + 1, N, N), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_bind(f, 1, 3 * GFN, N, N), -EEXIST);
	after = fault_in(test, f, 2 * GFN + 1);
	KUNIT_EXPECT_EQ(test, after.pfn, before.pfn);
	KUNIT_EXPECT_EQ(test, after.order, 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_unbind(f->kvm, 0), 0);

	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, 2 * GFN, N, N), 0);
	after = fault_in(test, f, 2 * GFN);
	KUNIT_EXPECT_EQ(test, after.pfn, before.pfn);
	KUNIT_EXPECT_EQ(test, after.order, PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(after.pfn, N, 0x77), 0);
}

/* I5: the host gets every page of a hugepage, no SIGBUS, and sees only zeros. */
static void host_sees_zeros(struct kunit *test)
{
	const struct page_case *c = test->param_value;
	struct gmem_kunit_file *f = open_poisoned(test, GMEM_HUGE);
	unsigned long addr = gmem_kunit_map(test, f, 0);
	struct folio *folio;
	u8 byte = 1;

	KUNIT_ASSERT_EQ(test, copy_from_user(&byte, (void __user *)(addr +
			(c->index << PAGE_SHIFT) + 5), 1), 0);
	KUNIT_EXPECT_EQ(test, byte, 0);

	folio = gmem_kunit_peek(f, c->index);
	KUNIT_ASSERT_NOT_NULL(test, folio);
	KUNIT_EXPECT_EQ(test, folio_order(folio), PMD_ORDER);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(folio_pfn(folio), N, 0), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_extra_refs(f, c->index), 0);
}

/*
 * Host and guest mean the same page: what one writes, the other reads, whether the
 * host's mapping has to be made page by page or can be of a hugepage at once.
 */
static void host_writes_guest_reads(struct kunit *test)
{
	const struct page_case *c = test->param_value;
	struct gmem_kunit_file *f = open_bound(test, GMEM_HUGE);
	unsigned long addr = gmem_kunit_map(test, f, PAGE_SIZE);
	unsigned long aligned = gmem_kunit_map(test, f, 0);
	struct gmem_kunit_fault fault;
	char seen[8] = {};
	void *p;

	KUNIT_ASSERT_EQ(test, copy_to_user((void __user *)(addr +
			(c->index << PAGE_SHIFT)), "written", 8), 0);

	fault = fault_in(test, f, GFN + c->index);
	p = kmap_local_pfn(fault.pfn);
	memcpy(seen, p, sizeof(seen));
	memset(p, 'x', 7);
	kunmap_local(p);
	KUNIT_EXPECT_STREQ(test, seen, "written");
	/* No other page was written to, nor left with old data. */
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn - c->index % N, N, 0), 1);

	KUNIT_ASSERT_EQ(test, copy_from_user(seen, (void __user *)(aligned +
			(c->index << PAGE_SHIFT)), 8), 0);
	KUNIT_EXPECT_STREQ(test, seen, "xxxxxxx");
}

/* Private memory stays out of the host's reach, hugepage or not. */
static void host_cannot_map_private(struct kunit *test)
{
	u64 flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_ALLOW_HUGEPAGE;
	struct gmem_kunit_file *f = open_poisoned(test, flags);
	unsigned long addr = gmem_kunit_map(test, f, 0);
	u8 byte;

	KUNIT_EXPECT_EQ(test, copy_from_user(&byte, (void __user *)addr, 1), 1);
	KUNIT_EXPECT_EQ(test, f->inode->i_mapping->nrpages, 0);
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
	KUNIT_CASE(x86_level_without_fault),
	KUNIT_CASE(arm64_mapping_size),
	KUNIT_CASE(folio_shared_by_two_slots),
	KUNIT_CASE(unbound_gfn),
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
