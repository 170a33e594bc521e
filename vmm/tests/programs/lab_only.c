// What the lab kernel answers where a Linux with a writable file system and threads answers otherwise.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static void show(const char *what, long result) {
    printf("%s = %s\n", what, result == -1 ? strerrorname_np(errno) : "ok");
}
#define SHOW(call) (errno = 0, show(#call, (long)(call)))

int main(void) {
    SHOW(open("/words", O_WRONLY));
    SHOW(open("/words", O_RDONLY | O_TRUNC));
    SHOW(open("/new", O_WRONLY | O_CREAT, 0644));
    SHOW(open("/words", O_WRONLY | O_CREAT | O_EXCL, 0644));
    SHOW(access("/words", W_OK));
    SHOW(mmap(NULL, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    SHOW(mprotect((void *)((long)main & -4096), 4096, PROT_READ | PROT_WRITE | PROT_EXEC));
    SHOW(syscall(500));
    SHOW(syscall(-1));
    SHOW(syscall(SYS_fork));
    SHOW(syscall(SYS_socket, 1, 1, 0));
    printf("pid %d, parent %d, uid %d\n", getpid(), getppid(), getuid());
    return 0;
}
