// What a program finds when it starts: registers, stack, arguments, environment, auxiliary vector (System V ABI for
// x86-64, 3.4). Linked with `-e first`: what stands below is the very first instruction, before the C library's.
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

__asm__(".globl first\nfirst:\n mov %rsp, at_entry(%rip)\n mov %rdx, rdx_at_entry(%rip)\n"
        " pushf\n pop flags_at_entry(%rip)\n jmp _start\n");
uint64_t at_entry, rdx_at_entry, flags_at_entry;
extern char first[], **environ;

int main(int argc, char **argv) {
    printf("aligned %d, rdx %d, direction flag %d\n", at_entry % 16 == 0, rdx_at_entry != 0, !!(flags_at_entry & 0x400));
    uint64_t *stack = (uint64_t *)at_entry;
    printf("argc %d %d, argv %d, NULL %d\n", argc, stack[0] == argc, argv == (char **)(stack + 1), argv[argc] == NULL);
    for (int i = 1; i < argc; i++)
        printf("[%s]", argv[i]);
    printf(" environ %d\n", environ == argv + argc + 1);
    int path = 0;
    for (char **e = environ; *e; e++)
        path += strncmp(*e, "PATH=/", 6) == 0;
    Elf64_Phdr *headers = (Elf64_Phdr *)getauxval(AT_PHDR);
    printf("PATH %d, page %ld, entry %d, file %d\n", path, getauxval(AT_PAGESZ), getauxval(AT_ENTRY) == (uint64_t)first,
           strcmp((char *)getauxval(AT_EXECFN), argv[0]) == 0);
    int loads = 0, entry_inside = 0;
    for (uint64_t i = 0; i < getauxval(AT_PHNUM); i++)
        if (headers[i].p_type == PT_LOAD) {
            loads++;
            entry_inside |= (uint64_t)first - headers[i].p_vaddr < headers[i].p_memsz;
        }
    printf("headers of %ld: loads %d, entry inside %d\n", getauxval(AT_PHENT), loads > 1, entry_inside);
    unsigned char *random = (unsigned char *)getauxval(AT_RANDOM);
    int sum = 0;
    for (int i = 0; i < 16; i++)
        sum |= random[i];
    printf("random %d, secure %ld\n", sum != 0, getauxval(AT_SECURE));
    if (argc > 1 && strcmp(argv[1], "random") == 0)
        for (int i = 0; i < 16; i++)
            printf("%02x", random[i]);
    return 0;
}
