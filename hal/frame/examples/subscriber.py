#!/usr/bin/env python3
"""Reads frames of the MOS frame bus and prints a line for each: subscriber.py SOCKET [COUNT]

Standard library only. A line is: sequence, format, size, the sum of the first plane's bytes, microseconds from capture to
here. Frames that the camera took back while they were read are not printed. See PROTOCOL.md.
"""

import array
import mmap
import os
import socket
import struct
import sys
import time

HELLO, WELCOME, ANNOUNCE, FRAME, RELEASE, REVOKED, GOODBYE = range(1, 8)
VERSION = 1
GOODBYES = {1: "leaving", 2: "buffers change, connect again", 3: "too many peers", 4: "violation", 5: "other version", 6: "not allowed"}


def message(kind, body):
    return struct.pack("<HHI", kind, VERSION, 8 + len(body)) + body


def mapped(fd, size):
    """The memory behind a descriptor, which is no longer needed then."""
    try:
        return mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
    finally:
        os.close(fd)


class Subscriber:
    """A connection to one lens. Every buffer is mapped once."""

    def __init__(self, path, waiting=1, leases=2, max_rate=0):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(path)
        self.socket.send(message(HELLO, b"MOSFRAME" + struct.pack("<IIII", waiting, leases, max_rate, 0)))
        kind, data, fds = self._receive()
        if kind != WELCOME or len(fds) != 1:
            raise ConnectionError("no welcome")
        size, self.generations = struct.unpack_from("<II", data, 24)
        self.page = mapped(fds[0], size)
        self.cells = memoryview(self.page).cast("Q")
        self.buffers = {}

    def _receive(self):
        """One message: its type, its bytes, its descriptors."""
        room = socket.CMSG_SPACE(4 * array.array("i").itemsize)
        data, control, flags, _ = self.socket.recvmsg(128, room, socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        for level, kind, content in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        if not data:
            raise ConnectionError("the publisher has gone")
        kind, version, length = struct.unpack_from("<HHI", data)
        if version != VERSION or length != len(data) or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ConnectionError("not a message of this protocol")
        if kind == GOODBYE:
            raise ConnectionError("goodbye: " + GOODBYES.get(struct.unpack_from("<I", data, 8)[0], "?"))
        return kind, data, fds

    def frames(self):
        """Yields frames for ever; each is to be released."""
        while True:
            kind, data, fds = self._receive()
            if kind == ANNOUNCE:
                index, memories = struct.unpack_from("<IB", data, 8)
                sizes = struct.unpack_from("<4Q", data, 16)[:memories]
                self.buffers[index] = [mapped(fd, size) for fd, size in zip(fds, sizes)]
            elif kind == FRAME:
                yield Frame(self, data)

    def release(self, frame):
        self.socket.send(message(RELEASE, struct.pack("<IIQ", frame.index, 0, frame.generation)))


class Frame:
    """A leased frame."""

    def __init__(self, subscriber, data):
        self.subscriber = subscriber
        self.index, _, self.generation, self.sequence, self.captured = struct.unpack_from("<IIQQQ", data, 8)
        self.fourcc, planes, self.modifier, self.width, self.height = struct.unpack_from("<4sIQII", data, 40)
        self.planes = [struct.unpack_from("<IIQ", data, 64 + 16 * plane) for plane in range(planes)]

    def plane(self, number, rows):
        """The bytes of a plane, where they are. Valid only if the frame is intact afterwards."""
        memory, stride, offset = self.planes[number]
        return memoryview(self.subscriber.buffers[self.index][memory])[offset : offset + stride * rows]

    def intact(self):
        """To be asked after the work on the frame. (The interpreter's own locks order the loads on common processors.)"""
        return self.subscriber.cells[self.subscriber.generations // 8 + self.index] == self.generation


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    left = int(sys.argv[2]) if len(sys.argv) > 2 else -1
    subscriber = Subscriber(sys.argv[1])
    for frame in subscriber.frames():
        latency = (time.clock_gettime_ns(time.CLOCK_MONOTONIC) - frame.captured) // 1000
        total = sum(frame.plane(0, frame.height))
        if frame.intact():
            fourcc = frame.fourcc.decode("ascii", "replace")
            print(frame.sequence, fourcc, f"{frame.width}x{frame.height}", total, latency, flush=True)
            left -= 1
        subscriber.release(frame)
        if left == 0:
            break


if __name__ == "__main__":
    main()
