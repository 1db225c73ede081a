// SPDX-License-Identifier: GPL-2.0
/*
 * The first process of the Linux guest.  It takes commands from its console, one per
 * line, and answers each with one line: "guest: <command>: <result>".
 *
 *	fill [MiB]	fill so much memory, or nearly all that is free, on all CPUs, with
 *			words that tell their place
 *	grow <MiB>	fill so much more, in single pages
 *	check		compare all of it: "ok" and how much it is, or how many pages are
 *			wrong; and how many the kernel has reported as lost, which counts
 *			as ok
 *	work [s]	write and compare it on all CPUs for so many seconds, or until the
 *			next line
 *	memory <MiB>	wait until the guest's kernel has at least so much
 *	free		give it back to the guest's kernel
 *	reboot		reboot; QEMU ends at that with -no-reboot
 *
 * It says "guest: hello: <CPUs> CPUs" when it is ready.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MAX_CPUS 16
#define WORDS (PAGE / sizeof(uint64_t))
#define PAGE 4096
#define LEFT (16UL << 20)		/* of memory that is free */
#define LOST (1ULL << 40)		/* instead of a round */
#define MAGIC 0x6d656d672d747365ULL

static uint64_t (*memory)[WORDS];
static uint64_t *rounds;	/* of each page */
static size_t pages, lost;
static long cpus;
static volatile bool stop;

struct share {
	pthread_t thread;
	size_t first, last;	/* the pages of this thread */
	size_t bad, lost;
	int seconds;		/* 0: until stop is set */
	enum { FILL, CHECK, WORK } what;
};

/* The first word of a page is the same for all, so that the host can find pages. */
static uint64_t word(size_t page, size_t at)
{
	return at ? (page * WORDS + at + (rounds[page] << 48)) * 0x9e3779b97f4a7c15ULL : MAGIC;
}

static _Thread_local sigjmp_buf lost_page;

static void on_lost_page(int signal)
{
	(void)signal;
	siglongjmp(lost_page, 1);
}

static void fill_page(size_t page)
{
	size_t at;

	rounds[page]++;
	for (at = 0; at < WORDS; at++)
		memory[page][at] = word(page, at);
}

static bool right(size_t page)
{
	size_t at;

	for (at = 0; at < WORDS; at++)
		if (memory[page][at] != word(page, at))
			return false;
	return true;
}

static void *do_share(void *arg)
{
	struct share *share = arg;
	const time_t until = time(NULL) + share->seconds;
	volatile size_t page;

	do {
		for (page = share->first; page < share->last; page++) {
			if (rounds[page] == LOST)
				continue;
			if (sigsetjmp(lost_page, 1)) {
				rounds[page] = LOST;
				share->lost++;
				continue;
			}
			if (share->what != FILL && !right(page))
				share->bad++;
			if (share->what != CHECK)
				fill_page(page);
		}
	} while (share->what == WORK && (share->seconds ? time(NULL) < until : !stop));
	return NULL;
}

/* Let all CPUs do it; return the number of wrong pages, and count those that are lost. */
static size_t on_all(int what, int seconds)
{
	static struct share shares[MAX_CPUS];
	char line[128];
	size_t bad = 0;
	long i;

	lost = 0;
	stop = false;
	for (i = 0; i < cpus; i++) {
		shares[i] = (struct share){ .what = what, .seconds = seconds,
			.first = pages * i / cpus, .last = pages * (i + 1) / cpus };
		if (pthread_create(&shares[i].thread, NULL, do_share, &shares[i]))
			return -1;
	}
	if (what == WORK && !seconds) {
		if (!fgets(line, sizeof(line), stdin))
			printf("guest: end of input\n");
		stop = true;
	}
	for (i = 0; i < cpus; i++) {
		pthread_join(shares[i].thread, NULL);
		bad += shares[i].bad;
		lost += shares[i].lost;
	}
	return bad;
}

static bool give_back(void)
{
	bool done = !pages || (!munmap(memory, pages * PAGE) && !munmap(rounds, pages * 8));

	pages = 0;
	return done;
}

static bool take(size_t size)
{
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;

	if (!give_back())
		return false;
	memory = mmap(NULL, size, prot, flags, -1, 0);
	rounds = mmap(NULL, size / PAGE * 8, prot, flags, -1, 0);
	if (memory == MAP_FAILED || rounds == MAP_FAILED)
		return false;
	pages = size / PAGE;
	return true;
}

/* So that the kernel does not clear a hugepage, which is more than the guest asks for. */
static void *in_pages(void *old, size_t old_size, size_t size)
{
	void *memory = mremap(old, old_size, size, MREMAP_MAYMOVE);

	if (memory != MAP_FAILED && madvise(memory, size, MADV_NOHUGEPAGE) && errno != EINVAL)
		return MAP_FAILED;
	return memory;
}

static bool grow(size_t size)
{
	size_t page = pages, all = pages + size / PAGE;

	if (!pages)
		return false;
	memory = in_pages(memory, pages * PAGE, all * PAGE);
	rounds = in_pages(rounds, pages * 8, all * 8);
	if (memory == MAP_FAILED || rounds == MAP_FAILED)
		return false;
	for (pages = all; page < pages; page++)
		fill_page(page);
	return true;
}

/* What the kernel gives away, which with hugepages of its own wants to keep much more free. */
static size_t free_memory(void)
{
	size_t bytes;
	FILE *file;

	mkdir("/proc", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	file = fopen("/proc/sys/vm/min_free_kbytes", "we");
	if (!file || fprintf(file, "%lu\n", LEFT / 4 >> 10) < 0 || fclose(file))
		printf("guest: min_free_kbytes: %s\n", strerror(errno));
	give_back();
	bytes = sysconf(_SC_AVPHYS_PAGES) * PAGE;
	return bytes > LEFT ? (bytes - LEFT) >> 20 << 20 : 0;
}

static void answer(const char *command, size_t bad)
{
	if (bad)
		printf("guest: %s: %zu of %zu pages are wrong\n", command, bad, pages);
	else if (lost)
		printf("guest: %s: ok, %zu MiB, %zu lost\n", command, pages * PAGE >> 20, lost);
	else
		printf("guest: %s: ok, %zu MiB\n", command, pages * PAGE >> 20);
	lost = 0;
}

static bool has_memory(long mib)
{
	return sysconf(_SC_PHYS_PAGES) * PAGE >> 20 >= mib;
}

static void obey(char *line)
{
	const char *command = strtok(line, " \n"), *word = strtok(NULL, " \n");
	long number = word ? atol(word) : 0;
	size_t size = (size_t)number << 20;

	if (!command)
		return;
	if (!strcmp(command, "fill"))
		answer(command, take(word ? size : free_memory()) ? on_all(FILL, 0) : 1);
	else if (!strcmp(command, "grow"))
		answer(command, !grow(size));
	else if (!strcmp(command, "check"))
		answer(command, on_all(CHECK, 0));
	else if (!strcmp(command, "work"))
		answer(command, on_all(WORK, number));
	else if (!strcmp(command, "memory")) {
		while (!has_memory(number))
			usleep(100000);
		answer(command, 0);
	} else if (!strcmp(command, "free"))
		answer(command, !give_back());
	else if (!strcmp(command, "reboot"))
		reboot(RB_AUTOBOOT);
	else
		printf("guest: %s: unknown command\n", command);
}

int main(void)
{
	struct termios terminal;
	char line[128];

	if (!tcgetattr(0, &terminal)) {
		terminal.c_lflag &= ~ECHO;
		tcsetattr(0, TCSANOW, &terminal);
	}
	signal(SIGBUS, on_lost_page);
	cpus = sysconf(_SC_NPROCESSORS_ONLN);
	if (cpus > MAX_CPUS)
		cpus = MAX_CPUS;
	setlinebuf(stdout);
	printf("guest: hello: %ld CPUs\n", cpus);
	while (fgets(line, sizeof(line), stdin))
		obey(line);
	printf("guest: end of input: %s\n", strerror(errno));
	return 1;
}
