/* distbal-wrap: the client that runs once a compile, and then becomes it.
 *
 * Files: distbal-wrap.c   what is run, with which environment: options, masquerade, fallback, exec
 *        local.c          whether distcc would run a command here anyway (then no lease is asked)
 *        ask.c            from a balancer's address to its line of reply, within the time allowed
 *        lookup.c         names to addresses, within the time allowed
 *        hosts.c          from the reply to DISTCC_HOSTS
 *        words.c          lists of words, and files read whole
 *
 * No threads, no signal handlers, no dependencies: what the process inherited, the command inherits.
 */
#ifndef DISTBAL_WRAP_H
#define DISTBAL_WRAP_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* sched_getaffinity; without effect outside glibc and musl */
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#ifndef DISTBAL_VERSION
#define DISTBAL_VERSION "0.1.0" /* distbal.__version__; a test keeps them the same */
#endif
#ifndef DISTBAL_CLIENT_FILE
#define DISTBAL_CLIENT_FILE "/etc/distbal/client"
#endif
#ifndef DISTCC_SYSTEM_HOSTS
#define DISTCC_SYSTEM_HOSTS "/etc/distcc/hosts" /* sysconfdir of the distcc in use: /etc in Debian's */
#endif

#define DEFAULT_PORT "5656"
#define REPLY_ROOM 1024 /* the longest line of reply, CR LF included; host names end at 255 */

/* Exit statuses of our own, from sysexits.h; 126 and 127 are the shell's. */
#define EXIT_USAGE 64
#define EXIT_NO_BALANCER 75

/* -- words.c -- */

struct words {
    char **word; /* ends with NULL once there is one */
    size_t count;
    size_t room;
};

/* Append a copy of the `length` bytes at `text`. Running out of memory ends the program with a sentence. */
void words_add(struct words *words, const char *text, size_t length);
void words_free(struct words *words);
/* Append what white space separates in `text`; '#' comments out the rest of its line. */
void words_split(struct words *words, const char *text);
/* A whole file as a string, to be freed; NULL with errno set when it cannot be read. */
char *read_file(const char *path);
/* What malloc and its like returned; NULL ends the program with a sentence. */
void *must_have(void *memory);
/* One line on stderr, in one write: "distbal-wrap: ..." */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* -- local.c -- */

/* Why distcc 3.4 would run this command on this machine, as a phrase; NULL where it would distribute it. */
const char *local_reason(char *const command[]);

/* -- lookup.c -- */

#define FOUND_MOST 8

struct found {
    int count;
    struct {
        socklen_t length;
        struct sockaddr_storage address;
    } at[FOUND_MOST];
};

/* Milliseconds on a clock that nobody sets. */
int64_t now_ms(void);
/* The addresses of `host`, a name or a number, until `deadline`; false with a phrase in *why, which is NULL otherwise. */
bool look_up(const char *host, const char *port, int64_t deadline, struct found *found, const char **why);
/* The same open file on a free descriptor of 10 or above, closed on exec; -1 with errno set, and `fd` closed anyhow. */
int move_up(int fd);

/* -- ask.c -- */

/* Ask the balancers in turn until one names a host: its line in `reply` (checked, without CR LF, ended by 0) and the
 * descriptor that holds the lease, open across exec. -1 where none did, with the reasons in `why`. Takes at most two
 * seconds to connect, look-ups included, and waits without limit for a balancer that accepted. */
int ask(const struct words *balancers, char reply[REPLY_ROOM], char *why, size_t why_room);

/* -- hosts.c -- */

/* Why a line is not NAME[/LIMIT][,OPTIONS] as distcc reads a TCP host, as a phrase; NULL where it is. */
const char *reply_fault(const char *reply);
/* DISTCC_HOSTS for this host, with the local slots of the user's own list; to be freed. */
char *hosts_for(const char *reply);
/* DISTCC_HOSTS for this machine alone, likewise. */
char *hosts_for_local(void);

#endif
