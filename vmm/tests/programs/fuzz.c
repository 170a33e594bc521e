// Every system call with arguments that make no sense. Usage: fuzz pointers, or fuzz SEED ROUNDS.
//
// Left out is what ends or stops any program on any Linux: exit, kill of itself, waiting for ever; and what would take
// away this program's own code, stack and thread pointer.
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef uint64_t u64;

static u64 call(u64 n, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f) {
    u64 result;
    register u64 r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static u64 state;
static u64 next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static int ends_or_stops(u64 n) {
    switch (n) {
    case SYS_exit: case SYS_exit_group: case SYS_kill: case SYS_tkill: case SYS_tgkill:
    case SYS_pause: case SYS_nanosleep: case SYS_clock_nanosleep:
    // Processes: on the lab kernel there are none, anywhere else the fuzzer would multiply.
    case SYS_fork: case SYS_vfork: case SYS_clone: case SYS_clone3: case SYS_execve: case SYS_execveat:
    case SYS_arch_prctl: case SYS_rt_sigreturn:
        return 1;
    }
    return 0;
}

// Takes memory away or gives it other rights: only for addresses that are not the program's own.
static int changes_memory(u64 n) {
    return n == SYS_mmap || n == SYS_munmap || n == SYS_mprotect || n == SYS_brk || n == SYS_mremap;
}

// Closing or replacing a standard descriptor would silence the last line.
static int changes_descriptors(u64 n) {
    return n == SYS_close || n == SYS_dup2 || n == SYS_dup3 || n == SYS_close_range;
}

static char scratch_own[3 * 4096];

int main(int argc, char **argv) {
    int pointers = argc == 2;
    state = strtoull(argv[1], NULL, 10) * 0x9e3779b97f4a7c15 + pointers;
    u64 rounds = pointers ? 0 : strtoull(argv[2], NULL, 10);
    // Two pages between two holes, then one the program may only read.
    char *scratch = mmap(NULL, 6 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(scratch + 4096, 2 * 4096, PROT_READ | PROT_WRITE);
    mprotect(scratch + 4 * 4096, 4096, PROT_READ);
    memset(scratch + 4096, 'p', 2 * 4096);
    const u64 nowhere[] = {
        0, 1, 4095, 4096, 8, (u64)scratch, (u64)scratch + 4095, (u64)scratch + 3 * 4096 - 1, (u64)scratch + 3 * 4096 - 7,
        (u64)scratch + 4 * 4096 + 1, (u64)scratch + 4096 + 3, 0x8000000000 - 1, 0x8000000000, 0x7fffffffffff,
        0x800000000000, 0xffff800000000000, 0xffff800000007000, 0xffffffff80100000, 0xffffffff80140000, -1ull, -8ull,
        -4096ull, -4095ull, 0x7fffffffffffffff, 0x8000000000000000, 0x100000000,
    };
    enum { NOWHERE = sizeof nowhere / sizeof *nowhere };
    for (u64 n = 0; pointers && n < 470; n++) {
        if (ends_or_stops(n))
            continue;
        for (int i = 0; i < NOWHERE; i++) {
            u64 p = nowhere[i];
            // With a large length these reach over the program's own memory.
            if (changes_memory(n) && p < (u64)scratch)
                continue;
            if (changes_descriptors(n) && (p & 0xffffffff) < 3)
                continue;
            call(n, p, p, p, p, p, p);
            // A plausible descriptor, directory or count in front of the same nonsense.
            if (!changes_memory(n) && !changes_descriptors(n)) {
                call(n, 0, p, p, p, p, p);
                call(n, 3, p, 16, p, 0, 0);
                call(n, -100, p, p, 4096, p, p);
            }
        }
    }
    static const u64 small[] = {0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 63, 64, 65, 255, 256, 1024, 1025, 4095, 4096, 65536, -1ull, -2ull};
    enum { SMALL = sizeof small / sizeof *small };
    for (u64 i = 0; i < rounds; i++) {
        u64 n = next() % 340, a[6];
        if (ends_or_stops(n) || changes_descriptors(n))
            continue;
        for (int j = 0; j < 6; j++)
            switch (next() % 5) {
            case 0: a[j] = nowhere[next() % NOWHERE]; break;
            case 1: a[j] = small[next() % SMALL]; break;
            case 2: a[j] = next(); break;
            case 3: a[j] = (u64)scratch_own + next() % sizeof scratch_own; break;
            default: a[j] = (u64)scratch + next() % (6 * 4096); break;
            }
        if (changes_memory(n)) {
            // Stay within the scratch pages, or far beyond everything.
            a[0] = next() % 3 ? (u64)scratch + next() % 12 * 2048 : nowhere[11 + next() % (NOWHERE - 12)];
            a[1] = small[next() % 20];
            if (n == SYS_brk)
                a[0] = nowhere[11 + next() % (NOWHERE - 12)];
        }
        // Random text as iovecs, paths, poll sets.
        for (int j = 0; j < 16; j++)
            scratch_own[next() % sizeof scratch_own] = next() >> 13;
        call(n, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
    static const char last[] = "survived\n";
    call(SYS_write, 1, (u64)last, sizeof last - 1, 0, 0, 0);
    call(SYS_exit_group, 0, 0, 0, 0, 0, 0);
    return 1;
}
