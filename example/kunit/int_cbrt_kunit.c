// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for int_cbrt(): known roots, and both sides of every step.
 */
#include <kunit/test.h>
#include <linux/limits.h>
#include <linux/math.h>
#include <linux/module.h>

#define LARGEST	2642245ULL	/* whose cube fits into a u64 */

static const struct known {
	const char *name;
	u64 x;
	u32 root;
} known[] = {
	{ "zero", 0, 0 },
	{ "one", 1, 1 },
	{ "below_eight", 7, 1 },
	{ "eight", 8, 2 },
	{ "u32_max", U32_MAX, 1625 },
	{ "above_u32", 1ULL << 33, 2048 },
	{ "u64_max", U64_MAX, LARGEST },
};

KUNIT_ARRAY_PARAM_DESC(known, known, name);

static void known_roots(struct kunit *test)
{
	const struct known *row = test->param_value;

	KUNIT_EXPECT_EQ(test, int_cbrt(row->x), row->root);
}

/* A cube has its root, and the integer before it a root that is one less. */
static void steps(struct kunit *test)
{
	u64 root;

	for (root = 1; root <= LARGEST; root += root < 1000 ? 1 : 331) {
		KUNIT_ASSERT_EQ(test, int_cbrt(root * root * root), root);
		KUNIT_ASSERT_EQ(test, int_cbrt(root * root * root - 1), root - 1);
	}
}

static struct kunit_case int_cbrt_cases[] = {
	KUNIT_CASE_PARAM(known_roots, known_gen_params),
	KUNIT_CASE(steps),
	{}
};

static struct kunit_suite int_cbrt_suite = {
	.name = "int_cbrt",
	.test_cases = int_cbrt_cases,
};

kunit_test_suite(int_cbrt_suite);

MODULE_DESCRIPTION("KUnit tests for int_cbrt()");
MODULE_LICENSE("GPL");
