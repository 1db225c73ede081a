// SPDX-License-Identifier: GPL-2.0
/*
 * What the KUnit suites of guest_memfd share.
 *
 * fput() from a kernel thread, i.e. from every KUnit test, is delayed. Closing a
 * file hence always flushes the delayed work, otherwise a test would measure
 * memory that the previous one is about to free.
 */
#include <kunit/resource.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/falloc.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/kthread.h>
#include <linux/kvm_host.h>
#include <linux/mman.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/string.h>

#include "gmem_kunit_helpers.h"

/**
 * gmem_kunit_init() - init() of suites that need KVM
 * @test: the test case
 *
 * Return: 0; the case is skipped if KVM has not been initialised at boot.
 */
int gmem_kunit_init(struct kunit *test)
{
	if (!kvm_gmem_mnt)
		kunit_skip(test, "KVM is not available, does the CPU support virtualization?");

	return 0;
}

/**
 * gmem_kunit_init_huge() - init() of suites that need hugepages
 * @test: the test case
 *
 * Return: 0; the case is skipped if guest_memfd does not support hugepages.
 */
int gmem_kunit_init_huge(struct kunit *test)
{
	gmem_kunit_init(test);

	if (!kvm_vm_ioctl_check_extension_generic(NULL, KVM_CAP_GUEST_MEMFD_HUGEPAGE_PMD_SIZE))
		kunit_skip(test, "no guest_memfd hugepages with PMD_ORDER %d", PMD_ORDER);

	return 0;
}

KUNIT_DEFINE_ACTION_WRAPPER(put_vm, kvm_put_kvm, struct kvm *);

/**
 * gmem_kunit_vm() - create a VM
 * @test: the test case, at the end of which the VM is put
 * @type: as for KVM_CREATE_VM
 *
 * Return: the VM; the case fails if there is none to be had, and is skipped if KVM
 * knows no such type.
 */
struct kvm *gmem_kunit_vm(struct kunit *test, unsigned long type)
{
	struct kvm *kvm;
	char name[32];
	void *unique;

	KUNIT_ASSERT_EQ(test, kunit_attach_mm(), 0);

	/* The name of a directory in debugfs, no two VMs must have the same. */
	unique = kunit_kmalloc(test, 1, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, unique);
	snprintf(name, sizeof(name), "kunit-%lx", (unsigned long)unique);

	kvm = kvm_create_vm(type, name);
	if (type && kvm == ERR_PTR(-EINVAL))
		kunit_skip(test, "KVM does not support VMs of type %lu here", type);
	KUNIT_ASSERT_FALSE(test, IS_ERR(kvm));
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, put_vm, kvm), 0);

	return kvm;
}

static void close_file(void *data)
{
	struct gmem_kunit_file *f = data;

	close_fd(f->fd);
	flush_delayed_fput();
}

/**
 * gmem_kunit_open() - create a guest_memfd file
 * @test: the test case, at the end of which the file is closed
 * @kvm: the VM to which the file belongs
 * @npages: size of the file in pages
 * @flags: as for KVM_CREATE_GUEST_MEMFD
 *
 * Return: the file; the case fails if there is none to be had.
 */
struct gmem_kunit_file *gmem_kunit_open(struct kunit *test, struct kvm *kvm,
					unsigned long npages, u64 flags)
{
	struct kvm_create_guest_memfd args = {
		.size = (u64)npages << PAGE_SHIFT,
		.flags = flags,
	};
	struct gmem_kunit_file *f;

	f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, f);

	f->kvm = kvm;
	f->fd = kvm_gmem_create(kvm, &args);
	KUNIT_ASSERT_GE(test, f->fd, 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, close_file, f), 0);

	/* The descriptor keeps the file open, no need for another reference. */
	f->file = fget(f->fd);
	KUNIT_ASSERT_NOT_NULL(test, f->file);
	fput(f->file);
	f->inode = file_inode(f->file);

	return f;
}

/**
 * gmem_kunit_close() - close a file before the end of the test case
 * @test: the test case
 * @f: the file, all of which has been released when this returns
 */
void gmem_kunit_close(struct kunit *test, struct gmem_kunit_file *f)
{
	kunit_release_action(test, close_file, f);
}

static int set_memory_region(struct kvm *kvm,
			     const struct kvm_userspace_memory_region2 *mem)
{
	int r;

	mutex_lock(&kvm->slots_lock);
	r = kvm_set_memory_region(kvm, mem);
	mutex_unlock(&kvm->slots_lock);

	return r;
}

/**
 * gmem_kunit_bind() - bind a range of a file to a new memslot
 * @f: the file
 * @id: id of the memslot
 * @base_gfn: guest frame of the first page
 * @pgoff: first page of the file
 * @npages: number of pages
 *
 * Return: 0 or the error of KVM_SET_USER_MEMORY_REGION2.
 */
int gmem_kunit_bind(struct gmem_kunit_file *f, int id, gfn_t base_gfn,
		    pgoff_t pgoff, unsigned long npages)
{
	const struct kvm_userspace_memory_region2 mem = {
		.slot = id,
		.flags = KVM_MEM_GUEST_MEMFD,
		.guest_phys_addr = gfn_to_gpa(base_gfn),
		.memory_size = (u64)npages << PAGE_SHIFT,
		.guest_memfd = f->fd,
		.guest_memfd_offset = (u64)pgoff << PAGE_SHIFT,
	};

	return set_memory_region(f->kvm, &mem);
}

/**
 * gmem_kunit_open_bound() - create a file, and bind all of it to slot 0 of a new VM
 * @test: the test case, at the end of which all of it goes away
 * @npages: size of the file in pages
 * @flags: as for KVM_CREATE_GUEST_MEMFD
 *
 * Return: the file, whose first page is guest frame GMEM_GFN.
 */
struct gmem_kunit_file *gmem_kunit_open_bound(struct kunit *test,
					      unsigned long npages, u64 flags)
{
	struct gmem_kunit_file *f;

	f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), npages, flags);
	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(f, 0, GMEM_GFN, 0, npages), 0);
	return f;
}

/**
 * gmem_kunit_map() - map a file as the host's userspace would
 * @test: the test case, at the end of which the mapping goes away
 * @f: the file
 * @offset: of the mapping from where it would be aligned to the hugepage size, in bytes
 *
 * The core MM maps all of a large folio upon one fault, but only where the mapping
 * is aligned as the folio is, i.e. if @offset is 0.
 *
 * Return: the address of the first page.
 */
unsigned long gmem_kunit_map(struct kunit *test, struct gmem_kunit_file *f,
			     unsigned long offset)
{
	const unsigned long len = i_size_read(f->inode);
	unsigned long area, addr;

	area = kunit_vm_mmap(test, NULL, 0, len + 2 * PMD_SIZE, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS, 0);
	KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE(area));
	KUNIT_ASSERT_NE(test, area, 0);

	addr = ALIGN(area, PMD_SIZE) + offset;
	KUNIT_ASSERT_EQ(test, kunit_vm_mmap(test, f->file, addr, len, PROT_READ | PROT_WRITE,
					    MAP_SHARED | MAP_FIXED, 0), addr);
	return addr;
}

/**
 * gmem_kunit_unbind() - delete a memslot
 * @kvm: the VM
 * @id: id of the memslot
 *
 * Return: 0 or the error of KVM_SET_USER_MEMORY_REGION2.
 */
int gmem_kunit_unbind(struct kvm *kvm, int id)
{
	const struct kvm_userspace_memory_region2 mem = { .slot = id };

	return set_memory_region(kvm, &mem);
}

/**
 * gmem_kunit_slot() - look up a memslot
 * @kvm: the VM
 * @id: id of the memslot
 *
 * Return: the memslot, valid until the test deletes it, or NULL.
 */
struct kvm_memory_slot *gmem_kunit_slot(struct kvm *kvm, int id)
{
	struct kvm_memory_slot *slot;

	mutex_lock(&kvm->slots_lock);
	slot = id_to_memslot(kvm_memslots(kvm), id);
	mutex_unlock(&kvm->slots_lock);

	return slot;
}

/**
 * gmem_kunit_fault() - do what the architectures do upon a guest fault
 * @kvm: the VM
 * @id: id of the memslot
 * @gfn: guest frame that is accessed
 * @fault: where to store the result
 *
 * Return: 0 or the error of kvm_gmem_get_pfn().  No reference is kept.
 */
int gmem_kunit_fault(struct kvm *kvm, int id, gfn_t gfn,
		     struct gmem_kunit_fault *fault)
{
	struct kvm_memory_slot *slot;
	struct page *page;
	int r, idx;

	idx = srcu_read_lock(&kvm->srcu);
	slot = id_to_memslot(kvm_memslots(kvm), id);
	r = slot ? kvm_gmem_get_pfn(kvm, slot, gfn, &fault->pfn, &page,
				    &fault->order) : -ENOENT;
	srcu_read_unlock(&kvm->srcu, idx);

	if (!r)
		put_page(page);

	return r;
}

static int gmem_fallocate(struct gmem_kunit_file *f, int mode, pgoff_t index,
			  unsigned long npages)
{
	return vfs_fallocate(f->file, mode | FALLOC_FL_KEEP_SIZE,
			     (loff_t)index << PAGE_SHIFT,
			     (loff_t)npages << PAGE_SHIFT);
}

/**
 * gmem_kunit_allocate() - fallocate() a range
 * @f: the file
 * @index: first page
 * @npages: number of pages
 *
 * Return: 0 or an error.
 */
int gmem_kunit_allocate(struct gmem_kunit_file *f, pgoff_t index,
			unsigned long npages)
{
	return gmem_fallocate(f, 0, index, npages);
}

/**
 * gmem_kunit_punch() - punch a hole
 * @f: the file
 * @index: first page
 * @npages: number of pages
 *
 * Return: 0 or an error.
 */
int gmem_kunit_punch(struct gmem_kunit_file *f, pgoff_t index,
		     unsigned long npages)
{
	return gmem_fallocate(f, FALLOC_FL_PUNCH_HOLE, index, npages);
}

/**
 * gmem_kunit_get_huge_folio() - call kvm_gmem_get_huge_folio() as its callers do
 * @f: the file
 * @index: page of the file
 *
 * Return: what kvm_gmem_get_huge_folio() returns.
 */
struct folio *gmem_kunit_get_huge_folio(struct gmem_kunit_file *f, pgoff_t index)
{
	struct folio *folio;

	filemap_invalidate_lock_shared(f->inode->i_mapping);
	folio = kvm_gmem_get_huge_folio(f->inode, index);
	filemap_invalidate_unlock_shared(f->inode->i_mapping);

	return folio;
}

/**
 * gmem_kunit_put_folio() - undo the lookup of a folio
 * @folio: a locked folio, on which the caller holds a reference
 */
void gmem_kunit_put_folio(struct folio *folio)
{
	folio_unlock(folio);
	folio_put(folio);
}

/**
 * gmem_kunit_peek() - see which folio the page cache holds
 * @f: the file
 * @index: page of the file
 *
 * Return: the folio, or NULL.  No reference is taken: to be used only while
 * nobody else uses the file.
 */
struct folio *gmem_kunit_peek(struct gmem_kunit_file *f, pgoff_t index)
{
	struct folio *folio = filemap_get_folio(f->inode->i_mapping, index);

	if (IS_ERR(folio))
		return NULL;

	folio_put(folio);
	return folio;
}

/**
 * gmem_kunit_extra_refs() - see whether somebody has kept a folio
 * @f: the file
 * @index: page of the file
 *
 * Meant for hugepages, and for what they were split into: single pages can be on
 * their way to the LRU, which takes a reference for a while.
 *
 * Return: the number of references to the folio that belong neither to the page
 * cache nor to a mapping, 0 if there is no folio.
 */
int gmem_kunit_extra_refs(struct gmem_kunit_file *f, pgoff_t index)
{
	struct folio *folio = gmem_kunit_peek(f, index);

	if (!folio)
		return 0;

	return folio_ref_count(folio) - folio_nr_pages(folio) - folio_mapcount(folio);
}

static struct folio *alloc_fails(struct inode *inode, pgoff_t index)
{
	return NULL;
}

/**
 * gmem_kunit_no_hugepages() - let the allocation of hugepages fail
 * @test: the test case
 *
 * For this thread, until the end of the case or until the stub is deactivated.
 */
void gmem_kunit_no_hugepages(struct kunit *test)
{
	kunit_activate_static_stub(test, kvm_gmem_alloc_huge_folio, alloc_fails);
}

static struct folio *alloc_poisoned(struct inode *inode, pgoff_t index)
{
	struct folio *folio = folio_alloc(GFP_HIGHUSER, PMD_ORDER);

	if (folio)
		gmem_kunit_fill(folio_pfn(folio), folio_nr_pages(folio), GMEM_POISON);

	return folio;
}

/**
 * gmem_kunit_poison_hugepages() - let new hugepages contain old data
 * @test: the test case
 *
 * Until the end of the case every hugepage that this thread adds to a file is
 * full of GMEM_POISON at first, as if it had belonged to somebody else before.
 */
void gmem_kunit_poison_hugepages(struct kunit *test)
{
	kunit_activate_static_stub(test, kvm_gmem_alloc_huge_folio, alloc_poisoned);
}

static void end_thread(void *task)
{
	kthread_stop_put(task);
}

/**
 * gmem_kunit_thread() - create a thread, which is not woken yet
 * @test: the test case, at the end of which the thread is stopped and waited for
 * @fn: what it does
 * @data: argument of @fn
 *
 * Return: the thread, of which the test case holds a reference.
 */
struct task_struct *gmem_kunit_thread(struct kunit *test, int (*fn)(void *), void *data)
{
	struct task_struct *task = kthread_create(fn, data, "gmem_kunit");

	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	get_task_struct(task);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, end_thread, task), 0);
	return task;
}

/**
 * gmem_kunit_stop_thread() - stop a thread before the end of the case, and wait for it
 * @test: the test case
 * @task: what gmem_kunit_thread() has returned
 */
void gmem_kunit_stop_thread(struct kunit *test, struct task_struct *task)
{
	kunit_release_action(test, end_thread, task);
}

/* How much is written at each end of a page, see gmem_kunit_fill(). */
#define FILL	64

/**
 * gmem_kunit_fill() - write to guest memory
 * @pfn: the first page
 * @npages: number of pages
 * @byte: what to write, not zero
 *
 * Writes to both ends of each page: enough to tell pages apart, and to see whether
 * they have been zeroed, while emulated CPUs take their time to fill hugepages.
 */
void gmem_kunit_fill(kvm_pfn_t pfn, unsigned long npages, u8 byte)
{
	unsigned long i;

	for (i = 0; i < npages; i++) {
		void *p = kmap_local_pfn(pfn + i);

		memset(p, byte, FILL);
		memset(p + PAGE_SIZE - FILL, byte, FILL);
		kunmap_local(p);
	}
}

/**
 * gmem_kunit_pattern() - what to write to a page, so that it can be told from others
 * @index: page of the file
 *
 * Return: a byte, not zero; no two neighbours have the same.
 */
u8 gmem_kunit_pattern(pgoff_t index)
{
	return 1 + index % 251;
}

static bool page_contains(const void *p, u8 byte)
{
	if (!byte)
		return !memchr_inv(p, 0, PAGE_SIZE);

	return !memchr_inv(p, byte, FILL) &&
	       !memchr_inv(p + PAGE_SIZE - FILL, byte, FILL);
}

/**
 * gmem_kunit_count_not() - read guest memory
 * @pfn: the first page
 * @npages: number of pages
 * @byte: what gmem_kunit_fill() has written, or 0 if all of the page is to be zero
 *
 * Return: number of pages that contain something else.
 */
unsigned long gmem_kunit_count_not(kvm_pfn_t pfn, unsigned long npages, u8 byte)
{
	unsigned long i, bad = 0;

	for (i = 0; i < npages; i++) {
		void *p = kmap_local_pfn(pfn + i);

		bad += !page_contains(p, byte);
		kunmap_local(p);
	}

	return bad;
}
