/* Lists of words, files read whole, and the one way to say something to the user. */
#include "wrap.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void say(const char *format, ...) {
    char line[2048] = "distbal-wrap: ";
    size_t start = strlen(line);
    va_list arguments;
    va_start(arguments, format);
    int wanted = vsnprintf(line + start, sizeof line - start - 1, format, arguments);
    va_end(arguments);
    if (wanted < 0) return;
    size_t length = strlen(line);
    line[length++] = '\n';
    /* In one write, so that the lines of a parallel build do not mix. If stderr is gone there is nobody left to tell. */
    ssize_t written = write(STDERR_FILENO, line, length);
    (void)written;
}

void *must_have(void *memory) {
    if (!memory) {
        say("out of memory");
        exit(EXIT_NO_BALANCER);
    }
    return memory;
}

void words_add(struct words *words, const char *text, size_t length) {
    if (words->count + 1 >= words->room) {
        words->room = words->room ? words->room * 2 : 64;
        words->word = must_have(realloc(words->word, words->room * sizeof *words->word));
    }
    char *copy = must_have(malloc(length + 1));
    memcpy(copy, text, length);
    copy[length] = '\0';
    words->word[words->count++] = copy;
    words->word[words->count] = NULL;
}

void words_free(struct words *words) {
    for (size_t i = 0; i < words->count; i++) free(words->word[i]);
    free(words->word);
    *words = (struct words){0};
}

void words_split(struct words *words, const char *text) {
    while (*text) {
        if (isspace((unsigned char)*text)) {
            text++;
        } else if (*text == '#') {
            text += strcspn(text, "\r\n");
        } else {
            const char *end = text;
            while (*end && *end != '#' && !isspace((unsigned char)*end)) end++;
            words_add(words, text, (size_t)(end - text));
            text = end;
        }
    }
}

char *read_file(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return NULL;
    size_t room = 4096, length = 0;
    char *text = must_have(malloc(room));
    for (;;) {
        if (length + 1 == room) {
            room *= 2;
            text = must_have(realloc(text, room));
        }
        ssize_t got = read(fd, text + length, room - length - 1);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            int error = errno;
            close(fd);
            free(text);
            errno = error;
            return NULL;
        }
        if (got == 0) break;
        length += (size_t)got;
    }
    close(fd);
    text[length] = '\0';
    return text;
}
