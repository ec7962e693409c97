/* distbal-wrap COMMAND...: get a lease for what COMMAND compiles, then become COMMAND.
 *
 * The lease is an open connection on a descriptor that the command inherits, so it ends when the command does, however it
 * ends. There is nothing left of this program by then: stdout, stderr, exit status, signals and job control are the
 * command's own.
 */
#include "wrap.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MARK "DISTBAL_WRAPPED"
#define FIRST_PAUSE_MS 500
#define LONGEST_PAUSE_MS 10000

enum fallback { HOSTS, LOCAL, WAIT, FAIL };

static const char usage[] =
    "Usage: distbal-wrap COMMAND [ARGUMENT...]      distbal-wrap distcc gcc -c x.c -o x.o\n"
    "       distbal-wrap --explain COMMAND...       say whether COMMAND would get a lease, and why not\n"
    "       distbal-wrap --help | --version\n"
    "\n"
    "Asks a distbal balancer for a distcc server, then becomes COMMAND with DISTCC_HOSTS naming it.\n"
    "\n"
    "  DISTBAL             the balancers: HOST[:PORT], several by spaces (else the file " DISTBAL_CLIENT_FILE ")\n"
    "  DISTBAL_FALLBACK    what to do without one: hosts, local, wait or fail\n"
    "\n"
    "The man page distbal-wrap(1) has the rest.\n";

static void put(const char *name, const char *value) {
    if (setenv(name, value, 1) != 0) must_have(NULL);
}

static const char *last_part(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The marks are process ids, so that a daemon that outlives the compile which started it does not stay marked. */
static bool marked(void) {
    const char *mark = getenv(MARK);
    long process = mark ? strtol(mark, NULL, 10) : 0;
    return process > 0 && process <= INT_MAX && (kill((pid_t)process, 0) == 0 || errno == EPERM);
}

static void set_mark(void) {
    char process[24];
    snprintf(process, sizeof process, "%ld", (long)getpid());
    put(MARK, process);
}

/* -- a masquerade directory -- */

static bool same_file(const struct stat *one, const struct stat *other) {
    return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

/* The directory `length` bytes long at `directory` (an entry of PATH: none is the working directory), joined with `name`. */
static char *join_path(const char *directory, size_t length, const char *name) {
    size_t room = length + strlen(name) + 3;
    char *path = must_have(malloc(room));
    snprintf(path, room, "%.*s/%s", length ? (int)length : 1, length ? directory : ".", name);
    return path;
}

static bool stat_in(const char *directory, size_t length, const char *name, struct stat *found) {
    char *path = join_path(directory, length, name);
    bool exists = stat(path, found) == 0;
    free(path);
    return exists;
}

/* The file that is running: as the kernel knows it, else by the name it was called by. */
static bool find_self(const char *called, const char *path, struct stat *self) {
    if (stat("/proc/self/exe", self) == 0) return true;
    if (strchr(called, '/')) return stat(called, self) == 0;
    for (size_t length; path; path = path[length] ? path + length + 1 : NULL) {
        length = strcspn(path, ":");
        char *file = join_path(path, length, called);
        bool runs = access(file, X_OK) == 0 && stat(file, self) == 0;
        free(file);
        if (runs) return true;
    }
    return false;
}

/* Take this program's directory off PATH, and every other one where `name` is this program again. */
static void leave_path(const char *called, const char *name) {
    const char *path = getenv("PATH");
    struct stat self, own, found;
    if (!path || !find_self(called, path, &self)) return;
    bool has_own = strchr(called, '/') && stat_in(called, (size_t)(name - called), ".", &own);
    char *kept = must_have(malloc(strlen(path) + 1));
    size_t kept_length = 0, entries = 0;
    for (size_t length; path; path = path[length] ? path + length + 1 : NULL) {
        length = strcspn(path, ":");
        if (has_own && stat_in(path, length, ".", &found) && same_file(&found, &own)) continue;
        if (stat_in(path, length, name, &found) && same_file(&found, &self)) continue;
        if (entries++) kept[kept_length++] = ':';
        memcpy(kept + kept_length, path, length);
        kept_length += length;
    }
    kept[kept_length] = '\0';
    /* An empty PATH would mean the working directory; what execvp searches without a PATH is the system's own. */
    if (entries) put("PATH", kept);
    else unsetenv("PATH");
    free(kept);
}

/* Called as gcc: the command is distcc gcc ..., or gcc itself where distcc is already at work. To be freed. */
static char **masquerade(char *argv[], int argc) {
    static char distcc[] = "distcc";
    char *name = (char *)last_part(argv[0]);
    bool again = marked() || getenv("_DISTCC_SAFEGUARD");
    leave_path(argv[0], name);
    char **command = must_have(calloc((size_t)argc + 2, sizeof *command));
    size_t words = 0;
    if (!again && strcmp(name, distcc) != 0) command[words++] = distcc;
    command[words++] = name;
    memcpy(command + words, argv + 1, (size_t)(argc - 1) * sizeof *command);
    return command;
}

/* -- the lease -- */

static enum fallback chosen_fallback(void) {
    static const char *const names[] = {"hosts", "local", "wait", "fail"};
    const char *chosen = getenv("DISTBAL_FALLBACK");
    if (!chosen || !*chosen) return HOSTS;
    for (int i = 0; i < 4; i++)
        if (strcmp(chosen, names[i]) == 0) return (enum fallback)i;
    say("DISTBAL_FALLBACK is \"%s\"; it can be hosts, local, wait or fail", chosen);
    exit(EXIT_USAGE);
}

static const char *client_file(void) {
    const char *file = getenv("DISTBAL_CLIENT_FILE");
    return file && *file ? file : DISTBAL_CLIENT_FILE;
}

static void find_balancers(struct words *balancers) {
    const char *named = getenv("DISTBAL");
    if (named) words_split(balancers, named);
    if (balancers->count) return;
    char *text = read_file(client_file());
    if (text) words_split(balancers, text);
    else if (errno != ENOENT && errno != ENOTDIR) say("%s cannot be read: %s", client_file(), strerror(errno));
    free(text);
}

static void compile_locally(void) {
    char *hosts = hosts_for_local();
    put("DISTCC_HOSTS", hosts);
    free(hosts);
}

static void take(const char *reply) {
    char *hosts = hosts_for(reply);
    put("DISTCC_HOSTS", hosts);
    free(hosts);
    /* distcc avoids a host that failed for 60 s, and its list has only this one: everything would stay here for a minute.
     * With 1 s it gives up on the host for this compile alone; with 0 it would try it for ever. */
    if (!getenv("DISTCC_BACKOFF_PERIOD")) put("DISTCC_BACKOFF_PERIOD", "1");
    /* With a server in hand, what distcc still waits for is a local slot to preprocess in, and it looks once a second: the
     * server would be idle meanwhile. */
    if (!getenv("DISTCC_PAUSE_TIME_MSEC")) put("DISTCC_PAUSE_TIME_MSEC", "20");
    set_mark();
}

static void nobody_named(enum fallback fallback) {
    if (fallback == LOCAL) compile_locally();
    if (fallback != WAIT && fallback != FAIL) return;
    say("no balancer is named in DISTBAL or %s, and DISTBAL_FALLBACK forbids going on without one", client_file());
    exit(EXIT_NO_BALANCER);
}

/* Ask until there is a lease or the fallback says how to go on without one. */
static void get_lease(void) {
    enum fallback fallback = chosen_fallback();
    struct words balancers = {0};
    char reply[REPLY_ROOM], why[1024];
    find_balancers(&balancers);
    if (!balancers.count) {
        nobody_named(fallback);
        return;
    }
    int pause_ms = FIRST_PAUSE_MS;
    while (ask(&balancers, reply, why, sizeof why) < 0) {
        if (fallback == FAIL) {
            say("no balancer (%s), and DISTBAL_FALLBACK=fail", why);
            exit(EXIT_NO_BALANCER);
        }
        if (fallback == HOSTS) say("no balancer (%s): going on with distcc's own list of hosts", why);
        if (fallback == LOCAL) say("no balancer (%s): compiling on this machine", why);
        if (fallback == LOCAL) compile_locally();
        if (fallback != WAIT) {
            set_mark();
            words_free(&balancers);
            return;
        }
        if (pause_ms == FIRST_PAUSE_MS) say("no balancer (%s): waiting for one", why);
        /* Process ids differ, so clients that lost the same balancer do not all come back at once. */
        poll(NULL, 0, pause_ms + (int)(getpid() % pause_ms));
        pause_ms = pause_ms * 2 > LONGEST_PAUSE_MS ? LONGEST_PAUSE_MS : pause_ms * 2;
    }
    words_free(&balancers);
    take(reply);
}

/* -- the command line -- */

static bool is_on_path(const char *name) {
    const char *path = getenv("PATH");
    struct stat found;
    for (size_t length; path; path = path[length] ? path + length + 1 : NULL) {
        length = strcspn(path, ":");
        if (stat_in(path, length, name, &found)) return true;
    }
    return false;
}

/* What a shell would say and return where the command cannot be run. */
static int become(char *command[]) {
    execvp(command[0], command);
    int error = errno;
    if (strchr(command[0], '/')) {
        say("%s: %s", command[0], strerror(error));
        return error == ENOENT ? 127 : 126;
    }
    /* execvp calls it "permission denied" where a directory of PATH may not be searched, too. */
    if (error != ENOENT && *command[0] && is_on_path(command[0])) {
        say("%s: %s", command[0], strerror(error));
        return 126;
    }
    say("%s: command not found", *command[0] ? command[0] : "\"\"");
    return 127;
}

static int print(const char *text) {
    return fputs(text, stdout) < 0 || fflush(stdout) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static const char *why_no_lease(char *command[]) {
    return marked() ? "distbal-wrap is running this already" : local_reason(command);
}

static int explain(char *command[]) {
    const char *reason = why_no_lease(command);
    char line[128];
    snprintf(line, sizeof line, reason ? "local: %s\n" : "remote\n", reason);
    return print(line);
}

int main(int argc, char *argv[]) {
    const char *name = argc > 0 ? last_part(argv[0]) : "";
    bool is_masquerade = *name && strncmp(name, "distbal-wrap", strlen("distbal-wrap")) != 0;
    char **command = is_masquerade ? masquerade(argv, argc) : argv + (argc > 0);
    bool explains = false;
    if (!is_masquerade && *command && **command == '-') {
        const char *option = *command++;
        if (strcmp(option, "--help") == 0) return print(usage);
        if (strcmp(option, "--version") == 0) return print("distbal-wrap " DISTBAL_VERSION "\n");
        explains = strcmp(option, "--explain") == 0;
        if (!explains && strcmp(option, "--") != 0) {
            say("unknown option %s; distbal-wrap --help names them", option);
            return EXIT_USAGE;
        }
    }
    if (!*command) {
        say("no command to run; for example: distbal-wrap distcc gcc -c x.c -o x.o");
        return EXIT_USAGE;
    }
    if (explains) return explain(command);
    if (!why_no_lease(command)) get_lease();
    if (is_masquerade && !marked()) set_mark();
    int status = become(command);
    if (is_masquerade) free(command);
    return status;
}
