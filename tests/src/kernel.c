/* Answers of the kernel that a test makes up, for one program that this is preloaded into: its wall clock, and errors of its disk.
 *
 * The file MOS_TEST_KERNEL holds 64-bit numbers, see kernel.rs. Errors are those of files below the folder MOS_TEST_ROOT;
 * everything else is the kernel's own. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CLOCK_AHEAD, CLOCK_KEPT, WRITE, SYNC, RENAME, CREATE, MAKE_DIR, REMOVE, WORDS };

static volatile int64_t *book;
static const char *root;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("MOS_TEST_KERNEL");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *page = mmap(NULL, WORDS * sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    root = getenv("MOS_TEST_ROOT");
    book = page == MAP_FAILED ? NULL : page;
}

/* The error to be answered for a descriptor; 0 if the kernel is to be asked. */
static int fault(int what, int fd)
{
    char link[64], path[4096];
    if (!book || !root || !book[what])
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0 || strncmp(path, root, strlen(root)) != 0)
        return 0;
    return (int)book[what];
}

#define REFUSE(what, fd)            \
    do {                            \
        int error = fault(what, fd); \
        if (error) {                \
            errno = error;          \
            return -1;              \
        }                           \
    } while (0)

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    REFUSE(WRITE, fd);
    return syscall(SYS_pwritev, fd, parts, count, (long)at, 0L);
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at)
{
    REFUSE(WRITE, fd);
    return syscall(SYS_pwrite64, fd, bytes, len, at);
}

int fdatasync(int fd)
{
    REFUSE(SYNC, fd);
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    REFUSE(SYNC, fd);
    return (int)syscall(SYS_fsync, fd);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    REFUSE(RENAME, from_dir);
    return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, 0);
}

/* The C library has no function for openat2; nobody but the archive calls it. */
long syscall(long number, ...)
{
    static long (*real)(long, ...);
    long a[6];
    va_list more;
    va_start(more, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(more, long);
    va_end(more);
    if (number == SYS_openat2 && ((const struct open_how *)a[2])->flags & (O_CREAT | O_WRONLY | O_RDWR))
        REFUSE(CREATE, (int)a[0]);
    if (!real)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int mkdirat(int dir, const char *name, mode_t mode)
{
    REFUSE(MAKE_DIR, dir);
    return (int)syscall(SYS_mkdirat, dir, name, mode);
}

int unlinkat(int dir, const char *name, int flags)
{
    REFUSE(REMOVE, dir);
    return (int)syscall(SYS_unlinkat, dir, name, flags);
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    if (syscall(SYS_clock_gettime, id, now) != 0)
        return -1;
    if (id == CLOCK_REALTIME && book) {
        int64_t ns = now->tv_sec * INT64_C(1000000000) + now->tv_nsec + book[CLOCK_AHEAD];
        now->tv_sec = ns / INT64_C(1000000000);
        now->tv_nsec = ns % INT64_C(1000000000);
    }
    return 0;
}

int adjtimex(struct timex *state)
{
    if (!book || state->modes)
        return (int)syscall(SYS_adjtimex, state);
    memset(state, 0, sizeof *state);
    state->status = book[CLOCK_KEPT] ? 0 : STA_UNSYNC;
    return book[CLOCK_KEPT] ? TIME_OK : TIME_ERROR;
}
