// Prints the 16 random bytes a program finds at its start (AT_RANDOM), and 16 more from getrandom(2).
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/random.h>

static void print(const unsigned char *bytes)
{
    for (int i = 0; i < 16; i++)
        printf("%02x", bytes[i]);
}

int main(void)
{
    unsigned char later[16];
    if (getrandom(later, sizeof later, 0) != sizeof later)
        return 1;
    print((const unsigned char *)getauxval(AT_RANDOM));
    printf(" ");
    print(later);
    return 0;
}
