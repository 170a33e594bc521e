// A C program as anybody writes it: stdio, the heap, floating point, a constructor, thread-local storage.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int constructed;
static __thread int local = 5;

__attribute__((constructor)) static void before_main(void) { constructed = 1; }
static void at_exit(void) { puts("at exit"); }

int main(int argc, char **argv) {
    atexit(at_exit);
    printf("%d %d %d\n", argc, constructed, ++local);
    for (int i = 1; i < argc; i++)
        printf("[%s]\n", argv[i]);
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0)
        printf("read %s", line);
    volatile double x = 2.0;
    printf("%.15g %a\n", sqrt(x) * 1e10, x / 3);
    size_t total = 0;
    for (int i = 0; i < 200; i++) {
        char *block = malloc(1000 * i + 1);
        memset(block, i, 1000 * i + 1);
        total += (unsigned char)block[1000 * i];
        if (i % 3)
            free(block);
    }
    printf("%zu\n", total);
    return 42;
}
