// Does one forbidden thing, chosen by name.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char constant[64] = "constant";
static unsigned char data[64] = {0xc3}; // ret

static int call(void *code) { return ((int (*)(void))code)(); }

// Recursion the compiler cannot turn into a loop.
static int __attribute__((noinline)) deeper(volatile char *above) {
    volatile char block[4096];
    block[0] = above[0];
    return deeper(block) + block[1];
}

// A system call made by jumping to the kernel's entry instead of by `syscall`.
static void enter(uint64_t entry, uint64_t number, uint64_t argument, uint64_t back, uint64_t flags) {
    register uint64_t r11 __asm__("r11") = flags;
    __asm__ volatile("jmp *%0" : : "r"(entry), "a"(number), "D"(argument), "c"(back), "r"(r11) : "memory");
}

int main(int argc, char **argv) {
    const char *how = argv[1];
    uint64_t address = argc > 2 ? strtoull(argv[2], NULL, 16) : 0;
    volatile int zero = argc - argc;
    puts("before");
    fflush(stdout);
#define IS(name) (strcmp(how, name) == 0)
    if (IS("write-null")) *(volatile char *)0 = 1;
    if (IS("read")) return *(volatile char *)address;
    if (IS("write")) *(volatile char *)address = 1;
    if (IS("jump")) return call((void *)address);
    if (IS("write-code")) *(volatile char *)main = 1;
    if (IS("write-constant")) *(volatile char *)constant = 1;
    if (IS("run-data")) return call(data);
    if (IS("run-stack")) { volatile unsigned char code[16] = {0xc3}; return call((void *)code); }
    if (IS("run-heap")) { unsigned char *code = malloc(16); code[0] = 0xc3; return call(code); }
    if (IS("overflow-stack")) return deeper((volatile char *)how);
    if (IS("not-canonical")) return *(volatile char *)0x8000000000000000;
    if (IS("divide")) return argc / zero;
    if (IS("ud2")) __asm__ volatile("ud2");
    if (IS("abort")) abort();
    if (IS("hlt")) __asm__ volatile("hlt");
    if (IS("cli")) __asm__ volatile("cli");
    if (IS("in")) __asm__ volatile("inb $0x80, %%al" ::: "al");
    // The lab's own ports must be as closed to a program as any other.
    if (IS("out")) __asm__ volatile("outl %%eax, %%dx" ::"a"(77), "d"(0x0c04));
    if (IS("lgdt")) __asm__ volatile("lgdt %0" : : "m"(data));
    if (IS("wrmsr")) __asm__ volatile("wrmsr" ::"a"(0), "d"(0), "c"(0xc0000082));
    if (IS("mov-cr3")) __asm__ volatile("mov %0, %%cr3" ::"r"(0ul));
    if (IS("invlpg")) __asm__ volatile("invlpg %0" ::"m"(data));
    if (IS("int80")) __asm__ volatile("int $0x80" ::"a"(1), "b"(0));
    if (IS("int3")) __asm__ volatile("int3");
    if (IS("trap-flag")) __asm__ volatile("pushf; orq $0x100, (%%rsp); popf; nop; nop" ::: "memory");
    if (IS("trap-and-call"))
        __asm__ volatile("pushf; orq $0x100, (%%rsp); popf; syscall" ::"a"(39) : "rcx", "r11", "memory");
    if (IS("odd-flags-and-call")) // nested task, direction, alignment check, overflow
        __asm__ volatile("pushf; orq $0x44c00, (%%rsp); popf; syscall; pushf; andq $~0x44c00, (%%rsp); popf" ::"a"(39) : "rcx", "r11", "memory");
    if (IS("odd-segments-and-call"))
        __asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%gs; syscall" ::"r"(0), "a"(39) : "rcx", "r11", "memory");
    if (IS("odd-stack-and-call"))
        __asm__ volatile("mov %%rsp, %%rbx; mov $0xffff800000000001, %%rsp; syscall; mov %%rbx, %%rsp" ::"a"(39) : "rbx", "rcx", "r11", "memory");
    if (IS("sysenter")) __asm__ volatile("sysenter");
    if (IS("unaligned"))
        __asm__ volatile("pushf; orq $0x40000, (%%rsp); popf; movq 1(%0), %%rax" ::"r"(data) : "rax", "memory");
    if (IS("enter")) enter(address, 231, 42, strtoull(argv[3], NULL, 16), strtoull(argv[4], NULL, 16));
    if (IS("enter-with-iopl")) {
        // Every flag there is, I/O privilege 3 among them; after the call, `cli`.
        uint64_t back;
        __asm__ volatile("lea after_the_call(%%rip), %0" : "=r"(back));
        if (address)
            enter(address, 39, 0, back, 0x3ed7 & ~0x500);
        __asm__ volatile("after_the_call: cli");
    }
    puts("still here");
    return 99;
}
