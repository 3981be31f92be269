#!/usr/bin/env python3
"""Reads frames of the MOS frame bus and prints a line for each: subscriber.py SOCKET [COUNT]

Standard library only. A line is: sequence, format, size, the sum of the first plane's bytes, microseconds from capture to
here. Frames that the camera took back while they were read are not printed. See PROTOCOL.md.
"""

import array
import ctypes
import fcntl
import mmap
import os
import socket
import struct
import sys
import time

HELLO, WELCOME, ANNOUNCE, FRAME, RELEASE, REVOKED, GOODBYE = range(1, 8)
VERSION = 1
GOODBYES = {1: "leaving", 2: "buffers change, connect again", 3: "too many peers", 4: "violation", 5: "other version", 6: "not allowed"}


LENGTHS = {WELCOME: 32, ANNOUNCE: 48, FRAME: 128, REVOKED: 24, GOODBYE: 16}
BUFFERS, MEMORIES, PAGE, GENERATIONS = 64, 4, 4096, 64


def check(holds, otherwise):
    if not holds:
        raise ConnectionError("the publisher broke the protocol: " + otherwise)


def may_shrink(fd):
    """Whether memory can become shorter below a mapping, which would end this process (SIGBUS)."""
    try:
        return not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    except OSError:
        return True


def lasts(fd):
    """Whether a buffer's memory keeps its length: it is sealed, or it really is a dmabuf, whatever its publisher says."""
    if not may_shrink(fd):
        return True
    # A statfs has 120 bytes at most and begins with the type; DMA_BUF_MAGIC of linux/magic.h, since Linux 5.3.
    of = (ctypes.c_long * 32)()
    return ctypes.CDLL(None).fstatfs(fd, of) == 0 and of[0] & 0xFFFFFFFF == 0x444D4142


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
        check(kind == WELCOME and len(fds) == 1, "no welcome")
        check(struct.unpack_from("<II", data, 24) == (PAGE, GENERATIONS) and not may_shrink(fds[0]), "another page")
        self.page = mapped(fds[0], PAGE)
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
        check(len(data) >= 8 and not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC), "not a message")
        kind, version, length = struct.unpack_from("<HHI", data)
        check(version == VERSION and length == len(data) == LENGTHS.get(kind), "not a message of this version")
        check(not fds or kind in (WELCOME, ANNOUNCE), "descriptors that belong to nothing")
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
                check(index < BUFFERS and index not in self.buffers, "a buffer announced twice, or beyond all numbers")
                check(1 <= memories <= MEMORIES and len(fds) == memories and all(sizes), "a buffer without its descriptors")
                check(all(map(lasts, fds)), "memory that may shrink")
                self.buffers[index] = [mapped(fd, size) for fd, size in zip(fds, sizes)]
            elif kind == FRAME:
                yield Frame(self, data)
            else:
                check(kind == REVOKED, "a message that only subscribers send, or a second welcome")

    def release(self, frame):
        self.socket.send(message(RELEASE, struct.pack("<IIQ", frame.index, 0, frame.generation)))


class Frame:
    """A leased frame."""

    def __init__(self, subscriber, data):
        self.subscriber = subscriber
        self.index, _, self.generation, self.sequence, self.captured = struct.unpack_from("<IIQQQ", data, 8)
        self.fourcc, planes, self.modifier, self.width, self.height = struct.unpack_from("<4sIQII", data, 40)
        check(self.index in subscriber.buffers and 1 <= planes <= 4, "a frame in a buffer that was not announced")
        self.planes = [struct.unpack_from("<IIQ", data, 64 + 16 * plane) for plane in range(planes)]
        sizes = [len(memory) for memory in subscriber.buffers[self.index]]
        check(all(m < len(sizes) and offset < sizes[m] for m, _, offset in self.planes), "a plane beyond its buffer")

    def plane(self, number, rows):
        """The bytes of a plane, where they are. Valid only if the frame is intact afterwards."""
        memory, stride, offset = self.planes[number]
        return memoryview(self.subscriber.buffers[self.index][memory])[offset : offset + stride * rows]

    def intact(self):
        """To be asked after the work on the frame. (The interpreter's own locks order the loads on common processors.)"""
        return self.subscriber.cells[GENERATIONS // 8 + self.index] == self.generation


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
