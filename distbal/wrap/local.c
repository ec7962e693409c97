/* Whether distcc would run a command on this machine anyway, so that no server's slot is held meanwhile.
 *
 * The rules are those of distcc 3.4: src/distcc.c main (which words are the compiler's), src/implicit.c (an unnamed
 * compiler), src/arg.c dcc_expand_preprocessor_options (-Wp) and dcc_scan_args (the rest), src/filename.c (what is a
 * source). Where they look odd (-obj is "-o bj", "-xc -c" is local) they are kept odd: agreeing with distcc is the point,
 * and the tests put both side by side.
 */
#include "wrap.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define RESPONSE_FILES_MOST 2000 /* libiberty's own limit, on which distcc gives up */

static bool is(const char *word, const char *other) { return strcmp(word, other) == 0; }
static bool starts(const char *word, const char *start) { return strncmp(word, start, strlen(start)) == 0; }

static bool one_of(const char *word, const char *const list[]) {
    for (; *list; list++)
        if (is(word, *list)) return true;
    return false;
}

static bool starts_with_one_of(const char *word, const char *const list[]) {
    for (; *list; list++)
        if (starts(word, *list)) return true;
    return false;
}

/* What follows the last dot, dots in directory names included; NULL where that is nothing. */
static const char *extension(const char *file) {
    const char *dot = strrchr(file, '.');
    return dot && dot[1] ? dot + 1 : NULL;
}

static bool is_source(const char *file) {
    static const char *const sources[] = {"c", "cc", "cpp", "cxx", "cp", "c++", "C",
                                          "i", "ii", "m",   "mm",  "mi", "mii", "M", NULL};
    const char *ending = extension(file);
    return ending && one_of(ending, sources);
}

static bool is_object(const char *file) {
    size_t length = strlen(file);
    return length >= 2 && is(file + length - 2, ".o");
}

/* One word of a response file, by libiberty's rules: a backslash takes the next character as it is, even in quotes. */
static const char *response_word(const char *text, struct words *to) {
    char quote = '\0';
    char *word = must_have(malloc(strlen(text) + 1));
    size_t length = 0;
    while (*text && (quote || !isspace((unsigned char)*text))) {
        if (*text == '\\') {
            if (text[1]) word[length++] = *++text;
        } else if (quote ? *text == quote : *text == '\'' || *text == '"') {
            quote = quote ? '\0' : *text;
        } else {
            word[length++] = *text;
        }
        text++;
    }
    words_add(to, word, length);
    free(word);
    return text;
}

/* Whether a path is a file proper: what is read from a pipe would be missing when the compiler reads it. */
static bool is_file(const char *path) {
    struct stat found;
    return stat(path, &found) == 0 && S_ISREG(found.st_mode);
}

/* The command with its @files replaced by what they hold; what is no file, or cannot be read, stays a word.
 * False where there are too many of them, which a file that names itself is. */
static bool expand_response_files(char *const command[], int *left, struct words *to) {
    for (; *command; command++) {
        char *text = **command == '@' && is_file(*command + 1) ? read_file(*command + 1) : NULL;
        if (!text) {
            words_add(to, *command, strlen(*command));
            continue;
        }
        struct words inner = {0};
        const char *rest = text;
        while (rest += strspn(rest, " \t\n\v\f\r"), *rest) rest = response_word(rest, &inner);
        free(text);
        bool sane = (*left)-- > 0 && (!inner.count || expand_response_files(inner.word, left, to));
        words_free(&inner);
        if (!sane) return false;
    }
    return true;
}

/* -Wp,-MD,FILE is -MD -MF FILE, and -Wp,A,B is A B. */
static void expand_preprocessor_options(char *const command[], struct words *to) {
    for (; *command; command++) {
        if (!starts(*command, "-Wp,")) {
            words_add(to, *command, strlen(*command));
            continue;
        }
        bool names_file = false;
        for (const char *part = *command + 3; part; part = strchr(part, ',')) {
            size_t length = strcspn(++part, ",");
            words_add(to, part, length);
            const char *added = to->word[to->count - 1];
            if (!names_file && part[length] && (is(added, "-MD") || is(added, "-MMD"))) {
                words_add(to, "-MF", 3);
                names_file = true;
            } else {
                names_file = false;
            }
        }
    }
}

static const char *option_reason(const char *option, const char *next) {
    static const char *const profile[] = {"-fprofile-arcs", "-ftest-coverage", "--coverage", "-fprofile-correction", NULL};
    static const char *const profile_starts[] = {"-fprofile-generate", "-fprofile-use", "-fauto-profile", NULL};
    static const char *const languages[] = {"c", "objective-c", "go", NULL}; /* their ++ too */
    if (is(option, "-E")) return "-E only preprocesses";
    if (is(option, "-march=native") || is(option, "-mtune=native")) return "native code is for this machine's processor";
    if (is(option, "-flto")) return "-flto leaves the work to the link";
    if (starts(option, "-Wa,") && (strstr(option, ",-a") || strstr(option, "--MD"))) return "the assembler writes more files";
    if (starts(option, "-specs=")) return "the specs file is on this machine";
    if (one_of(option, profile) || starts_with_one_of(option, profile_starts)) return "profile data is on this machine";
    if (is(option, "-frepo")) return "-frepo writes .rpo files";
    if (starts(option, "-x") && next && !starts_with_one_of(next, languages)) return "-x names no language that distcc sends";
    if (starts(option, "-dr")) return "-dr writes extra files";
    return NULL;
}

/* -M options: false for those that write dependencies beside the compile; *takes_word where the next word is theirs. */
static bool only_dependencies(const char *option, bool *takes_word) {
    static const char *const harmless[] = {"-MD", "-MMD", "-MG", "-MP", NULL};
    static const char *const with_word[] = {"-MF", "-MT", "-MQ", NULL};
    *takes_word = one_of(option, with_word);
    return option[1] == 'M' && !one_of(option, harmless) && !starts_with_one_of(option, with_word);
}

static const char *source_reason(const char *source, bool names_output) {
    const char *slash = strrchr(source, '/');
    const char *base = slash && slash[1] ? slash + 1 : source;
    if (starts(base, "conftest.") || starts(base, "tmp.conftest.")) return "configure's probes run here";
    if (!names_output && strlen(slash ? slash + 1 : source) < 3) return "the source has no name to call the object by";
    return NULL;
}

/* The compiler's words, its own name first. */
static const char *scan(char *const words[]) {
    bool compiles = false;
    const char *source = NULL, *output = NULL;
    for (size_t i = 0; words[i]; i++) {
        const char *word = words[i];
        bool takes_word = false;
        if (word[0] == '-') {
            const char *reason = option_reason(word, words[i + 1]);
            if (reason) return reason;
            if (only_dependencies(word, &takes_word)) return "it only asks for dependencies";
            if (takes_word && !words[++i]) break;
            if (is(word, "-c") || is(word, "-S")) compiles = true;
            if (!starts(word, "-o")) continue;
            word = word[2] ? word + 2 : words[++i];
            if (!word) return "-o names no file";
        } else if (is_source(word)) {
            if (source) return "it has more than one source";
            source = word;
            continue;
        } else if (!is_object(word)) {
            continue;
        }
        if (output) return "it links, or names two objects";
        output = word;
    }
    if (!compiles) return "it does not compile: there is neither -c nor -S";
    if (!source) return "it has no source that distcc knows";
    const char *reason = source_reason(source, output);
    if (reason) return reason;
    return output && is(output, "-") ? "the object goes to stdout" : NULL;
}

static const char *expanded_reason(char *const command[]) {
    static const char *const own_options[] = {"--help", "--version", "--show-hosts", "-j", "--scan-includes",
                                              "--show-principal", NULL};
    static char unnamed_compiler[] = "cc";
    struct words words = {0};
    const char *slash = strrchr(command[0], '/');
    if (!strstr(slash && slash[1] ? slash + 1 : command[0], "distcc")) {
        expand_preprocessor_options(command, &words);
    } else if (!command[1] || one_of(command[1], own_options)) {
        return "distcc answers this itself";
    } else {
        if (command[1][0] == '-' || is_source(command[1]) || is_object(command[1])) {
            char *const name[] = {unnamed_compiler, NULL};
            expand_preprocessor_options(name, &words);
        }
        expand_preprocessor_options(command + 1, &words);
    }
    const char *reason = scan(words.word);
    words_free(&words);
    return reason;
}

const char *local_reason(char *const command[]) {
    if (getenv("_DISTCC_SAFEGUARD")) return "distcc is running this already";
    struct words words = {0};
    int left = RESPONSE_FILES_MOST;
    words_add(&words, command[0], strlen(command[0]));
    bool sane = expand_response_files(command + 1, &left, &words);
    const char *reason = sane ? expanded_reason(words.word) : "it has too many response files";
    words_free(&words);
    return reason;
}
