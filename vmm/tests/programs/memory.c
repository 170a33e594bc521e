// Memory: maps, splits, protects and takes away, and asks the kernel each time whether a page can be read or written:
// a path there gives EFAULT or ENOENT, a read into it EFAULT or a count.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096 };
static int zero;

static char probe(char *page) {
    int readable = !(access(page, F_OK) < 0 && errno == EFAULT);
    char kept = readable ? *page : 0;
    int writable = read(zero, page, 1) == 1;
    if (writable)
        *page = kept;
    return writable ? 'w' : readable ? 'r' : '-';
}

static void show(const char *what, char *from, int pages) {
    printf("%-28s ", what);
    for (int i = 0; i < pages; i++)
        putchar(probe(from + i * PAGE));
    puts("");
}

static void result(const char *what, long value) {
    printf("%s: %s\n", what, value == -1 ? strerrorname_np(errno) : "ok");
}

#define ANY (MAP_PRIVATE | MAP_ANONYMOUS)

int main(void) {
    zero = open("/dev/zero", O_RDONLY);
    char *p = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, ANY, -1, 0);
    result("aligned", (uintptr_t)p % PAGE ? -1 : 0);
    show("fresh", p, 8);
    int clean = 1;
    for (int i = 0; i < 8 * PAGE; i++)
        clean &= p[i] == 0;
    printf("zeros: %d\n", clean);
    for (int i = 0; i < 8; i++)
        p[i * PAGE] = 'a' + i;
    result("protect middle", mprotect(p + 2 * PAGE, 2 * PAGE, PROT_READ));
    show("split by mprotect", p, 8);
    result("protect none", mprotect(p + 5 * PAGE, PAGE, PROT_NONE));
    show("hole without rights", p, 8);
    result("unmap", munmap(p + 6 * PAGE, PAGE));
    show("hole", p, 8);
    result("protect over a hole", mprotect(p, 8 * PAGE, PROT_READ));
    mprotect(p, 6 * PAGE, PROT_READ | PROT_WRITE);
    show("writable again", p, 6);
    printf("content kept: %c%c%c%c%c%c\n", p[0], p[PAGE], p[2 * PAGE], p[3 * PAGE], p[4 * PAGE], p[5 * PAGE]);
    result("fixed", mmap(p + PAGE, 2 * PAGE, PROT_READ | PROT_WRITE, ANY | MAP_FIXED, -1, 0) == p + PAGE ? 0 : -1);
    printf("fresh inside: %d %d, neighbours %c %c\n", p[PAGE], p[2 * PAGE], p[0], p[3 * PAGE]);
    result("no replace", (long)mmap(p, PAGE, PROT_READ, ANY | MAP_FIXED_NOREPLACE, -1, 0));
    char *q = mmap(p + 6 * PAGE, PAGE, PROT_READ, ANY | MAP_FIXED_NOREPLACE, -1, 0);
    result("no replace of nothing", q == p + 6 * PAGE ? 0 : -1);
    show("closed", p, 8);
    result("unmap twice", munmap(p, 8 * PAGE));
    result("unmap twice", munmap(p, 8 * PAGE));
    show("gone", p, 8);
    // Wrong arguments.
    result("no length", (long)mmap(NULL, 0, PROT_READ, ANY, -1, 0));
    result("unaligned fixed", (long)mmap((void *)0x50000001, PAGE, PROT_READ, ANY | MAP_FIXED, -1, 0));
    result("whole address space", (long)mmap(NULL, -PAGE, PROT_READ, ANY, -1, 0));
    result("bad descriptor", (long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 77, 0));
    result("unaligned unmap", munmap(p + 1, PAGE));
    result("unmap of no length", munmap(p, 0));
    result("unaligned protect", mprotect(p + 1, PAGE, PROT_READ));
    result("protect of the kernel", mprotect((void *)0xffff800000000000, PAGE, PROT_READ));
    result("unmap of the kernel", munmap((void *)0xffff800000000000, PAGE));
    // Files.
    int fd = open("bytes", O_RDONLY);
    char *f = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    char *g = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, PAGE);
    char direct[2 * PAGE] = {0};
    long got = pread(fd, direct, sizeof direct, 0);
    printf("file of %ld: equal %d, rest zero %d\n", got, !memcmp(f, direct, got), !memcmp(f, direct, 2 * PAGE));
    printf("second page: %d\n", !memcmp(g, direct + PAGE, PAGE));
    g[0]++;
    printf("private: %d\n", f[PAGE] == direct[PAGE]);
    result("unaligned offset", (long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 5));
    result("shared, writable, of a read-only file", (long)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    close(fd);
    // The heap.
    char *end = sbrk(0);
    result("grow", sbrk(10 * PAGE) == end ? 0 : -1);
    memset(end, 7, 10 * PAGE);
    result("shrink", sbrk(-10 * PAGE) == end + 10 * PAGE ? 0 : -1);
    sbrk(10 * PAGE);
    printf("heap starts as zeros again: %d\n", end[PAGE] == 0 && end[9 * PAGE] == 0);
    result("heap too large", brk((void *)0x7fffffffffff));
    // Many small pieces, taken away in another order: every other page.
    char *many = mmap(NULL, 200 * PAGE, PROT_READ | PROT_WRITE, ANY, -1, 0);
    int failures = 0;
    for (int i = 1; i < 200; i += 2)
        failures += munmap(many + i * PAGE, PAGE) != 0;
    for (int i = 0; i < 200; i += 2)
        many[i * PAGE] = i;
    int sum = 0;
    for (int i = 0; i < 200; i += 2)
        sum += (unsigned char)many[i * PAGE];
    printf("every other page: %d failures, sum %d\n", failures, sum);
    // Memory given back and taken again is zero.
    for (int round = 0; round < 50; round++) {
        char *block = mmap(NULL, 256 * PAGE, PROT_READ | PROT_WRITE, ANY, -1, 0);
        for (int i = 0; i < 256; i++)
            failures += block[i * PAGE + 8] != 0, block[i * PAGE + 8] = 1;
        munmap(block, 256 * PAGE);
    }
    printf("reused: %d failures\n", failures);
    return 0;
}
