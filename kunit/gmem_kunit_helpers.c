// SPDX-License-Identifier: GPL-2.0
/*
 * Helpers shared by the KUnit suites for guest_memfd.
 *
 * KUnit runs tests in kernel threads, where fput() leaves the last reference to a
 * worker.  Therefore closing a file drops that reference itself.  Otherwise, a test
 * could count memory that the previous test has not freed yet, and the worker would
 * close the file instead of the thread that a test means to do so.
 */
#include <kunit/resource.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/bitmap.h>
#include <linux/falloc.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/huge_mm.h>
#include <linux/kthread.h>
#include <linux/kvm_host.h>
#include <linux/migrate.h>
#include <linux/mman.h>
#include <linux/mmzone.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/string.h>
#include <linux/swap.h>
#include <linux/uaccess.h>
#include <linux/vmstat.h>

#include "../kvm_mm.h"
#include "gmem_kunit_helpers.h"

/**
 * gmem_kunit_init() - init() for suites that need KVM
 * @test: the test case
 *
 * Skips the case if KVM did not initialize at boot.
 *
 * Return: 0.
 */
int gmem_kunit_init(struct kunit *test)
{
	if (!kvm_gmem_mnt)
		kunit_skip(test, "KVM did not initialize, does the CPU support virtualization?");

	return 0;
}

/**
 * gmem_kunit_init_huge() - init() for suites that need hugepages
 * @test: the test case
 *
 * Skips the case if guest_memfd does not support hugepages.
 *
 * Return: 0.
 */
int gmem_kunit_init_huge(struct kunit *test)
{
	gmem_kunit_init(test);

	if (!gmem_kunit_check_extension(NULL, KVM_CAP_GUEST_MEMFD_HUGEPAGE_PMD_SIZE))
		kunit_skip(test, "no guest_memfd hugepages with PMD_ORDER %d", PMD_ORDER);

	return 0;
}

/**
 * gmem_kunit_close_fd() - close a file descriptor that nobody else uses
 * @fd: the descriptor
 *
 * When this function returns, the file has been released.
 */
void gmem_kunit_close_fd(int fd)
{
	struct file *file = fget(fd);

	close_fd(fd);
	__fput_sync(file);
}

static void close_vm(void *data)
{
	struct gmem_kunit_vm *vm = data;

	gmem_kunit_close_fd(vm->fd);
}

/**
 * gmem_kunit_vm() - create a VM
 * @test: the test case; its end closes the VM
 * @type: as for KVM_CREATE_VM
 *
 * Skips the case if KVM does not support @type.  Asserts that there is no other
 * error.
 *
 * Return: the VM.
 */
struct gmem_kunit_vm *gmem_kunit_vm(struct kunit *test, unsigned long type)
{
	struct gmem_kunit_vm *vm = kunit_kzalloc(test, sizeof(*vm), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, vm);
	vm->args = kunit_vm_mmap(test, NULL, 0, PAGE_SIZE, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, 0);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, (void *)vm->args);
	/* Allocate the page now, as tests count what they allocate. */
	KUNIT_ASSERT_EQ(test, put_user(0, (u8 __user *)vm->args), 0);

	vm->fd = kvm_dev_ioctl(NULL, KVM_CREATE_VM, type);
	if (type && vm->fd == -EINVAL)
		kunit_skip(test, "KVM does not support VMs of type %lu", type);
	KUNIT_ASSERT_GE(test, vm->fd, 0);

	/* The descriptor holds a reference to the file, which is enough. */
	vm->file = fget(vm->fd);
	fput(vm->file);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, close_vm, vm), 0);
	vm->kvm = vm->file->private_data;

	return vm;
}

/**
 * gmem_kunit_close_vm() - close a VM before the end of the case
 * @test: the test case
 * @vm: the VM, which exists as long as a file belongs to it
 */
void gmem_kunit_close_vm(struct kunit *test, struct gmem_kunit_vm *vm)
{
	kunit_release_action(test, close_vm, vm);
}

/**
 * gmem_kunit_ioctl() - call an ioctl as userspace does
 * @vm: the VM
 * @file: the file of the VM, of a vCPU, or of guest_memfd
 * @cmd: the ioctl
 * @args: its argument in kernel memory, or NULL if it has none
 *
 * Other threads than that of the test case can call this, too.
 *
 * Return: the result of the ioctl.
 */
long gmem_kunit_ioctl(struct gmem_kunit_vm *vm, struct file *file, unsigned int cmd,
		      void *args)
{
	struct mm_struct *mm = current->mm ? NULL : vm->kvm->mm;
	const size_t size = _IOC_SIZE(cmd);
	void __user *uargs;
	int slot;
	long r;

	for (slot = 0; test_and_set_bit(slot, vm->used); slot++) {
		if (slot == GMEM_NR_ARGS - 1)
			return -EBUSY;
	}
	uargs = (void __user *)(vm->args + slot * GMEM_ARGS_SIZE);

	/* KVM rejects other processes than the one that has created the VM. */
	if (mm) {
		if (!mmget_not_zero(mm)) {
			clear_bit_unlock(slot, vm->used);
			return -ESRCH;
		}
		kthread_use_mm(mm);
	}

	r = copy_to_user(uargs, args, size) ? -EFAULT :
	    file->f_op->unlocked_ioctl(file, cmd, size ? (unsigned long)uargs : 0);
	if ((_IOC_DIR(cmd) & _IOC_READ) && copy_from_user(args, uargs, size))
		r = -EFAULT;

	if (mm) {
		kthread_unuse_mm(mm);
		mmput(mm);
	}
	clear_bit_unlock(slot, vm->used);
	return r;
}

/**
 * gmem_kunit_check_extension() - ask for a capability
 * @vm: the VM, or NULL to ask KVM
 * @cap: the capability
 *
 * Return: as KVM_CHECK_EXTENSION.
 */
int gmem_kunit_check_extension(struct gmem_kunit_vm *vm, long cap)
{
	if (!vm)
		return kvm_dev_ioctl(NULL, KVM_CHECK_EXTENSION, cap);

	return vm->file->f_op->unlocked_ioctl(vm->file, KVM_CHECK_EXTENSION, cap);
}

/**
 * gmem_kunit_create() - call KVM_CREATE_GUEST_MEMFD
 * @vm: the VM to which the file belongs
 * @size: size of the file in bytes
 * @flags: its flags
 *
 * Return: a file descriptor, which nobody closes at the end of the case, or an error.
 */
int gmem_kunit_create(struct gmem_kunit_vm *vm, u64 size, u64 flags)
{
	struct kvm_create_guest_memfd args = { .size = size, .flags = flags };

	return gmem_kunit_ioctl(vm, vm->file, KVM_CREATE_GUEST_MEMFD, &args);
}

static void close_file(void *data)
{
	struct gmem_kunit_file *f = data;

	gmem_kunit_close_fd(f->fd);
}

/**
 * gmem_kunit_open() - create a guest_memfd file
 * @test: the test case; its end closes the file
 * @vm: the VM to which the file belongs
 * @npages: size of the file in pages
 * @flags: as for KVM_CREATE_GUEST_MEMFD
 *
 * Skips the case if the file needs hugepages, but guest_memfd does not support them.
 * Asserts that there is no other error.
 *
 * Return: the file.
 */
struct gmem_kunit_file *gmem_kunit_open(struct kunit *test, struct gmem_kunit_vm *vm,
					unsigned long npages, u64 flags)
{
	struct gmem_kunit_file *f;

	if (flags & GUEST_MEMFD_FLAG_ALLOW_HUGEPAGE)
		gmem_kunit_init_huge(test);

	f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, f);

	f->vm = vm;
	f->kvm = vm->kvm;
	f->fd = gmem_kunit_create(vm, (u64)npages << PAGE_SHIFT, flags);
	KUNIT_ASSERT_GE(test, f->fd, 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, close_file, f), 0);

	/* The descriptor holds a reference to the file, which is enough. */
	f->file = fget(f->fd);
	KUNIT_ASSERT_NOT_NULL(test, f->file);
	fput(f->file);
	f->inode = file_inode(f->file);

	return f;
}

/**
 * gmem_kunit_close() - close a file before the end of the test case
 * @test: the test case
 * @f: the file
 *
 * When this function returns, all memory of the file has been freed.
 */
void gmem_kunit_close(struct kunit *test, struct gmem_kunit_file *f)
{
	kunit_release_action(test, close_file, f);
}

static int set_memory_region(struct gmem_kunit_vm *vm,
			     struct kvm_userspace_memory_region2 *mem)
{
	return gmem_kunit_ioctl(vm, vm->file, KVM_SET_USER_MEMORY_REGION2, mem);
}

/**
 * gmem_kunit_bind() - bind a range of a file to a new memslot
 * @f: the file
 * @id: id of the memslot
 * @base_gfn: guest frame to which @pgoff is bound
 * @pgoff: first page of the range
 * @npages: number of pages
 *
 * Return: 0 or the error from KVM_SET_USER_MEMORY_REGION2.
 */
int gmem_kunit_bind(struct gmem_kunit_file *f, int id, gfn_t base_gfn,
		    pgoff_t pgoff, unsigned long npages)
{
	struct kvm_userspace_memory_region2 mem = {
		.slot = id,
		.flags = KVM_MEM_GUEST_MEMFD,
		.guest_phys_addr = gfn_to_gpa(base_gfn),
		.memory_size = (u64)npages << PAGE_SHIFT,
		.userspace_addr = f->addr ? f->addr + (pgoff << PAGE_SHIFT) : 0,
		.guest_memfd = f->fd,
		.guest_memfd_offset = (u64)pgoff << PAGE_SHIFT,
	};

	return set_memory_region(f->vm, &mem);
}

/**
 * gmem_kunit_add_memory() - create a memslot that isn't bound to a file
 * @vm: the VM
 * @id: id of the memslot
 * @base_gfn: guest frame to which @addr is mapped
 * @addr: host address of the memory
 * @npages: number of pages
 *
 * Return: 0 or the error from KVM_SET_USER_MEMORY_REGION2.
 */
int gmem_kunit_add_memory(struct gmem_kunit_vm *vm, int id, gfn_t base_gfn,
			  unsigned long addr, unsigned long npages)
{
	struct kvm_userspace_memory_region2 mem = {
		.slot = id,
		.guest_phys_addr = gfn_to_gpa(base_gfn),
		.memory_size = (u64)npages << PAGE_SHIFT,
		.userspace_addr = addr,
	};

	return set_memory_region(vm, &mem);
}

/**
 * gmem_kunit_open_bound() - create a file and bind it to slot 0 of a new VM
 * @test: the test case; its end releases the file and the VM
 * @npages: size of the file in pages
 * @flags: as for KVM_CREATE_GUEST_MEMFD
 *
 * Return: the file, whose first page is bound to guest frame GMEM_GFN.
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
 * gmem_kunit_open_poisoned() - create a bound file whose hugepages contain old data
 * @test: the test case; its end releases the file and the VM
 * @npages: size of the file in pages
 * @flags: as for KVM_CREATE_GUEST_MEMFD
 *
 * See gmem_kunit_poison_hugepages() and gmem_kunit_open_bound().
 *
 * Return: the file, whose first page is bound to guest frame GMEM_GFN.
 */
struct gmem_kunit_file *gmem_kunit_open_poisoned(struct kunit *test,
						 unsigned long npages, u64 flags)
{
	gmem_kunit_poison_hugepages(test);
	return gmem_kunit_open_bound(test, npages, flags);
}

/**
 * gmem_kunit_map() - map a whole file into userspace
 * @test: the test case; its end removes the mapping
 * @f: the file
 * @offset: distance of the mapping from a hugepage boundary, in bytes
 *
 * On a fault, core MM can map the whole large folio, but only if the mapping has
 * the alignment of the folio, that is, if @offset is 0.
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
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, (void *)area);

	addr = ALIGN(area, PMD_SIZE) + offset;
	KUNIT_ASSERT_EQ(test, kunit_vm_mmap(test, f->file, addr, len, PROT_READ | PROT_WRITE,
					    MAP_SHARED | MAP_FIXED, 0), addr);
	return addr;
}

/**
 * gmem_kunit_unbind() - delete a memslot
 * @vm: the VM
 * @id: id of the memslot
 *
 * Return: 0 or the error from KVM_SET_USER_MEMORY_REGION2.
 */
int gmem_kunit_unbind(struct gmem_kunit_vm *vm, int id)
{
	struct kvm_userspace_memory_region2 mem = { .slot = id };

	return set_memory_region(vm, &mem);
}

/**
 * gmem_kunit_slot() - look up a memslot that must exist
 * @test: the test case
 * @kvm: the VM
 * @id: id of the memslot
 *
 * Return: the memslot, which is valid until the test deletes it.
 */
struct kvm_memory_slot *gmem_kunit_slot(struct kunit *test, struct kvm *kvm, int id)
{
	struct kvm_memory_slot *slot;

	mutex_lock(&kvm->slots_lock);
	slot = id_to_memslot(kvm_memslots(kvm), id);
	mutex_unlock(&kvm->slots_lock);
	KUNIT_ASSERT_NOT_NULL_MSG(test, slot, "there is no memslot %d", id);

	return slot;
}

/**
 * gmem_kunit_get_pfn() - look up a page as the architectures do on a guest fault
 * @kvm: the VM
 * @id: id of the memslot
 * @gfn: guest frame that is accessed
 * @fault: where to store the result
 * @page: where to store the page, of which the caller must drop the reference
 *
 * Return: 0 or the error from kvm_gmem_get_pfn().
 */
int gmem_kunit_get_pfn(struct kvm *kvm, int id, gfn_t gfn,
		       struct gmem_kunit_fault *fault, struct page **page)
{
	struct kvm_memory_slot *slot;
	int r, idx;

	idx = srcu_read_lock(&kvm->srcu);
	slot = id_to_memslot(kvm_memslots(kvm), id);
	r = slot ? kvm_gmem_get_pfn(kvm, slot, gfn, &fault->pfn, page,
				    &fault->order) : -ENOENT;
	srcu_read_unlock(&kvm->srcu, idx);

	return r;
}

/**
 * gmem_kunit_fault() - do the same without keeping the reference to the page
 * @kvm: the VM
 * @id: id of the memslot
 * @gfn: guest frame that is accessed
 * @fault: where to store the result
 *
 * Return: 0 or the error from kvm_gmem_get_pfn().
 */
int gmem_kunit_fault(struct kvm *kvm, int id, gfn_t gfn,
		     struct gmem_kunit_fault *fault)
{
	struct page *page;
	int r;

	r = gmem_kunit_get_pfn(kvm, id, gfn, fault, &page);
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
 * gmem_kunit_allocate() - allocate a range with fallocate()
 * @f: the file
 * @index: first page
 * @npages: number of pages
 *
 * Return: 0 or the error from fallocate().
 */
int gmem_kunit_allocate(struct gmem_kunit_file *f, pgoff_t index,
			unsigned long npages)
{
	return gmem_fallocate(f, 0, index, npages);
}

/**
 * gmem_kunit_punch() - punch a hole with fallocate()
 * @f: the file
 * @index: first page
 * @npages: number of pages
 *
 * Return: 0 or the error from fallocate().
 */
int gmem_kunit_punch(struct gmem_kunit_file *f, pgoff_t index,
		     unsigned long npages)
{
	return gmem_fallocate(f, FALLOC_FL_PUNCH_HOLE, index, npages);
}

/**
 * gmem_kunit_in_hole() - test whether a page lies in a hole
 * @hole: the hole
 * @index: page of the file
 *
 * Return: true if it does.
 */
bool gmem_kunit_in_hole(const struct gmem_kunit_hole *hole, pgoff_t index)
{
	return index >= hole->start && index < hole->start + hole->npages;
}

/**
 * gmem_kunit_alloc_target() - allocate the memory to which a folio moves
 * @src: the folio
 * @private: unused
 *
 * Return: a folio of the same size, or NULL.
 */
struct folio *gmem_kunit_alloc_target(struct folio *src, unsigned long private)
{
	return folio_alloc(GFP_HIGHUSER_MOVABLE | __GFP_NORETRY | __GFP_NOWARN,
			   folio_order(src));
}

/**
 * gmem_kunit_isolate() - isolate the folios of a range as everybody does who moves them
 * @mapping: page cache of the file, which must not go away in the meantime
 * @index: first page
 * @npages: number of pages
 * @isolated: list to which to add the folios, which do not keep the file from going away
 *
 * migrate_pages() is not exported, so nothing is isolated if the suites are a module.
 *
 * Return: the number of folios added to the list, without those that somebody else has isolated.
 */
unsigned long gmem_kunit_isolate(struct address_space *mapping, pgoff_t index,
				 unsigned long npages, struct list_head *isolated)
{
	unsigned long nr = 0;
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST) && IS_ENABLED(CONFIG_MIGRATION)
	const pgoff_t end = index + npages;

	/* The LRU cache of a CPU has a reference. */
	lru_add_drain_all();
	while (index < end) {
		struct folio *folio = filemap_get_folio(mapping, index);

		index++;
		if (IS_ERR(folio))
			continue;
		index = folio_next_index(folio);
		nr += isolate_folio_to_list(folio, isolated);
		folio_put(folio);
	}
#endif
	return nr;
}

/**
 * gmem_kunit_move() - move isolated folios to other memory if possible
 * @isolated: the folios from gmem_kunit_isolate()
 * @alloc: the function that allocates that memory, or NULL to put the folios back
 * @private: the argument of @alloc
 *
 * Return: 0, the number of folios that have not moved and were put back, or an error.
 */
int gmem_kunit_move(struct list_head *isolated, new_folio_t alloc, unsigned long private)
{
	int r = -EBUSY;
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST) && IS_ENABLED(CONFIG_MIGRATION)
	if (alloc)
		r = migrate_pages(isolated, alloc, NULL, private, MIGRATE_SYNC, MR_SYSCALL, NULL);
	putback_movable_pages(isolated);
	lru_add_drain_all();
#endif
	return r;
}

/**
 * gmem_kunit_migrate() - try to move a folio to other memory
 * @f: the file
 * @index: a page of the folio
 * @alloc: the function that allocates that memory, e.g. gmem_kunit_alloc_target()
 *
 * Return: 0, the number of folios that have not moved, or -EBUSY if somebody else has
 * isolated the folio or if there is none.
 */
int gmem_kunit_migrate(struct gmem_kunit_file *f, pgoff_t index, new_folio_t alloc)
{
	LIST_HEAD(isolated);

	if (!gmem_kunit_isolate(f->inode->i_mapping, index, 1, &isolated))
		return -EBUSY;

	return gmem_kunit_move(&isolated, alloc, 0);
}

/**
 * gmem_kunit_collapse() - collapse a range with KVM_GUEST_MEMFD_COLLAPSE
 * @f: the file
 * @index: first page
 * @npages: number of pages
 *
 * Return: 0 if all of the range has been processed, or the error that prevents it.
 */
int gmem_kunit_collapse(struct gmem_kunit_file *f, pgoff_t index,
			unsigned long npages)
{
#ifdef KVM_GUEST_MEMFD_COLLAPSE
	struct kvm_guest_memfd_collapse args = {
		.offset = (u64)index << PAGE_SHIFT,
		.size = (u64)npages << PAGE_SHIFT,
	};
	int r;

	do {
		r = gmem_kunit_ioctl(f->vm, f->file, KVM_GUEST_MEMFD_COLLAPSE, &args);
	} while (!r && args.size);

	return r;
#else
	return -ENOTTY;
#endif
}

/**
 * gmem_kunit_needs_split() - skip a test that uses gmem_kunit_split() if that can't work
 * @test: the test case
 */
void gmem_kunit_needs_split(struct kunit *test)
{
	if (!IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST))
		kunit_skip(test, "split_folio_to_order() is not exported");
	if (!IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE))
		kunit_skip(test, "the kernel has no THP");
}

/**
 * gmem_kunit_split() - split a hugepage as core MM does, e.g. for MADV_COLD
 * @test: the test case
 * @f: the file
 * @index: page of the file
 * @order: order of the folios that result
 */
void gmem_kunit_split(struct kunit *test, struct gmem_kunit_file *f, pgoff_t index,
		      unsigned int order)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST) && defined(CONFIG_TRANSPARENT_HUGEPAGE)
	struct folio *folio = filemap_lock_folio(f->inode->i_mapping, index);
	int r;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, folio);
	r = split_folio_to_order(folio, order);
	gmem_kunit_put_folio(folio);
	KUNIT_ASSERT_EQ(test, r, 0);
#endif
}

/**
 * gmem_kunit_get_huge_folio() - call kvm_gmem_get_huge_folio() with the lock it needs
 * @f: the file
 * @index: page of the file
 *
 * Return: the result of kvm_gmem_get_huge_folio().
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
 * gmem_kunit_put_folio() - unlock a folio and drop the caller's reference
 * @folio: the folio
 */
void gmem_kunit_put_folio(struct folio *folio)
{
	folio_unlock(folio);
	folio_put(folio);
}

/**
 * gmem_kunit_peek() - look up a folio in the page cache without taking a reference
 * @f: the file, which nobody else may use at the same time
 * @index: page of the file
 *
 * Tests for which the folio must exist use gmem_kunit_folio() instead.
 *
 * Return: the folio, or NULL if there is none.
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
 * gmem_kunit_folio() - look up a folio that must exist
 * @test: the test case
 * @f: the file, which nobody else may use at the same time
 * @index: page of the file
 *
 * Return: the folio, without a reference.
 */
struct folio *gmem_kunit_folio(struct kunit *test, struct gmem_kunit_file *f,
			       pgoff_t index)
{
	struct folio *folio = gmem_kunit_peek(f, index);

	KUNIT_ASSERT_NOT_NULL_MSG(test, folio, "page %lu has no folio", index);
	return folio;
}

/**
 * gmem_kunit_order() - get the order of a folio that must exist
 * @test: the test case
 * @f: the file, which nobody else may use at the same time
 * @index: page of the file
 *
 * Return: the order.
 */
unsigned int gmem_kunit_order(struct kunit *test, struct gmem_kunit_file *f,
			      pgoff_t index)
{
	return folio_order(gmem_kunit_folio(test, f, index));
}

KUNIT_DEFINE_ACTION_WRAPPER(drop_pin, folio_put, struct folio *);

/**
 * gmem_kunit_pin() - take an extra reference to a folio that must exist
 * @test: the test case; its end drops the reference
 * @f: the file
 * @index: page of the file
 *
 * Return: the folio.
 */
struct folio *gmem_kunit_pin(struct kunit *test, struct gmem_kunit_file *f,
			     pgoff_t index)
{
	struct folio *folio = filemap_get_folio(f->inode->i_mapping, index);

	KUNIT_ASSERT_NOT_ERR_OR_NULL_MSG(test, folio, "page %lu", index);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, drop_pin, folio), 0);
	return folio;
}

/**
 * gmem_kunit_unpin() - drop the reference before the end of the case
 * @test: the test case
 * @folio: the folio from gmem_kunit_pin()
 */
void gmem_kunit_unpin(struct kunit *test, struct folio *folio)
{
	kunit_release_action(test, drop_pin, folio);
}

/**
 * gmem_kunit_nr_pages() - count the allocated pages of a file
 * @f: the file
 *
 * Return: the number of pages in the page cache.
 */
unsigned long gmem_kunit_nr_pages(struct gmem_kunit_file *f)
{
	return f->inode->i_mapping->nrpages;
}

static unsigned long nr_free(struct zone *zone)
{
	unsigned long nr = zone_page_state_snapshot(zone, NR_FREE_PAGES);
	int cpu;

	for_each_online_cpu(cpu)
		nr += per_cpu_ptr(zone->per_cpu_pageset, cpu)->count;
	return nr;
}

/**
 * gmem_kunit_nr_free() - count the free pages of the machine
 *
 * Everybody else allocates and frees memory, too, so compare with a tolerance.  The
 * pages of slab caches count as free: they never are guest memory, and KASAN keeps
 * objects that have been freed.
 *
 * Return: the number of free pages, including those on the lists of the CPUs.
 */
unsigned long gmem_kunit_nr_free(void)
{
	unsigned long nr = global_node_page_state_pages(NR_SLAB_RECLAIMABLE_B) +
			   global_node_page_state_pages(NR_SLAB_UNRECLAIMABLE_B);
	int nid, i;

	for_each_online_node(nid) {
		for (i = 0; i < MAX_NR_ZONES; i++) {
			struct zone *zone = &NODE_DATA(nid)->node_zones[i];

			if (populated_zone(zone))
				nr += nr_free(zone);
		}
	}
	return nr;
}

/**
 * gmem_kunit_extra_refs() - count the extra references to a folio
 * @f: the file
 * @index: page of the file
 *
 * Use this for hugepages, and for the pages that result from splitting one.  The
 * LRU can hold a temporary reference to other single pages.
 *
 * Return: the number of references that belong neither to the page cache nor to a
 * mapping; 0 if there is no folio.
 */
int gmem_kunit_extra_refs(struct gmem_kunit_file *f, pgoff_t index)
{
	struct folio *folio = gmem_kunit_peek(f, index);

	if (!folio)
		return 0;

	return folio_ref_count(folio) - folio_nr_pages(folio) - folio_mapcount(folio);
}

static struct folio *alloc_fails(struct inode *inode, pgoff_t index, gfp_t gfp)
{
	return NULL;
}

/**
 * gmem_kunit_no_hugepages() - make the allocation of hugepages fail
 * @test: the test case
 *
 * Affects this thread until the case ends or deactivates the stub.
 */
void gmem_kunit_no_hugepages(struct kunit *test)
{
	kunit_activate_static_stub(test, kvm_gmem_alloc_huge_folio, alloc_fails);
}

static struct folio *alloc_poisoned(struct inode *inode, pgoff_t index, gfp_t gfp)
{
	struct folio *folio = folio_alloc(mapping_gfp_mask(inode->i_mapping), PMD_ORDER);

	if (folio)
		gmem_kunit_fill(folio_pfn(folio), folio_nr_pages(folio), GMEM_POISON);

	return folio;
}

/**
 * gmem_kunit_poison_hugepages() - make new hugepages contain old data
 * @test: the test case
 *
 * Until the case ends, each hugepage that this thread allocates contains
 * GMEM_POISON, as if the memory had belonged to another owner before.
 */
void gmem_kunit_poison_hugepages(struct kunit *test)
{
	kunit_activate_static_stub(test, kvm_gmem_alloc_huge_folio, alloc_poisoned);
}

/**
 * gmem_kunit_unpoison() - make a page good again that memory_failure() has handled
 * @page: the page, which nobody uses any more
 */
void gmem_kunit_unpoison(struct page *page)
{
#ifdef CONFIG_MEMORY_FAILURE
	bool kept_out = PageHWPoison(page) && !page_count(page);

	/*
	 * Nobody else frees a page that the page allocator has set aside.  Only a
	 * hugepage that is freed as a whole leaves unpoison_memory() a reference.
	 */
	if (!unpoison_memory(page_to_pfn(page)) && kept_out) {
		init_page_count(page);
		__free_page(page);
	}
#endif
}

/**
 * gmem_kunit_must_retry() - check whether a fault that wants to map a page has to start anew
 * @kvm: the VM
 * @seq: the sequence number when the fault began
 * @gfn: guest frame that the fault wants to map
 *
 * Return: true if so.
 */
bool gmem_kunit_must_retry(struct kvm *kvm, unsigned long seq, gfn_t gfn)
{
	bool retry;

	KVM_MMU_LOCK(kvm);
	retry = mmu_invalidate_retry_gfn(kvm, seq, gfn);
	KVM_MMU_UNLOCK(kvm);

	return retry;
}

/**
 * gmem_kunit_begin_invalidation() - begin to invalidate guest memory
 * @kvm: the VM
 * @start: the first guest frame of the range
 * @end: the guest frame behind the range
 *
 * Does nothing if the suites are a module, because KVM does not export this.
 */
void gmem_kunit_begin_invalidation(struct kvm *kvm, gfn_t start, gfn_t end)
{
	if (IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)) {
		KVM_MMU_LOCK(kvm);
		kvm_mmu_invalidate_start(kvm);
		kvm_mmu_invalidate_range_add(kvm, start, end);
		KVM_MMU_UNLOCK(kvm);
	}
}

/**
 * gmem_kunit_end_invalidation() - end what gmem_kunit_begin_invalidation() has begun
 * @kvm: the VM
 */
void gmem_kunit_end_invalidation(struct kvm *kvm)
{
	if (IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)) {
		KVM_MMU_LOCK(kvm);
		kvm_mmu_invalidate_end(kvm);
		KVM_MMU_UNLOCK(kvm);
	}
}

/**
 * gmem_kunit_watch_invalidations() - start to watch what is invalidated
 * @kvm: the VM
 * @start: the first guest frame of the range that will be invalidated
 *
 * KVM knows which range is being invalidated only until that ends.  So begin another
 * invalidation, of no page: KVM forgets none of the ranges before all invalidations end.
 *
 * If the suites are a module, they can't begin it, and only learn that there was one.
 *
 * Return: the sequence number for gmem_kunit_expect_invalidated(), which must follow.
 */
unsigned long gmem_kunit_watch_invalidations(struct kvm *kvm, gfn_t start)
{
	unsigned long seq = kvm->mmu_invalidate_seq;

	gmem_kunit_begin_invalidation(kvm, start, start);
	return seq;
}

/**
 * gmem_kunit_expect_invalidated() - check what was invalidated, and that it is over
 * @test: the test case
 * @kvm: the VM
 * @seq: what gmem_kunit_watch_invalidations() returned
 * @start: the first guest frame of the range, not 0
 * @end: the guest frame behind the range
 *
 * Expects faults in the range that began before to retry, and those next to it to go on.
 */
void gmem_kunit_expect_invalidated(struct kunit *test, struct kvm *kvm, unsigned long seq,
				   gfn_t start, gfn_t end)
{
	unsigned long now = kvm->mmu_invalidate_seq, wrong = 0;
	gfn_t gfn;

	/* The fault before the range retries only because an invalidation has ended. */
	KUNIT_EXPECT_TRUE(test, gmem_kunit_must_retry(kvm, seq, start - 1));

	if (IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)) {
		for (gfn = start - 1; gfn <= end; gfn++)
			wrong += gmem_kunit_must_retry(kvm, now, gfn) !=
				 (gfn >= start && gfn < end);
		gmem_kunit_end_invalidation(kvm);
		KUNIT_EXPECT_EQ(test, wrong, 0);
	}

	/* A fault that begins now maps the page. */
	KUNIT_EXPECT_FALSE(test, gmem_kunit_must_retry(kvm, kvm->mmu_invalidate_seq, start));
}

/**
 * gmem_kunit_is_awaited() - check whether a thread waits for a lock
 * @lock: the lock, which is held
 *
 * Return: true if so.
 */
bool gmem_kunit_is_awaited(struct rw_semaphore *lock)
{
#ifdef CONFIG_PREEMPT_RT
	/* A lock that is held for write always counts as contended. */
	if (rw_base_is_write_locked(&lock->rwbase))
		return !RB_EMPTY_ROOT(&lock->rwbase.rtmutex.waiters.rb_root);
#endif
	return rwsem_is_contended(lock);
}

static void end_thread(void *task)
{
	kthread_stop_put(task);
}

/**
 * gmem_kunit_thread() - create a thread without waking it
 * @test: the test case; its end stops the thread and waits for it
 * @fn: the function that the thread runs
 * @data: the argument of @fn
 *
 * Return: the thread, to which the test case holds a reference.
 */
struct task_struct *gmem_kunit_thread(struct kunit *test, int (*fn)(void *), void *data)
{
	struct task_struct *task = kthread_create(fn, data, "gmem_kunit");

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
	get_task_struct(task);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, end_thread, task), 0);
	return task;
}

/**
 * gmem_kunit_stop_thread() - stop a thread before the end of the case
 * @test: the test case
 * @task: the thread from gmem_kunit_thread()
 *
 * Waits until the thread has ended.
 */
void gmem_kunit_stop_thread(struct kunit *test, struct task_struct *task)
{
	kunit_release_action(test, end_thread, task);
}

/* The number of bytes that gmem_kunit_fill() writes at each end of a page. */
#define FILL	64

/* The number of patterns: a prime, so that neighbouring hugepages differ as well. */
#define PATTERNS	251

/**
 * gmem_kunit_fill() - write to guest memory
 * @pfn: the first page
 * @npages: number of pages
 * @byte: the value to write, not zero
 *
 * Writes only to both ends of each page, because filling whole hugepages is slow
 * on emulated CPUs.  That is enough to distinguish pages and to detect zeroing.
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
 * gmem_kunit_pattern() - get the value that identifies a page
 * @index: page of the file
 *
 * Return: a byte that is not zero and differs between neighbours.
 */
u8 gmem_kunit_pattern(pgoff_t index)
{
	return 1 + index % PATTERNS;
}

static bool page_contains(const void *p, u8 byte)
{
	if (!byte)
		return !memchr_inv(p, 0, PAGE_SIZE);

	return !memchr_inv(p, byte, FILL) &&
	       !memchr_inv(p + PAGE_SIZE - FILL, byte, FILL);
}

/**
 * gmem_kunit_count_not() - count the pages with unexpected contents
 * @pfn: the first page
 * @npages: number of pages
 * @byte: the value that gmem_kunit_fill() wrote, or 0 if the whole page must be zero
 *
 * Return: the number of pages that contain something else.
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
