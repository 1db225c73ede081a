// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for creating guest_memfd files: the sizes and flags that KVM accepts,
 * and the capabilities that announce them (invariants I9 and I10).
 *
 * The tables depend on nothing but the page size and the hugepage size, and derive
 * nothing from the code under test.
 */
#include <kunit/test.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kvm_host.h>
#include <linux/limits.h>
#include <linux/refcount.h>

#include "gmem_kunit_helpers.h"

#define HUGE	GUEST_MEMFD_FLAG_ALLOW_HUGEPAGE

#define MIGRATABLE	GUEST_MEMFD_FLAG_MIGRATABLE

#define KNOWN_FLAGS	(GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED | HUGE | MIGRATABLE)

/*
 * One entry of the page cache covers at most 2^11 pages.  That is enough for a PMD
 * with 4K and 16K pages, but not with 64K pages.
 */
static bool huge_supported(void)
{
	return PAGE_SIZE <= SZ_16K;
}

/* Get the lowest unused descriptor. */
static int next_fd(void)
{
	int fd = get_unused_fd_flags(0);

	put_unused_fd(fd);
	return fd;
}

/*
 * Create a file and check the result.  Check that neither a failure nor closing
 * the file leaks a descriptor or a reference to the VM.
 */
static void check_create(struct kunit *test, struct gmem_kunit_vm *vm, u64 size, u64 flags,
			 int expected)
{
	unsigned int users = refcount_read(&vm->kvm->users_count);
	int fd = next_fd(), r;

	r = gmem_kunit_create(vm, size, flags);
	KUNIT_EXPECT_EQ_MSG(test, r < 0 ? r : 0, expected, "size %llx flags %llx", size, flags);

	if (r >= 0) {
		KUNIT_EXPECT_EQ(test, refcount_read(&vm->kvm->users_count), users + 1);
		close_fd(r);
		flush_delayed_fput();
	}

	KUNIT_EXPECT_EQ(test, next_fd(), fd);
	KUNIT_EXPECT_EQ(test, refcount_read(&vm->kvm->users_count), users);
}

struct size_case {
	const char *name;
	u64 size;
	int base;		/* expected result without hugepages */
	int huge;		/* expected result with hugepages */
};

static const struct size_case size_cases[] = {
	{ "zero", 0, -EINVAL, -EINVAL },
	{ "negative", -PMD_SIZE, -EINVAL, -EINVAL },
	{ "most_negative", (u64)LLONG_MIN, -EINVAL, -EINVAL },
	{ "one_byte", 1, -EINVAL, -EINVAL },
	{ "page_less_a_byte", PAGE_SIZE - 1, -EINVAL, -EINVAL },
	{ "page", PAGE_SIZE, 0, -EINVAL },
	{ "page_and_a_byte", PAGE_SIZE + 1, -EINVAL, -EINVAL },
	{ "half_a_hugepage", PMD_SIZE / 2, 0, -EINVAL },
	{ "hugepage_less_a_page", PMD_SIZE - PAGE_SIZE, 0, -EINVAL },
	{ "hugepage_less_a_byte", PMD_SIZE - 1, -EINVAL, -EINVAL },
	{ "hugepage", PMD_SIZE, 0, 0 },
	{ "hugepage_and_a_byte", PMD_SIZE + 1, -EINVAL, -EINVAL },
	{ "hugepage_and_a_page", PMD_SIZE + PAGE_SIZE, 0, -EINVAL },
	{ "hugepage_and_a_half", PMD_SIZE + PMD_SIZE / 2, 0, -EINVAL },
	{ "three_hugepages", 3 * PMD_SIZE, 0, 0 },
	{ "tebibyte", SZ_1T, 0, 0 },
};

KUNIT_ARRAY_PARAM_DESC(size, size_cases, name);

/* I9: the valid sizes depend on the hugepage flag, but on no other flag nor on THP. */
static void size_rules(struct kunit *test)
{
	const struct size_case *c = test->param_value;
	struct gmem_kunit_vm *vm = gmem_kunit_vm(test, 0);
	int huge = huge_supported() ? c->huge : -EINVAL;

	check_create(test, vm, c->size, 0, c->base);
	check_create(test, vm, c->size, GMEM_SHARED, c->base);
	check_create(test, vm, c->size, HUGE, huge);
	check_create(test, vm, c->size, HUGE | GMEM_SHARED, huge);
}

/* I9: KVM accepts every combination of the known flags. */
static void flag_combinations(struct kunit *test)
{
	struct gmem_kunit_vm *vm = gmem_kunit_vm(test, 0);
	u64 flags;

	for (flags = 0; flags <= KNOWN_FLAGS; flags++) {
		bool supported = (!(flags & HUGE) || huge_supported()) &&
				 (!(flags & MIGRATABLE) || GMEM_MIGRATES);

		check_create(test, vm, PMD_SIZE, flags, supported ? 0 : -EINVAL);
	}
}

/* I9: KVM rejects each unknown flag, alone or together with the known ones. */
static void unknown_flags(struct kunit *test)
{
	struct gmem_kunit_vm *vm = gmem_kunit_vm(test, 0);
	int bit;

	for (bit = 0; bit < BITS_PER_TYPE(u64); bit++) {
		if (BIT_ULL(bit) & KNOWN_FLAGS)
			continue;

		check_create(test, vm, PMD_SIZE, BIT_ULL(bit), -EINVAL);
		check_create(test, vm, PMD_SIZE, BIT_ULL(bit) | GMEM_HUGE, -EINVAL);
	}
}

/* The numbers are ABI. */
static void abi_values(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, KVM_CAP_GUEST_MEMFD_HUGEPAGE_PMD_SIZE, 252);
	KUNIT_EXPECT_EQ(test, GUEST_MEMFD_FLAG_ALLOW_HUGEPAGE, 4);
#ifdef KVM_GUEST_MEMFD_COLLAPSE
	KUNIT_EXPECT_EQ(test, MIGRATABLE, 8);
	KUNIT_EXPECT_EQ(test, KVM_CAP_GUEST_MEMFD_COLLAPSE, 253);
	/* The direction, the size of the argument, KVM's letter, the number. */
	KUNIT_EXPECT_EQ(test, KVM_GUEST_MEMFD_COLLAPSE, 0xc040aed6);
#endif
}

/* @ordinary: whether KVM can read and move the memory of the VM */
static void check_capability(struct kunit *test, struct gmem_kunit_vm *vm, bool ordinary)
{
	bool huge = ordinary && huge_supported();
	int size, flags;

	size = gmem_kunit_check_extension(vm, KVM_CAP_GUEST_MEMFD_HUGEPAGE_PMD_SIZE);
	flags = gmem_kunit_check_extension(vm, KVM_CAP_GUEST_MEMFD_FLAGS);

	KUNIT_EXPECT_EQ(test, size, huge ? PMD_SIZE : 0);
	KUNIT_EXPECT_EQ(test, !!(flags & HUGE), huge);
	KUNIT_EXPECT_EQ(test, !!(flags & MIGRATABLE), ordinary && GMEM_MIGRATES);
	KUNIT_EXPECT_TRUE(test, flags & GUEST_MEMFD_FLAG_MMAP);
#ifdef KVM_CAP_GUEST_MEMFD_COLLAPSE
	KUNIT_EXPECT_EQ(test, gmem_kunit_check_extension(vm, KVM_CAP_GUEST_MEMFD_COLLAPSE),
			huge && GMEM_MIGRATES);
#endif
}

/* I9, I10: without a VM, the capability reports what KVM supports in general. */
static void capability_without_vm(struct kunit *test)
{
	check_capability(test, NULL, true);
}

/* I9, I10: the capability of an ordinary VM agrees with the flag. */
static void capability_with_vm(struct kunit *test)
{
	check_capability(test, gmem_kunit_vm(test, 0), true);
}

/* Software-protected VMs support hugepages although they have private memory. */
static void sw_protected_vm(struct kunit *test)
{
#ifdef CONFIG_KVM_SW_PROTECTED_VM
	struct gmem_kunit_vm *vm = gmem_kunit_vm(test, KVM_X86_SW_PROTECTED_VM);

	check_capability(test, vm, true);
	check_create(test, vm, PMD_SIZE, HUGE, 0);
	check_create(test, vm, PMD_SIZE, HUGE | GUEST_MEMFD_FLAG_MMAP, 0);
	if (GMEM_MIGRATES)
		check_create(test, vm, PMD_SIZE, HUGE | MIGRATABLE, 0);
	check_create(test, vm, PMD_SIZE + PAGE_SIZE, HUGE, -EINVAL);
	check_create(test, vm, PMD_SIZE, GMEM_HUGE, -EINVAL);
#else
	kunit_skip(test, "the kernel has no software-protected VMs");
#endif
}

static void check_coco_vm(struct kunit *test, struct gmem_kunit_vm *vm)
{
	check_capability(test, vm, false);
	check_create(test, vm, PMD_SIZE, HUGE, -EINVAL);
	check_create(test, vm, PMD_SIZE, MIGRATABLE, MIGRATABLE != 0 ? -EINVAL : 0);
	check_create(test, vm, PMD_SIZE, 0, 0);
}

/*
 * I10: SNP, TDX and protected arm64 VMs support neither hugepages nor migration.
 * This case cannot create an SNP or TDX VM and changes the type of an ordinary VM
 * instead, because KVM decides by the type and by whether memory is private.
 */
static void coco_vm(struct kunit *test)
{
#if defined(CONFIG_X86) && defined(CONFIG_KVM_GENERIC_MEMORY_ATTRIBUTES)
	static const unsigned long types[] = { KVM_X86_SNP_VM, KVM_X86_TDX_VM };
	struct gmem_kunit_vm *vm = gmem_kunit_vm(test, 0);
	int i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		vm->kvm->arch.vm_type = types[i];
		vm->kvm->arch.has_private_mem = true;

		check_coco_vm(test, vm);
	}

	vm->kvm->arch.vm_type = KVM_X86_DEFAULT_VM;
	vm->kvm->arch.has_private_mem = false;
#elif defined(CONFIG_ARM64)
	if (!is_protected_kvm_enabled())
		kunit_skip(test, "the kernel has no VMs with private memory");

	check_coco_vm(test, gmem_kunit_vm(test, KVM_VM_TYPE_ARM_PROTECTED));
#else
	kunit_skip(test, "the kernel has no VMs with private memory");
#endif
}

/*
 * I10: the memory of SEV guests is encrypted, and does not move.  As above, this case
 * changes the type of an ordinary VM.
 */
static void sev_vm(struct kunit *test)
{
#ifdef CONFIG_X86
	static const unsigned long types[] = { KVM_X86_SEV_VM, KVM_X86_SEV_ES_VM };
	struct gmem_kunit_vm *vm = gmem_kunit_vm(test, 0);
	int i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		vm->kvm->arch.vm_type = types[i];
		check_create(test, vm, PMD_SIZE, HUGE, 0);
		check_create(test, vm, PMD_SIZE, MIGRATABLE, MIGRATABLE != 0 ? -EINVAL : 0);
	}
	vm->kvm->arch.vm_type = KVM_X86_DEFAULT_VM;
#else
	kunit_skip(test, "the architecture has no SEV guests");
#endif
}

/*
 * I10: a VM of the default type becomes an SEV guest later on.  Either memory that moves
 * or the encryption rules out the other, whichever comes first.
 */
static void becomes_sev_vm(struct kunit *test)
{
#if !defined(CONFIG_X86) || !defined(KVM_CAP_GUEST_MEMFD_COLLAPSE)
	kunit_skip(test, "no SEV, or the kernel cannot migrate guest_memfd");
#elif !IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)
	kunit_skip(test, "kvm_decide_memory_use() is not exported to this module");
#else
	struct gmem_kunit_vm *fixed = gmem_kunit_vm(test, 0), *moves = gmem_kunit_vm(test, 0);
	int flags;

	if (!GMEM_MIGRATES)
		kunit_skip(test, "the kernel cannot migrate guest_memfd");

	/* Neither what fails nor a file whose memory stays decides anything. */
	check_create(test, fixed, 0, MIGRATABLE, -EINVAL);
	check_create(test, fixed, PMD_SIZE, HUGE, 0);
	KUNIT_EXPECT_TRUE(test, kvm_decide_memory_use(fixed->kvm, KVM_MEMORY_ENCRYPTED));
	check_create(test, fixed, PMD_SIZE, MIGRATABLE, -EINVAL);
	check_create(test, fixed, PMD_SIZE, HUGE, 0);
	flags = gmem_kunit_check_extension(fixed, KVM_CAP_GUEST_MEMFD_FLAGS);
	KUNIT_EXPECT_FALSE(test, flags & MIGRATABLE);

	check_create(test, moves, PMD_SIZE, MIGRATABLE, 0);
	KUNIT_EXPECT_FALSE(test, kvm_decide_memory_use(moves->kvm, KVM_MEMORY_ENCRYPTED));
	check_create(test, moves, PMD_SIZE, MIGRATABLE, 0);
	check_capability(test, moves, true);
#endif
}

static const struct invalidated {
	const char *name;
	u64 flags;
	enum kvm_gfn_range_filter filter;
} invalidated[] = {
	{ "private", 0, KVM_FILTER_PRIVATE },
	{ "mapped", GUEST_MEMFD_FLAG_MMAP, KVM_FILTER_PRIVATE | KVM_FILTER_SHARED },
	{ "shared", GMEM_SHARED, KVM_FILTER_SHARED },
};

KUNIT_ARRAY_PARAM_DESC(invalidated, invalidated, name);

/*
 * I1: what a guest can have mapped is invalidated before it is freed.  If the file can be
 * mapped, KVM takes memory from it for shared faults, too.  Only TDX looks at the filter.
 */
static void invalidated_mappings(struct kunit *test)
{
	const struct invalidated *c = test->param_value;
	struct gmem_kunit_file *f;

	f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), PMD_SIZE >> PAGE_SHIFT, c->flags);
	KUNIT_EXPECT_EQ(test, kvm_gmem_get_invalidate_filter(f->inode), c->filter);
}

static struct kunit_case gmem_create_cases[] = {
	KUNIT_CASE_PARAM(size_rules, size_gen_params),
	KUNIT_CASE(flag_combinations),
	KUNIT_CASE(unknown_flags),
	KUNIT_CASE(abi_values),
	KUNIT_CASE(capability_without_vm),
	KUNIT_CASE(capability_with_vm),
	KUNIT_CASE(sw_protected_vm),
	KUNIT_CASE(coco_vm),
	KUNIT_CASE(sev_vm),
	KUNIT_CASE(becomes_sev_vm),
	KUNIT_CASE_PARAM(invalidated_mappings, invalidated_gen_params),
	{}
};

static struct kunit_suite gmem_create_suite = {
	.name = "kvm_gmem_create",
	.init = gmem_kunit_init,
	.test_cases = gmem_create_cases,
};

kunit_test_suite(gmem_create_suite);

MODULE_DESCRIPTION("KUnit tests for guest_memfd");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
