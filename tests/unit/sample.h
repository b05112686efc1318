/* SPDX-License-Identifier: MIT
 *
 * Samples for the tests of the image floor: programs compiled into a temporary directory, and what
 * addr2line and nm say of them.
 */
#ifndef CPROF_TEST_SAMPLE_H
#define CPROF_TEST_SAMPLE_H

#include <cprof/image.h>
#include <cprof/util.h>
#include <elf.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static char sample_directory[] = "/tmp/cprof-test-XXXXXX";

/* C++ with inlining two deep, templates, anonymous namespaces, lambdas and a file of its own. */
static const char sample_cc[] =
	"#include \"part.h\"\n"
	"#include <stdlib.h>\n"
	"struct box { int v; explicit box(int n) : v(n) {} int get(int k) const; };\n"
	"__attribute__((noinline)) int box::get(int k) const { return part<int>(v, k) + k; }\n"
	"namespace { __attribute__((noinline)) long hidden(long a, long b)\n"
	"{\n"
	"	for (long i = 0; i < b; i++)\n"
	"		a += part<long>(a, i) * i;\n"
	"	return a;\n"
	"} }\n"
	"namespace outer { namespace inner {\n"
	"template <class F> __attribute__((noinline)) int apply(F f, int n) { return f(n) + 1; }\n"
	"} }\n"
	"extern \"C\" __attribute__((noinline)) int plain_c(int n)\n"
	"{\n"
	"	if (n > 1000)\n"
	"		abort();\n"
	"	return n * 3;\n"
	"}\n"
	"int main(int argc, char **)\n"
	"{\n"
	"	box b(argc);\n"
	"	int extra = outer::inner::apply([&](int n) { return b.get(n) * argc; }, argc);\n"
	"	return b.get(3) + (int)hidden(argc, extra) + plain_c(argc);\n"
	"}\n";
static const char sample_part_h[] =
	"template <class T> static inline __attribute__((always_inline)) T deep(T x)\n"
	"{\n"
	"	T sum = 0;\n"
	"	for (T i = 0; i < x; i++)\n"
	"		sum ^= i * 7;\n"
	"	return sum;\n"
	"}\n"
	"template <class T> static inline __attribute__((always_inline)) T part(T x, T y)\n"
	"{\n"
	"	return deep<T>(x) + deep<T>(y);\n"
	"}\n";

static inline const char *sample_path(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", sample_directory, name);
	return path;
}

static inline void sample_write(const char *name, const void *bytes, size_t length)
{
	FILE *file = fopen(sample_path(name), "w");

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, length, file), length);
	assert_int_equal(fclose(file), 0);
}

/* Runs a shell command in the sample directory; false if it fails. */
static inline bool sample_try(const char *format, ...)
{
	char command[2048];
	va_list arguments;
	int length = snprintf(command, sizeof(command), "cd %s && ", sample_directory);

	va_start(arguments, format);
	vsnprintf(command + length, sizeof(command) - (size_t)length, format, arguments);
	va_end(arguments);
	return system(command) == 0;
}

#define sample_run(...) assert_true(sample_try(__VA_ARGS__))

static inline int sample_setup(void **state)
{
	(void)state;
	/* The samples are compiled by ordinary tools, without the sanitizers of this program. */
	unsetenv("LD_PRELOAD");
	if (!mkdtemp(sample_directory))
		return -1;
	sample_write("sample.cc", sample_cc, strlen(sample_cc));
	sample_write("part.h", sample_part_h, strlen(sample_part_h));
	return 0;
}

static inline int sample_teardown(void **state)
{
	(void)state;
	return sample_try("rm -rf %s", sample_directory) ? 0 : -1;
}

static inline int sample_open(const char *name)
{
	int fd = open(sample_path(name), O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static inline struct cprof_image *sample_image(const char *name)
{
	CPROF_AUTO_CLOSE int fd = sample_open(name);
	struct cprof_image *image = NULL;
	struct cprof_error *error = cprof_image_create(fd, &image);

	if (error)
		print_error("%s: %s\n", name, error->message);
	assert_null(error);
	return image;
}

static inline bool sample_add_debug(struct cprof_image *image, const char *name)
{
	CPROF_AUTO_CLOSE int fd = sample_open(name);

	return cprof_image_add_debug(image, fd);
}

static inline char *sample_read(const char *name, size_t *length)
{
	CPROF_AUTO_CLOSE int fd = sample_open(name);
	struct stat status;
	char *bytes;

	assert_int_equal(fstat(fd, &status), 0);
	bytes = malloc((size_t)status.st_size);
	assert_non_null(bytes);
	assert_int_equal(read(fd, bytes, (size_t)status.st_size), status.st_size);
	*length = (size_t)status.st_size;
	return bytes;
}

/* The address nm gives a symbol; 0 if it has none. */
static inline uint64_t sample_symbol(const char *name, const char *symbol)
{
	char command[512];
	unsigned long long address = 0;
	FILE *pipe;

	snprintf(command, sizeof(command), "nm %s | grep ' [tTwW] %s$'", sample_path(name), symbol);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	if (fscanf(pipe, "%llx", &address) != 1)
		address = 0;
	pclose(pipe);
	return address;
}

/* Start and end of a section, as readelf says. */
static inline void sample_section(const char *name, const char *section, uint64_t *start,
				  uint64_t *end)
{
	char command[512];
	unsigned long long address;
	unsigned long long size;
	FILE *pipe;

	snprintf(command, sizeof(command),
		 "readelf -SW %s | sed 's/^ *\\[ *[0-9]*\\]//' | awk '$1 == \"%s\" {print $3, $5}'",
		 sample_path(name), section);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	assert_int_equal(fscanf(pipe, "%llx %llx", &address, &size), 2);
	pclose(pipe);
	*start = address;
	*end = address + size;
}

/* Names one address. */
static inline struct cprof_names sample_names(struct cprof_image *image, uint64_t address,
					      unsigned flags)
{
	struct cprof_names names;

	assert_null(cprof_image_names(image, &address, 1, flags, &names));
	assert_int_equal(names.addresses, 1);
	assert_int_equal(names.first[0], 0);
	assert_int_equal(names.first[1], names.count);
	return names;
}

/* The outermost name at an address, in a buffer of its own. */
static inline const char *sample_name(struct cprof_image *image, uint64_t address)
{
	static char text[4096];
	struct cprof_names names = sample_names(image, address, 0);

	snprintf(text, sizeof(text), "%s",
		 names.count ? names.strings + names.names[names.count - 1].name : "");
	cprof_names_deinit(&names);
	return text;
}

#endif
