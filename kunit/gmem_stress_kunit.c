// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit stress tests for guest_memfd hugepages.
 *
 * "model" runs random operations on a file and on a model: arrays that say what each
 * page must contain and whether it must be allocated.  The sequence depends only on
 * the seed, as long as nobody else moves the memory.  The kernel may compact memory at
 * any time, so the test keeps a reference to what it looks at.  The kernel parameters
 * kvm_gmem_kunit.seed and kvm_gmem_kunit.ops select the sequence and its length.  A
 * failure prints the seed, the number of the operation and the operations before it.
 * Repeat it with
 *
 *	kvm_gmem_kunit.seed=<seed> kvm_gmem_kunit.ops=<number>
 *
 * "concurrent" runs threads that use the same hugepages of one file in all ways: guest
 * faults, host accesses, pins, fallocate(), holes, splits and migration by core MM,
 * collapses, and memory errors, while some of them are bound and unbound.  Then it
 * checks that nothing has leaked, and finally closes the file while threads fault, and
 * while what core MM and ioctls have begun goes on.  It is limited by what must have
 * happened, not by a time.  It is also meant for kernels with lockdep, KASAN and KCSAN.
 * The seed decides what each thread does, and a QEMU that counts instructions (-icount)
 * when it runs, so that the seed repeats a failure there.
 */
#include <kunit/resource.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/bitmap.h>
#include <linux/completion.h>
#include <linux/file.h>
#include <linux/kthread.h>
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/moduleparam.h>
#include <linux/pagemap.h>
#include <linux/prandom.h>
#include <linux/uaccess.h>

#include "gmem_kunit_helpers.h"

#define N	GMEM_NR
#define NPAGES	(4 * N)
#define GFN	GMEM_GFN

static unsigned int seed = 1;
module_param(seed, uint, 0444);
MODULE_PARM_DESC(seed, "Seed of the tests");

/* So many operations include what is asked for at the end, whatever the seed. */
#define ENOUGH_OPS	400

static unsigned int ops = ENOUGH_OPS;
module_param(ops, uint, 0444);
MODULE_PARM_DESC(ops, "Number of operations of the model test");

/* The data at both ends of a page. */
struct tag {
	u32 index;
	u32 generation;
};

enum op {
	OP_FAULT_READ,
	OP_FAULT_WRITE,
	OP_HOST_READ,
	OP_HOST_WRITE,
	OP_HOST_REMAP,
	OP_ALLOCATE,
	OP_PUNCH,
	OP_PIN,
	OP_UNPIN,
	OP_BIND,
	OP_UNBIND,
	OP_MIGRATE,
	OP_COLLAPSE,
	NR_OPS,
};

static const char * const op_names[NR_OPS] = {
	"fault-read", "fault-write", "host-read", "host-write", "host-remap", "allocate",
	"punch", "pin", "unpin", "bind", "unbind", "migrate",
	"collapse",
};

/* One operation with its arguments, for the message about a failure. */
struct step {
	enum op op;
	unsigned long a;
	unsigned long b;
};

#define NR_STEPS	16
#define NR_PINS		4
#define NR_SLOTS	2

/* How many operations run between two checks of the whole file. */
#define CHECK_INTERVAL	256

/* Whether gmem_kunit_migrate() can move anything. */
#define CAN_MIGRATE	(IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST) && GMEM_MIGRATES)

/* Whether gmem_kunit_collapse() can. */
#define CAN_COLLAPSE	GMEM_MIGRATES

/* The flags of the files. */
#define FLAGS		(GMEM_HUGE | (GMEM_MIGRATES ? GUEST_MEMFD_FLAG_MIGRATABLE : 0))

/* The maximum length of a short range, in pages. */
#define SHORT_RANGE	16

struct model {
	struct kunit *test;
	struct gmem_kunit_file *f;
	unsigned long addr;		/* address of the host mapping */
	unsigned long host_huge;	/* how often it had mapped a hugepage as such */
	struct rnd_state rnd;
	unsigned long nr;		/* number of operations so far */
	struct step steps[NR_STEPS];	/* the most recent operations */
	unsigned long mistakes;

	u32 *generation;		/* expected contents per page (0: zeros) */
	unsigned long *allocated;	/* pages that must be allocated */
	unsigned long *punched;		/* pages that had contents when they were punched */

	struct folio *pins[NR_PINS];
	unsigned int nr_pins;
	bool no_memory;			/* for the folio that was asked for last */
	struct {
		pgoff_t pgoff;
		unsigned long npages;
		gfn_t base_gfn;
	} slots[NR_SLOTS];
};

static u32 rnd(struct model *m, u32 below)
{
	return prandom_u32_state(&m->rnd) % below;
}

/* Count a deviation from the model; for the first one, print how to repeat it. */
static void mistake(struct model *m, const char *what, pgoff_t index)
{
	unsigned long i;

	if (m->mistakes++)
		return;

	kunit_err(m->test, "%s, page %#lx; to repeat: kvm_gmem_kunit.seed=%u kvm_gmem_kunit.ops=%lu",
		  what, index, seed, m->nr);
	for (i = m->nr > NR_STEPS ? m->nr - NR_STEPS : 0; i < m->nr; i++) {
		struct step *s = &m->steps[i % NR_STEPS];

		kunit_err(m->test, "  %lu: %s %#lx %#lx", i + 1, op_names[s->op], s->a, s->b);
	}
}

static void write_tag(void *page, pgoff_t index, u32 generation)
{
	struct tag tag = { index, generation };

	memcpy(page, &tag, sizeof(tag));
	memcpy(page + PAGE_SIZE - sizeof(tag), &tag, sizeof(tag));
}

/* Check whether a page has the contents that the model expects. */
static bool tag_ok(const void *page, pgoff_t index, u32 generation)
{
	struct tag tag = { index, generation };

	if (!generation)
		return !memchr_inv(page, 0, PAGE_SIZE);

	return !memcmp(page, &tag, sizeof(tag)) &&
	       !memcmp(page + PAGE_SIZE - sizeof(tag), &tag, sizeof(tag));
}

static bool pfn_ok(struct model *m, kvm_pfn_t pfn, pgoff_t index)
{
	void *page = kmap_local_pfn(pfn);
	bool ok = tag_ok(page, index, m->generation[index]);

	kunmap_local(page);
	return ok;
}

/* Fail a quarter of the allocations; otherwise return a hugepage with old data. */
static struct folio *alloc_sometimes(struct inode *inode, pgoff_t index, gfp_t gfp)
{
	struct model *m = kunit_get_current_test()->priv;
	struct folio *folio;
	unsigned long i;

	m->no_memory = !rnd(m, 4);
	if (m->no_memory)
		return NULL;

	folio = folio_alloc(GFP_HIGHUSER, PMD_ORDER);
	for (i = 0; folio && i < N; i++) {
		void *page = kmap_local_folio(folio, i * PAGE_SIZE);

		write_tag(page, -1, -1);
		kunmap_local(page);
	}
	return folio;
}

static void do_fault(struct model *m, pgoff_t index, bool write)
{
	struct gmem_kunit_fault fault;
	struct page *page;
	int i, r;

	for (i = 0; i < NR_SLOTS; i++) {
		if (index - m->slots[i].pgoff < m->slots[i].npages)
			break;
	}
	if (i == NR_SLOTS)
		return;

	r = gmem_kunit_get_pfn(m->f->kvm, i, m->slots[i].base_gfn + index - m->slots[i].pgoff,
			       &fault, &page);
	if (r) {
		mistake(m, "guest fault failed", index);
		return;
	}

	__set_bit(index, m->allocated);
	if (!pfn_ok(m, fault.pfn, index))
		mistake(m, "guest reads wrong contents", index);

	if (fault.order == PMD_ORDER) {
		pgoff_t start = round_down(index, N), other = start + rnd(m, N);

		/* I6: the whole hugepage lies inside the memslot. */
		if (start < m->slots[i].pgoff ||
		    start + N > m->slots[i].pgoff + m->slots[i].npages)
			mistake(m, "hugepage exceeds the memslot", index);
		else if (!pfn_ok(m, fault.pfn + other - index, other))
			mistake(m, "guest reads wrong contents in hugepage", other);
	} else if (fault.order) {
		mistake(m, "order is neither 0 nor PMD_ORDER", index);
	}

	if (write) {
		void *addr = kmap_local_pfn(fault.pfn);

		m->generation[index] = m->nr;
		write_tag(addr, index, m->nr);
		kunmap_local(addr);
	}
	put_page(page);
}

/* Compare what the host reads at both ends of a page. */
static bool host_ok(struct model *m, pgoff_t index)
{
	void __user *page = (void __user *)(m->addr + (index << PAGE_SHIFT));
	struct tag seen[2];

	if (copy_from_user(&seen[0], page, sizeof(seen[0])) ||
	    copy_from_user(&seen[1], page + PAGE_SIZE - sizeof(seen[1]), sizeof(seen[1]))) {
		mistake(m, "host fault failed", index);
		return false;
	}

	if (memcmp(&seen[0], &seen[1], sizeof(seen[0])) ||
	    seen[0].generation != m->generation[index] ||
	    seen[0].index != (m->generation[index] ? index : 0)) {
		mistake(m, "host reads wrong contents", index);
		return false;
	}
	return true;
}

/* I1: through a huge mapping, the host sees no old contents of holes, either. */
static void check_huge_mapping(struct model *m, pgoff_t start)
{
	pgoff_t index = find_next_bit(m->punched, start + N, start + m->nr % N);

	if (index >= start + N)
		index = find_next_bit(m->punched, start + N, start);
	if (index < start + N)
		host_ok(m, index);
	m->host_huge++;
}

static void do_host(struct model *m, pgoff_t index, bool write)
{
	unsigned long addr = m->addr + (index << PAGE_SHIFT);
	void __user *page = (void __user *)addr;
	struct tag tag = { index, m->nr };

	if (!host_ok(m, index))
		return;

	__set_bit(index, m->allocated);

	if (pmd_trans_huge(pmdp_get(pmd_off(current->mm, addr))))
		check_huge_mapping(m, round_down(index, N));

	if (write) {
		m->generation[index] = m->nr;
		if (copy_to_user(page, &tag, sizeof(tag)) ||
		    copy_to_user(page + PAGE_SIZE - sizeof(tag), &tag, sizeof(tag)))
			mistake(m, "host write failed", index);
	}
}

/* Map a range in the host again, which cuts hugepages that are mapped as such. */
static void do_host_remap(struct model *m, pgoff_t start, unsigned long npages)
{
	unsigned long addr = m->addr + (start << PAGE_SHIFT);

	if (vm_mmap(m->f->file, addr, npages << PAGE_SHIFT, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_FIXED, start << PAGE_SHIFT) != addr)
		mistake(m, "host cannot map the range again", start);
}

static void do_allocate(struct model *m, pgoff_t start, unsigned long npages)
{
	if (gmem_kunit_allocate(m->f, start, npages))
		mistake(m, "fallocate failed", start);
	bitmap_set(m->allocated, start, npages);
}

static void do_punch(struct model *m, pgoff_t start, unsigned long npages)
{
	pgoff_t index;

	if (gmem_kunit_punch(m->f, start, npages))
		mistake(m, "punch failed", start);

	for (index = start; index < start + npages; index++) {
		if (m->generation[index])
			__set_bit(index, m->punched);
	}
	bitmap_clear(m->allocated, start, npages);
	memset32(m->generation + start, 0, npages);

	/* I4: whole hugepages are freed, and everything that isn't pinned. */
	for (index = start; index < start + npages; index++) {
		pgoff_t block = round_down(index, N);
		bool whole = block >= start && block + N <= start + npages;

		if ((whole || !m->nr_pins) && gmem_kunit_peek(m->f, index))
			mistake(m, "hole is not freed", index);
	}
}

static void do_pin(struct model *m, unsigned int i, pgoff_t index)
{
	struct folio *folio;

	if (m->pins[i])
		return;

	folio = filemap_get_folio(m->f->inode->i_mapping, index);
	if (!IS_ERR(folio)) {
		m->pins[i] = folio;
		m->nr_pins++;
	}
}

static void do_unpin(struct model *m, unsigned int i)
{
	if (!m->pins[i])
		return;

	folio_put(m->pins[i]);
	m->pins[i] = NULL;
	m->nr_pins--;
}

/* Bind a range; for at least half of the calls, gfn and offset are congruent. */
static void do_bind(struct model *m, unsigned int i, pgoff_t pgoff, unsigned long npages)
{
	gfn_t base_gfn = GFN * (i + 1) + pgoff + (rnd(m, 2) ? 0 : rnd(m, N));
	unsigned int other = (i + 1) % NR_SLOTS;
	bool overlap = m->slots[other].npages &&
		       pgoff < m->slots[other].pgoff + m->slots[other].npages &&
		       m->slots[other].pgoff < pgoff + npages;
	int r;

	if (m->slots[i].npages)
		return;

	r = gmem_kunit_bind(m->f, i, base_gfn, pgoff, npages);
	if (r != (overlap ? -EEXIST : 0))
		mistake(m, "wrong result of bind", pgoff);
	if (r)
		return;

	m->slots[i].pgoff = pgoff;
	m->slots[i].npages = npages;
	m->slots[i].base_gfn = base_gfn;
}

static void do_unbind(struct model *m, unsigned int i)
{
	if (!m->slots[i].npages)
		return;

	if (gmem_kunit_unbind(m->f->vm, i))
		mistake(m, "unbind failed", m->slots[i].pgoff);
	m->slots[i].npages = 0;
}

/* Fail a quarter of the allocations of memory to which folios move. */
static struct folio *target_sometimes(struct folio *src, unsigned long private)
{
	struct model *m = kunit_get_current_test()->priv;
	struct folio *dst = rnd(m, 4) ? gmem_kunit_alloc_target(src, private) : NULL;

	m->no_memory |= !dst;
	return dst;
}

static bool is_pinned(struct model *m, struct folio *folio)
{
	int i;

	for (i = 0; i < NR_PINS; i++) {
		if (folio && m->pins[i] == folio)
			return true;
	}
	return false;
}

/*
 * I2: moving a folio changes only the pfn.  It succeeds unless the folio is pinned, or
 * is being moved by somebody else.
 */
static void do_migrate(struct model *m, pgoff_t index)
{
	struct folio *old = gmem_kunit_peek(m->f, index), *new;
	unsigned int order = old ? folio_order(old) : 0;
	bool moved, same;

	m->no_memory = false;
	moved = !gmem_kunit_migrate(m->f, index, target_sometimes);
	if (old && !moved && !m->nr_pins && CAN_MIGRATE)
		(void)gmem_kunit_wait_until(m->no_memory ||
					    !gmem_kunit_migrate(m->f, index, target_sometimes));
	if (!old || m->no_memory)
		return;

	new = gmem_kunit_peek(m->f, index);
	same = new == old;
	if (moved && same)
		mistake(m, "folio has not moved", index);
	else if (!same && is_pinned(m, old))
		mistake(m, "folio has moved", index);
	else if (same && !m->nr_pins && CAN_MIGRATE)
		mistake(m, "folio does not move", index);
	else if (!new || folio_order(new) != order)
		mistake(m, "folio has another order", index);
}

/*
 * I2, I3: collapsing a hugepage-size range makes a hugepage of whatever is there, or
 * nothing of nothing.  It succeeds unless there is a pin, or no memory, or somebody else
 * is moving a folio.
 */
static void do_collapse(struct model *m, pgoff_t index)
{
	pgoff_t start = round_down(index, N);
	struct folio *folio;
	int r;

	m->no_memory = false;
	r = gmem_kunit_collapse(m->f, start, N);
	if (r == -EBUSY && !m->nr_pins)
		(void)gmem_kunit_wait_until((r = gmem_kunit_collapse(m->f, start, N)) != -EBUSY);
	if (r) {
		if (CAN_COLLAPSE && !(r == -ENOMEM && m->no_memory) &&
		    !(r == -EBUSY && m->nr_pins))
			mistake(m, "collapse failed", start);
		return;
	}

	folio = gmem_kunit_peek(m->f, start);
	if (folio ? folio_order(folio) != PMD_ORDER :
		    filemap_range_has_page(m->f->inode->i_mapping, (loff_t)start << PAGE_SHIFT,
					   ((loff_t)(start + N) << PAGE_SHIFT) - 1))
		mistake(m, "no hugepage after collapse", start);
	if (folio)
		bitmap_set(m->allocated, start, N);
}

/* I2: compare the whole file with the model without changing anything. */
static void check_everything(struct model *m)
{
	pgoff_t index;

	for (index = 0; index < NPAGES; index++) {
		struct folio *folio = filemap_get_folio(m->f->inode->i_mapping, index);

		if (IS_ERR(folio)) {
			if (test_bit(index, m->allocated))
				mistake(m, "page is missing", index);
			continue;
		}

		if (folio_order(folio) && folio_order(folio) != PMD_ORDER) {
			mistake(m, "order of folio is neither 0 nor PMD_ORDER", index);
		} else if (!test_bit(index, m->allocated)) {
			/* Not used, or a hole in a hugepage that was pinned. */
		} else if (folio_test_uptodate(folio)) {
			if (!pfn_ok(m, page_to_pfn(folio_file_page(folio, index)), index))
				mistake(m, "page has wrong contents", index);
		} else if (m->generation[index]) {
			mistake(m, "written page is not up to date", index);
		}
		folio_put(folio);
	}
}

/* Choose a range: most are short, some are long, some start or end with a hugepage. */
static void random_range(struct model *m, pgoff_t *start, unsigned long *npages)
{
	*start = rnd(m, NPAGES);
	if (!rnd(m, 4))
		*start = round_down(*start, N);

	*npages = 1 + rnd(m, rnd(m, 4) ? SHORT_RANGE : 2 * N);
	if (!rnd(m, 4))
		*npages = round_up(*start + *npages, N) - *start;

	*npages = min(*npages, NPAGES - *start);
}

/* Choose an operation according to its weight. */
static enum op random_op(struct model *m)
{
	static const u8 weights[NR_OPS] = { 20, 20, 10, 10, 4, 6, 20, 6, 6, 6, 3, 4, 4 };
	u32 total = 0, dice;
	enum op op;

	for (op = 0; op < NR_OPS; op++)
		total += weights[op];
	for (dice = rnd(m, total), op = 0; dice >= weights[op]; op++)
		dice -= weights[op];

	return op;
}

static void do_step(struct model *m)
{
	struct step *s = &m->steps[m->nr % NR_STEPS];
	unsigned long npages;
	pgoff_t start;

	s->op = random_op(m);
	random_range(m, &start, &npages);
	s->a = start;
	s->b = npages;
	if (s->op == OP_PIN || s->op == OP_UNPIN)
		s->b = rnd(m, NR_PINS);
	else if (s->op == OP_UNBIND)
		s->b = rnd(m, NR_SLOTS);
	m->nr++;

	switch (s->op) {
	case OP_FAULT_READ:
	case OP_FAULT_WRITE:
		do_fault(m, start, s->op == OP_FAULT_WRITE);
		break;
	case OP_HOST_READ:
	case OP_HOST_WRITE:
		do_host(m, start, s->op == OP_HOST_WRITE);
		break;
	case OP_HOST_REMAP:
		do_host_remap(m, start, npages);
		break;
	case OP_ALLOCATE:
		do_allocate(m, start, npages);
		break;
	case OP_PUNCH:
		do_punch(m, start, npages);
		break;
	case OP_PIN:
		do_pin(m, s->b, start);
		break;
	case OP_UNPIN:
		do_unpin(m, s->b);
		break;
	case OP_BIND:
		do_bind(m, rnd(m, NR_SLOTS), start, npages);
		break;
	case OP_UNBIND:
		do_unbind(m, s->b);
		break;
	case OP_MIGRATE:
		do_migrate(m, start);
		break;
	case OP_COLLAPSE:
		do_collapse(m, start);
		break;
	case NR_OPS:
		break;
	}
}

/* I1 to I7: random operations have the same effect on the file and on the model. */
static void model(struct kunit *test)
{
	struct model *m;
	int i;

	m = kunit_kzalloc(test, sizeof(*m), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, m);
	m->generation = kunit_kcalloc(test, NPAGES, sizeof(*m->generation), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, m->generation);
	m->allocated = kunit_kcalloc(test, BITS_TO_LONGS(NPAGES), sizeof(long), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, m->allocated);
	m->punched = kunit_kcalloc(test, BITS_TO_LONGS(NPAGES), sizeof(long), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, m->punched);

	m->test = test;
	m->f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), NPAGES, FLAGS);
	m->addr = gmem_kunit_map(test, m->f, 0);

	test->priv = m;
	kunit_activate_static_stub(test, kvm_gmem_alloc_huge_folio, alloc_sometimes);
	prandom_seed_state(&m->rnd, seed);
	kunit_info(test, "seed %u, %u operations", seed, ops);

	while (m->nr < ops && !m->mistakes) {
		do_step(m);
		if (m->nr % CHECK_INTERVAL == 0)
			check_everything(m);
		cond_resched();
	}
	check_everything(m);

	KUNIT_EXPECT_EQ(test, m->mistakes, 0);
	KUNIT_EXPECT_EQ(test, m->nr, ops);
	kunit_info(test, "the host used huge mappings %lu times", m->host_huge);
	if (IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) && ops >= ENOUGH_OPS)
		KUNIT_EXPECT_NE(test, m->host_huge, 0);

	for (i = 0; i < NR_PINS; i++)
		do_unpin(m, i);
}

/* How many pages may go bad, and which: one in the lower half of each hugepage. */
#define NR_BAD		24
#define BAD_OFFSET	7

/*
 * What the threads of "concurrent" share.  They punch holes only into the lower half
 * of each hugepage, where only the host writes.  The upper halves must keep what the
 * guest writes to them.
 */
struct shared {
	struct gmem_kunit_file *f;
	struct mm_struct *mm;		/* of the test */
	unsigned long addr;		/* address of the host mapping */
	unsigned long *written;		/* pages of the upper halves with contents */

	/* Holes are numbered.  For each page, the last hole that has begun, or is over. */
	u32 nr_holes;
	u32 *begun;
	u32 *over;

	struct page *bad[NR_BAD];	/* all pages that have gone bad */
	unsigned int nr_bad;
	unsigned int max_bad;		/* how many may go bad by now */

	atomic_t error;			/* the first unexpected error */
	atomic_t wrong;			/* number of pages with wrong contents */
	atomic_t upper_slot;		/* number of faults in the second memslot */
	atomic_t zeroed;		/* number of tags that the host found gone */
	atomic_t migrated;		/* number of folios that have moved */
	atomic_t collapsed;		/* number of hugepages that came back */
	atomic_t closed;		/* number of threads that found the file closed */
	struct completion done;		/* completed once per thread that stops faulting */
};

/* A thread that faults; no two threads access the same page. */
struct toucher {
	struct shared *s;
	unsigned int id;
	struct rnd_state rnd;
};

#define NR_TOUCHERS	2

/*
 * Memslot 0 ends in the third hugepage.  The main thread binds and unbinds various parts
 * of the rest, where they belong or, now and then, elsewhere.
 */
#define SLOT_PAGES	(2 * N + N / 4)
#define ROUNDS		20
#define OTHER_GFN	(4 * GFN)

/* How many tags the host must have found gone. */
#define MIN_ZEROED	20

/* How many pages others may have allocated in the meantime. */
#define NR_USED		(3 * N / 16)

/* How long a thread may take to notice that the file is closed. */
#define CLOSE_TIMEOUT	(60 * HZ)

static bool upper_half(pgoff_t index)
{
	return index % N >= N / 2;
}

static bool can_go_bad(pgoff_t index)
{
	return index % N == BAD_OFFSET;
}

/* Look up what a memslot, if there is one, has at @index, as a guest fault does. */
static int look_up(struct shared *s, pgoff_t index, kvm_pfn_t *pfn, struct page **page)
{
	struct kvm *kvm = s->f->kvm;
	const pgoff_t start = round_down(index, N);
	struct kvm_memory_slot *slot;
	int idx, order, r = -ENOENT;

	idx = srcu_read_lock(&kvm->srcu);
	slot = __gfn_to_memslot(kvm_memslots(kvm), GFN + index);
	if (slot && !(slot->flags & KVM_MEMSLOT_INVALID)) {
		r = kvm_gmem_get_pfn(kvm, slot, GFN + index, pfn, page, &order);
		/* I6: the guest gets no memory that does not belong to the memslot. */
		if (!r && order && (order != PMD_ORDER || start < slot->gmem.pgoff ||
				    start + N > slot->gmem.pgoff + slot->npages))
			atomic_inc(&s->wrong);
		if (!r && slot->id)
			atomic_inc(&s->upper_slot);
	}
	srcu_read_unlock(&kvm->srcu, idx);

	return r;
}

/* Fault in a random page; in the upper half, check its contents and write to it. */
static int touch(struct toucher *t)
{
	pgoff_t index = prandom_u32_state(&t->rnd) % (NPAGES / NR_TOUCHERS) * NR_TOUCHERS + t->id;
	struct shared *s = t->s;
	struct page *page;
	kvm_pfn_t pfn;
	void *p;
	int r;

	r = look_up(s, index, &pfn, &page);
	if (r)
		return r == -ENOENT || (r == -EHWPOISON && can_go_bad(index)) ? 0 : r;

	if (upper_half(index)) {
		p = kmap_local_pfn(pfn);
		if (!tag_ok(p, index, test_bit(index, s->written)))
			atomic_inc(&s->wrong);
		write_tag(p, index, 1);
		kunmap_local(p);
		set_bit(index, s->written);
	}
	put_page(page);

	return 0;
}

static int fault_thread(void *data)
{
	struct toucher *t = data;
	int r = 0;

	prandom_seed_state(&t->rnd, seed + t->id);
	while (!r && !kthread_should_stop()) {
		r = touch(t);
		cond_resched();
	}

	if (r == -EFAULT)
		atomic_inc(&t->s->closed);
	else if (r)
		atomic_cmpxchg(&t->s->error, 0, r);
	complete(&t->s->done);

	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	return 0;
}

static int allocate_thread(void *data)
{
	struct shared *s = data;
	struct rnd_state rnd_state;
	int r;

	prandom_seed_state(&rnd_state, seed + NR_TOUCHERS);
	while (!kthread_should_stop()) {
		pgoff_t start = prandom_u32_state(&rnd_state) % NPAGES;
		unsigned long npages = 1 + prandom_u32_state(&rnd_state) % (NPAGES - start);

		r = gmem_kunit_allocate(s->f, start, npages);
		/* A request to stop the thread interrupts fallocate(). */
		if (r != -EINTR || !kthread_should_stop())
			atomic_cmpxchg(&s->error, 0, r);
		cond_resched();
	}
	return 0;
}

static int punch_thread(void *data)
{
	struct shared *s = data;
	struct rnd_state rnd_state;

	prandom_seed_state(&rnd_state, seed + NR_TOUCHERS + 1);
	while (!kthread_should_stop()) {
		pgoff_t block = prandom_u32_state(&rnd_state) % (NPAGES / N) * N;
		pgoff_t start = prandom_u32_state(&rnd_state) % (N / 2);
		unsigned long npages = 1 + prandom_u32_state(&rnd_state) % (N / 2 - start);
		u32 nr = s->nr_holes + 1;
		unsigned long i;
		int r;

		WRITE_ONCE(s->nr_holes, nr);
		for (i = block + start; i < block + start + npages; i++)
			WRITE_ONCE(s->begun[i], nr);
		/* Whoever does not see the number yet has written before the hole. */
		smp_mb();
		r = gmem_kunit_punch(s->f, block + start, npages);
		for (i = block + start; i < block + start + npages && !r; i++) {
			/* Whoever sees the number reads after the hole. */
			smp_store_release(&s->over[i], nr);
		}

		/* A pin can keep a hole from replacing the bad page. */
		if (r != -EBUSY || BAD_OFFSET - start >= npages)
			atomic_cmpxchg(&s->error, 0, r);
		cond_resched();
	}
	return 0;
}

/* What the host knows of a tag. */
struct memo {
	u32 generation;		/* what it has written, or 0 */
	u32 over;		/* the last hole in the page that was over before that */
	u32 begun;		/* the last hole anywhere that had begun after that */
};

/*
 * Check what the host has read at the place of a tag.  It must be the tag that the host
 * has written last, or zeros.  A hole that began after the tag was there, and was over
 * before it was read, leaves zeros.  They must come from a hole that was not yet over
 * when the host wrote.
 */
static bool memo_ok(const struct memo *memo, pgoff_t index, const struct tag *seen,
		    u32 over, u32 begun)
{
	const struct tag tag = { index, memo->generation };

	if (!memchr_inv(seen, 0, sizeof(*seen)))
		return !memo->generation || begun != memo->over;

	return memo->generation && !memcmp(seen, &tag, sizeof(tag)) &&
	       (int)(over - memo->begun) <= 0;
}

/* Read and write one of the two tags of a page. */
static void use_tag(struct shared *s, struct memo *memo, pgoff_t index, unsigned long offset,
		    u32 generation)
{
	void __user *p = (void __user *)(s->addr + (index << PAGE_SHIFT) + offset);
	struct tag tag = { index, generation }, seen;
	u32 over;

	/* This hole was over before the read. */
	over = smp_load_acquire(&s->over[index]);
	if (copy_from_user(&seen, p, sizeof(seen)))
		goto bad;
	/* No hole that begins later has anything to do with what was read. */
	smp_rmb();
	if (!memo_ok(memo, index, &seen, over, READ_ONCE(s->begun[index])))
		atomic_inc(&s->wrong);
	else if (memo->generation && !seen.generation)
		atomic_inc(&s->zeroed);

	/* This hole was over before the write. */
	over = smp_load_acquire(&s->over[index]);
	if (copy_to_user(p, &tag, sizeof(tag)))
		goto bad;
	/* Any hole that begins later must remove what was written. */
	smp_mb();
	memo->generation = generation;
	memo->over = over;
	memo->begun = READ_ONCE(s->nr_holes);
	return;
bad:
	if (!can_go_bad(index))
		atomic_cmpxchg(&s->error, 0, -EFAULT);
}

/* I1, I2: in the lower halves, the host reads what it has written there, or zeros. */
static int host_thread(void *data)
{
	struct memo (*memos)[2] = kvcalloc(NPAGES, sizeof(*memos), GFP_KERNEL);
	struct shared *s = data;
	struct rnd_state rnd_state;
	u32 generation = 0;

	prandom_seed_state(&rnd_state, seed + NR_TOUCHERS + 2);
	if (!memos)
		atomic_cmpxchg(&s->error, 0, -ENOMEM);
	kthread_use_mm(s->mm);
	while (memos && !kthread_should_stop()) {
		pgoff_t index = prandom_u32_state(&rnd_state) % (NPAGES / N) * N +
				prandom_u32_state(&rnd_state) % (N / 2);

		/* A hole can come between the two tags of a page. */
		generation++;
		use_tag(s, &memos[index][0], index, 0, generation);
		use_tag(s, &memos[index][1], index, PAGE_SIZE - sizeof(struct tag), generation);
		cond_resched();
	}
	kthread_unuse_mm(s->mm);
	kvfree(memos);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	return 0;
}

/* Pin a page for a moment, which keeps its hugepage from being split. */
static int pin_thread(void *data)
{
	struct shared *s = data;
	struct rnd_state rnd_state;

	prandom_seed_state(&rnd_state, seed + NR_TOUCHERS + 3);
	kthread_use_mm(s->mm);
	while (!kthread_should_stop()) {
		pgoff_t index = prandom_u32_state(&rnd_state) % NPAGES;
		struct page *page;

		if (pin_user_pages_fast(s->addr + (index << PAGE_SHIFT), 1, FOLL_WRITE,
					&page) == 1) {
			schedule_timeout_interruptible(1);
			unpin_user_page(page);
		}
		schedule_timeout_interruptible(1 + prandom_u32_state(&rnd_state) % 4);
	}
	kthread_unuse_mm(s->mm);
	return 0;
}

/* What core MM may do behind the back of guest_memfd. */
static void split_locked(struct folio *folio)
{
#if IS_BUILTIN(CONFIG_KVM_GMEM_KUNIT_TEST)	/* else it is not exported */
	if (IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) && folio_test_large(folio))
		split_folio(folio);
#endif
}

/*
 * The threads that follow go on while the file is closed.  Like a system call, they need a
 * reference to it, or to memory of it.
 *
 * Return: the file, or NULL if it is closed.
 */
static struct file *get_open_file(struct shared *s)
{
	struct kvm *kvm = s->f->kvm;
	struct kvm_memory_slot *slot;
	struct file *file;
	int idx;

	idx = srcu_read_lock(&kvm->srcu);
	slot = id_to_memslot(kvm_memslots(kvm), 0);
	file = get_file_active(&slot->gmem.file);
	srcu_read_unlock(&kvm->srcu, idx);

	return file;
}

static int split_thread(void *data)
{
	struct shared *s = data;
	struct rnd_state rnd_state;

	prandom_seed_state(&rnd_state, seed + NR_TOUCHERS + 4);
	while (!kthread_should_stop()) {
		pgoff_t index = prandom_u32_state(&rnd_state) % NPAGES;
		struct file *file = get_open_file(s);

		if (file) {
			struct folio *folio = filemap_lock_folio(file->f_mapping, index);

			if (!IS_ERR(folio)) {
				split_locked(folio);
				gmem_kunit_put_folio(folio);
			}
			__fput_sync(file);
		}
		schedule_timeout_interruptible(1 + prandom_u32_state(&rnd_state) % 4);
	}
	return 0;
}

/* Like move_pages(), this needs the file only until the folio is isolated. */
static int migrate_thread(void *data)
{
	struct shared *s = data;
	struct rnd_state rnd_state;

	prandom_seed_state(&rnd_state, seed + NR_TOUCHERS + 5);
	while (!kthread_should_stop()) {
		pgoff_t index = prandom_u32_state(&rnd_state) % NPAGES;
		struct file *file = get_open_file(s);
		LIST_HEAD(isolated);

		if (file) {
			unsigned long nr = gmem_kunit_isolate(file->f_mapping, index, 1, &isolated);

			__fput_sync(file);
			/* It fails while somebody else uses the folio. */
			if (nr && !gmem_kunit_move(&isolated, gmem_kunit_alloc_target, 0))
				atomic_inc(&s->migrated);
		}
		schedule_timeout_interruptible(1 + prandom_u32_state(&rnd_state) % 4);
	}
	return 0;
}

static int collapse_thread(void *data)
{
	struct shared *s = data;
	struct rnd_state rnd_state;

	prandom_seed_state(&rnd_state, seed + NR_TOUCHERS + 6);
	while (!kthread_should_stop()) {
		pgoff_t start = prandom_u32_state(&rnd_state) % (NPAGES / N) * N;
		struct file *file = get_open_file(s);

		if (file) {
			struct folio *old = gmem_kunit_peek(s->f, start);

			/* It fails while somebody else uses a page. */
			if (!gmem_kunit_collapse(s->f, start, N) &&
			    gmem_kunit_peek(s->f, start) != old)
				atomic_inc(&s->collapsed);
			__fput_sync(file);
		}
		schedule_timeout_interruptible(1 + prandom_u32_state(&rnd_state) % 4);
	}
	return 0;
}

static void unpoison_all(void *data)
{
	struct shared *s = data;
	int i;

	for (i = 0; i < s->nr_bad; i++)
		gmem_kunit_unpoison(s->bad[i]);
}

static void fail_page(struct shared *s, struct page *page)
{
#ifdef CONFIG_MEMORY_FAILURE
	s->bad[s->nr_bad] = page;
	WRITE_ONCE(s->nr_bad, s->nr_bad + 1);
	/* Hand over the reference: the page may be punched in the meantime. */
	memory_failure(page_to_pfn(page), MF_SW_SIMULATED | MF_COUNT_INCREASED);
#endif
}

/* Let pages go bad while everything else goes on. */
static int fail_thread(void *data)
{
	struct shared *s = data;
	struct rnd_state rnd_state;

	prandom_seed_state(&rnd_state, seed + NR_TOUCHERS + 7);
	while (!kthread_should_stop()) {
		pgoff_t index = prandom_u32_state(&rnd_state) % (NPAGES / N) * N + BAD_OFFSET;
		struct file *file = NULL;

		if (IS_ENABLED(CONFIG_MEMORY_FAILURE) && s->nr_bad < READ_ONCE(s->max_bad))
			file = get_open_file(s);
		if (file) {
			struct folio *folio = filemap_get_folio(file->f_mapping, index);
			struct page *page = NULL;

			__fput_sync(file);
			if (!IS_ERR(folio))
				page = folio_page(folio, index % folio_nr_pages(folio));
			if (page && !PageHWPoison(page))
				fail_page(s, page);
			else if (page)
				folio_put(folio);
		}
		schedule_timeout_interruptible(1 + prandom_u32_state(&rnd_state) % 4);
	}
	return 0;
}

static struct task_struct *run_thread(struct kunit *test, int (*fn)(void *),
				      void *data)
{
	struct task_struct *task = gmem_kunit_thread(test, fn, data);

	wake_up_process(task);
	return task;
}

static void run_fault_threads(struct kunit *test, struct toucher *touchers,
			      struct task_struct **tasks)
{
	int i;

	for (i = 0; i < NR_TOUCHERS; i++)
		tasks[i] = run_thread(test, fault_thread, &touchers[i]);
}

/* Whether a thread has faulted in the second memslot since then, or has given up. */
static bool has_touched(struct shared *s, int before)
{
	return atomic_read(&s->upper_slot) != before || atomic_read(&s->error);
}

/* Bind parts of the hugepages that are in use, let the guest use them, and unbind them. */
static void bind_and_unbind(struct kunit *test, struct shared *s)
{
	int i;

	for (i = 0; i < ROUNDS && !atomic_read(&s->error); i++) {
		const pgoff_t start = SLOT_PAGES + i % 3 * (N / 4);
		const unsigned long npages = NPAGES - start - i % 2 * (N / 2);
		const bool elsewhere = i % 4 == 3;
		int before = atomic_read(&s->upper_slot);

		atomic_cmpxchg(&s->error, 0,
			       gmem_kunit_bind(s->f, 1, elsewhere ? OTHER_GFN + 1 : GFN + start,
					       start, npages));
		if (!elsewhere)
			KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(has_touched(s, before)));
		atomic_cmpxchg(&s->error, 0, gmem_kunit_unbind(s->f->vm, 1));
		cond_resched();
	}
}

/* Whether all memory that was free before is free again, except for the bad pages. */
static bool is_all_free(struct shared *s, unsigned long before)
{
	return gmem_kunit_nr_free() + NR_USED + READ_ONCE(s->nr_bad) >= before;
}

/* I1, I2, I4, I6, I11: concurrent operations lose no data, leak no memory and do not fail. */
static void concurrent(struct kunit *test)
{
	/* Those that end before the file is closed, and those that don't. */
	struct task_struct *users[4], *others[4], *fault[NR_TOUCHERS];
	struct toucher *touchers;
	unsigned long free;
	struct shared *s;
	int i;

	s = kunit_kzalloc(test, sizeof(*s), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, s);
	s->written = kunit_kcalloc(test, BITS_TO_LONGS(NPAGES), sizeof(long), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, s->written);
	s->begun = kunit_kcalloc(test, NPAGES, sizeof(*s->begun), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, s->begun);
	s->over = kunit_kcalloc(test, NPAGES, sizeof(*s->over), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, s->over);
	touchers = kunit_kcalloc(test, NR_TOUCHERS, sizeof(*touchers), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, touchers);
	init_completion(&s->done);
	s->max_bad = NR_BAD / 2;
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, unpoison_all, s), 0);

	s->f = gmem_kunit_open(test, gmem_kunit_vm(test, 0), NPAGES, FLAGS);
	s->addr = gmem_kunit_map(test, s->f, 0);
	s->f->addr = s->addr;
	KUNIT_ASSERT_EQ(test, gmem_kunit_bind(s->f, 0, GFN, 0, SLOT_PAGES), 0);
	s->mm = current->mm;

	/* Have the page tables of the host, which stay, before counting. */
	for (i = 0; i < NPAGES; i += N)
		KUNIT_ASSERT_EQ(test, put_user(0, (char __user *)s->addr + (i << PAGE_SHIFT)), 0);
	KUNIT_ASSERT_EQ(test, gmem_kunit_punch(s->f, 0, NPAGES), 0);
	free = gmem_kunit_nr_free();

	/* Say so before anything can hang. */
	kunit_info(test, "to repeat, if QEMU counts instructions: kvm_gmem_kunit.seed=%u", seed);

	for (i = 0; i < NR_TOUCHERS; i++) {
		touchers[i].s = s;
		touchers[i].id = i;
	}
	run_fault_threads(test, touchers, fault);
	users[0] = run_thread(test, allocate_thread, s);
	users[1] = run_thread(test, punch_thread, s);
	users[2] = run_thread(test, host_thread, s);
	users[3] = run_thread(test, pin_thread, s);
	others[0] = run_thread(test, split_thread, s);
	others[1] = run_thread(test, migrate_thread, s);
	others[2] = run_thread(test, collapse_thread, s);
	others[3] = run_thread(test, fail_thread, s);

	bind_and_unbind(test, s);

	/* What happens is a matter of luck, so go on until it has. */
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(atomic_read(&s->zeroed) >= MIN_ZEROED));
	if (IS_ENABLED(CONFIG_MEMORY_FAILURE))
		KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(READ_ONCE(s->nr_bad) > 1));
	if (CAN_MIGRATE)
		KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(atomic_read(&s->migrated)));
	if (CAN_COLLAPSE)
		KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(atomic_read(&s->collapsed)));

	for (i = 0; i < ARRAY_SIZE(users); i++)
		gmem_kunit_stop_thread(test, users[i]);
	for (i = 0; i < NR_TOUCHERS; i++)
		gmem_kunit_stop_thread(test, fault[i]);
	KUNIT_EXPECT_EQ(test, atomic_read(&s->error), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&s->wrong), 0);
	/* The threads must have run, otherwise the test checks nothing. */
	KUNIT_EXPECT_GT(test, bitmap_weight(s->written, NPAGES), 0);

	/* A hole over everything frees everything, but for the bad pages. */
	KUNIT_EXPECT_EQ(test, gmem_kunit_punch(s->f, 0, NPAGES), 0);
	KUNIT_EXPECT_EQ(test, gmem_kunit_nr_pages(s->f), 0);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(is_all_free(s, free)));

	/*
	 * Close the file while threads fault, which then fails with -EFAULT, and while
	 * memory moves, collapses, is split and goes bad.
	 */
	bitmap_zero(s->written, NPAGES);
	reinit_completion(&s->done);
	WRITE_ONCE(s->max_bad, NR_BAD);
	run_fault_threads(test, touchers, fault);
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(!bitmap_empty(s->written, NPAGES)));
	KUNIT_EXPECT_EQ(test, vm_munmap(s->addr, NPAGES << PAGE_SHIFT), 0);
	gmem_kunit_close(test, s->f);
	for (i = 0; i < NR_TOUCHERS; i++)
		KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&s->done, CLOSE_TIMEOUT), 0);
	for (i = 0; i < NR_TOUCHERS; i++)
		gmem_kunit_stop_thread(test, fault[i]);
	for (i = 0; i < ARRAY_SIZE(others); i++)
		gmem_kunit_stop_thread(test, others[i]);
	KUNIT_EXPECT_EQ(test, atomic_read(&s->closed), NR_TOUCHERS);
	KUNIT_EXPECT_EQ(test, atomic_read(&s->error), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&s->wrong), 0);

	/* The last fault may have left it to a worker to close the file. */
	flush_delayed_fput();
	KUNIT_EXPECT_TRUE(test, gmem_kunit_wait_until(is_all_free(s, free)));
}

static struct kunit_case gmem_stress_cases[] = {
	KUNIT_CASE_SLOW(model),
	KUNIT_CASE_SLOW(concurrent),
	{}
};

static struct kunit_suite gmem_stress_suite = {
	.name = "kvm_gmem_stress",
	.init = gmem_kunit_init_huge,
	.test_cases = gmem_stress_cases,
};

kunit_test_suite(gmem_stress_suite);
