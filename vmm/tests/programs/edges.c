// Corners of calls where an error is easily forgotten.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void show(const char *what, long result) {
    printf("%s = %ld %s\n", what, result, result < 0 ? strerrorname_np(errno) : "");
}
#define SHOW(call) (errno = 0, show(#call, (long)(call)))

int main(void) {
    char b[64], long_name[300];
    memset(long_name, 'n', 299), long_name[299] = 0;
    int words = open("words", O_RDONLY);
    SHOW(pread(words, b, 4, -1));
    SHOW(open(long_name, O_RDONLY));
    SHOW(readlink("link", b, 0));
    SHOW(readlink("link", b, -1));
    SHOW(access("words", 8));
    SHOW(syscall(SYS_prlimit64, 0, 9999, NULL, NULL));
    fflush(stdout);
    SHOW(write(1, (void *)16, 0));
    return 0;
}
