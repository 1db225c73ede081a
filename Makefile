# SPDX-License-Identifier: GPL-2.0
# The targets only call matrix/run, tools/* and ci/test, whose exit statuses are more specific than make's.

CELLS ?=
KSRC ?=
FILTER ?=
SHARD ?=
JOBS ?=
override O := $(or $(O),$(if $(PROJECT),$(PROJECT)/)build)
SETUP ?= yes
TESTS ?=
ONLY ?=
DEBIAN ?= 13
AGAINST ?=
UPDATE ?=
ROUNDS ?=
SEEDS ?=
ARGS ?=
BUILD ?= yes
BOOT_SECONDS ?=
A ?=
B ?= $(O)
PROJECT ?=

# The kernel's own make must not see this make's flags and variables.
unexport MAKEFLAGS MFLAGS MAKELEVEL O KSRC JOBS FILTER SHARD CELLS TESTS ONLY DEBIAN PROJECT AGAINST UPDATE ROUNDS SEEDS ARGS BOOT_SECONDS BUILD A B

project = $(if $(PROJECT),--project '$(PROJECT)')
places = --out '$(O)' $(project)
run = ./matrix/run $(places) $(if $(KSRC),--ksrc '$(KSRC)') $(if $(FILTER),--filter '$(FILTER)') $(if $(JOBS),--jobs $(JOBS)) $(if $(SHARD),--shard '$(SHARD)') $(foreach one,$(ARGS),--arg '$(one)') $(if $(BOOT_SECONDS),--boot-seconds $(BOOT_SECONDS)) $(if $(filter no,$(BUILD)),--no-build)

# The cells of a job. Without any, $(run) would take those of the gate.
cells = $(if $(CELLS),$(CELLS),$$(./matrix/run $(project) --cells-json $(1) | tr -d '[],"'))
some = if [ -z "$$cells" ]; then echo 'make $@: this project has no such cells' >&2; exit 2; fi

.DEFAULT_GOAL := help
.PHONY: help only-here check-series matrix e2e e2e-base run-until-failure vmm bench bench-loop cells canary test fresh mutants coverage report diff edit series port rebase refresh clean setup-matrix setup-test setup-mutants setup-coverage setup-fresh setup-llvm setup-riscv

help:
	@echo 'make matrix    set up the machine, then build, boot and judge the cells'
	@echo '               CELLS="arm64-thp arm64-nothp"  only these cells; CELLS=all: every cell, with its selftests'
	@echo '               SHARD=2/3                      only the second of three shares of these cells'
	@echo '               FILTER=kvm_gmem_fault.*        only these tests, as for kunit.py'
	@echo '               KSRC=dir                       your own kernel tree, which is never written to; or a base of kernel/: KSRC=7.2'
	@echo '               ARGS="name=value"              boot with these kernel arguments, too'
	@echo '               BOOT_SECONDS=3600              time limit of each boot, instead of what matrix/cells.toml allows'
	@echo '               BUILD=no                       boot the kernels once more that the last run has built'
	@echo '               JOBS=n                         compile jobs (default: one per core)'
	@echo 'make e2e       the same, but boot for the KVM selftests, which run guests in the kernel under test'
	@echo 'make e2e-base  run these selftests on the kernel without the series, to see which fail there, too'
	@echo 'make run-until-failure  repeat make matrix with one seed after the other until it is red; CELLS= and FILTER= as above'
	@echo 'make vmm       let QEMU boot Linux on guest_memfd in the kernel under test; CELLS= and FILTER= as above'
	@echo 'make bench     count the instructions that memory costs, with and without the series; CELLS= as above'
	@echo '               UPDATE=yes                     record the ratios in bench/known.json'
	@echo 'make bench-loop  time the matrix beside stock kunit.py, after changes; CELLS= as above'
	@echo '               ROUNDS=1 ONLY="line suite"     only once, and only after these changes of matrix/loop.toml'
	@echo 'make cells     list the cells and what each proves'
	@echo 'make canary    build and boot kernels that must be red, each for the right reason'
	@echo 'make test      unit tests, linters, checks of the series, the cells with their selftests, packages, canaries, some mutants'
	@echo '               TESTS="unit lint"              only these parts (unit, lint, series, cells, packages, canaries, mutants)'
	@echo 'make fresh     as root, install an empty Debian into the build folder, and run the commands of the README there'
	@echo '               DEBIAN=12                      this release (12, or 13, the default)'
	@echo 'make mutants   put mistakes into the series, one at a time; the tests must find each'
	@echo '               CELLS="arm64-nothp" ONLY="punch-*"  in these cells (default: those with mutants = true), only these'
	@echo '               GENERATED=yes                  not those of matrix/mutants/, but small changes of each added line'
	@echo '               SEEDS=10                       each with ten seeds, for races: nine of ten must find it'
	@echo 'make coverage  count which of the added lines the suites and the selftests execute; CELLS= as above'
	@echo 'make report    show the results in the build folder as one HTML file, and what is different from the last run'
	@echo '               AGAINST=dir                    from this run: a build folder, or a folder with results'
	@echo 'make diff      compare two runs: what turned red, vanished, skips or is slower'
	@echo '               A=dir B=dir                    the older and the newer one (default of B: the build folder)'
	@echo 'make edit      open the series as git commits, and print where; KSRC=7.2: that of this base'
	@echo 'make series    write the series as mailboxes, with cover letters and the suites as a patch; KSRC=7.2: that of this base'
	@echo 'make check-series  check each patch of the series, and that it builds without warnings; CELLS= and KSRC= as above'
	@echo '               needs a sparse that knows this kernel'
	@echo 'make port      merge the series into other kernels, or KSRC=dir, and list the patches that conflict'
	@echo 'make refresh   write these commits back to kernel/; KSRC= as for make edit'
	@echo 'make rebase    KSRC=dir                       bring the series to a kernel for which kernel/ has none, as git commits'
	@echo 'make clean     remove the build folder; downloads stay'
	@echo 'All of them: O=dir sets the build folder (default: build), SETUP=no installs nothing.'
	@echo 'All but make test and make fresh: PROJECT=example takes another project, built in example/build.'
	@echo 'More: ./matrix/run --help'

setup-matrix setup-test setup-mutants setup-coverage setup-fresh setup-llvm setup-riscv: setup-%:
	@SETUP='$(SETUP)' tools/setup $*

# Few cells need these compilers, and LLVM is large.
matrix: setup-matrix $(foreach one,llvm riscv,$(if $(filter all,$(CELLS))$(findstring $(one),$(CELLS)),setup-$(one)))
	@$(run) $(CELLS)

e2e: setup-matrix
	@$(run) --e2e $(CELLS)

e2e-base: setup-matrix
	@$(run) --e2e --base $(CELLS)

run-until-failure: setup-matrix
	@$(run) --until-failure $(CELLS)

vmm: setup-matrix
	@cells="$(call cells,vmm)"; $(some) && $(run) --e2e $$cells

bench: setup-matrix
	@cells="$(call cells,bench)"; $(some) && $(run) --e2e $$cells && $(run) --e2e --base $$cells && \
	tools/bench $$cells $(places) $(if $(UPDATE),--update)

bench-loop: setup-matrix
	@tools/bench-loop $(CELLS) $(places) $(if $(JOBS),--jobs $(JOBS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(foreach one,$(ONLY),--only $(one))

cells:
	@./matrix/run $(project) --list

canary: setup-matrix
	@$(run) --canaries

# ci/test and tools/fresh know this project only.
only-here:
	@[ -z '$(PROJECT)' ] || { echo 'these tests are for this project only; example/README.md has the targets for another one' >&2; exit 2; }

test: only-here setup-test
	@ci/test --out '$(O)' $(if $(JOBS),--jobs $(JOBS)) $(TESTS)

fresh: only-here setup-fresh
	@tools/fresh '$(DEBIAN)' --out '$(O)'

mutants: setup-mutants
	@set -f; tools/mutants $(ONLY) $(if $(GENERATED),--generated) $(if $(SEEDS),--seeds $(SEEDS)) $(places) $(if $(KSRC),--ksrc '$(KSRC)') $(if $(JOBS),--jobs $(JOBS)) $(if $(CELLS),--cells $(CELLS))

check-series: setup-test
	@tools/check-series --build $(CELLS) $(places) $(if $(KSRC),--ksrc '$(KSRC)') $(if $(JOBS),--jobs $(JOBS))

coverage: setup-coverage
	@tools/coverage $(CELLS) $(places) $(if $(KSRC),--ksrc '$(KSRC)') $(if $(JOBS),--jobs $(JOBS))

report:
	@tools/report $(places) $(if $(AGAINST),--against '$(AGAINST)')

diff:
	@tools/diff '$(A)' '$(B)'

edit: setup-matrix
	@tools/edit $(places) $(if $(KSRC),--ksrc '$(KSRC)')

series: setup-matrix
	@tools/export $(places) $(if $(KSRC),--ksrc '$(KSRC)')

rebase: setup-matrix
	@tools/rebase $(places) $(if $(KSRC),--ksrc '$(KSRC)')

port: setup-matrix
	@tools/port $(places) $(if $(KSRC),--ksrc '$(KSRC)')

refresh:
	@tools/refresh $(places) $(if $(KSRC),--ksrc '$(KSRC)')

# Only what is ours: O may name a folder that holds more.
clean:
	@tools/refresh $(places) --check
	@if grep -F " $$(realpath -m '$(O)')/" /proc/self/mountinfo; then echo 'make clean: unmount this first' >&2; exit 3; fi
	rm -rf $(foreach made,linux-* ksrc-* edit series port results report check-report loop canaries mutants coverage fresh tools .lock,'$(O)'/$(made))
	@if [ -d '$(O)' ]; then rmdir --ignore-fail-on-non-empty '$(O)'; fi
