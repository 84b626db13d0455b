# What can be done here. Everything is made in .venv/, build/ and dist/, and `make clean` takes them away again.
#
#   make demo     build, install into .venv, and watch what each PID 1 leaves behind
#   make test     every test (ARGS="-k drain" chooses; .ci/run lists what they need from Debian)
#   make check    formatting, lint, types, contracts, C warnings
#   make build    build/sexton-init, its sanitizer build, and the other machine's
#   make bench    the tables beside other inits and supervisors (each says what it lacks)
#   make fuzz     the parsers under libFuzzer, SECONDS_EACH seconds each
#   make install  sexton into .venv, editable
#   make wheels   dist/: the sdist, and a wheel for each machine

PYTHON ?= python3
SECONDS_EACH ?= 30
ARGS ?=
# Clang's sanitizers know more, gcc's come with gcc.
SANITIZER_CC ?= $(shell command -v clang || echo gcc)

BIN := .venv/bin
SOURCES := $(wildcard init/*.c)
PARTS := $(SOURCES) $(wildcard init/*.h) init/cflags init/ldflags src/sexton/__init__.py
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/sexton/__init__.py)
DEFINE := -DSEXTON_VERSION='"$(VERSION)"'
SANITIZE := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
# Zig is 100 MB: only where no other compiler is named.
GROUPS := --group build $(if $(SEXTON_CC),,--group zig)
# One compiler that is named by hand compiles for one machine.
BINARIES := build/sexton-init build/sexton-init-asan $(if $(SEXTON_CC),,build/sexton-init-aarch64)
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DELETE_ON_ERROR:
.PHONY: build demo test check check-python check-c check-sh check-man bench fuzz install wheels clean

build: $(BINARIES)

demo: install
	$(BIN)/python demo/demo.py

install: build/sexton-init .venv/.installed

test: $(BINARIES) .venv/.dev
	$(BIN)/pytest $(addprefix --sexton-init=,$(filter-out %-aarch64,$(BINARIES))) $(ARGS)

# --- .venv ---

.venv/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'sexton needs Python 3.11 or newer; name one: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo 'This Python cannot make a virtual environment; on Debian: apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) install --upgrade 'pip>=25.1'

# The tools of a build, then sexton itself. Nothing here is done again until what it is made from changes.
.venv/.build: .venv/pyvenv.cfg pyproject.toml
	$(PIP) install $(GROUPS)
	@touch $@

# Editable: the package is src/, the program is the one in build/.
.venv/.installed: .venv/.build
	$(PIP) install --no-build-isolation --editable .
	ln -sf ../../build/sexton-init $(BIN)/sexton-init
	@touch $@

.venv/.dev: .venv/.installed
	$(PIP) install --group dev
	@touch $@

# --- the native program ---

build/sexton-init: $(PARTS) hatch_build.py | .venv/.build
	env -u SEXTON_TARGET $(BIN)/python hatch_build.py $@

build/sexton-init-aarch64: $(PARTS) hatch_build.py | .venv/.build
	SEXTON_TARGET=aarch64 $(BIN)/python hatch_build.py $@

build/sexton-init-asan: $(PARTS) tests/sanitizers.c
	@mkdir -p build
	$(SANITIZER_CC) @init/cflags $(SANITIZE) $(DEFINE) $(SOURCES) tests/sanitizers.c -o $@.part
	@mv $@.part $@

wheels: .venv/.dev
	rm -rf dist
	$(BIN)/python -m build --sdist
	for machine in x86_64 aarch64; do \
	  SEXTON_TARGET=$$machine $(BIN)/python -m build --wheel --no-isolation || exit; done

# --- checks ---

check: check-python check-c check-sh check-man

check-python: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@wc -l $$(git ls-files '*.py') | awk '$$2 != "total" && $$1 > 500 { print $$2 ": " $$1 " lines, split it"; bad = 1 } END { exit bad }'

# gcc and clang see different things, and so do the analyzers; .clang-tidy says what is looked for and why not.
# cppcheck: a struct may be laid out by the kernel, which uses members that we do not.
WARN := -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wundef -Wimplicit-fallthrough
check-c:
	clang @init/cflags $(WARN) $(DEFINE) -fsyntax-only $(SOURCES)
	for file in $(SOURCES); do \
	  gcc @init/cflags $(WARN) -Wlogical-op -Wduplicated-cond -fanalyzer $(DEFINE) -c $$file -o /dev/null || exit; done
	cppcheck --quiet --std=c11 --enable=warning,style,performance,portability --inline-suppr --error-exitcode=1 \
	  --suppress=unusedStructMember -D_GNU_SOURCE -D__x86_64__ $(DEFINE) $(SOURCES)
	clang-tidy --quiet $(SOURCES) -- $$(cat init/cflags) $(DEFINE)
	@wc -l $(SOURCES) $(wildcard init/*.h) | awk '$$2 != "total" && $$1 > 600 { print $$2 ": " $$1 " lines, split it"; bad = 1 } END { exit bad }'

check-sh:
	shellcheck .ci/run $$(git ls-files '*.sh')

check-man:
	mandoc -T lint -W warning $(wildcard man/*.1 man/*.5)

# --- the rest ---

# An input that fails is left in build/, with the command that runs it again.
fuzz: build/fuzz-proc build/fuzz-options build/fuzz-owner
	for name in proc options owner; do \
	  mkdir -p build/corpus-$$name && build/fuzz-$$name -max_total_time=$(SECONDS_EACH) -close_fd_mask=3 -verbosity=0 -print_final_stats=1 \
	    -dict=tests/fuzz/$$name.dict -artifact_prefix=build/fuzz-$$name- build/corpus-$$name || exit; done

build/fuzz-options: WRAP := -Wl,--wrap=open
build/fuzz-%: tests/fuzz/%.c $(PARTS)
	@mkdir -p build
	clang @init/cflags $(SANITIZE) -fsanitize=fuzzer -Dmain=unused_main $(DEFINE) -Iinit $(SOURCES) $< $(WRAP) -o $@

bench: install .venv/.dev
	$(BIN)/python -m bench.init
	$(BIN)/python -m bench.proc
	$(BIN)/python -m bench.inject
	$(BIN)/python -m bench.spawn
	$(BIN)/python -m bench.supervise

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
