// Uses up every region the lab kernel has for one program, gives SPARE back, and asks for a change that needs two more.
// Whatever mprotect answers, what it did must be seen by the processor too: the write below may work or crash.
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096 };

int main(int argc, char **argv) {
    int spare = atoi(argv[1]), made = 0;
    // Read-only, writable, read-only; every page is there.
    char *p = mmap(NULL, 12 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(p, 1, 12 * PAGE);
    mprotect(p, 4 * PAGE, PROT_READ);
    mprotect(p + 8 * PAGE, 4 * PAGE, PROT_READ);
    char *filler = mmap(NULL, 2000 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    while (made < 900 && mprotect(filler + (2 * made + 1) * PAGE, PAGE, PROT_NONE) == 0)
        made++;
    for (int i = 0; i < spare; i++)
        munmap(filler + 2 * i * PAGE, PAGE);
    // The end of the first part and the start of the last: both must be split.
    int result = mprotect(p + 3 * PAGE, 6 * PAGE, PROT_READ | PROT_WRITE);
    printf("full %d, mprotect %s\n", made < 900, result ? strerrorname_np(errno) : "ok");
    fflush(stdout);
    p[3 * PAGE] = 2;
    printf("written\n");
    return 0;
}
