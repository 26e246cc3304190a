// Does what it is told, else sends back what comes. Rebuilt with:
//   python3 -m ziglang cc --target=wasm32-wasi -Os -s -o fn.wasm fn.c
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char input[9 << 20];

static void print_variable(const char *name) {
    const char *value = getenv(name);
    if (value) fputs(value, stdout);
}

static void print_header(const char *name) {
    char variable[256] = "HTTP_";
    size_t at = strlen(variable);
    if (strcmp(name, "content-type") == 0) {
        print_variable("CONTENT_TYPE");
        return;
    }
    for (; *name && at < sizeof variable - 1; name++)
        variable[at++] = *name == '-' ? '_' : (char)toupper((unsigned char)*name);
    variable[at] = 0;
    print_variable(variable);
}

int main(void) {
    size_t count = fread(input, 1, sizeof input - 1, stdin);
    if (strncmp(input, "do:env ", 7) == 0) {
        print_variable(input + 7);
    } else if (strncmp(input, "do:header ", 10) == 0) {
        print_header(input + 10);
    } else if (strcmp(input, "do:fail") == 0) {
        fputs("the function says no", stdout);
        return 1;
    } else if (strcmp(input, "do:crash") == 0) {
        __builtin_trap();
    } else if (strcmp(input, "do:sleep") == 0) {
        sleep(30);
    } else {
        fwrite(input, 1, count, stdout);
    }
    return 0;
}
