// Prints CLOCK_REALTIME and CLOCK_MONOTONIC in nanoseconds after checking that time goes forward and sleeps last.
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/time.h>
#include <time.h>

static int64_t now(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t) || t.tv_nsec < 0 || t.tv_nsec > 999999999)
        return -1;
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

int main(void) {
    int64_t last = now(CLOCK_MONOTONIC);
    int backwards = last < 0;
    for (int i = 0; i < 300; i++) {
        int64_t next = now(CLOCK_MONOTONIC);
        backwards += next < last;
        last = next;
    }
    struct timespec nap = {0, 20000000}, wrong = {0, 1000000000}, until;
    int64_t before = now(CLOCK_MONOTONIC);
    int slept = nanosleep(&nap, NULL) == 0 && now(CLOCK_MONOTONIC) - before >= 20000000;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += 0, until.tv_nsec += 20000000;
    if (until.tv_nsec > 999999999)
        until.tv_sec++, until.tv_nsec -= 1000000000;
    int slept_until = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == 0 &&
                      now(CLOCK_MONOTONIC) >= until.tv_sec * 1000000000ll + until.tv_nsec;
    struct timeval day;
    gettimeofday(&day, NULL);
    int agree = day.tv_sec - time(NULL) <= 1 && time(NULL) - day.tv_sec <= 1;
    unsigned char random[2][64];
    int filled = getrandom(random[0], 64, 0) == 64 && getrandom(random[1], 64, 0) == 64;
    printf("%d %d %d %d %d %d %d\n", backwards, slept, slept_until, nanosleep(&wrong, NULL), agree, filled,
           memcmp(random[0], random[1], 64) != 0);
    printf("%lld %lld\n", (long long)now(CLOCK_REALTIME), (long long)now(CLOCK_MONOTONIC));
    for (int i = 0; i < 16; i++)
        printf("%02x", random[0][i]);
    puts("");
    return 0;
}
