/* From a balancer's reply to DISTCC_HOSTS.
 *
 * A DISTCC_HOSTS of ours hides the list that distcc would have read, and with it the user's limits for what runs on this
 * machine: --localslots (links, local compiles) and --localslots_cpp (preprocessing). So both are carried over.
 * The syntax is that of distcc 3.4's src/hosts.c.
 */
#include "wrap.h"

#include <ctype.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOTS_MOST 10000 /* distcc looks no further (src/where.c) */
/* distcc gives one client 4 jobs a host where no limit is named; here the balancer does the counting. */
#define LIMIT_WITHOUT_ONE "/100"

/* "=N" or "/N"; 0 where it is neither or no number of slots. */
static int multiplier(const char *text) {
    if (*text != '=' && *text != '/') return 0;
    long value = strtol(text + 1, NULL, 10);
    return value < 1 ? 0 : value > SLOTS_MOST ? SLOTS_MOST : (int)value;
}

/* The list that distcc would read, or NULL. $DISTCC_HOSTS counts even if empty; an unreadable file is passed over. */
static char *users_list(void) {
    const char *list = getenv("DISTCC_HOSTS"), *directory = getenv("DISTCC_DIR"), *home = getenv("HOME");
    if (list) return must_have(strdup(list));
    char path[PATH_MAX];
    char *text = NULL;
    if (directory || home) {
        int length = snprintf(path, sizeof path, "%s%s/hosts", directory ? directory : home, directory ? "" : "/.distcc");
        if (length > 0 && (size_t)length < sizeof path) text = read_file(path);
    }
    return text ? text : read_file(DISTCC_SYSTEM_HOSTS);
}

/* The CPUs that this process may run on, as nproc(1) counts them, at least 1. */
static int cpus(void) {
#ifdef __linux__
    size_t most = 8192; /* as many as Linux can be built for */
    cpu_set_t *set = CPU_ALLOC(most);
    int count = 0;
    if (set && sched_getaffinity(0, CPU_ALLOC_SIZE(most), set) == 0) count = CPU_COUNT_S(CPU_ALLOC_SIZE(most), set);
    CPU_FREE(set);
    if (count > 0) return count;
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : online > SLOTS_MOST ? SLOTS_MOST : (int)online;
}

static void local_slots(int *slots, int *slots_cpp) {
    static const char option[] = "--localslots", option_cpp[] = "--localslots_cpp";
    *slots = *slots_cpp = 0;
    char *list = users_list();
    if (list) {
        struct words words = {0};
        words_split(&words, list);
        for (size_t i = 0; i < words.count; i++) {
            const char *word = words.word[i];
            bool is_cpp = strncmp(word, option_cpp, sizeof option_cpp - 1) == 0;
            bool is_slots = strncmp(word, option, sizeof option - 1) == 0;
            int value = is_cpp ? multiplier(word + sizeof option_cpp - 1) : is_slots ? multiplier(word + sizeof option - 1) : 0;
            if (value) *(is_cpp ? slots_cpp : slots) = value;
        }
        words_free(&words);
        free(list);
    }
    if (!*slots) *slots = cpus();
    if (!*slots_cpp) *slots_cpp = cpus();
}

static size_t span_host(const char *text) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    if (*text != '[') return *text == '-' ? 0 : strspn(text, plain);
    size_t inside = strspn(text + 1, "0123456789abcdefABCDEF:.%") + 1;
    inside += strspn(text + inside, plain); /* what follows % names an interface */
    return inside > 1 && text[inside] == ']' ? inside + 1 : 0;
}

/* ":PORT", "/LIMIT" or "=LIMIT": how long it is, or 0. */
static size_t span_number(const char *text, const char *marks, long most) {
    if (!*text || !strchr(marks, *text)) return 0;
    size_t digits = strspn(text + 1, "0123456789");
    long value = digits && digits < 10 ? strtol(text + 1, NULL, 10) : 0;
    return value >= 1 && value <= most ? digits + 1 : 0;
}

/* NAME[:PORT][/LIMIT], or in the old style NAME[/LIMIT][:PORT]: how long it is, and whether it names a limit. */
static size_t span_name(const char *reply, bool *limited) {
    size_t length = span_host(reply);
    *limited = false;
    if (!length) return 0;
    size_t limit = span_number(reply + length, "/=", INT_MAX);
    length += limit;
    length += span_number(reply + length, ":", 65535);
    if (!limit) length += limit = span_number(reply + length, "/=", INT_MAX);
    *limited = limit > 0;
    return length;
}

const char *reply_fault(const char *reply) {
    static const char options[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-=@,";
    bool limited;
    size_t length = span_name(reply, &limited);
    if (!length) return "sent what is not the name of a host";
    if (strstr(reply + length, ",down")) return "sent a host marked down, for which distcc would wait without end";
    if (reply[length] == ',') length += strspn(reply + length, options);
    return reply[length] ? "sent what is not the name of a host" : NULL;
}

static char *join(int slots, int slots_cpp, const char *name, size_t name_length, const char *limit, const char *options) {
    size_t room = name_length + strlen(limit) + strlen(options) + 80;
    char *hosts = must_have(malloc(room));
    snprintf(hosts, room, "--localslots=%d --localslots_cpp=%d %.*s%s%s", slots, slots_cpp, (int)name_length, name, limit,
             options);
    return hosts;
}

char *hosts_for(const char *reply) {
    int slots, slots_cpp;
    bool limited;
    size_t length = span_name(reply, &limited);
    local_slots(&slots, &slots_cpp);
    return join(slots, slots_cpp, reply, length, limited ? "" : LIMIT_WITHOUT_ONE, reply + length);
}

char *hosts_for_local(void) {
    char limit[16];
    int slots, slots_cpp;
    local_slots(&slots, &slots_cpp);
    snprintf(limit, sizeof limit, "/%d", slots);
    return join(slots, slots_cpp, "localhost", strlen("localhost"), limit, "");
}
