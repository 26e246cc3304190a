// Sends back what comes: standard input to standard output. For how it is built see
// README.md.
#include <stdio.h>

int main(void) {
    static char chunk[16384];
    size_t count;
    while ((count = fread(chunk, 1, sizeof chunk, stdin)) > 0) {
        if (fwrite(chunk, 1, count, stdout) != count) return 1;
    }
    return ferror(stdin) != 0;
}
