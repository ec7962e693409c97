/* Names to addresses, within the time allowed.
 *
 * getaddrinfo cannot be bounded: with a dark name server it may block for half a minute, and nothing portable interrupts
 * it. So numbers and "localhost" are taken as they are, at no cost, and any other name is looked up in a child process that
 * is killed when its time is over. The child is waited for in every case, before anything else happens: the command that
 * this process becomes never has a child it did not start.
 */
#include "wrap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

/* What the child sends: far below PIPE_BUF, so it arrives in one piece. */
struct answer {
    int error; /* of getaddrinfo */
    struct found found;
};

int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int move_up(int fd) {
    if (fd < 0) return -1;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 10);
    int error = errno;
    close(fd);
    errno = error;
    return moved;
}

static int get_addresses(const char *host, const char *port, int flags, struct found *found) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags}, *list = NULL;
    found->count = 0;
    int error = getaddrinfo(host, port, &hints, &list);
    if (error) return error;
    for (struct addrinfo *entry = list; entry && found->count < FOUND_MOST; entry = entry->ai_next) {
        if (entry->ai_addrlen > sizeof found->at[0].address) continue;
        memcpy(&found->at[found->count].address, entry->ai_addr, entry->ai_addrlen);
        found->at[found->count++].length = entry->ai_addrlen;
    }
    freeaddrinfo(list);
    return found->count ? 0 : EAI_NONAME;
}

static _Noreturn void look_up_as_child(const char *host, const char *port, int answer_to, pid_t parent) {
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    if (getppid() != parent) _exit(1);
    /* A reader of the command's output must not have to wait for this process. */
    int nothing = open("/dev/null", O_RDWR);
    for (int fd = 0; nothing >= 0 && fd <= 2; fd++) dup2(nothing, fd);
    struct answer answer;
    memset(&answer, 0, sizeof answer);
    answer.error = get_addresses(host, port, 0, &answer.found);
    _exit(write(answer_to, &answer, sizeof answer) == (ssize_t)sizeof answer ? 0 : 1);
}

/* 1 when there is something to read, or the other end is closed; 0 when the time is over. */
static int wait_until(int fd, int64_t deadline) {
    for (;;) {
        int64_t left = deadline - now_ms();
        struct pollfd watched = {.fd = fd, .events = POLLIN};
        int ready = poll(&watched, 1, left > 0 ? (int)left : 0);
        if (ready >= 0 || errno != EINTR) return ready;
    }
}

static bool look_up_name(const char *host, const char *port, int64_t deadline, struct found *found, const char **why) {
    int ends[2];
    *why = "no descriptors or processes left to look the name up";
    if (pipe(ends) != 0) return false;
    int from = move_up(ends[0]), to = move_up(ends[1]);
    pid_t parent = getpid();
    pid_t child = from < 0 || to < 0 ? -1 : fork();
    if (child == 0) look_up_as_child(host, port, to, parent);
    if (to >= 0) close(to);
    bool answered = false;
    if (child > 0) {
        struct answer answer;
        if (wait_until(from, deadline) != 1) {
            *why = "looking up the name took too long";
        } else if (read(from, &answer, sizeof answer) != (ssize_t)sizeof answer) {
            *why = "looking up the name failed";
        } else {
            *found = answer.found;
            answered = !answer.error;
            *why = answered ? NULL : gai_strerror(answer.error);
        }
        kill(child, SIGKILL);
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR) continue;
    }
    if (from >= 0) close(from);
    return answered;
}

bool look_up(const char *host, const char *port, int64_t deadline, struct found *found, const char **why) {
    *why = NULL;
    if (get_addresses(host, port, AI_NUMERICHOST, found) == 0) return true;
    if (strcmp(host, "localhost") == 0) { /* loopback by RFC 6761, section 6.3 */
        struct found other;
        return get_addresses("127.0.0.1", port, AI_NUMERICHOST, found) == 0 &&
               (get_addresses("::1", port, AI_NUMERICHOST, &other) != 0 || (found->at[found->count++] = other.at[0], true));
    }
    return look_up_name(host, port, deadline, found, why);
}
