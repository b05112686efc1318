# cprof: see README.md. `make help` lists the targets.
#
#   make O=DIR        build elsewhere            make V=1     show commands
#   make SAN=address,undefined | SAN=thread      build with sanitizers
#   make PREFIX=/usr DESTDIR=…  install

O       ?= build
PREFIX  ?= /usr/local
CC      ?= cc
CFLAGS  ?= -O2 -g
VERSION := 0.1.0

MAKEFLAGS += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' $(1) $(2))
comma := ,

PACKAGES  := libdw libelf capstone libunwind-ptrace libunwind-generic libprotobuf-c zlib jansson ncursesw
WARNINGS  := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith
SANFLAGS  := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
OWNFLAGS  := -std=gnu11 -D_GNU_SOURCE -DCPROF_VERSION='"$(VERSION)"' -Iinclude -I$(O)/gen $(WARNINGS) \
             -fstack-protector-strong -pthread $(SANFLAGS)
OWNLIBS   := -liberty -llzma -lm -pthread

SOURCES   := $(filter-out src/cli/main.c,$(wildcard src/*/*.c tui/*.c attach/*.c))
OBJECTS   := $(SOURCES:%.c=$(O)/%.o) $(O)/gen/profile.pb-c.o $(O)/attach/agent/blob.o
UNIT      := $(patsubst tests/unit/%.c,$(O)/tests/%,$(wildcard tests/unit/test_*.c))

all: $(O)/cprof-attach

# --- flags -------------------------------------------------------------------------------------
# Packages may be installed by `setup` in the same call: their flags are asked for when a recipe
# runs, after it. Objects depend on the flags, so switching SAN= rebuilds.
SETUPS := $(filter setup setup-check,$(MAKECMDGOALS))

$(O)/flags: FORCE | $(SETUPS)
	@mkdir -p $(O)/gen
	@{ echo '$(CC) $(CFLAGS) $(OWNFLAGS) $(LDFLAGS) $(AGENTFLAGS)'; pkg-config --cflags --libs $(PACKAGES); } >$@.new && \
	{ cmp -s $@.new $@ && rm $@.new || mv $@.new $@; }
	@pkg-config --cflags $(PACKAGES) >$(O)/cflags && pkg-config --libs $(PACKAGES) >$(O)/libs
FORCE:

compile = $(CC) $(OWNFLAGS) $$(cat $(O)/cflags) $(CFLAGS) -MMD -MP
link    = $(CC) $(SANFLAGS) $(CFLAGS) $(LDFLAGS)

# --- the program -------------------------------------------------------------------------------
$(O)/gen/profile.pb-c.c: src/pprof/profile.proto $(O)/flags
	$(call say,PROTO,$@)
	$(Q)protoc-c --proto_path=src/pprof --c_out=$(O)/gen profile.proto
$(O)/gen/profile.pb-c.h: $(O)/gen/profile.pb-c.c ;
$(O)/gen/profile.pb-c.o: $(O)/gen/profile.pb-c.c $(O)/flags
	$(Q)$(compile) -c -o $@ $<

$(O)/%.o: %.c $(O)/flags | $(O)/gen/profile.pb-c.h
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D) && $(compile) -c -o $@ $<

# --- the agent ---------------------------------------------------------------------------------
# A freestanding flat image, whatever CFLAGS and SAN= say.
AGENT      := $(patsubst %.c,$(O)/%.o,$(wildcard attach/agent/*.c))
AGENTFLAGS := -std=gnu11 -O2 -Iinclude $(WARNINGS) -ffreestanding -fPIE -fvisibility=hidden \
              -mgeneral-regs-only -fno-stack-protector -fcf-protection=branch -fno-omit-frame-pointer \
              -fno-jump-tables -fno-asynchronous-unwind-tables -fno-builtin \
              $(if $(findstring clang,$(CC)),,-mstringop-strategy=loop)

$(AGENT): $(O)/%.o: %.c $(O)/flags
	$(call say,AGENT,$<)
	$(Q)mkdir -p $(@D) && $(CC) $(AGENTFLAGS) -MMD -MP -c -o $@ $<

# The linker script refuses data and a GOT; every reference must be relative to the pc.
$(O)/attach/agent/agent.elf: $(AGENT) attach/agent/agent.ld
	$(call say,LD,$@)
	$(Q)if readelf -rW $(AGENT) | grep R_X86_64_ | grep -v 'R_X86_64_PC32\|R_X86_64_PLT32'; then \
		echo 'the agent must be position-independent' >&2; exit 1; fi
	$(Q)$(LD) -static -nostdlib --no-undefined -z noexecstack -T attach/agent/agent.ld -o $@ $(AGENT)
	$(Q)if nm -u $@ | grep . || readelf -rW $@ | grep R_X86_64_; then \
		echo 'the agent must stand alone' >&2; exit 1; fi
$(O)/attach/agent/agent.bin: $(O)/attach/agent/agent.elf
	$(Q)objcopy -O binary $< $@
$(O)/attach/agent/blob.o: attach/agent/blob.S $(O)/attach/agent/agent.bin
	$(Q)$(CC) -DCPROF_AGENT_BLOB='"$(O)/attach/agent/agent.bin"' -c -o $@ $<

$(O)/libcprof.a: $(OBJECTS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(O)/cprof-attach: $(O)/src/cli/main.o $(O)/libcprof.a
	$(call say,LD,$@)
	$(Q)$(link) -o $@ $^ $$(cat $(O)/libs) $(OWNLIBS)

# --- tests -------------------------------------------------------------------------------------
$(O)/tests/%: tests/unit/%.c $(O)/libcprof.a $(O)/flags
	$(call say,TEST,$<)
	$(Q)mkdir -p $(@D) && $(compile) -MT $@ -MF $@.d -o $@ $< $(O)/libcprof.a $$(cat $(O)/libs) $(OWNLIBS) -lcmocka

# Helpers of the system tests and benchmarks.
TOOLS := $(patsubst tests/system/%.c,$(O)/tools/%,$(wildcard tests/system/*.c))
$(O)/tools/%: tests/system/%.c $(O)/libcprof.a $(O)/flags
	$(Q)mkdir -p $(@D) && $(compile) -MT $@ -MF $@.d -o $@ $< $(O)/libcprof.a $$(cat $(O)/libs) $(OWNLIBS)

unit: $(UNIT)

# Programs that are profiled by tests, bench and demo: never sanitized, -O2, no frame pointers.
WORKLOADS := $(patsubst tests/workloads/%,$(O)/workloads/%,$(basename $(wildcard tests/workloads/*.c tests/workloads/*.cc)))
WORKFLAGS := -O2 -g -fomit-frame-pointer -Wall -pthread

$(O)/workloads/%: tests/workloads/%.c $(O)/flags
	$(Q)mkdir -p $(@D) && $(CC) -std=gnu11 -D_GNU_SOURCE $(WORKFLAGS) -o $@ $< -lm -ldl
$(O)/workloads/%: tests/workloads/%.cc $(O)/flags
	$(Q)mkdir -p $(@D) && $(CXX) $(WORKFLAGS) -o $@ $<

$(O)/workloads/lib/%.so: tests/workloads/lib/%.c $(O)/flags
	$(Q)mkdir -p $(@D) && $(CC) -std=gnu11 -D_GNU_SOURCE $(WORKFLAGS) -fPIC -shared -o $@ $<

LIBRARIES := $(patsubst tests/workloads/lib/%.c,$(O)/workloads/lib/%.so,$(wildcard tests/workloads/lib/*.c))
workloads: $(WORKLOADS) $(LIBRARIES)

# Ends on the line "N passed, N failed".
check: all unit workloads $(TOOLS)
	@O=$(abspath $(O)) tests/run.sh $(UNIT) $(sort $(wildcard tests/system/test_*.sh))

bench: all workloads $(TOOLS)
	@for bench in $(sort $(wildcard tests/bench/bench_*.py)); do \
		O=$(abspath $(O)) "$$bench" || exit; \
	done

# Long runs that no check has time for; their results are reported.
torture: all workloads $(TOOLS)
	@for torture in $(sort $(wildcard tests/torture/*.sh)); do \
		O=$(abspath $(O)) "$$torture" || exit; \
	done

demo: all $(O)/workloads/service
	@O=$(abspath $(O)) tests/demo.sh

# The pictures of the README, anew.
screens: all workloads
	@O=$(abspath $(O)) tests/screens.py man

# --- fuzzing -----------------------------------------------------------------------------------
FUZZ_SECONDS ?= 60
FUZZERS  := $(patsubst tests/fuzz/%.c,$(O)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZFLAGS := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined

# A library of its own, built by clang with coverage.
fuzz-library: | $(SETUPS)
	@$(MAKE) O=$(O)/fuzz/lib CC=clang CFLAGS='$(FUZZFLAGS)' $(O)/fuzz/lib/libcprof.a
$(O)/fuzz/%: tests/fuzz/%.c fuzz-library
	$(call say,FUZZ,$<)
	$(Q)clang $(filter-out -fstack-protector-strong,$(OWNFLAGS)) $$(cat $(O)/fuzz/lib/cflags) \
		$(FUZZFLAGS) -fsanitize=fuzzer -o $@ $< $(O)/fuzz/lib/libcprof.a \
		$$(cat $(O)/fuzz/lib/libs) $(OWNLIBS)

fuzz: $(FUZZERS)
	@for fuzzer in $(FUZZERS); do name=$${fuzzer##*/fuzz_}; log=$(O)/fuzz/$$name.log; \
		seeds=tests/fuzz/seeds/$$name; mkdir -p $(O)/fuzz/corpus/$$name; \
		$$fuzzer -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -timeout=20 \
			-artifact_prefix=$(O)/fuzz/$$name- -print_final_stats=1 \
			$(O)/fuzz/corpus/$$name $$([ -d $$seeds ] && echo $$seeds) >$$log 2>&1 || \
			{ echo "fuzz $$name FAILED"; grep -v '^#' $$log | tail -n 40; exit 1; }; \
		echo "ok fuzz $$name: $$(sed -n 's/^stat::number_of_executed_units: *//p' $$log) runs"; \
	done

# --- lint --------------------------------------------------------------------------------------
CODE    := $(wildcard include/cprof/*.h src/*/*.[ch] tui/*.[ch] attach/*.[ch] attach/agent/*.[ch] tests/unit/*.c tests/fuzz/*.c tests/workloads/*.c)
SCRIPTS := .ci/run $(wildcard tests/*.sh tests/*/*.sh)

lint: SHELL := /bin/bash
lint: all
	$(Q)clang-format --dry-run -Werror $(CODE)
	$(Q)tests/lint/includes.sh
	$(Q)tests/lint/sizes.sh
	$(Q)shellcheck -x -P SCRIPTDIR $(SCRIPTS)
	$(Q)set -o pipefail; clang-tidy --quiet --warnings-as-errors='*' $(filter-out %.h,$(wildcard src/*/*.c tui/*.c attach/*.c)) -- \
		$(filter-out -W%,$(OWNFLAGS)) $$(cat $(O)/cflags) 2>&1 | sed '/warnings* generated/d'

# --- installing --------------------------------------------------------------------------------
SHARE   = $(DESTDIR)$(PREFIX)/share
MANPAGE = $(SHARE)/man/man1/cprof-attach.1
COMPLETE_BASH = $(SHARE)/bash-completion/completions/cprof-attach
COMPLETE_ZSH  = $(SHARE)/zsh/site-functions/_cprof-attach
COMPLETE_FISH = $(SHARE)/fish/vendor_completions.d/cprof-attach.fish

install: all
	install -D -m 755 $(O)/cprof-attach $(DESTDIR)$(PREFIX)/bin/cprof-attach
	install -D -m 644 man/cprof-attach.1 $(MANPAGE)
	install -D -m 644 completions/cprof-attach.bash $(COMPLETE_BASH)
	install -D -m 644 completions/_cprof-attach $(COMPLETE_ZSH)
	install -D -m 644 completions/cprof-attach.fish $(COMPLETE_FISH)

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/cprof-attach $(MANPAGE) $(COMPLETE_BASH) $(COMPLETE_ZSH) $(COMPLETE_FISH)

# --- packages ----------------------------------------------------------------------------------
DEBIAN := gcc g++ libc6-dev make pkg-config binutils libdw-dev libelf-dev libunwind-dev libprotobuf-c-dev \
          protobuf-c-compiler zlib1g-dev liblzma-dev libiberty-dev libjansson-dev libncurses-dev uthash-dev libcapstone-dev
FEDORA := gcc gcc-c++ make pkgconf binutils elfutils-devel libunwind-devel protobuf-c-devel protobuf-c-compiler \
          zlib-devel xz-devel binutils-devel jansson-devel ncurses-devel uthash-devel capstone-devel
DEBIAN_CHECK := libcmocka-dev dwz xz-utils golang-go python3 redis-server redis-tools procps man-db zsh fish gdb strace elfutils tmux \
                libjemalloc2 libgoogle-perftools4 musl-tools
FEDORA_CHECK := libcmocka-devel dwz xz golang python3 redis procps-ng man-db zsh fish gdb strace elfutils tmux \
                jemalloc gperftools-libs musl-gcc

setup:
	@FEDORA='$(FEDORA)' tests/setup.sh $(DEBIAN)
setup-check: | $(filter setup,$(MAKECMDGOALS))
	@FEDORA='$(FEDORA) $(FEDORA_CHECK)' tests/setup.sh $(DEBIAN) $(DEBIAN_CHECK)

clean:
	rm -rf $(O)

help:
	@echo 'make              build $(O)/cprof-attach (O=DIR, V=1, SAN=address,undefined, SAN=thread)'
	@echo 'make setup        install the packages the build needs; setup-check: the tests too'
	@echo 'make demo         profile a small sample service; screens: the pictures of the README'
	@echo 'make check        all tests; make unit builds the unit tests only'
	@echo 'make torture      long runs: no call of a target may change while it is stopped again and again'
	@echo 'make bench        measurements against peers; make fuzz FUZZ_SECONDS=60; make lint'
	@echo 'make install      PREFIX=/usr/local DESTDIR=; uninstall; clean'

.PHONY: all unit workloads check bench torture demo screens fuzz fuzz-library lint install uninstall setup setup-check clean help FORCE
-include $(OBJECTS:.o=.d) $(AGENT:.o=.d) $(O)/src/cli/main.d $(UNIT:=.d) $(TOOLS:=.d)
