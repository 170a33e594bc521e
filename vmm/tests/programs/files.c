// Files and directories: prints every result, so that a guest and a host can be compared. Relative paths only.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static void show(const char *what, long result) {
    printf("%s = %ld%s%s\n", what, result < 0 ? -1 : result, result < 0 ? " " : "", result < 0 ? strerrorname_np(errno) : "");
}
#define SHOW(call) (errno = 0, show(#call, (long)(call)))

static void show_stat(const char *name, int result, struct stat *s) {
    show(name, result);
    if (result == 0)
        printf("  kind %o, permissions %o, size %ld\n", s->st_mode & S_IFMT, s->st_mode & 07777,
               S_ISDIR(s->st_mode) ? -1 : (long)s->st_size);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }

// All names of a directory, sorted, read with a buffer of this size.
static void list(const char *path, size_t room) {
    char buffer[4096], *names[512];
    int count = 0, fd = open(path, O_RDONLY | O_DIRECTORY);
    long got;
    while ((got = syscall(SYS_getdents64, fd, buffer, room)) > 0)
        for (long at = 0; at < got;) {
            struct dirent64 *entry = (struct dirent64 *)(buffer + at);
            char *text;
            asprintf(&text, "%s:%d", entry->d_name, entry->d_type);
            names[count++] = text;
            at += entry->d_reclen;
        }
    printf("%s by %zu: ends with %ld, %d names:", path, room, got, count);
    qsort(names, count, sizeof *names, by_name);
    for (int i = 0; i < count; i++)
        printf(" %s", names[i]);
    puts("");
    close(fd);
}

int main(void) {
    struct stat s;
    struct statx x;
    char b[256], *bad = (char *)16, long_path[5000];
    memset(long_path, '/', 4999), long_path[4999] = 0;

    SHOW(open("words", O_RDONLY));
    SHOW(read(3, b, 4));
    printf("%.4s\n", b);
    SHOW(read(3, b, 0));
    SHOW(pread(3, b, 4, 5));
    printf("%.4s\n", b);
    SHOW(pread(3, b, 4, 1000));
    SHOW(lseek(3, 0, SEEK_CUR));
    SHOW(lseek(3, -2, SEEK_END));
    SHOW(read(3, b, 100));
    SHOW(read(3, b, 100));
    SHOW(lseek(3, 100000, SEEK_SET));
    SHOW(read(3, b, 100));
    SHOW(lseek(3, -1, SEEK_SET));
    SHOW(lseek(3, -100001, SEEK_CUR));
    SHOW(lseek(3, 0, 77));
    SHOW(lseek(3, 0, SEEK_SET));
    SHOW(read(3, bad, 4));
    SHOW(read(3, (void *)-1, 4));
    SHOW(write(3, "x", 1));
    // Descriptors.
    SHOW(dup(3));
    SHOW(lseek(4, 2, SEEK_SET));
    SHOW(lseek(3, 0, SEEK_CUR));
    SHOW(close(3));
    SHOW(read(4, b, 2));
    SHOW(close(3));
    SHOW(read(3, b, 2));
    SHOW(write(3, b, 2));
    SHOW(dup(3));
    SHOW(dup2(4, 9));
    SHOW(dup2(4, 4));
    SHOW(dup2(50, 9));
    SHOW(dup2(4, -1));
    SHOW(fcntl(4, F_DUPFD, 20));
    SHOW(fcntl(4, F_GETFD));
    SHOW(fcntl(50, F_GETFD));
    SHOW(fcntl(4, F_GETFL) & O_ACCMODE);
    SHOW(fcntl(4, 9999));
    SHOW(close(4));
    SHOW(close(9));
    SHOW(close(20));
    SHOW(close(-1));
    SHOW(fstat(50, &s));
    SHOW(lseek(50, 0, SEEK_SET));
    // Paths.
    SHOW(open("missing", O_RDONLY));
    SHOW(open("", O_RDONLY));
    SHOW(open("words/below", O_RDONLY));
    SHOW(open("words/", O_RDONLY));
    SHOW(open("words", O_RDONLY | O_DIRECTORY));
    SHOW(open("dir", O_RDWR));
    SHOW(open("loop-a", O_RDONLY));
    SHOW(open("link", O_RDONLY | O_NOFOLLOW));
    SHOW(open("dangling", O_RDONLY));
    SHOW(open(bad, O_RDONLY));
    SHOW(open(long_path, O_RDONLY));
    SHOW(open("dir/../dir/./sub//deep", O_RDONLY));
    SHOW(close(3));
    SHOW(open("dirlink/sub/deep", O_RDONLY));
    SHOW(close(3));
    SHOW(open("dir", O_RDONLY));
    SHOW(read(3, b, 10));
    SHOW(openat(3, "one", O_RDONLY));
    SHOW(openat(4, "x", O_RDONLY));
    SHOW(openat(77, "x", O_RDONLY));
    SHOW(lseek(3, 0, SEEK_SET));
    SHOW(syscall(SYS_getdents64, 4, b, 200));
    SHOW(syscall(SYS_getdents64, 77, b, 200));
    SHOW(syscall(SYS_getdents64, 3, b, 5));
    SHOW(syscall(SYS_getdents64, 3, bad, 200));
    SHOW(close(3));
    SHOW(close(4));
    list(".", 4096);
    list("dir", 4096);
    list("dir", 64);
    list("hollow", 4096);
    list("many", 256);
    // Status.
    show_stat("stat words", stat("words", &s), &s);
    show_stat("stat dir", stat("dir", &s), &s);
    show_stat("stat link", stat("link", &s), &s);
    show_stat("lstat link", lstat("link", &s), &s);
    show_stat("stat dangling", stat("dangling", &s), &s);
    show_stat("lstat dangling", lstat("dangling", &s), &s);
    show_stat("stat missing", stat("missing", &s), &s);
    show_stat("stat words/", stat("words/", &s), &s);
    SHOW(stat("words", (void *)16));
    SHOW(open("words", O_RDONLY));
    show_stat("fstat", fstat(3, &s), &s);
    show_stat("fstatat empty", fstatat(3, "", &s, AT_EMPTY_PATH), &s);
    show_stat("fstatat no empty", fstatat(3, "", &s, 0), &s);
    SHOW(close(3));
    SHOW(statx(AT_FDCWD, "words", 0, STATX_BASIC_STATS, &x));
    printf("  mode %o size %llu links %u\n", x.stx_mode, x.stx_size, x.stx_nlink);
    SHOW(statx(AT_FDCWD, "missing", 0, STATX_BASIC_STATS, &x));
    // Links and access.
    SHOW(readlink("link", b, sizeof b));
    SHOW(readlink("link", b, 3));
    SHOW(readlink("words", b, sizeof b));
    SHOW(readlink("missing", b, sizeof b));
    SHOW(readlink("link", bad, 10));
    SHOW(access("words", F_OK));
    SHOW(access("words", R_OK));
    SHOW(access("words", X_OK));
    SHOW(access("bin/files", X_OK));
    SHOW(access("dir", X_OK));
    SHOW(access("missing", F_OK));
    SHOW(access(bad, F_OK));
    // The working directory. Its absolute name differs: only what is behind the start is printed.
    char *start = strdup(getcwd(NULL, 0)), *now;
    SHOW(chdir("dir/sub"));
    now = getcwd(NULL, 0);
    puts(now + (strlen(start) > 1 ? strlen(start) : 0));
    SHOW(access("deep", F_OK));
    SHOW(chdir("../.."));
    SHOW(strcmp(start, getcwd(NULL, 0)));
    SHOW(chdir("words"));
    SHOW(chdir("missing"));
    SHOW(chdir(bad));
    SHOW(syscall(SYS_getcwd, b, 1));
    SHOW(syscall(SYS_getcwd, bad, 200));
    // Several pieces at once.
    struct iovec parts[] = {{b, 3}, {bad, 0}, {b + 3, 5}};
    SHOW(open("words", O_RDONLY));
    SHOW(readv(3, parts, 3));
    printf("%.8s\n", b);
    SHOW(readv(3, parts, 0));
    SHOW(readv(3, parts, 5000));
    SHOW(readv(3, parts, -1));
    SHOW(readv(3, (void *)16, 1));
    struct iovec half[] = {{b, 3}, {bad, 5}};
    SHOW(readv(3, half, 2));
    SHOW(readv(3, half + 1, 1));
    SHOW(close(3));
    fflush(stdout);
    struct iovec text[] = {{"one ", 4}, {bad, 0}, {"two\n", 4}};
    SHOW(writev(1, text, 3));
    fflush(stdout);
    SHOW(writev(1, text, 0));
    SHOW(writev(1, text, 2000));
    SHOW(writev(77, text, 1));
    SHOW(write(1, bad, 5));
    SHOW(write(1, (void *)0xffff800000000000, 5));
    // Devices.
    SHOW(open("/dev/null", O_RDWR));
    SHOW(read(3, b, 10));
    SHOW(write(3, b, 10));
    SHOW(close(3));
    SHOW(open("/dev/zero", O_RDWR));
    memset(b, 1, sizeof b);
    SHOW(read(3, b, 10));
    printf("%d %d\n", b[9], b[10]);
    SHOW(write(3, b, 10));
    SHOW(close(3));
    SHOW(open("/dev/full", O_RDWR));
    SHOW(read(3, b, 10));
    SHOW(write(3, b, 10));
    SHOW(close(3));
    SHOW(open("/dev/urandom", O_RDONLY));
    SHOW(read(3, b, 200));
    int different = 0;
    for (int i = 1; i < 200; i++)
        different |= b[i] != b[0];
    SHOW(different);
    SHOW(close(3));
    SHOW(ioctl(1, 0x5401, b) < 0);
    return 0;
}
