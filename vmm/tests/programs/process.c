// Signals, limits and the rest of what a C library asks its kernel.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static void show(const char *what, long result) {
    printf("%s = %ld %s\n", what, result, result < 0 ? strerrorname_np(errno) : "");
}
#define SHOW(call) (errno = 0, show(#call, (long)(call)))

static void handler(int signal) { (void)signal; }

int main(void) {
    void *bad = (void *)16;
    struct sigaction action = {.sa_handler = handler}, old;
    SHOW(sigaction(SIGUSR1, &action, NULL));
    SHOW(sigaction(SIGUSR1, NULL, &old));
    SHOW(old.sa_handler == handler);
    SHOW(sigaction(SIGKILL, &action, NULL));
    SHOW(sigaction(SIGSTOP, NULL, &old));
    SHOW(syscall(SYS_rt_sigaction, 0, NULL, NULL, 8));
    SHOW(syscall(SYS_rt_sigaction, 65, NULL, NULL, 8));
    SHOW(syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4));
    SHOW(syscall(SYS_rt_sigaction, SIGUSR1, bad, NULL, 8));
    SHOW(syscall(SYS_rt_sigaction, SIGUSR1, NULL, bad, 8));
    signal(SIGUSR2, SIG_IGN);
    SHOW(raise(SIGUSR2));
    SHOW(raise(SIGCHLD));
    SHOW(kill(getpid(), 0));
    SHOW(kill(getpid(), 65));
    SHOW(kill(999999999, 0));
    // What is always ready, what is not there, and what is not asked for.
    struct pollfd list[] = {{1, POLLOUT, 0}, {77, POLLIN, 9}, {-1, POLLIN, 9}, {open("words", O_RDONLY), POLLIN, 0}};
    SHOW(poll(list, 4, 1000));
    printf("%x %x %x %x\n", list[0].revents, list[1].revents, list[2].revents, list[3].revents);
    SHOW(poll(bad, 1, 0));
    struct rlimit limit;
    SHOW(getrlimit(RLIMIT_STACK, &limit));
    SHOW(limit.rlim_cur >= 1 << 20);
    SHOW(uname(bad));
    struct utsname name;
    SHOW(uname(&name));
    puts(name.sysname);
    puts(name.machine);
    struct sysinfo info;
    SHOW(sysinfo(&info));
    SHOW(info.totalram * info.mem_unit > 1 << 20);
    SHOW(sysinfo(bad));
    SHOW(clock_gettime(99, NULL));
    SHOW(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, bad));
    SHOW(syscall(SYS_nanosleep, bad, NULL));
    SHOW(syscall(SYS_arch_prctl, 0x1002, 0xffff800000000000));
    SHOW(syscall(SYS_getrandom, bad, 16, 0));
    int word = 5;
    SHOW(syscall(SYS_futex, &word, 0, 6, NULL));
    SHOW(syscall(SYS_futex, &word, 1, 1, NULL));
    SHOW(syscall(SYS_futex, bad, 0, 6, NULL));
    SHOW(sysconf(_SC_PAGESIZE));
    SHOW(sysconf(_SC_NPROCESSORS_ONLN) > 0);
    return 0;
}
