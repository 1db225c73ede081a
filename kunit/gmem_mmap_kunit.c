// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for hugepages that the host has mapped: through a live mapping, the
 * host reads the contents of the file, also after a hole was punched or a hugepage
 * was split (invariants I1, I2 and I5).
 */
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/uaccess.h>
#include <linux/uprobes.h>

#include "gmem_kunit_helpers.h"

#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
#include <asm/tlb.h>
#include "../../../mm/internal.h"		/* dup_mmap() */
#endif

#define N	GMEM_NR
#define NPAGES	(3 * N)
#define GFN	GMEM_GFN

/* A file and a host mapping of the whole file. */
struct mapped {
	struct gmem_kunit_file *f;
	unsigned long addr;
};

static struct mapped open_mapped_at(struct kunit *test, u64 flags, unsigned long offset)
{
	struct mapped m;

	gmem_kunit_poison_hugepages(test);
	m.f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), NPAGES, flags);
	m.addr = gmem_kunit_map(test, m.f, offset);
	return m;
}

static struct mapped open_mapped(struct kunit *test, u64 flags)
{
	return open_mapped_at(test, flags, 0);
}

/* Get the last byte of a page: code that clears too little misses this byte. */
static void __user *last_byte(const struct mapped *m, pgoff_t index)
{
	return (void __user *)(m->addr + (index << PAGE_SHIFT) + PAGE_SIZE - 1);
}

static void write_pattern(struct kunit *test, const struct mapped *m)
{
	unsigned long failed = 0;
	pgoff_t index;

	for (index = 0; index < NPAGES; index++) {
		u8 byte = gmem_kunit_pattern(index);

		failed += copy_to_user(last_byte(m, index), &byte, 1);
	}
	KUNIT_ASSERT_EQ(test, failed, 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_nr_pages(m->f), NPAGES);
}

static const struct gmem_kunit_hole holes[] = {
	{ "one_page", 7, 1 },
	{ "half_a_hugepage", N / 2, N / 2 },
	{ "one_hugepage", N, N },
	{ "across_boundary", N - 3, 6 },
	{ "across_whole_hugepage", N - 1, N + 2 },
	{ "whole_file", 0, NPAGES },
};

KUNIT_ARRAY_PARAM_DESC(hole, holes, name);

/* Check the mapping, except for a page at @gap that isn't mapped any more. */
static void check_mapping_around(struct kunit *test, const struct mapped *m,
				 const struct gmem_kunit_hole *h, pgoff_t gap)
{
	unsigned long failed = 0, wrong = 0;
	pgoff_t index;

	for (index = 0; index < NPAGES; index++) {
		u8 expected = gmem_kunit_in_hole(h, index) ? 0 : gmem_kunit_pattern(index);
		u8 byte = ~expected;

		if (index == gap)
			continue;
		failed += copy_from_user(&byte, last_byte(m, index), 1);
		wrong += byte != expected;
	}
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, wrong, 0);
}

/* I1, I2: through the mapping, the host reads zeros in the hole and data elsewhere. */
static void check_mapping(struct kunit *test, const struct mapped *m,
			  const struct gmem_kunit_hole *h)
{
	check_mapping_around(test, m, h, NPAGES);
}

/*
 * I1, I2, I4: punch a hole while the host has mapped all pages, as hugepages if it can,
 * and as single pages.
 */
static void hole_under_mapping(struct kunit *test)
{
	static const unsigned long offsets[] = { 0, PAGE_SIZE };
	const struct gmem_kunit_hole *h = test->param_value;
	int i;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		struct mapped m = open_mapped_at(test, GMEM_HUGE, offsets[i]);

		write_pattern(test, &m);
		KUNIT_ASSERT_EQ(test, gmem_kunit_punch(m.f, h->start, h->npages), 0);
		KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(m.f), NPAGES - h->npages);
		check_mapping(test, &m, h);
	}
}

/*
 * A guard region of userspace stays, even if other pages of a hugepage are mapped when the
 * hugepage is freed.  Once it is removed, the host reads zeros there (I1).
 */
static void hole_keeps_guard_region(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST) && IS_ENABLED(CONFIG_ADVISE_SYSCALLS)
	const struct gmem_kunit_hole *h = test->param_value;
	struct mapped m = open_mapped(test, GMEM_HUGE);
	unsigned long guard = m.addr + (h->start << PAGE_SHIFT);
	u8 byte;

	write_pattern(test, &m);
	KUNIT_ASSERT_EQ(test, do_madvise(current->mm, guard, PAGE_SIZE, MADV_GUARD_INSTALL), 0);
	KUNIT_ASSERT_EQ(test, copy_from_user(&byte, last_byte(&m, h->start ^ 1), 1), 0);

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(m.f, h->start, h->npages), 0);
	KUNIT_EXPECT_EQ(test, copy_from_user(&byte, last_byte(&m, h->start), 1), 1);

	KUNIT_ASSERT_EQ(test, do_madvise(current->mm, guard, PAGE_SIZE, MADV_GUARD_REMOVE), 0);
	check_mapping(test, &m, h);
#else
	kunit_skip(test, "do_madvise() is not exported");
#endif
}

/* I1, I2, I4: punch a hole while one page of each hugepage is pinned, as for DMA. */
static void hole_under_pinned_mapping(struct kunit *test)
{
	const struct gmem_kunit_hole *h = test->param_value;
	struct mapped m = open_mapped(test, GMEM_HUGE);
	struct page *page[NPAGES / N];
	int i;

	write_pattern(test, &m);
	for (i = 0; i < ARRAY_SIZE(page); i++)
		KUNIT_ASSERT_EQ(test, pin_user_pages_fast(m.addr + i * PMD_SIZE, 1,
							  FOLL_WRITE, &page[i]), 1);

	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(m.f, h->start, h->npages), 0);
	check_mapping(test, &m, h);

	unpin_user_pages(page, ARRAY_SIZE(page));
	/* Unpinning changes nothing. */
	check_mapping(test, &m, h);
}

/* The kernel chooses an address at which the host maps hugepages as such, if it can. */
static void address_is_aligned(struct kunit *test)
{
	struct gmem_kunit_file *f;
	int i;

	if (!IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE))
		kunit_skip(test, "the host maps hugepages page by page");

	f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), NPAGES, GMEM_HUGE);
	if (!f->file->f_op->get_unmapped_area)
		kunit_skip(test, "guest_memfd leaves the choice of an address to core MM");

	for (i = 0; i < 4; i++) {
		unsigned long offset = i * PMD_SIZE / 4, head, addr;
		u8 byte;

		addr = kunit_vm_mmap(test, f->file, 0, 2 * PMD_SIZE, PROT_READ | PROT_WRITE,
				     MAP_SHARED, offset);
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, (void *)addr);
		KUNIT_EXPECT_EQ(test, (addr - offset) % PMD_SIZE, 0);

		/* The first hugepage that the mapping contains as a whole. */
		head = ALIGN(addr, PMD_SIZE);
		KUNIT_ASSERT_EQ(test, copy_from_user(&byte, (void __user *)head, 1), 0);
		KUNIT_EXPECT_TRUE(test, pmd_trans_huge(pmdp_get(pmd_off(current->mm, head))));
	}
}

/* The second hugepage of a file, and a page in its middle. */
#define SECOND	N
#define MIDDLE	(SECOND + N / 2 + 1)

/* A hugepage that the guest uses, and that the host has mapped as such, if it can. */
struct both {
	struct mapped m;
	kvm_pfn_t pfn;		/* first page of the second hugepage */
	unsigned long seq;	/* after the guest has mapped it */
};

static bool is_mapped_huge(struct mm_struct *mm, unsigned long addr)
{
	return pmd_trans_huge(pmdp_get(pmd_off(mm, addr)));
}

static struct both open_both(struct kunit *test)
{
	struct both b = { open_mapped(test, GMEM_HUGE) };
	struct gmem_kunit_fault fault;

	b.m.f->addr = b.m.addr;
	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(b.m.f, 0, GFN, 0, NPAGES), 0);
	write_pattern(test, &b.m);
	KUNIT_ASSERT_EQ(test, is_mapped_huge(current->mm, b.m.addr + PMD_SIZE),
			IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE));

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(b.m.f->kvm, 0, GFN + SECOND, &fault), 0);
	KUNIT_ASSERT_EQ(test, fault.order, PMD_ORDER);
	b.pfn = fault.pfn;
	b.seq = b.m.f->kvm->mmu_invalidate_seq;
	return b;
}

/* Read what the guest reads. */
static u8 guest_byte(const struct both *b, pgoff_t index)
{
	u8 *p = kmap_local_pfn(b->pfn + index - SECOND);
	u8 byte = p[PAGE_SIZE - 1];

	kunmap_local(p);
	return byte;
}

/* The guest has the same hugepage as before, and doesn't even have to map it again. */
static void check_guest(struct kunit *test, const struct both *b)
{
	struct kvm *kvm = b->m.f->kvm;
	struct gmem_kunit_fault fault;

	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(kvm, 0, GFN + SECOND, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.pfn, b->pfn);
	KUNIT_EXPECT_EQ(test, fault.order, PMD_ORDER);
	KUNIT_EXPECT_EQ(test, guest_byte(b, MIDDLE), gmem_kunit_pattern(MIDDLE));

	/* That came with the part of the series that adds migration. */
	if (GUEST_MEMFD_FLAG_MIGRATABLE != 0)
		KUNIT_EXPECT_FALSE(test, gmem_kunit_must_retry(kvm, b->seq, GFN + MIDDLE));
}

#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)

/* Change the access to a page as mprotect() does. */
static int protect_page(unsigned long addr, bool writable)
{
	VMA_ITERATOR(vmi, current->mm, addr);
	struct vm_area_struct *vma, *prev;
	struct mmu_gather tlb;
	vm_flags_t flags;
	int r = -ENOMEM;

	mmap_write_lock(current->mm);
	vma = vma_find(&vmi, addr + PAGE_SIZE);
	if (vma) {
		prev = vma;
		if (addr == vma->vm_start) {
			prev = vma_prev(&vmi);
			vma = vma_next(&vmi);
		}
		flags = vma->vm_flags & ~VM_WRITE;
		if (writable)
			flags |= VM_WRITE;

		tlb_gather_mmu(&tlb, current->mm);
		r = mprotect_fixup(&vmi, &tlb, vma, &prev, addr, addr + PAGE_SIZE, flags);
		tlb_finish_mmu(&tlb);
	}
	mmap_write_unlock(current->mm);
	return r;
}

/* I2: the host can forbid itself to write to one page of a hugepage, and allow it again. */
static void mprotect_in_hugepage(struct kunit *test)
{
	const struct gmem_kunit_hole nothing = {};
	struct both b = open_both(test);
	unsigned long addr = b.m.addr + (MIDDLE << PAGE_SHIFT);
	u8 byte = GMEM_DATA, old = gmem_kunit_pattern(MIDDLE);

	KUNIT_ASSERT_EQ(test, protect_page(addr, false), 0);
	KUNIT_EXPECT_EQ(test, copy_to_user(last_byte(&b.m, MIDDLE), &byte, 1), 1);
	check_mapping(test, &b.m, &nothing);
	check_guest(test, &b);
	/* Its neighbours are still writable. */
	KUNIT_EXPECT_EQ(test, copy_to_user(last_byte(&b.m, MIDDLE - 1) - 1, &byte, 1), 0);
	KUNIT_EXPECT_EQ(test, copy_to_user(last_byte(&b.m, MIDDLE + 1) - 1, &byte, 1), 0);

	KUNIT_ASSERT_EQ(test, protect_page(addr, true), 0);
	KUNIT_EXPECT_EQ(test, copy_to_user(last_byte(&b.m, MIDDLE), &byte, 1), 0);
	KUNIT_EXPECT_EQ(test, guest_byte(&b, MIDDLE), byte);
	KUNIT_EXPECT_EQ(test, copy_to_user(last_byte(&b.m, MIDDLE), &old, 1), 0);
	check_mapping(test, &b.m, &nothing);
	check_guest(test, &b);
}

/* Create the address space of a child process as fork() does. */
static struct mm_struct *fork_mm(void)
{
	struct mm_struct *mm = mm_alloc();
	int r;

	if (!mm)
		return NULL;

	uprobe_start_dup_mmap();
	r = dup_mmap(mm, current->mm);
	uprobe_end_dup_mmap();
	if (r) {
		mmput(mm);
		return NULL;
	}
	return mm;
}

KUNIT_DEFINE_ACTION_WRAPPER(put_mm, mmput, struct mm_struct *);

static int child_access(struct mm_struct *mm, const struct both *b, pgoff_t index, u8 *byte,
			unsigned int flags)
{
	return access_remote_vm(mm, (unsigned long)last_byte(&b->m, index), byte, 1, flags);
}

/* I1, I2: after fork(), both processes have the same memory, and a hole is one for both. */
static void fork_of_hugepage(struct kunit *test)
{
	const struct gmem_kunit_hole h = { "five_pages", MIDDLE - 2, 5 };
	struct both b = open_both(test);
	unsigned long wrong = 0;
	struct mm_struct *mm;
	pgoff_t index;
	u8 byte;

	mm = fork_mm();
	KUNIT_ASSERT_NOT_NULL(test, mm);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, put_mm, mm), 0);

	for (index = SECOND; index < SECOND + N; index++) {
		wrong += child_access(mm, &b, index, &byte, 0) != 1 ||
			 byte != gmem_kunit_pattern(index);
	}
	KUNIT_EXPECT_EQ(test, wrong, 0);
	KUNIT_EXPECT_EQ(test, is_mapped_huge(mm, b.m.addr + PMD_SIZE),
			IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE));

	/* What one writes, the other reads, and the guest, too. */
	byte = GMEM_DATA;
	KUNIT_EXPECT_EQ(test, child_access(mm, &b, MIDDLE, &byte, FOLL_WRITE), 1);
	KUNIT_ASSERT_EQ(test, copy_from_user(&byte, last_byte(&b.m, MIDDLE), 1), 0);
	KUNIT_EXPECT_EQ(test, byte, GMEM_DATA);
	KUNIT_EXPECT_EQ(test, guest_byte(&b, MIDDLE), GMEM_DATA);
	byte = gmem_kunit_pattern(MIDDLE);
	KUNIT_ASSERT_EQ(test, copy_to_user(last_byte(&b.m, MIDDLE), &byte, 1), 0);
	check_guest(test, &b);

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(b.m.f, h.start, h.npages), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(b.m.f), NPAGES - h.npages);
	for (wrong = 0, index = SECOND; index < SECOND + N; index++) {
		u8 expected = gmem_kunit_in_hole(&h, index) ? 0 : gmem_kunit_pattern(index);

		wrong += child_access(mm, &b, index, &byte, 0) != 1 || byte != expected;
	}
	KUNIT_EXPECT_EQ(test, wrong, 0);
	check_mapping(test, &b.m, &h);
}

#else

static void mprotect_in_hugepage(struct kunit *test)
{
	kunit_skip(test, "mprotect_fixup() is not exported");
}

static void fork_of_hugepage(struct kunit *test)
{
	kunit_skip(test, "dup_mmap() is not exported");
}

#endif

/*
 * I1, I2, I4: the host unmaps one page of a hugepage.  It keeps the others, the guest keeps
 * all, and holes work in what is left of the mapping.
 */
static void munmap_in_hugepage(struct kunit *test)
{
	const struct gmem_kunit_hole nothing = {}, h = { "five_pages", MIDDLE - 2, 5 };
	struct both b = open_both(test);
	u8 byte;

	KUNIT_ASSERT_EQ(test, vm_munmap(b.m.addr + (MIDDLE << PAGE_SHIFT), PAGE_SIZE), 0);
	KUNIT_EXPECT_EQ(test, copy_from_user(&byte, last_byte(&b.m, MIDDLE), 1), 1);
	check_mapping_around(test, &b.m, &nothing, MIDDLE);
	check_guest(test, &b);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(b.m.f), NPAGES);

	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(b.m.f, h.start, h.npages), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(b.m.f), NPAGES - h.npages);
	check_mapping_around(test, &b.m, &h, MIDDLE);
	/* The pages that the host has just read, but not the one that it can't read. */
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(b.m.f), NPAGES - 1);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(b.m.f, SECOND, N), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(b.m.f), NPAGES - N);
}

/* I8: without the flag, punching a hole frees its single pages. */
static void flag_off(struct kunit *test)
{
	const struct gmem_kunit_hole h = { "across_boundary", N - 3, 6 };
	struct mapped m = open_mapped(test, GMEM_SHARED);

	write_pattern(test, &m);
	KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, m.f, 0), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(m.f, h.start, h.npages), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(m.f), NPAGES - h.npages);
	check_mapping(test, &m, &h);
}

/* I5: a write fault of the host adds a hugepage that is zeroed except for that write. */
static void write_fault_populates(struct kunit *test)
{
	struct mapped m = open_mapped(test, GMEM_HUGE);
	struct gmem_kunit_fault fault;
	const pgoff_t written = 9;	/* page of the second hugepage */
	u8 byte = GMEM_DATA;

	KUNIT_ASSERT_EQ(test, copy_to_user(last_byte(&m, N + written), &byte, 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(m.f), N);

	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(m.f, 0, GFN, 0, NPAGES), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(m.f->kvm, 0, GFN + N, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.order, PMD_ORDER);
	/* Only the page that the host wrote to is not zero. */
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn, N, 0), 1);
	KUNIT_EXPECT_EQ(test, gmem_kunit_count_not(fault.pfn + written, 1, 0), 1);
}

/* I5: a page that the host writes to in a hole contains zeros except for that write. */
static void write_into_hole(struct kunit *test)
{
	const struct gmem_kunit_hole h = { "eight_pages", N + 4, 8 };
	struct mapped m = open_mapped(test, GMEM_HUGE);
	const pgoff_t written = N + 7;
	u8 byte = gmem_kunit_pattern(written);
	void __user *last = last_byte(&m, written);

	write_pattern(test, &m);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(m.f, h.start, h.npages), 0);
	KUNIT_ASSERT_EQ(test, copy_to_user(last, &byte, 1), 0);
	KUNIT_ASSERT_EQ(test, copy_from_user(&byte, last - PAGE_SIZE + 1, 1), 0);
	KUNIT_EXPECT_EQ(test, byte, 0);

	/* Undo the write: then the whole hole reads as zeros again. */
	KUNIT_ASSERT_EQ(test, copy_from_user(&byte, last, 1), 0);
	KUNIT_EXPECT_EQ(test, byte, gmem_kunit_pattern(written));
	byte = 0;
	KUNIT_ASSERT_EQ(test, copy_to_user(last, &byte, 1), 0);
	check_mapping(test, &m, &h);
}

/* A host fault beyond the end of the file fails and allocates nothing. */
static void beyond_end_of_file(struct kunit *test)
{
	struct mapped m = open_mapped(test, GMEM_HUGE);
	unsigned long addr;
	u8 byte;

	addr = kunit_vm_mmap(test, m.f->file, 0, 2 * PMD_SIZE, PROT_READ, MAP_SHARED,
			     (NPAGES - N) << PAGE_SHIFT);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, (void *)addr);
	KUNIT_EXPECT_EQ(test, copy_from_user(&byte, (void __user *)(addr + PMD_SIZE), 1), 1);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(m.f), 0);
	KUNIT_EXPECT_EQ(test, copy_from_user(&byte, (void __user *)(addr + PMD_SIZE - 1), 1), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(m.f), N);
}

/* Core MM does not collapse single pages, whether they can be moved or not. */
static void collapse_refused(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	const u64 migratable = GMEM_MIGRATES ? GUEST_MEMFD_FLAG_MIGRATABLE : 0;
	const u64 flags[] = { GMEM_HUGE, GMEM_HUGE | migratable };
	const struct gmem_kunit_hole nothing = {};
	int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		struct mapped m = open_mapped(test, flags[i]);

		kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);
		gmem_kunit_no_hugepages(test);
		write_pattern(test, &m);
		KUNIT_EXPECT_EQ(test, do_madvise(current->mm, m.addr, PMD_SIZE, MADV_COLLAPSE),
				-EINVAL);
		KUNIT_EXPECT_EQ(test, gmem_kunit_order(test, m.f, 0), 0);
		check_mapping(test, &m, &nothing);
		kunit_deactivate_static_stub(test, kvm_gmem_alloc_huge_folio);
	}
#else
	kunit_skip(test, "do_madvise() is not exported to modules");
#endif
}

/* The host maps single pages where userspace wants no hugepages.  The guest maps a hugepage. */
static void no_hugepages_wanted(struct kunit *test)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST) && defined(CONFIG_TRANSPARENT_HUGEPAGE)
	struct mapped m = open_mapped(test, GMEM_HUGE);
	struct gmem_kunit_fault fault;
	u8 byte;

	KUNIT_ASSERT_EQ(test, do_madvise(current->mm, m.addr, PMD_SIZE, MADV_NOHUGEPAGE), 0);
	KUNIT_ASSERT_EQ(test, copy_from_user(&byte, last_byte(&m, 5), 1), 0);
	KUNIT_ASSERT_EQ(test, copy_from_user(&byte, last_byte(&m, N + 5), 1), 0);
	KUNIT_EXPECT_FALSE(test, is_mapped_huge(current->mm, m.addr));
	KUNIT_EXPECT_TRUE(test, is_mapped_huge(current->mm, m.addr + PMD_SIZE));

	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(m.f, 0, GFN, 0, NPAGES), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_fault(m.f->kvm, 0, GFN, &fault), 0);
	KUNIT_EXPECT_EQ(test, fault.order, PMD_ORDER);
#else
	kunit_skip(test, "the host does not map hugepages, or do_madvise() is not exported");
#endif
}

/*
 * I8: the guest keeps guest_memfd when the host unmaps it.  The guest loses memory that it
 * only has by its host address, also if both are unmapped at once.
 */
static void host_unmaps(struct kunit *test)
{
	struct mapped m = open_mapped(test, GMEM_HUGE);
	struct kvm *kvm = m.f->kvm;
	unsigned long seq;
	int i;

	/* Both came in one part of the series. */
	if (GUEST_MEMFD_FLAG_MIGRATABLE == 0)
		kunit_skip(test, "the guest loses what the host unmaps");

	m.f->addr = m.addr;
	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(m.f, 0, GFN, 0, 2 * N), 0);
	/* Ordinary memory, in two memslots. */
	for (i = 0; i < 2; i++) {
		pgoff_t start = 2 * N + i * N / 2;

		KUNIT_ASSERT_EQ(test, gmem_kunit_add_memory(m.f->vm, i + 1, GFN + start,
							    m.addr + (start << PAGE_SHIFT),
							    N / 2), 0);
	}
	write_pattern(test, &m);

	seq = kvm->mmu_invalidate_seq;
	KUNIT_ASSERT_EQ(test, vm_munmap(m.addr, PMD_SIZE), 0);
	KUNIT_EXPECT_FALSE(test, gmem_kunit_must_retry(kvm, seq, GFN));

	seq = gmem_kunit_watch_invalidations(kvm, GFN + 2 * N);
	KUNIT_ASSERT_EQ(test, vm_munmap(m.addr + PMD_SIZE, 2 * PMD_SIZE), 0);
	gmem_kunit_expect_invalidated(test, kvm, seq, GFN + 2 * N, GFN + 3 * N);
}

static struct kunit_case gmem_mmap_cases[] = {
	KUNIT_CASE_PARAM(hole_under_mapping, hole_gen_params),
	KUNIT_CASE_PARAM(hole_keeps_guard_region, hole_gen_params),
	KUNIT_CASE_PARAM(hole_under_pinned_mapping, hole_gen_params),
	KUNIT_CASE(mprotect_in_hugepage),
	KUNIT_CASE(munmap_in_hugepage),
	KUNIT_CASE(fork_of_hugepage),
	KUNIT_CASE(address_is_aligned),
	KUNIT_CASE(flag_off),
	KUNIT_CASE(write_fault_populates),
	KUNIT_CASE(write_into_hole),
	KUNIT_CASE(beyond_end_of_file),
	KUNIT_CASE(collapse_refused),
	KUNIT_CASE(no_hugepages_wanted),
	KUNIT_CASE(host_unmaps),
	{}
};

static struct kunit_suite gmem_mmap_suite = {
	.name = "kvm_gmem_mmap",
	.init = gmem_kunit_init_huge,
	.test_cases = gmem_mmap_cases,
};

kunit_test_suite(gmem_mmap_suite);
