/* SPDX-License-Identifier: MIT
 *
 * Modules: one a mapped file, shared by all spaces; each with its cache of unwind rules.
 */
#include "module.h"

#include "naming.h"

#include <cprof/util.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define RULES_FIRST 256
#define RULES_MAX   (1u << 18) /* 6 MB a module: beyond that the cache starts anew */
#define PATH_HASH   64

struct rule_entry { /* empty: rule.kind is CPROF_RULE_EMPTY */
	uint64_t address;
	struct cprof_rule rule;
};

struct cprof_module {
	struct cprof_module *next;
	struct cprof_module_key key;
	const char *path;
	char build_id[2 * CPROF_BUILD_ID_MAX + 1];
	struct cprof_image *image; /* for rules */
	char *problem;
	struct rule_entry *rules; /* open addressing, a power of two */
	size_t capacity;
	size_t used;
	struct cprof_naming naming; /* for names, behind its own lock */
};

struct kept_string {
	struct kept_string *next;
	char text[];
};

struct cprof_modules {
	struct cprof_module *first;
	struct cprof_module *kernel;
	struct kept_string *strings[PATH_HASH];
	char *debug_dir;
	bool kernel_tried;
};

struct cprof_error *cprof_modules_create(const struct cprof_modules_options *options,
					 struct cprof_modules **result)
{
	struct cprof_modules *modules = calloc(1, sizeof(*modules));
	const char *dir = options && options->debug_dir ? options->debug_dir : "/usr/lib/debug";

	if (!modules || !(modules->debug_dir = strdup(dir))) {
		free(modules);
		return cprof_error_nomem();
	}
	*result = modules;
	return NULL;
}

static void module_destroy(struct cprof_module *module)
{
	cprof_naming_deinit(&module->naming);
	cprof_image_destroy(module->image);
	free(module->problem);
	free(module->rules);
	free(module);
}

void cprof_modules_destroy(struct cprof_modules *modules)
{
	if (!modules)
		return;
	while (modules->first) {
		struct cprof_module *module = modules->first;

		modules->first = module->next;
		module_destroy(module);
	}
	for (size_t i = 0; i < PATH_HASH; i++)
		while (modules->strings[i]) {
			struct kept_string *string = modules->strings[i];

			modules->strings[i] = string->next;
			free(string);
		}
	free(modules->debug_dir);
	free(modules);
}

const char *cprof_modules_keep(struct cprof_modules *modules, const char *text)
{
	size_t length = strlen(text);
	struct kept_string **head = &modules->strings[cprof_hash_bytes(text, length) % PATH_HASH];
	struct kept_string *string;

	for (string = *head; string; string = string->next)
		if (strcmp(string->text, text) == 0)
			return string->text;
	string = malloc(sizeof(*string) + length + 1);
	if (!string)
		return NULL;
	memcpy(string->text, text, length + 1);
	string->next = *head;
	*head = string;
	return string->text;
}

static void set_build_id(struct cprof_module *module)
{
	static const char digits[] = "0123456789abcdef";
	const struct cprof_image_info *info = cprof_image_info(module->image);

	for (uint32_t i = 0; i < info->build_id_length; i++) {
		module->build_id[2 * i] = digits[info->build_id[i] >> 4];
		module->build_id[2 * i + 1] = digits[info->build_id[i] & 15];
	}
}

static void open_image(struct cprof_module *module, int fd, const void *bytes, size_t length)
{
	struct cprof_error *error = NULL;

	if (bytes)
		error = cprof_image_create_memory(bytes, length, &module->image);
	else if (fd >= 0)
		error = cprof_image_create(fd, &module->image);
	if (error)
		module->problem = strdup(error->message);
	cprof_error_destroy(error);
	if (module->image)
		set_build_id(module);
	else if (!module->problem)
		module->problem = strdup("its file cannot be opened");
	/* A file that is no ELF is code made at run time (a JIT's memfd). */
	if (!module->image && module->key.kind == CPROF_MODULE_FILE && fd >= 0)
		module->key.kind = CPROF_MODULE_JIT;
}

static struct cprof_module *module_create(struct cprof_modules *modules,
					  const struct cprof_module_key *key, const char *path)
{
	struct cprof_module *module = calloc(1, sizeof(*module));

	if (!module)
		return NULL;
	module->key = *key;
	module->path = path;
	cprof_naming_init(&module->naming);
	module->next = modules->first;
	modules->first = module;
	return module;
}

static bool same_key(const struct cprof_module_key *a, const struct cprof_module_key *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
	       a->mtime_ns == b->mtime_ns && a->owner == b->owner;
}

struct cprof_module *cprof_modules_get(struct cprof_modules *modules,
				       const struct cprof_module_key *key,
				       struct cprof_target *target, const char *path, int fd,
				       const void *bytes, size_t length)
{
	struct cprof_module *module;

	for (module = modules->first; module; module = module->next)
		if (same_key(&module->key, key) && strcmp(module->path, path) == 0)
			break;
	if (module || !(module = module_create(modules, key, path))) {
		if (fd >= 0)
			close(fd);
		return module;
	}
	open_image(module, fd, bytes, length);
	if (!module->image && fd >= 0) {
		close(fd);
		fd = -1;
	}
	if (module->key.kind == CPROF_MODULE_JIT)
		cprof_naming_use_perf_map(&module->naming, target);
	else if (module->image)
		cprof_naming_use_image(&module->naming, target, modules->debug_dir, path, fd, bytes,
				       length);
	return module;
}

struct cprof_module *cprof_modules_kernel(struct cprof_modules *modules)
{
	static const struct cprof_module_key key = {.kind = CPROF_MODULE_KERNEL};

	if (!modules->kernel_tried) {
		modules->kernel_tried = true;
		modules->kernel = module_create(modules, &key, "[kernel.kallsyms]");
		if (modules->kernel)
			cprof_naming_use_kernel(&modules->kernel->naming);
	}
	return modules->kernel;
}

enum cprof_module_kind cprof_module_kind(const struct cprof_module *module)
{
	return module->key.kind;
}

struct cprof_image *cprof_module_image(struct cprof_module *module)
{
	return module->image;
}

const char *cprof_module_problem(const struct cprof_module *module)
{
	return module->problem ? module->problem : "";
}

void cprof_module_facts(struct cprof_module *module, struct cprof_module_facts *facts)
{
	*facts = (struct cprof_module_facts){.path = module->path, .build_id = module->build_id};
	cprof_naming_facts(&module->naming, facts);
}

struct cprof_error *cprof_module_names(struct cprof_module *module, const uint64_t *addresses,
				       size_t count, unsigned flags, struct cprof_names *names)
{
	return cprof_naming_names(&module->naming, addresses, count, flags, names);
}

bool cprof_module_variable(struct cprof_module *module, uint64_t address, char *name, size_t size,
			   uint64_t *start)
{
	return cprof_naming_variable(&module->naming, address, name, size, start);
}

/* --- the rule cache ------------------------------------------------------------------------ */

static struct rule_entry *find_slot(struct rule_entry *rules, size_t capacity, uint64_t address)
{
	size_t slot = cprof_hash_u64(address) & (capacity - 1);

	while (rules[slot].rule.kind != CPROF_RULE_EMPTY && rules[slot].address != address)
		slot = (slot + 1) & (capacity - 1);
	return &rules[slot];
}

/* Keeps the cache at most half full. */
static bool make_room(struct cprof_module *module)
{
	size_t capacity = module->capacity ? module->capacity * 2 : RULES_FIRST;
	struct rule_entry *rules;

	if (module->used * 2 < module->capacity)
		return true;
	if (capacity > RULES_MAX) {
		memset(module->rules, 0, module->capacity * sizeof(*module->rules));
		module->used = 0;
		return true;
	}
	rules = calloc(capacity, sizeof(*rules));
	if (!rules)
		return false;
	for (size_t i = 0; i < module->capacity; i++)
		if (module->rules[i].rule.kind != CPROF_RULE_EMPTY)
			*find_slot(rules, capacity, module->rules[i].address) = module->rules[i];
	free(module->rules);
	module->rules = rules;
	module->capacity = capacity;
	return true;
}

bool cprof_module_put_rule(struct cprof_module *module, uint64_t address,
			   const struct cprof_rule *rule)
{
	struct rule_entry *entry;

	if (!make_room(module))
		return false;
	entry = find_slot(module->rules, module->capacity, address);
	module->used += entry->rule.kind == CPROF_RULE_EMPTY;
	*entry = (struct rule_entry){.address = address, .rule = *rule};
	return true;
}

static const struct cprof_rule *ask_rule(struct cprof_module *module, uint64_t address)
{
	static const struct cprof_rule none = {.kind = CPROF_RULE_NONE};
	struct cprof_rule rule = none;

	if (module->image)
		cprof_image_rules(module->image, &address, 1, &rule);
	if (!cprof_module_put_rule(module, address, &rule))
		return &none;
	return &find_slot(module->rules, module->capacity, address)->rule;
}

const struct cprof_rule *cprof_module_rule(struct cprof_module *module, uint64_t address)
{
	if (module->capacity) {
		const struct rule_entry *entry =
			find_slot(module->rules, module->capacity, address);

		if (entry->rule.kind != CPROF_RULE_EMPTY)
			return &entry->rule;
	}
	return ask_rule(module, address);
}

struct cprof_error *cprof_module_create_synthetic(struct cprof_modules *modules,
						  struct cprof_image *image,
						  struct cprof_module **result)
{
	static const struct cprof_module_key key = {.kind = CPROF_MODULE_FILE};

	*result = module_create(modules, &key, "synthetic");
	if (!*result)
		return cprof_error_nomem();
	(*result)->image = image;
	return NULL;
}
