/*
 * Reader of the MOS frame bus, in C11 (or C++20) without dependencies: include it in one or more files. PROTOCOL.md is the contract.
 *
 *     struct mos_subscriber s;
 *     if (mos_frame_connect(&s, "/run/mos/frames/road.sock", 1, 2, 0) < 0) ...
 *     struct mos_frame f;
 *     while (mos_frame_next(&s, &f, -1) >= 0) {
 *         if (f.kind != MOS_FRAME) continue;
 *         ... work on mos_frame_plane(&s, &f, 0, &bytes) or import s.buffers[f.index].fd[0] ...
 *         bool good = mos_frame_intact(&s, &f);      // after the work: else its result is worth nothing
 *         mos_frame_release(&s, &f);                 // always
 *     }
 *     mos_frame_close(&s);
 *
 * Functions return a negative errno on failure; the connection is over then. One thread per subscriber.
 */
#ifndef MOS_FRAME_H
#define MOS_FRAME_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

/* linux/fcntl.h; whoever includes fcntl.h before without _GNU_SOURCE lacks them. */
#ifndef F_GET_SEALS
#define F_GET_SEALS 1034
#endif
#ifndef F_SEAL_SHRINK
#define F_SEAL_SHRINK 2
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define MOS_FRAME_VERSION 1
#define MOS_FRAME_BUFFERS 64
#define MOS_FRAME_MEMORIES 4
#define MOS_FRAME_PLANES 4

/* What mos_frame_next received. */
enum mos_frame_kind {
    MOS_NOTHING = 0, /* the time is over */
    MOS_FRAME = 1,   /* a frame, leased */
    MOS_REVOKED = 2, /* a lease became void; its frame is still to be released */
};

struct mos_plane {
    uint32_t memory; /* which of the buffer's memories */
    uint32_t stride; /* bytes from row to row */
    uint64_t offset; /* bytes from the start of that memory */
};

struct mos_frame {
    enum mos_frame_kind kind;
    uint32_t index; /* of its buffer: the same number is the same memory, so an import can be kept */
    uint64_t generation;
    uint64_t sequence;
    uint64_t captured; /* ns of CLOCK_MONOTONIC */
    uint32_t fourcc;   /* DRM format code */
    uint64_t modifier; /* DRM modifier, 0 is linear */
    uint32_t width, height;
    uint32_t planes;
    struct mos_plane plane[MOS_FRAME_PLANES];
};

struct mos_buffer {
    uint8_t memories; /* 0: not announced */
    bool dmabuf;      /* bracket reads by the CPU with DMA_BUF_IOCTL_SYNC */
    int fd[MOS_FRAME_MEMORIES];
    uint64_t size[MOS_FRAME_MEMORIES];
    const uint8_t *map[MOS_FRAME_MEMORIES]; /* made by the first mos_frame_plane */
};

struct mos_subscriber {
    int socket; /* readable when there is something for mos_frame_next */
    const uint8_t *page;
    bool trusted;             /* frames are the camera's own buffers */
    uint32_t waiting, leases; /* granted */
    uint32_t lease_ms;
    uint32_t goodbye; /* reason, once the publisher has said goodbye; see PROTOCOL.md */
    struct mos_buffer buffers[MOS_FRAME_BUFFERS];
};

static inline uint16_t mos_get16(const uint8_t *at) { return (uint16_t)(at[0] | at[1] << 8); }
static inline uint32_t mos_get32(const uint8_t *at) { return mos_get16(at) | (uint32_t)mos_get16(at + 2) << 16; }
static inline uint64_t mos_get64(const uint8_t *at) { return mos_get32(at) | (uint64_t)mos_get32(at + 4) << 32; }
static inline void mos_put32(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(value >> 8 * i);
}
static inline void mos_put64(uint8_t *at, uint64_t value) {
    mos_put32(at, (uint32_t)value);
    mos_put32(at + 4, (uint32_t)(value >> 32));
}
static inline void mos_put_head(uint8_t *at, uint16_t type, uint32_t length) {
    mos_put32(at, type | (uint32_t)MOS_FRAME_VERSION << 16);
    mos_put32(at + 4, length);
}

/* Sends one message. */
static inline int mos_send(const struct mos_subscriber *s, const uint8_t *message, size_t length) {
    ssize_t sent;
    do sent = send(s->socket, message, length, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

/* Receives one message of at most 128 bytes and its descriptors, which are the caller's then. Gives its type. */
static inline int mos_receive(struct mos_subscriber *s, uint8_t message[128], int fds[MOS_FRAME_MEMORIES], int *count) {
    static const uint8_t lengths[8] = {0, 32, 32, 48, 128, 24, 24, 16};
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int) * MOS_FRAME_MEMORIES)];
    } control;
    struct iovec part = {message, 128};
    struct msghdr head;
    ssize_t got;
    *count = 0;
    do {
        memset(&head, 0, sizeof head);
        head.msg_iov = &part;
        head.msg_iovlen = 1;
        head.msg_control = control.room;
        head.msg_controllen = sizeof control.room;
        got = recvmsg(s->socket, &head, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0) return -errno;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&head); c != NULL; c = CMSG_NXTHDR(&head, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        size_t here = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < here; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
            if (*count < MOS_FRAME_MEMORIES) fds[(*count)++] = fd;
            else close(fd);
        }
    }
    int type = got >= 8 ? mos_get16(message) : 0;
    bool good = got >= 8 && type >= 1 && type <= 7 && mos_get16(message + 2) == MOS_FRAME_VERSION &&
                got == lengths[type] && mos_get32(message + 4) == lengths[type] &&
                (head.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0 && (*count == 0 || type == 2 || type == 3);
    if (good && type == 7) s->goodbye = mos_get32(message + 8);
    if (!good || type == 7) {
        while (*count > 0) close(fds[--*count]);
        return got == 0 || type == 7 ? -ECONNRESET : -EPROTO;
    }
    return type;
}

/* Whether memory can become shorter below a mapping, which would end this process (SIGBUS). */
static inline bool mos_may_shrink(int fd) {
    int seals = fcntl(fd, F_GET_SEALS);
    return seals < 0 || (seals & F_SEAL_SHRINK) == 0;
}

/* Whether a buffer's memory keeps its length: it is sealed, or it really is a dmabuf (DMA_BUF_MAGIC of linux/magic.h; since
 * Linux 5.3), or nobody may map it through this descriptor. */
static inline bool mos_is_lasting(int fd) {
    struct statfs of;
    int flags = fcntl(fd, F_GETFL);
    return !mos_may_shrink(fd) || (fstatfs(fd, &of) == 0 && (uint32_t)of.f_type == 0x444d4142u) ||
           (flags >= 0 && (flags & O_ACCMODE) == O_WRONLY);
}

/* Ends a connection and all its mappings. */
static inline void mos_frame_close(struct mos_subscriber *s) {
    for (size_t b = 0; b < MOS_FRAME_BUFFERS; b++) {
        for (size_t m = 0; m < s->buffers[b].memories; m++) {
            if (s->buffers[b].map[m] != NULL) munmap((void *)s->buffers[b].map[m], s->buffers[b].size[m]);
            close(s->buffers[b].fd[m]);
        }
        s->buffers[b].memories = 0;
    }
    if (s->page != NULL) munmap((void *)s->page, 4096);
    if (s->socket >= 0) close(s->socket);
    s->page = NULL;
    s->socket = -1;
}

/* Connects to a lens: `waiting` frames may wait (the newest), `leases` may be held, at most `max_rate` in 1000 s (0: all). */
static inline int mos_frame_connect(struct mos_subscriber *s, const char *path, uint32_t waiting, uint32_t leases,
                                    uint32_t max_rate) {
    struct sockaddr_un address;
    uint8_t message[128] = {0};
    int fds[MOS_FRAME_MEMORIES], count = 0, result;
    memset(s, 0, sizeof *s);
    memset(&address, 0, sizeof address);
    s->socket = -1;
    address.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address.sun_path) return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    s->socket = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (s->socket < 0) return -errno;
    if (connect(s->socket, (const struct sockaddr *)&address, sizeof address) < 0) {
        result = -errno;
        mos_frame_close(s);
        return result;
    }
    mos_put_head(message, 1, 32);
    memcpy(message + 8, "MOSFRAME", 8);
    mos_put32(message + 16, waiting);
    mos_put32(message + 20, leases);
    mos_put32(message + 24, max_rate);
    result = mos_send(s, message, 32);
    /* A refusal may have come first; it says more than a broken pipe. */
    if (result == 0 || result == -EPIPE) result = mos_receive(s, message, fds, &count);
    if (result >= 0 && (result != 2 || count != 1 || lseek(fds[0], 0, SEEK_END) < 4096 ||
                        mos_may_shrink(fds[0]) ||
                        mos_get32(message + 24) != 4096 || mos_get32(message + 28) != 64))
        result = -EPROTO;
    if (result >= 0) {
        void *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fds[0], 0);
        if (page == MAP_FAILED) result = -errno;
        else s->page = (const uint8_t *)page;
    }
    while (count > 0) close(fds[--count]);
    if (result < 0) {
        mos_frame_close(s);
        return result;
    }
    s->waiting = mos_get32(message + 8);
    s->leases = mos_get32(message + 12);
    s->trusted = mos_get32(message + 16) == 1;
    s->lease_ms = mos_get32(message + 20);
    return 0;
}

/* Takes up an announced buffer. */
static inline int mos_take_buffer(struct mos_subscriber *s, const uint8_t *message, const int *fds, int count) {
    uint32_t index = mos_get32(message + 8);
    bool good = index < MOS_FRAME_BUFFERS && count >= 1 && message[12] == count && s->buffers[index].memories == 0;
    for (int m = 0; good && m < count; m++) {
        uint64_t size = mos_get64(message + 16 + 8 * m);
        off_t there = lseek(fds[m], 0, SEEK_END);
        good = size > 0 && size <= SIZE_MAX && there >= 0 && (uint64_t)there >= size && mos_is_lasting(fds[m]);
    }
    if (!good) {
        for (int m = 0; m < count; m++) close(fds[m]);
        return -EPROTO;
    }
    struct mos_buffer *buffer = &s->buffers[index];
    memset(buffer, 0, sizeof *buffer);
    buffer->memories = (uint8_t)count;
    buffer->dmabuf = message[13] == 1;
    for (int m = 0; m < count; m++) {
        buffer->fd[m] = fds[m];
        buffer->size[m] = mos_get64(message + 16 + 8 * m);
    }
    return 0;
}

/* Waits for a frame or a revocation, at most `ms` milliseconds (-1: as long as it takes). Gives f->kind. */
static inline int mos_frame_next(struct mos_subscriber *s, struct mos_frame *f, int ms) {
    uint8_t message[128];
    int fds[MOS_FRAME_MEMORIES], count;
    for (;;) {
        memset(f, 0, sizeof *f);
        if (ms >= 0) {
            struct pollfd ready = {s->socket, POLLIN, 0};
            int result = poll(&ready, 1, ms);
            if (result < 0) return errno == EINTR ? (int)MOS_NOTHING : -errno;
            if (result == 0) return MOS_NOTHING;
        }
        int type = mos_receive(s, message, fds, &count);
        if (type < 0) return type;
        if (type == 3) {
            int result = mos_take_buffer(s, message, fds, count);
            if (result < 0) return result;
            continue;
        }
        f->index = mos_get32(message + 8);
        f->generation = mos_get64(message + 16);
        if (f->index >= MOS_FRAME_BUFFERS) return -EPROTO;
        if (type == 6) return f->kind = MOS_REVOKED;
        if (type != 4) return -EPROTO;
        const struct mos_buffer *buffer = &s->buffers[f->index];
        f->sequence = mos_get64(message + 24);
        f->captured = mos_get64(message + 32);
        f->fourcc = mos_get32(message + 40);
        f->planes = mos_get32(message + 44);
        f->modifier = mos_get64(message + 48);
        f->width = mos_get32(message + 56);
        f->height = mos_get32(message + 60);
        if (f->planes < 1 || f->planes > MOS_FRAME_PLANES || f->width < 1 || f->height < 1) return -EPROTO;
        for (uint32_t p = 0; p < f->planes; p++) {
            f->plane[p].memory = mos_get32(message + 64 + 16 * p);
            f->plane[p].stride = mos_get32(message + 68 + 16 * p);
            f->plane[p].offset = mos_get64(message + 72 + 16 * p);
            if (f->plane[p].memory >= buffer->memories || f->plane[p].offset >= buffer->size[f->plane[p].memory])
                return -EPROTO;
        }
        return f->kind = MOS_FRAME;
    }
}

/* Where a plane lies; `bytes` is what there is from there to the end of its memory. Mapped once per buffer. NULL: errno. */
static inline const uint8_t *mos_frame_plane(struct mos_subscriber *s, const struct mos_frame *f, uint32_t plane,
                                             size_t *bytes) {
    if (plane >= f->planes) {
        errno = EINVAL;
        return NULL;
    }
    struct mos_buffer *buffer = &s->buffers[f->index];
    uint32_t m = f->plane[plane].memory;
    if (buffer->map[m] == NULL) {
        void *map = mmap(NULL, buffer->size[m], PROT_READ, MAP_SHARED, buffer->fd[m], 0);
        if (map == MAP_FAILED) return NULL;
        buffer->map[m] = (const uint8_t *)map;
    }
    *bytes = buffer->size[m] - f->plane[plane].offset;
    return buffer->map[m] + f->plane[plane].offset;
}

/* Whether the frame is still what it was: to be asked after the work on it is complete. */
static inline bool mos_frame_intact(const struct mos_subscriber *s, const struct mos_frame *f) {
    const uint64_t *cell = (const uint64_t *)(const void *)(s->page + 64 + 8 * f->index);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(cell, __ATOMIC_RELAXED) == f->generation;
}

/* Gives a frame back. */
static inline int mos_frame_release(const struct mos_subscriber *s, const struct mos_frame *f) {
    uint8_t message[24] = {0};
    mos_put_head(message, 5, 24);
    mos_put32(message + 8, f->index);
    mos_put64(message + 16, f->generation);
    return mos_send(s, message, sizeof message);
}

#ifdef __cplusplus
}
#endif
#endif
