// Takes memory until there is none left.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MEBIBYTE = 1 << 20 };

static char *map(size_t size) {
    char *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return block == MAP_FAILED ? NULL : block;
}

static int refused(void) {
    printf("refused\n");
    return 3;
}

int main(int argc, char **argv) {
    if (strcmp(argv[1], "maps") == 0)
        for (;;) {
            char *block = map(MEBIBYTE);
            if (!block)
                return refused();
            memset(block, 1, MEBIBYTE);
        }
    if (strcmp(argv[1], "heap") == 0)
        for (;;) {
            char *block = sbrk(MEBIBYTE);
            if (block == (void *)-1)
                return refused();
            memset(block, 1, MEBIBYTE);
        }
    // Many mappings, none larger than the machine, together far larger: each is granted, and keeping them all kills.
    char *blocks[10];
    for (int i = 0; i < 10; i++)
        if (!(blocks[i] = map(8 * MEBIBYTE)))
            return refused();
    for (int i = 0; i < 10; i++)
        memset(blocks[i], 1, 8 * MEBIBYTE);
    return 0;
}
