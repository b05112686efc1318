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

PACKAGES  := libdw libelf libunwind-ptrace libunwind-generic libprotobuf-c zlib jansson ncursesw
WARNINGS  := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith
SANFLAGS  := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
OWNFLAGS  := -std=gnu11 -D_GNU_SOURCE -DCPROF_VERSION='"$(VERSION)"' -Iinclude -I$(O)/gen $(WARNINGS) \
             -fstack-protector-strong -pthread $(SANFLAGS)
OWNLIBS   := -liberty -llzma -lm -pthread

SOURCES   := $(filter-out src/cli/main.c,$(wildcard src/*/*.c))
OBJECTS   := $(SOURCES:%.c=$(O)/%.o) $(O)/gen/profile.pb-c.o
UNIT      := $(patsubst tests/unit/%.c,$(O)/tests/%,$(wildcard tests/unit/test_*.c))

all: $(O)/cprof-attach

# --- flags -------------------------------------------------------------------------------------
# Packages may be installed by `setup` in the same call: their flags are asked for when a recipe
# runs, after it. Objects depend on the flags, so switching SAN= rebuilds.
SETUPS := $(filter setup setup-check,$(MAKECMDGOALS))

$(O)/flags: FORCE | $(SETUPS)
	@mkdir -p $(O)/gen
	@{ echo '$(CC) $(CFLAGS) $(OWNFLAGS) $(LDFLAGS)'; pkg-config --cflags --libs $(PACKAGES); } >$@.new && \
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

unit: $(UNIT)

clean:
	rm -rf $(O)

.PHONY: all unit clean FORCE
-include $(OBJECTS:.o=.d) $(O)/src/cli/main.d $(UNIT:=.d)
