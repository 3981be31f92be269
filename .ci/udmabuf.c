/* Stands for /dev/udmabuf on a kernel without it: the very memfd becomes the buffer. Preloaded by .ci/libcamera only, since
 * libcamera's virtual camera takes its memory there; with a real one (hil/) it is not used. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/udmabuf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

static int device = -1;

static int is_device(int fd) {
    struct stat a, b;
    return device >= 0 && fstat(fd, &a) == 0 && fstat(device, &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = va_arg(rest, mode_t);                                                                            \
        va_end(rest);                                                                                                  \
        if (strcmp(path, "/dev/udmabuf") == 0) {                                                                       \
            if (device < 0) device = memfd_create("udmabuf", MFD_CLOEXEC);                                             \
            return fcntl(device, F_DUPFD_CLOEXEC, 0);                                                                  \
        }                                                                                                              \
        return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name))(path, flags, mode);                          \
    }
OPEN(open)
OPEN(open64)

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (request == UDMABUF_CREATE && is_device(fd))
        return fcntl((int)((struct udmabuf_create *)argument)->memfd, F_DUPFD_CLOEXEC, 0);
    if (request == DMA_BUF_IOCTL_SYNC) return 0; /* ordinary memory is coherent */
    return ((int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl"))(fd, request, argument);
}
