/*
 * Reads frames of the MOS frame bus and prints a line for each: subscriber SOCKET [COUNT]
 *
 *     cc -std=c11 -Iinclude examples/subscriber.c -o subscriber
 *
 * A line is: sequence, format, size, the sum of the first plane's bytes, microseconds from capture to here. Frames that the
 * camera took back while they were read are not printed.
 */
#include "mos_frame.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "subscriber SOCKET [COUNT]\n");
        return 2;
    }
    long left = argc > 2 ? atol(argv[2]) : -1;
    struct mos_subscriber s;
    int result = mos_frame_connect(&s, argv[1], 1, 2, 0);
    struct mos_frame f;
    while (result >= 0 && left != 0 && (result = mos_frame_next(&s, &f, -1)) >= 0) {
        if (f.kind != MOS_FRAME) continue;
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        uint64_t latency = ((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec - f.captured) / 1000;
        size_t bytes;
        const uint8_t *luma = mos_frame_plane(&s, &f, 0, &bytes);
        uint64_t sum = 0, stride = f.plane[0].stride, width = f.width < stride ? f.width : stride;
        for (uint64_t row = 0; luma != NULL && stride > 0 && row < f.height && (row + 1) * stride <= bytes; row++)
            for (uint64_t x = 0; x < width; x++) sum += luma[row * stride + x];
        if (luma != NULL && mos_frame_intact(&s, &f)) {
            printf("%" PRIu64 " %.4s %" PRIu32 "x%" PRIu32 " %" PRIu64 " %" PRIu64 "\n", f.sequence,
                   (const char *)&f.fourcc, f.width, f.height, sum, latency);
            fflush(stdout);
            left--;
        }
        result = mos_frame_release(&s, &f);
    }
    if (result < 0) fprintf(stderr, "%s: %s (goodbye %" PRIu32 ")\n", argv[1], strerror(-result), s.goodbye);
    mos_frame_close(&s);
    return result < 0;
}
