#!/usr/bin/env python3
"""An RTSP camera, over TCP and UDP, that behaves as a file of `quirks/` says: `rtsp_quirks.py QUIRK.toml VIDEO.h264 AUDIO.aac AUDIO.al`.

The video is H.264 in Annex B with an access unit delimiter before every picture, 25 pictures a second; the sound is AAC in
ADTS, or A-law of 8 kHz, a whole number of packets of 20 ms. All repeat for ever. Prints `port N` when it listens. With the standard library only.

Keys of a file: `camera`, `facts` (where the quirk is described), `quirk` (in a sentence), `path`, `sdp`, and of what follows
what differs from a good camera:

  options            status of the answer to OPTIONS, with or without a session (200)
  keepalive          status of the answer to GET_PARAMETER and SET_PARAMETER (200)
  content_base       the header's value, "" for none ({base}/)
  transport          what is appended to the Transport header of SETUP
  cseq               how the header with the number is written ("CSeq: {n}")
  early              packets are sent before PLAY is answered (false)
  rtp_info           the header of PLAY's answer ("" for none)
  before             lines that come before the status line of an answer, in bytes of a session that is over (0)
  stray_channel      packets of another session on a channel that was not set up
  marker             "picture", "unit" (on every NAL unit) or "never" ("picture")
  parameter_sets     "band", "sdp" or "both" ("both")
  odd_parameters     parameter sets come with the time of the picture before, as access units of their own (false)
  trailing           hexadecimal bytes behind every SPS
  zero_behind_sets   a zero byte behind each parameter set of the description (false)
  drift              how fast its clock runs (1.0)
  sound              "aac", "pcma" or "" ("")
  sound_after        seconds until the first sound (0)

The tests read two keys more: `needs_udp` (one of our readers, that over TCP, refuses it) and `only_tcp` (why it cannot be met over UDP).

In texts {host} is HOST:PORT, {base} the address of the stream, {sprop} the parameter sets, {profile} the profile and level.
"""

import base64
import random
import socket
import struct
import sys
import threading
import time
import tomllib

RATE = 25


def units(data):
    """NAL units of Annex B."""
    places = []
    at = data.find(b"\0\0\1")
    while at >= 0:
        places.append(at)
        at = data.find(b"\0\0\1", at + 3)
    for start, end in zip(places, places[1:] + [len(data)]):
        yield data[start + 3 : end].rstrip(b"\0")


def pictures(data):
    """Access units: lists of NAL units, without the delimiters."""
    found = []
    for unit in units(data):
        if unit[0] & 31 == 9:
            found.append([])
        elif found:
            found[-1].append(unit)
    return found


def frames(data):
    """AAC frames of ADTS without their headers."""
    found, at = [], 0
    while at + 7 <= len(data):
        size = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
        head = 7 if data[at + 1] & 1 else 9
        found.append(data[at + head : at + size])
        at += size
    return found


class Track:
    """A sender of RTP on an interleaved channel."""

    def __init__(self, connection, channel, kind, udp=None):
        self.connection, self.channel, self.kind, self.udp = connection, channel, kind, udp
        self.sequence, self.ssrc = random.randrange(65536), random.randrange(1 << 32)

    def send(self, payload, stamp, marker):
        head = struct.pack(">BBHII", 128, (128 if marker else 0) | self.kind, self.sequence, stamp & 0xFFFFFFFF, self.ssrc)
        self.sequence = (self.sequence + 1) & 65535
        packet = head + payload
        if self.udp:
            self.udp.send(packet)
        else:
            self.connection.write(struct.pack(">cBH", b"$", self.channel, len(packet)) + packet)

    def unit(self, unit, stamp, marker):
        """A NAL unit, in fragments if it must be (RFC 6184, 5.6 and 5.8)."""
        if len(unit) <= 1400:
            return self.send(unit, stamp, marker)
        pieces = [unit[i : i + 1400] for i in range(1, len(unit), 1400)]
        for i, piece in enumerate(pieces):
            edge = (128 if i == 0 else 0) | (64 if i == len(pieces) - 1 else 0)
            head = bytes([unit[0] & 0xE0 | 28, edge | unit[0] & 31])
            self.send(head + piece, stamp, marker and i == len(pieces) - 1)


class Connection(threading.Thread):
    def __init__(self, stream, camera):
        super().__init__(daemon=True)
        self.stream, self.camera, self.lock = stream, camera, threading.Lock()
        self.tracks, self.playing = {}, None

    def write(self, data):
        with self.lock:
            self.stream.sendall(data)

    def run(self):
        text = self.stream.makefile("rb")
        try:
            while True:
                first = text.readline()
                if not first:
                    return
                if first[:1] == b"$":
                    size = struct.unpack(">H", (first + text.read(4))[2:4])[0]
                    text.read(max(0, size - max(0, len(first) - 4)))
                    continue
                if not first.strip():
                    continue
                method, uri, _ = first.decode().split()
                headers = {}
                while line := text.readline().strip():
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                text.read(int(headers.get("content-length", 0)))
                self.answer(method, uri, headers)
        except OSError:
            pass
        finally:
            self.stream.close()

    def reply(self, headers, status, more=(), body=""):
        q = self.camera.quirk
        lines = [f"RTSP/1.0 {status} {'OK' if status == 200 else 'Bad Request'}"]
        lines += [q.get("cseq", "CSeq: {n}").replace("{n}", headers.get("cseq", "0")), *more]
        if body:
            lines += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        self.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())

    def answer(self, method, uri, headers):
        camera, q = self.camera, self.camera.quirk
        session = "Session: 4c2a91d0;timeout=60"
        if method == "OPTIONS":
            self.reply(headers, q.get("options", 200), ["Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"])
        elif method in ("GET_PARAMETER", "SET_PARAMETER"):
            self.reply(headers, q.get("keepalive", 200), [session])
        elif method == "DESCRIBE":
            base = camera.text(q.get("content_base", "{base}/"))
            self.reply(headers, 200, [f"Content-Base: {base}"] if base else [], camera.text(q["sdp"]).replace("\n", "\r\n"))
        elif method == "SETUP":
            wanted = dict(part.partition("=")[::2] for part in headers.get("transport", "").split(";"))
            udp, channel = None, 0
            if "interleaved" in wanted:
                channel = int(wanted["interleaved"].split("-")[0])
                transport = f"RTP/AVP/TCP;unicast;interleaved={channel}-{channel + 1}{q.get('transport', '')}"
            else:
                udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                udp.connect(("127.0.0.1", int(wanted["client_port"].split("-")[0])))
                port = udp.getsockname()[1]
                ports = f"client_port={wanted['client_port']};server_port={port}-{port + 1}"
                transport = f"RTP/AVP;unicast;{ports}{q.get('transport', '')}"
            for media in ("video", "audio"):
                if uri.endswith(camera.control(media)):
                    self.tracks[media] = Track(self, channel, camera.kind_of(media), udp)
            self.reply(headers, 200, [session, f"Transport: {transport}"])
        elif method == "PLAY":
            if q.get("early"):
                self.play()
            info = camera.text(q.get("rtp_info", ""))
            self.reply(headers, 200, [session, "Range: npt=0.000-"] + ([f"RTP-Info: {info}"] if info else []))
            if not q.get("early"):
                self.play()
        elif method == "TEARDOWN":
            self.reply(headers, 200, [session])
            self.stream.close()
        else:
            self.reply(headers, 501)

    def play(self):
        if self.playing is None and "video" in self.tracks:
            self.playing = threading.Thread(target=self.send, daemon=True)
            self.playing.start()

    def send(self):
        try:
            self.camera.send(self, self.tracks)
        except OSError:
            pass


class Camera:
    def __init__(self, quirk, video, audio, law):
        self.quirk, self.host, self.law = quirk, "", law
        self.pictures, self.frames = pictures(video), frames(audio)
        self.sps = next(u for p in self.pictures for u in p if u[0] & 31 == 7)
        self.pps = next(u for p in self.pictures for u in p if u[0] & 31 == 8)

    def text(self, text):
        zero = b"\0" if self.quirk.get("zero_behind_sets") else b""
        sprop = ",".join(base64.b64encode(u + zero).decode() for u in (self.sps + self.trailing(), self.pps))
        base = f"rtsp://{self.host}{self.quirk['path']}"
        values = {"host": self.host, "base": base, "sprop": sprop, "profile": self.sps[1:4].hex().upper()}
        for name, value in values.items():
            text = text.replace("{" + name + "}", value)
        return text

    def trailing(self):
        return bytes.fromhex(self.quirk.get("trailing", ""))

    def section(self, media):
        """The first section of a kind in the description."""
        return self.quirk["sdp"].partition(f"m={media}")[2].partition("\nm=")[0]

    def control(self, media):
        control = next((l[10:] for l in self.section(media).splitlines() if l.startswith("a=control:")), "nothing of the kind")
        return self.text(control)

    def kind_of(self, media):
        return int(self.section(media).split()[2])

    def send(self, connection, tracks):
        q = self.quirk
        video, sound = tracks["video"], tracks.get("audio")
        start, n, played = time.monotonic(), 0, 0
        base = random.randrange(1 << 31)
        stamp = lambda i: base + int(i * 90000 / RATE * q.get("drift", 1.0))
        while True:
            picture = self.pictures[n % len(self.pictures)]
            parameters = [u for u in picture if u[0] & 31 in (7, 8)]
            rest = [u for u in picture if u[0] & 31 not in (7, 8)]
            if q.get("parameter_sets", "both") == "sdp":
                parameters = []
            elif n == 0 and not parameters:
                parameters = [self.sps, self.pps]
            parameters = [u + self.trailing() if u[0] & 31 == 7 else u for u in parameters]
            mark = q.get("marker", "picture")
            if q.get("odd_parameters"):
                for i, unit in enumerate(parameters):
                    video.unit(unit, stamp(n - 1), i == 0)
                parameters = []
            units = parameters + rest
            for i, unit in enumerate(units):
                video.unit(unit, stamp(n), mark == "unit" or (mark == "picture" and i == len(units) - 1))
            if "stray_channel" in q:
                junk = struct.pack(">BBHII", 128, 96, n & 65535, stamp(n) & 0xFFFFFFFF, 77) + b"\x41" + bytes(40)
                connection.write(struct.pack(">cBH", b"$", q["stray_channel"], len(junk)) + junk)
            while sound and played < (n / RATE - q.get("sound_after", 0)) * (48000 / 1024 if q["sound"] == "aac" else 50):
                if q["sound"] == "aac":
                    frame = self.frames[played % len(self.frames)]
                    sound.send(struct.pack(">HH", 16, len(frame) << 3) + frame, played * 1024, True)
                else:
                    at = played * 160 % len(self.law)
                    sound.send(self.law[at : at + 160], played * 160, played == 0)
                played += 1
            n += 1
            time.sleep(max(0, start + n / RATE - time.monotonic()))


def main():
    with open(sys.argv[1], "rb") as f:
        quirk = tomllib.load(f)
    camera = Camera(quirk, *(open(name, "rb").read() for name in sys.argv[2:5]))
    listener = socket.create_server(("127.0.0.1", 0))
    camera.host = f"127.0.0.1:{listener.getsockname()[1]}"
    print(f"port {listener.getsockname()[1]}", flush=True)
    while True:
        stream, _ = listener.accept()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Connection(stream, camera).start()


if __name__ == "__main__":
    main()
