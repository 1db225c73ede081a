// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for creating guest_memfd files: which sizes and flags userspace can
 * use, and what the capabilities say about it (invariants I9 and I10).
 *
 * The tables are written in terms of the page and hugepage size, and decide on
 * their own which of them can work; nothing is derived from the code under test.
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

/*
 * Hugepages need a PMD that one entry of the page cache can cover, i.e. at most
 * 2^11 pages, which is true for 4K and 16K pages, but not for 64K.
 */
static bool huge_supported(void)
{
	return PAGE_SIZE <= SZ_16K;
}

/* The lowest descriptor that is not in use. */
static int next_fd(void)
{
	int fd = get_unused_fd_flags(0);

	put_unused_fd(fd);
	return fd;
}

/*
 * Create a file, check the outcome, and check that a failure leaves nothing
 * behind: neither a descriptor nor a reference to the VM.
 */
static void check_create(struct kunit *test, struct kvm *kvm, u64 size, u64 flags,
			 int expected)
{
	struct kvm_create_guest_memfd args = { .size = size, .flags = flags };
	unsigned int users = refcount_read(&kvm->users_count);
	int fd = next_fd(), r;

	r = kvm_gmem_create(kvm, &args);
	KUNIT_EXPECT_EQ_MSG(test, r < 0 ? r : 0, expected, "size %llx flags %llx", size, flags);

	if (r >= 0) {
		KUNIT_EXPECT_EQ(test, refcount_read(&kvm->users_count), users + 1);
		close_fd(r);
		flush_delayed_fput();
	}

	KUNIT_EXPECT_EQ(test, next_fd(), fd);
	KUNIT_EXPECT_EQ(test, refcount_read(&kvm->users_count), users);
}

struct size_case {
	const char *name;
	u64 size;
	int base;		/* without hugepages: 0 or error */
	int huge;		/* with hugepages */
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

/* I9: the size has to suit the flag, whatever the other flags, with THP or not. */
static void size_rules(struct kunit *test)
{
	const struct size_case *c = test->param_value;
	struct kvm *kvm = gmem_kunit_vm(test, 0);
	int huge = huge_supported() ? c->huge : -EINVAL;

	check_create(test, kvm, c->size, 0, c->base);
	check_create(test, kvm, c->size, GMEM_SHARED, c->base);
	check_create(test, kvm, c->size, HUGE, huge);
	check_create(test, kvm, c->size, HUGE | GMEM_SHARED, huge);
}

/* I9: every combination of the known flags works. */
static void flag_combinations(struct kunit *test)
{
	struct kvm *kvm = gmem_kunit_vm(test, 0);
	u64 flags;

	for (flags = 0; flags < 8; flags++)
		check_create(test, kvm, PMD_SIZE, flags,
			     (flags & HUGE) && !huge_supported() ? -EINVAL : 0);
}

/* I9: no unknown flag gets accepted, alone or with known ones. */
static void unknown_flags(struct kunit *test)
{
	struct kvm *kvm = gmem_kunit_vm(test, 0);
	int bit;

	for (bit = 3; bit < 64; bit++) {
		check_create(test, kvm, PMD_SIZE, BIT_ULL(bit), -EINVAL);
		check_create(test, kvm, PMD_SIZE, BIT_ULL(bit) | GMEM_HUGE, -EINVAL);
	}
}

/* The numbers are ABI. */
static void abi_values(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, KVM_CAP_GUEST_MEMFD_HUGEPAGE_PMD_SIZE, 252);
	KUNIT_EXPECT_EQ(test, GUEST_MEMFD_FLAG_ALLOW_HUGEPAGE, 4);
}

static void check_capability(struct kunit *test, struct kvm *kvm, bool supported)
{
	int size, flags;

	size = kvm_vm_ioctl_check_extension_generic(kvm,
						    KVM_CAP_GUEST_MEMFD_HUGEPAGE_PMD_SIZE);
	flags = kvm_vm_ioctl_check_extension_generic(kvm, KVM_CAP_GUEST_MEMFD_FLAGS);

	KUNIT_EXPECT_EQ(test, size, supported ? PMD_SIZE : 0);
	KUNIT_EXPECT_EQ(test, !!(flags & HUGE), supported);
	KUNIT_EXPECT_TRUE(test, flags & GUEST_MEMFD_FLAG_MMAP);
}

/* I9, I10: without a VM, the capability tells what KVM can do in general. */
static void capability_without_vm(struct kunit *test)
{
	check_capability(test, NULL, huge_supported());
}

/* I9, I10: the capability of an ordinary VM agrees with the flag. */
static void capability_with_vm(struct kunit *test)
{
	check_capability(test, gmem_kunit_vm(test, 0), huge_supported());
}

/* Software-protected VMs have private memory, but no reason to refuse hugepages. */
static void sw_protected_vm(struct kunit *test)
{
#ifdef CONFIG_KVM_SW_PROTECTED_VM
	struct kvm *kvm = gmem_kunit_vm(test, KVM_X86_SW_PROTECTED_VM);

	check_capability(test, kvm, true);
	check_create(test, kvm, PMD_SIZE, HUGE, 0);
	check_create(test, kvm, PMD_SIZE, HUGE | GUEST_MEMFD_FLAG_MMAP, 0);
	check_create(test, kvm, PMD_SIZE + PAGE_SIZE, HUGE, -EINVAL);
	check_create(test, kvm, PMD_SIZE, GMEM_HUGE, -EINVAL);
#else
	kunit_skip(test, "the kernel has no software-protected VMs");
#endif
}

static void check_no_hugepages(struct kunit *test, struct kvm *kvm)
{
	check_capability(test, kvm, false);
	check_create(test, kvm, PMD_SIZE, HUGE, -EINVAL);
	check_create(test, kvm, PMD_SIZE, 0, 0);
}

/*
 * I10: SNP, TDX and protected arm64 VMs can't cope with hugepages.  None of the former
 * can be created here, but what decides is the type and whether memory is private.
 */
static void coco_vm(struct kunit *test)
{
#if defined(CONFIG_X86) && defined(CONFIG_KVM_GENERIC_MEMORY_ATTRIBUTES)
	static const unsigned long types[] = { KVM_X86_SNP_VM, KVM_X86_TDX_VM };
	struct kvm *kvm = gmem_kunit_vm(test, 0);
	int i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		kvm->arch.vm_type = types[i];
		kvm->arch.has_private_mem = true;

		check_no_hugepages(test, kvm);
	}

	kvm->arch.vm_type = KVM_X86_DEFAULT_VM;
	kvm->arch.has_private_mem = false;
#elif defined(CONFIG_ARM64)
	if (!is_protected_kvm_enabled())
		kunit_skip(test, "the kernel has no VMs with private memory");

	check_no_hugepages(test, gmem_kunit_vm(test, KVM_VM_TYPE_ARM_PROTECTED));
#else
	kunit_skip(test, "the kernel has no VMs with private memory");
#endif
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
