/* SPDX-License-Identifier: MIT
 *
 * The one table of keys: the handler, the footer and the help all read it.
 */
#include "ui.h"

#include <cprof/util.h>
#include <string.h>

const struct cprof_binding cprof_bindings[] = {
	{CPROF_REQUEST_VIEW, "1..6", NULL, "CPU, heap, mutex, block, threads, memtrace", {0}},
	{CPROF_REQUEST_NEXT_VIEW, "Tab", "Tab view", "the next view", {CPROF_KEY_TAB}},
	{CPROF_REQUEST_PREVIOUS_VIEW, "Shift-Tab", NULL, "the view before", {CPROF_KEY_BACK_TAB}},
	{CPROF_REQUEST_ENTER,
	 "Enter",
	 "Enter calls",
	 "callers and callees of a function; the stack of a thread;\nflame: zoom in; starts a view "
	 "that is off",
	 {CPROF_KEY_ENTER}},
	{CPROF_REQUEST_FLAME,
	 "f F5",
	 "f flame",
	 "flame view: arrows walk, Enter zooms in, Esc out",
	 {'f', CPROF_KEY_F1 + 4}},
	{CPROF_REQUEST_SOURCE, "l", "l source", "source lines with their cost", {'l'}},
	{CPROF_REQUEST_CODE, "a", "a code", "instructions with their cost", {'a'}},
	{CPROF_REQUEST_FILTER,
	 "/ F3 F4",
	 "/ filter",
	 "only stacks through functions, files, modules that match a\nregular expression; !: only "
	 "those through none; empty: all",
	 {'/', CPROF_KEY_F1 + 2, CPROF_KEY_F1 + 3}},
	{CPROF_REQUEST_NEXT_MATCH,
	 "n N",
	 NULL,
	 "to the next row that matches, the one before",
	 {'n'}},
	{CPROF_REQUEST_PREVIOUS_MATCH, "", NULL, NULL, {'N'}},
	{CPROF_REQUEST_THREAD, "t", "t thread", "only one thread, or all again", {'t'}},
	{CPROF_REQUEST_SORT,
	 "s F6",
	 "s sort",
	 "sort by the next column; or click on its head",
	 {'s', CPROF_KEY_F1 + 5}},
	{CPROF_REQUEST_REVERSE, "S", NULL, "the other way round", {'S'}},
	{CPROF_REQUEST_TYPE,
	 "i",
	 "i type",
	 "the next value type: bytes, objects, time, counts",
	 {'i'}},
	{CPROF_REQUEST_LONGER,
	 "+ -",
	 "+- window",
	 "a longer or shorter window: 1, 5, 10, 30, 60 s, all",
	 {'+', '='}},
	{CPROF_REQUEST_SHORTER, "", NULL, NULL, {'-', '_'}},
	{CPROF_REQUEST_FREEZE, "Space", "Space freeze", "freeze the picture, and go on", {' '}},
	{CPROF_REQUEST_BASE,
	 "b",
	 "b base",
	 "a baseline: from now on the difference to it is shown",
	 {'b'}},
	{CPROF_REQUEST_UNBASE, "B", NULL, "no baseline any more", {'B'}},
	{CPROF_REQUEST_WRITE, "w", "w write", "write what is shown as a pprof file", {'w'}},
	{CPROF_REQUEST_DUMP, "d", "d dump", "write a dump of all threads", {'d'}},
	{CPROF_REQUEST_RESET, "r", "r reset", "count from now on", {'r'}},
	{CPROF_REQUEST_UP, "Up k", NULL, "the selection", {CPROF_KEY_UP, 'k'}},
	{CPROF_REQUEST_DOWN, "Down j", NULL, NULL, {CPROF_KEY_DOWN, 'j'}},
	{CPROF_REQUEST_PAGE_UP, "PgUp PgDn", NULL, "a screen up or down", {CPROF_KEY_PAGE_UP}},
	{CPROF_REQUEST_PAGE_DOWN, "", NULL, NULL, {CPROF_KEY_PAGE_DOWN}},
	{CPROF_REQUEST_HOME, "Home End", NULL, "first and last row", {CPROF_KEY_HOME, 'g'}},
	{CPROF_REQUEST_END, "", NULL, NULL, {CPROF_KEY_END, 'G'}},
	{CPROF_REQUEST_LEFT,
	 "Left Right",
	 NULL,
	 "long lines; siblings in the flame view",
	 {CPROF_KEY_LEFT}},
	{CPROF_REQUEST_RIGHT, "", NULL, NULL, {CPROF_KEY_RIGHT}},
	{CPROF_REQUEST_BACK,
	 "Esc",
	 "Esc back",
	 "back; then: no filter, all threads",
	 {CPROF_KEY_ESCAPE}},
	{CPROF_REQUEST_HELP, "? F1", "? help", "this help", {'?', CPROF_KEY_F1, 'h'}},
	{CPROF_REQUEST_QUIT,
	 "q F10",
	 "q quit",
	 "leave: the process goes on as if nothing had been",
	 {'q', CPROF_KEY_F10}},
	{CPROF_REQUEST_REDRAW, "Ctrl-L", NULL, "draw the screen anew", {CPROF_KEY_REDRAW}},
	{CPROF_REQUEST_CLICK,
	 "mouse",
	 NULL,
	 "click: select, again: Enter; sort, choose a view; wheel: scroll",
	 {CPROF_KEY_CLICK}},
	{CPROF_REQUEST_SCROLL_UP, "", NULL, NULL, {CPROF_KEY_WHEEL_UP}},
	{CPROF_REQUEST_SCROLL_DOWN, "", NULL, NULL, {CPROF_KEY_WHEEL_DOWN}},
	{CPROF_REQUEST_NONE, NULL, NULL, NULL, {0}},
};

enum cprof_request cprof_key_request(int code)
{
	if (code >= '1' && code < '1' + CPROF_VIEWS)
		return CPROF_REQUEST_VIEW;
	for (const struct cprof_binding *binding = cprof_bindings; binding->request; binding++)
		for (size_t i = 0; i < CPROF_COUNT(binding->codes) && binding->codes[i]; i++)
			if (binding->codes[i] == code)
				return binding->request;
	return CPROF_REQUEST_NONE;
}

/* --- scripts ------------------------------------------------------------------------------- */

static const struct {
	char letter;
	int code;
} escapes[] = {
	{'n', CPROF_KEY_ENTER},     {'e', CPROF_KEY_ESCAPE},
	{'t', CPROF_KEY_TAB},       {'u', CPROF_KEY_UP},
	{'d', CPROF_KEY_DOWN},      {'l', CPROF_KEY_LEFT},
	{'r', CPROF_KEY_RIGHT},     {'U', CPROF_KEY_PAGE_UP},
	{'D', CPROF_KEY_PAGE_DOWN}, {'h', CPROF_KEY_HOME},
	{'E', CPROF_KEY_END},       {'b', CPROF_KEY_BACKSPACE},
	{'T', CPROF_KEY_BACK_TAB},  {'\\', '\\'},
};

bool cprof_key_script(const char **script, struct cprof_key *key)
{
	const unsigned char *next = (const unsigned char *)*script;

	*key = (struct cprof_key){0};
	if (!*next)
		return false;
	if (*next != '\\') {
		key->code = *next == '\n'     ? CPROF_KEY_ENTER
			    : *next == '\t'   ? CPROF_KEY_TAB
			    : *next == '\033' ? CPROF_KEY_ESCAPE
					      : (int)cprof_text_next(script);
		*script += (const char *)next == *script;
		return true;
	}
	for (size_t i = 0; i < CPROF_COUNT(escapes); i++)
		if (escapes[i].letter == (char)next[1])
			key->code = escapes[i].code;
	*script += next[1] ? 2 : 1;
	return true;
}

struct cprof_error *cprof_key_script_check(const char *script)
{
	struct cprof_key key;
	const char *next = script;

	while (next && cprof_key_script(&next, &key))
		if (!key.code)
			return cprof_error_create(CPROF_USAGE,
						  "there are \\n \\e \\t \\u \\d \\l \\r \\U \\D "
						  "\\h \\E \\b \\T \\\\",
						  "--keys: \\%c: there is no such key", next[-1]);
	return NULL;
}
