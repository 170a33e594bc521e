/* Overwrites and unlocks the file it was started from, by system calls alone: it runs in the place of the dynamic
   loader of another program, where no C library is. */

static long call(long n, long a, long b, long c) {
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return r;
}
static void tell(const char *what, long answer) {
    char line[64], digits[24];
    int i = 0, j = 0;
    while (what[i]) { line[i] = what[i]; i++; }
    if (answer < 0) { line[i++] = '-'; answer = -answer; }
    do { digits[j++] = '0' + answer % 10; answer /= 10; } while (answer);
    while (j) line[i++] = digits[--j];
    line[i++] = '\n';
    call(1, 1, (long)line, i);
}
void _start(void) {
    const char *self = "/proc/self/exe";
    char link[256];
    long length = call(89, (long)self, (long)link, 255);
    if (length > 0) { link[length] = '\n'; call(1, 1, (long)link, length + 1); }
    tell("write ", call(2, (long)self, 2, 0));
    tell("truncate ", call(76, (long)self, 0, 0));
    tell("chown ", call(92, (long)self, 0, 0));
    tell("chmod ", call(90, (long)self, 06777, 0));
    tell("xattr ", call(188, (long)self, (long)"user.lab", (long)"x"));
    call(231, 0, 0, 0);
}
