/* main() of a fuzz target in normal builds: runs it over every file named, and over every file of
 * every folder named. Fails when a name cannot be read or a folder holds no file: a corpus that
 * got lost must not look like one that passed. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t n_files;

static int replay_file(const char *path, const struct stat *st)
{
	/* exactly as long as the input, so that a sanitizer sees a read past its end */
	size_t size = (size_t)st->st_size;
	uint8_t *data = malloc(size ? size : 1);
	FILE *f = fopen(path, "rb");
	int r = -1;

	if (f && data && fread(data, 1, size, f) == size) {
		fprintf(stderr, "replay %s (%zu bytes)\n", path, size);
		(void)LLVMFuzzerTestOneInput(data, size);
		n_files++;
		r = 0;
	} else {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
	}
	if (f)
		(void)fclose(f);
	free(data);
	return r;
}

static int replay_folder(const char *path)
{
	struct dirent **names = NULL;
	int n = scandir(path, &names, NULL, alphasort), r = n < 0 ? -1 : 0;
	size_t before = n_files;

	for (int i = 0; i < n; i++) {
		char *file = NULL;
		struct stat st;

		if (names[i]->d_name[0] != '.' &&
			asprintf(&file, "%s/%s", path, names[i]->d_name) > 0) {
			if (stat(file, &st) < 0 ||
				(S_ISREG(st.st_mode) && replay_file(file, &st) < 0))
				r = -1;
			free(file);
		}
		free(names[i]);
	}
	free(names);
	if (n_files == before) {
		fprintf(stderr, "%s: no input to replay\n", path);
		r = -1;
	}
	return r;
}

int main(int argc, char **argv)
{
	int failed = argc < 2;

	for (int i = 1; i < argc; i++) {
		struct stat st;

		if (stat(argv[i], &st) < 0) {
			fprintf(stderr, "%s: %s\n", argv[i], strerror(errno));
			failed = 1;
		} else if ((S_ISDIR(st.st_mode) ? replay_folder(argv[i])
						: replay_file(argv[i], &st)) < 0) {
			failed = 1;
		}
	}
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
