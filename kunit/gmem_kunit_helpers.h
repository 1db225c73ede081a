/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the KUnit suites of guest_memfd share: real VMs, files and memslots that
 * go away with the test case, and a way to look at guest memory.
 */
#ifndef __KVM_GMEM_KUNIT_HELPERS_H
#define __KVM_GMEM_KUNIT_HELPERS_H

#include <kunit/test.h>
#include <linux/kvm_host.h>
#include <linux/pagemap.h>

#include "../guest_memfd.h"

/* Pages of a hugepage. */
#define GMEM_NR		BIT(PMD_ORDER)

/* Where gmem_kunit_open_bound() binds a file. */
#define GMEM_GFN	(8 * GMEM_NR)

/* What a bound file needs on every architecture, see KVM_CREATE_GUEST_MEMFD. */
#define GMEM_SHARED	(GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)
#define GMEM_HUGE	(GMEM_SHARED | GUEST_MEMFD_FLAG_ALLOW_HUGEPAGE)

/* What gmem_kunit_poison_hugepages() writes to new hugepages. */
#define GMEM_POISON	0xa5

/* A guest_memfd file; @inode is valid as long as the file is open. */
struct gmem_kunit_file {
	struct kvm *kvm;
	struct file *file;
	struct inode *inode;
	int fd;
};

/* What kvm_gmem_get_pfn() has returned. */
struct gmem_kunit_fault {
	kvm_pfn_t pfn;
	int order;
};

int gmem_kunit_init(struct kunit *test);
int gmem_kunit_init_huge(struct kunit *test);

struct kvm *gmem_kunit_vm(struct kunit *test, unsigned long type);

struct gmem_kunit_file *gmem_kunit_open(struct kunit *test, struct kvm *kvm,
					unsigned long npages, u64 flags);
struct gmem_kunit_file *gmem_kunit_open_bound(struct kunit *test,
					      unsigned long npages, u64 flags);
void gmem_kunit_close(struct kunit *test, struct gmem_kunit_file *f);

int gmem_kunit_bind(struct gmem_kunit_file *f, int id, gfn_t base_gfn,
		    pgoff_t pgoff, unsigned long npages);
int gmem_kunit_unbind(struct kvm *kvm, int id);
unsigned long gmem_kunit_map(struct kunit *test, struct gmem_kunit_file *f,
			     unsigned long offset);
struct kvm_memory_slot *gmem_kunit_slot(struct kvm *kvm, int id);

int gmem_kunit_fault(struct kvm *kvm, int id, gfn_t gfn,
		     struct gmem_kunit_fault *fault);
int gmem_kunit_allocate(struct gmem_kunit_file *f, pgoff_t index,
			unsigned long npages);
int gmem_kunit_punch(struct gmem_kunit_file *f, pgoff_t index,
		     unsigned long npages);

struct folio *gmem_kunit_get_huge_folio(struct gmem_kunit_file *f, pgoff_t index);
void gmem_kunit_put_folio(struct folio *folio);
struct folio *gmem_kunit_peek(struct gmem_kunit_file *f, pgoff_t index);
int gmem_kunit_extra_refs(struct gmem_kunit_file *f, pgoff_t index);

void gmem_kunit_no_hugepages(struct kunit *test);
void gmem_kunit_poison_hugepages(struct kunit *test);
struct task_struct *gmem_kunit_thread(struct kunit *test, int (*fn)(void *), void *data);
void gmem_kunit_stop_thread(struct kunit *test, struct task_struct *task);
void gmem_kunit_fill(kvm_pfn_t pfn, unsigned long npages, u8 byte);
u8 gmem_kunit_pattern(pgoff_t index);
unsigned long gmem_kunit_count_not(kvm_pfn_t pfn, unsigned long npages, u8 byte);

#endif /* __KVM_GMEM_KUNIT_HELPERS_H */
