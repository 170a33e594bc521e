// Counts its arguments, and the characters in them.
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    size_t characters = 0;
    for (int i = 1; i < argc; i++)
        characters += strlen(argv[i]);
    printf("%d %zu %d\n", argc, characters, argv[argc] == NULL);
    return 0;
}
