// The primes up to 1000, with commas between them. For how it is built see README.md.
#include <stdio.h>

enum { LARGEST = 1000 };

int main(void) {
    static char is_composite[LARGEST + 1];
    const char *separator = "";
    for (int n = 2; n <= LARGEST; n++) {
        if (is_composite[n]) continue;
        printf("%s%d", separator, n);
        separator = ",";
        for (int multiple = n * n; multiple <= LARGEST; multiple += n) is_composite[multiple] = 1;
    }
    return 0;
}
