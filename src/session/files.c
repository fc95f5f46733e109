#include "files.h"
#include "pki.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <swarm/backoff.h>
#include <swarm/err.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <swarm/session.h>
#include <sys/stat.h>

#define CERT_DIR    "certificates"
#define ROOT_FILE   "swarm-root-ca.crt"
#define CERT_FILE   "swarm-node.crt"
#define KEY_FILE    "swarm-node.key"
#define TEMP_PREFIX ".tmp-"
#define TEMP_CERT   ".swarm-node.crt"

static int fail(struct sw_err *err, const char *what, const char *path)
{
	int e = errno;

	return sw_err_set(err, SW_FATAL, -e, "%s %s: %s", what, path, strerror(e));
}

int state_dir_prepare(const char *path, struct sw_err *err)
{
	sw_auto_close int fd = -1;
	struct stat st;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return fail(err, "state directory: cannot create", path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(err, "state directory: cannot open", path);
	if (st.st_uid != geteuid())
		return sw_err_set(err, SW_FATAL, -EPERM,
			"state directory %s belongs to user %u, this process runs as %u: give it "
			"to that "
			"user (chown) or name another one with --state-dir",
			path, (unsigned)st.st_uid, (unsigned)geteuid());
	if (st.st_mode & 077)
		return sw_err_set(err, SW_FATAL, -EPERM,
			"state directory %s has mode %04o, which lets others at the node's key: "
			"chmod 0700 "
			"it",
			path, (unsigned)st.st_mode & 07777);
	return 0;
}

/* DIR/certificates, made if need be. A descriptor or negative. */
static int open_certs(const char *state_dir, struct sw_err *err)
{
	sw_auto_free char *path = xasprintf("%s/" CERT_DIR, state_dir);
	int fd;

	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return fail(err, "cannot create", path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? fail(err, "cannot open", path) : fd;
}

/* *@ret NULL if the file does not exist. */
static int read_text(int dir, const char *name, char **ret, struct sw_err *err)
{
	sw_auto_close int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;
	size_t n = 0;
	char *text;

	*ret = NULL;
	if (fd < 0)
		return errno == ENOENT ? 0 : fail(err, "cannot read certificates file", name);
	if (fstat(fd, &st) < 0)
		return fail(err, "cannot read certificates file", name);
	if (!S_ISREG(st.st_mode) || st.st_size > PKI_PEM_MAX)
		return sw_err_set(err, SW_FATAL, -EFBIG,
			CERT_DIR "/%s: no regular file of at most %u bytes", name, PKI_PEM_MAX);
	text = xcalloc((size_t)st.st_size + 1, 1);
	while (n < (size_t)st.st_size) {
		ssize_t r = read(fd, text + n, (size_t)st.st_size - n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0) {
			sw_wipe_str(text);
			return fail(err, "cannot read certificates file", name);
		}
		if (r == 0)
			break;
		n += (size_t)r;
	}
	if (memchr(text, 0, n)) {
		free(text);
		return sw_err_set(err, SW_FATAL, -EBADMSG, CERT_DIR "/%s: is no text", name);
	}
	*ret = text;
	return 0;
}

/* Old content or new content, never anything between, whatever dies when. */
static int write_atomic(
	int dir, const char *name, const void *data, size_t len, mode_t mode, struct sw_err *err)
{
	char tmp[32];
	int fd;

	snprintf(
		tmp, sizeof(tmp), TEMP_PREFIX "%016llx", (unsigned long long)sw_random(UINT64_MAX));
	fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fail(err, "cannot create a file for certificates file", name);
	if (sw_write_all(fd, data, len) < 0 || fchmod(fd, mode) < 0 || fsync(fd) < 0) {
		fail(err, "cannot write certificates file", name);
		close(fd);
		unlinkat(dir, tmp, 0);
		return -EIO;
	}
	close(fd);
	if (renameat(dir, tmp, dir, name) < 0) {
		fail(err, "cannot write certificates file", name);
		unlinkat(dir, tmp, 0);
		return -EIO;
	}
	if (fsync(dir) < 0)
		return fail(err, "cannot sync the folder of certificates file", name);
	return 0;
}

/* @key matches the dot file: a renewal died between key and rename. Moves it into place and returns
 * it as *@cert; otherwise removes it. */
static int recover(int dir, const char *key, char **cert, struct sw_err *err)
{
	char *temp = NULL;

	if (read_text(dir, TEMP_CERT, &temp, err) < 0)
		return -EIO;
	if (!temp)
		return 0;
	if (!key || pki_key_matches(key, temp, NULL) < 0) {
		free(temp);
		if (unlinkat(dir, TEMP_CERT, 0) < 0 && errno != ENOENT)
			return fail(err, "cannot remove certificates file", TEMP_CERT);
		return 0;
	}
	if (renameat(dir, TEMP_CERT, dir, CERT_FILE) < 0 || fsync(dir) < 0) {
		free(temp);
		return fail(err, "cannot move into place certificates file", TEMP_CERT);
	}
	log_notice("finished an interrupted renewal", KS("file", CERT_FILE));
	*cert = temp;
	return 0;
}

static int load_pair(int dir, struct node_files *f, struct sw_err *err)
{
	char *better = NULL;
	int r;

	if (read_text(dir, CERT_FILE, &f->cert, err) < 0 ||
		read_text(dir, KEY_FILE, &f->key, err) < 0)
		return -EIO;
	r = f->cert && f->key ? pki_key_matches(f->key, f->cert, err) : -ENOENT;
	if (r == 0)
		return 0;
	if (r == -EKEYREJECTED) /* nothing would match a key that cannot be read */
		return r;
	if (recover(dir, f->key, &better, r == -ENOENT ? err : NULL) < 0)
		return -EIO;
	if (better) {
		free(f->cert);
		f->cert = better;
		return 0;
	}
	if (r != -ENOENT)
		return r;
	/* half a pair is none: a certificate will be requested again */
	free(take(f->cert));
	sw_wipe_str(take(f->key));
	return 0;
}

/* Files of a write that a crash interrupted. */
static void sweep(int dir)
{
	int fd = dup(dir);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return;
	}
	rewinddir(d);
	while ((e = readdir(d)))
		if (sw_starts_with(e->d_name, TEMP_PREFIX))
			(void)unlinkat(dir, e->d_name, 0);
	(void)closedir(d);
}

int files_load(const char *state_dir, struct node_files *ret, struct sw_err *err)
{
	sw_auto_close int dir = -1;
	struct node_files f = {0};
	int r = state_dir_prepare(state_dir, err);

	if (r < 0)
		return r;
	dir = open_certs(state_dir, err);
	if (dir < 0)
		return dir;
	sweep(dir);
	r = read_text(dir, ROOT_FILE, &f.root, err);
	if (r == 0 && (r = load_pair(dir, &f, err)) < 0)
		sw_err_wrap(err,
			"error while loading TLS certificate in %s/" CERT_DIR "/" CERT_FILE,
			state_dir);
	if (r < 0) {
		node_files_done(&f);
		return r;
	}
	*ret = f;
	return 0;
}

void node_files_done(struct node_files *f)
{
	free(f->root);
	free(f->cert);
	sw_wipe_str(f->key);
	*f = (struct node_files){0};
}

int files_save_root(const char *state_dir, const void *pem, size_t len, struct sw_err *err)
{
	sw_auto_close int dir = open_certs(state_dir, err);

	return dir < 0 ? dir : write_atomic(dir, ROOT_FILE, pem, len, 0644, err);
}

int files_save_pair(const char *state_dir, const char *cert, const char *key, struct sw_err *err)
{
	sw_auto_close int dir = open_certs(state_dir, err);
	int r;

	if (dir < 0)
		return dir;
	if ((r = write_atomic(dir, TEMP_CERT, cert, strlen(cert), 0644, err)) < 0 ||
		(r = write_atomic(dir, KEY_FILE, key, strlen(key), 0600, err)) < 0)
		return r;
	if (renameat(dir, TEMP_CERT, dir, CERT_FILE) < 0 || fsync(dir) < 0)
		return fail(err, "cannot write certificates file", CERT_FILE);
	return 0;
}
