/* From a balancer's address to its line of reply.
 *
 * Two clocks. Connecting, look-ups included, may take two seconds in all: each balancer gets an equal share of what is left,
 * so that a dark machine leaves time for the next one. Once a balancer has accepted, waiting for a free server is what the
 * client is for, and has no limit; TCP keepalive ends it where the balancer's machine is gone.
 */
#include "wrap.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECT_MS 2000
#define LINE_MS 10000 /* from the first byte of a reply to its end: the balancer sends it in one piece */

/* A balancer as the user wrote it, taken apart. */
struct balancer {
    char host[256]; /* or the path of a Unix socket */
    char port[6];
    bool is_path;
};

/* Add a reason to the list, once; what does not fit is left out. */
static void complain(char *why, size_t room, const char *balancer, const char *fault) {
    char reason[512];
    snprintf(reason, sizeof reason, "%.100s%s: %s", balancer, strlen(balancer) > 100 ? "..." : "", fault);
    if (strstr(why, reason)) return;
    size_t length = strlen(why);
    snprintf(why + length, room - length, "%s%s", length ? "; " : "", reason);
}

/* HOST, HOST:PORT, [V6], [V6]:PORT, V6 or unix:PATH. A phrase where it is none of these, else NULL. */
static const char *take_apart(const char *text, struct balancer *balancer) {
    *balancer = (struct balancer){.port = DEFAULT_PORT};
    const char *host = text, *port = NULL;
    size_t length = strlen(text);
    if (strncmp(text, "unix:", 5) == 0) {
        balancer->is_path = true;
        host += 5;
        length -= 5;
        if (length >= sizeof ((struct sockaddr_un *)0)->sun_path) return "the path is too long for a socket";
    } else if (*text == '[') {
        const char *end = strchr(text, ']');
        if (!end || (end[1] && end[1] != ':')) return "write it [ADDRESS]:PORT";
        host++;
        length = (size_t)(end - host);
        port = end[1] ? end + 2 : NULL;
    } else if (strchr(text, ':') && strchr(text, ':') == strrchr(text, ':')) {
        length = strcspn(text, ":");
        port = text + length + 1;
    }
    if (!length) return "it names no host";
    if (length >= sizeof balancer->host) return "the name is too long";
    memcpy(balancer->host, host, length);
    balancer->host[length] = '\0';
    if (!port) return NULL;
    size_t digits = strspn(port, "0123456789");
    if (!digits || digits > 5 || port[digits] || atoi(port) < 1 || atoi(port) > 65535) return "the port must be 1 to 65535";
    memcpy(balancer->port, port, digits + 1);
    return NULL;
}

static void keep_alive(int fd) {
    /* As the balancer does it: a peer that vanished is noticed after a minute. Without this the only loss is that one. */
    static const struct { int option, value; } times[] = {
#ifdef TCP_KEEPIDLE
        {TCP_KEEPIDLE, 30},
#elif defined(TCP_KEEPALIVE)
        {TCP_KEEPALIVE, 30},
#endif
#ifdef TCP_KEEPINTVL
        {TCP_KEEPINTVL, 10},
#endif
#ifdef TCP_KEEPCNT
        {TCP_KEEPCNT, 3},
#endif
    };
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        setsockopt(fd, IPPROTO_TCP, times[i].option, &times[i].value, sizeof times[i].value);
}

/* 0 once connected, else an errno. */
static int finish_connect(int fd, int64_t deadline) {
    for (;;) {
        int64_t left = deadline - now_ms();
        struct pollfd watched = {.fd = fd, .events = POLLOUT};
        int ready = poll(&watched, 1, left > 0 ? (int)left : 0);
        if (ready == 0) return ETIMEDOUT;
        if (ready < 0 && errno != EINTR) return errno;
        if (ready < 0) continue;
        int error = 0;
        socklen_t length = sizeof error;
        return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) ? errno : error;
    }
}

/* A connected, blocking socket on a descriptor of 10 or above, closed on exec; -1 with errno set. */
static int connect_until(const struct sockaddr *address, socklen_t length, int64_t deadline) {
    int fd = move_up(socket(address->sa_family, SOCK_STREAM, 0));
    if (fd < 0) return -1;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    if (address->sa_family != AF_UNIX) keep_alive(fd);
    int error = 0;
    while (connect(fd, address, length) != 0) {
        if (errno == EINPROGRESS || errno == EINTR) {
            error = finish_connect(fd, deadline);
            break;
        }
        error = errno;
        /* A Unix socket whose queue is full does not wait by itself. */
        if (error != EAGAIN || now_ms() >= deadline) break;
        error = 0;
        poll(NULL, 0, 20);
    }
    if (error) {
        close(fd);
        errno = error;
        return -1;
    }
    fcntl(fd, F_SETFL, 0);
    return fd;
}

/* Wait for the line. NULL once it is in `reply`, without its end; else a phrase. */
static const char *read_reply(int fd, char reply[REPLY_ROOM]) {
    size_t length = 0;
    int64_t deadline = 0;
    for (;;) {
        int64_t left = length ? deadline - now_ms() : -1;
        struct pollfd watched = {.fd = fd, .events = POLLIN};
        int ready = poll(&watched, 1, length ? (left > 0 ? (int)left : 0) : -1);
        if (ready == 0) return "began a line and did not end it";
        if (ready < 0 && errno == EINTR) continue;
        if (ready < 0) return strerror(errno);
        ssize_t got = recv(fd, reply + length, REPLY_ROOM - length, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return strerror(errno);
        if (got == 0) return "closed the connection before it named a host";
        if (!length) deadline = now_ms() + LINE_MS;
        char *end = memchr(reply + length, '\n', (size_t)got);
        length += (size_t)got;
        if (!end && length == REPLY_ROOM) return "sent a line too long for a host";
        if (!end) continue;
        if (end + 1 != reply + length) return "sent more than the name of a host";
        if (end > reply && end[-1] == '\r') end--;
        *end = '\0';
        return strlen(reply) == (size_t)(end - reply) ? reply_fault(reply) : "sent what is not the name of a host";
    }
}

/* Try one address of a balancer until `deadline`; the lease's descriptor or -1. */
static int ask_address(const struct sockaddr *address, socklen_t length, int64_t deadline, char reply[REPLY_ROOM],
                       int64_t *waited, const char **fault) {
    int fd = connect_until(address, length, deadline);
    if (fd < 0) {
        *fault = errno == ETIMEDOUT ? "no answer" : strerror(errno);
        return -1;
    }
    int64_t connected = now_ms();
    *fault = read_reply(fd, reply);
    *waited += now_ms() - connected;
    if (!*fault && fcntl(fd, F_SETFD, 0) != 0) *fault = strerror(errno);
    if (!*fault) return fd;
    close(fd);
    return -1;
}

/* Ask one balancer, connecting for at most `share` milliseconds; *waited gets the time that was not spent on connecting. */
static int ask_one(const char *text, int64_t share, char reply[REPLY_ROOM], int64_t *waited, char *why, size_t why_room) {
    struct balancer balancer;
    struct found found = {0};
    const char *fault = take_apart(text, &balancer);
    int64_t start = now_ms();
    if (!fault && balancer.is_path) {
        struct sockaddr_un *address = (struct sockaddr_un *)&found.at[0].address;
        address->sun_family = AF_UNIX;
        memcpy(address->sun_path, balancer.host, strlen(balancer.host) + 1);
        found.at[0].length = sizeof *address;
        found.count = 1;
    } else if (!fault) {
        /* A late answer of the name server must leave time to connect. */
        look_up(balancer.host, balancer.port, start + share * 3 / 4, &found, &fault);
    }
    if (fault) complain(why, why_room, text, fault);
    for (int i = 0; i < found.count; i++) {
        int64_t now = now_ms(), left = share - (now - start - *waited);
        int fd = ask_address((struct sockaddr *)&found.at[i].address, found.at[i].length, now + left / (found.count - i), reply,
                             waited, &fault);
        if (fd >= 0) return fd;
        complain(why, why_room, text, fault);
    }
    return -1;
}

int ask(const struct words *balancers, char reply[REPLY_ROOM], char *why, size_t why_room) {
    int64_t left = CONNECT_MS;
    *why = '\0';
    for (size_t i = 0; i < balancers->count; i++) {
        int64_t start = now_ms(), waited = 0;
        int fd = ask_one(balancers->word[i], left / (int64_t)(balancers->count - i), reply, &waited, why, why_room);
        if (fd >= 0) return fd;
        left -= now_ms() - start - waited;
        if (left < 0) left = 0;
    }
    return -1;
}
