"""A WHEP server that shares no code with MOS nor with GStreamer: aiortc, a WebRTC of its own, behind aiohttp.

    whep_server.py --file LONG.ts [--port N] [--token T] [--certificate PEM --key PEM] [--log FILE] [--sprop]
                   [--on-demand] [--lossy SECONDS] [--impostor] [--turn URL --turn-login USER:PASSWORD] [--stun URL]

Sends the access units of the file (MPEG-TS with H.264 or H.265), coded as they are, once to whoever posts an offer to /whep.
/moved points there by 307, /elsewhere to another host name. A line of the log for each request says what was asked, whether
with the token, and what was answered; "listening PORT" is the first.

With --on-demand it begins in the middle of a group and sends no keyframe before it was asked for one; with --lossy every 200th
packet is lost from then on, for good; with --impostor the answer names another certificate than the one that is shown. The log
tells of each keyframe that is asked for, and how many pictures went out in a session when the next one begins.
With --sprop, parameter sets of H.265 are told in the answer only (RFC 7798, section 7.1). With --turn, OPTIONS is answered with
that server, and media are let in only from the relayed addresses of an offer, as by a firewall; the log tells their number. With
--stun that server is named, and the log tells the addresses of an offer that a server for STUN has seen.
"""

import argparse
import asyncio
import base64
import re
import ssl
import uuid

import aioice
import aiortc.rtcdtlstransport
import aiortc.rtcrtpsender
import av
from aiohttp import web
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.codecs import CODECS
from aiortc.codecs.base import Encoder
from aiortc.codecs.h264 import H264Encoder
from aiortc.mediastreams import VIDEO_TIME_BASE, MediaStreamError, convert_timebase
from aiortc.rtcrtpparameters import RTCRtcpFeedback, RTCRtpCodecParameters

arguments = argparse.ArgumentParser()
arguments.add_argument("--file", required=True)
arguments.add_argument("--port", type=int, default=0)
arguments.add_argument("--token")
arguments.add_argument("--certificate")
arguments.add_argument("--key")
arguments.add_argument("--log", default="/dev/stdout")
arguments.add_argument("--sprop", action="store_true")
arguments.add_argument("--on-demand", action="store_true")
arguments.add_argument("--lossy", type=float)
arguments.add_argument("--impostor", action="store_true")
arguments.add_argument("--stun")
arguments.add_argument("--turn")
arguments.add_argument("--turn-login", default=":")
options = arguments.parse_args()
log = open(options.log, "a", buffering=1)
sessions = {}
tracks = []

REQUEST_RECEIVED = aioice.ice.Connection.request_received
LET_IN = set()

# What RFC 7798 calls them, by type of NAL unit.
PARAMETER_SETS = {32: "sprop-vps", 33: "sprop-sps", 34: "sprop-pps"}


def split(packet):
    """The NAL units of an access unit in Annex B."""
    return H264Encoder._split_bitstream(bytes(packet))


class H265(Encoder):
    """The payloads of RFC 7798, sections 4.4.1 and 4.4.3: single units and fragments."""

    MOST = 1200

    def encode(self, frame, force_keyframe=False):
        raise NotImplementedError("nothing is coded here")

    def pack(self, packet):
        payloads = []
        for unit in split(packet):
            kind = unit[0] >> 1 & 63
            if options.sprop and kind in PARAMETER_SETS:
                continue
            if len(unit) <= self.MOST:
                payloads.append(unit)
                continue
            header, body = bytes([unit[0] & 0x81 | 49 << 1, unit[1]]), unit[2:]
            for at in range(0, len(body), self.MOST):
                first, last = at == 0, at + self.MOST >= len(body)
                payloads.append(header + bytes([first << 7 | last << 6 | kind]) + body[at : at + self.MOST])
        return payloads, convert_timebase(packet.pts, packet.time_base, VIDEO_TIME_BASE)


class Coded(MediaStreamTrack):
    """The pictures of the file, each at its time."""

    kind = "video"

    def __init__(self):
        super().__init__()
        self.container = av.open(options.file)
        self.packets = self.container.demux(video=0)
        self.begun = None
        self.asked = not options.on_demand
        self.sent = 0

    async def recv(self):
        packet = next(self.packets, None)
        while packet is not None and packet.is_keyframe and not self.asked:
            packet = next(self.packets, None)
        if packet is None or not packet.size:
            self.stop()
            raise MediaStreamError
        now, due = asyncio.get_event_loop().time(), float(packet.dts * packet.time_base)
        self.begun = now - due if self.begun is None else self.begun
        await asyncio.sleep(max(0, self.begun + due - now))
        self.sent += 1
        return packet


class Road:
    """Loses packets, and tells who asks for keyframes."""

    def __init__(self):
        self.begun, self.sent, self.lost = None, 0, 0
        self.send = aiortc.rtcdtlstransport.RTCDtlsTransport._send_rtp

    def build(road):
        async def send(self, data):
            # RFC 5761: these are RTCP.
            if options.lossy is not None and not 192 <= data[1] <= 223:
                now = asyncio.get_event_loop().time()
                road.begun, road.sent = road.begun or now, road.sent + 1
                if now - road.begun > options.lossy and road.sent % 200 == 0:
                    road.lost += 1
                    return
            await road.send(self, data)

        async def retransmit(self, number):
            return None

        def keyframe(self):
            log.write(f"a keyframe is asked for after {road.lost} losses\n")
            self.track.asked = True

        aiortc.rtcdtlstransport.RTCDtlsTransport._send_rtp = send
        aiortc.rtcrtpsender.RTCRtpSender._send_keyframe = keyframe
        if options.lossy is not None:
            aiortc.rtcrtpsender.RTCRtpSender._retransmit = retransmit


Road().build()


def impostor(answer):
    """An answer with one digit of its fingerprints changed."""
    return re.sub(r"(a=fingerprint:\S+ )(.)", lambda m: m[1] + ("1" if m[2] == "0" else "0"), answer)


def offer_h265(file):
    """Makes H.265 the one codec that aiortc knows for pictures."""
    parameters = {}
    if options.sprop:
        with av.open(file) as container:
            units = list(split(next(container.demux(video=0))))
        told = ((PARAMETER_SETS.get(unit[0] >> 1 & 63), unit) for unit in units)
        parameters = {name: base64.b64encode(unit).decode() for name, unit in told if name}
        assert len(parameters) == 3, parameters
    feedback = [RTCRtcpFeedback(type="nack"), RTCRtcpFeedback(type="nack", parameter="pli")]
    h265 = RTCRtpCodecParameters(
        mimeType="video/H265", clockRate=90000, payloadType=97, rtcpFeedback=feedback, parameters=parameters
    )
    CODECS["video"][:] = [h265]
    aiortc.rtcrtpsender.get_encoder = lambda _: H265()


with av.open(options.file) as opened:
    if opened.streams.video[0].codec_context.name == "hevc":
        offer_h265(options.file)


def relayed(offer):
    """An offer with the candidates of TURN only, and their addresses."""
    lines = offer.splitlines()
    candidates = [line for line in lines if line.startswith("a=candidate:")]
    through = [line for line in candidates if " typ relay" in line]
    kept = [line for line in lines if line not in candidates or line in through]
    return "\r\n".join(kept) + "\r\n", {(line.split()[4], int(line.split()[5])) for line in through}


def let_in_only(addresses):
    """Drops what comes from elsewhere, as a firewall would."""

    def request_received(self, message, addr, protocol):
        if addr[:2] in LET_IN:
            REQUEST_RECEIVED(self, message, addr, protocol)

    LET_IN.update(addresses)
    aioice.ice.Connection.request_received = request_received


def answered(request, response):
    with_token = "with a token" if "Authorization" in request.headers else "without a token"
    log.write(f"{request.method} {request.host.split(':')[0]} {request.path} {with_token}: {response.status}\n")
    return response


def allowed(request):
    return options.token is None or request.headers.get("Authorization") == f"Bearer {options.token}"


async def ask(request):
    user, password = options.turn_login.split(":")
    login = f'username="{user}"; credential="{password}"; credential-type="password"'
    links = [f'<{options.stun}>; rel="ice-server"'] if options.stun else []
    links += [f'<{options.turn}>; rel="ice-server"; {login}'] if options.turn else []
    if not links:
        return answered(request, web.Response(status=405))
    return answered(request, web.Response(status=204, headers={"Link": ", ".join(links)}))


async def post(request):
    if not allowed(request):
        return answered(request, web.Response(status=401))
    if request.content_type != "application/sdp":
        return answered(request, web.Response(status=415))
    connection, name = RTCPeerConnection(RTCConfiguration(iceServers=[])), uuid.uuid4().hex
    sessions[name] = connection
    # aiortc as DTLS client takes certificates of ECDSA only, and GStreamer's is of RSA; as server, which the offer leaves to
    # it, it brings its own.
    offer = (await request.text()).replace("a=setup:actpass", "a=setup:active")
    if options.stun:
        seen = re.findall(r"a=candidate:\S+ \d+ \S+ \d+ (\S+) (\d+) typ srflx", offer)
        log.write(f"seen by STUN: {' '.join(sorted({':'.join(at) for at in seen}))}\n")
    if options.turn:
        offer, addresses = relayed(offer)
        let_in_only(addresses)
        log.write(f"relayed addresses: {len(addresses)}\n")
    await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    log.writelines(f"a session was left after {track.sent} pictures\n" for track in tracks[-1:])
    tracks.append(Coded())
    connection.addTrack(tracks[-1])
    await connection.setLocalDescription(await connection.createAnswer())
    text = connection.localDescription.sdp
    answer = web.Response(status=201, content_type="application/sdp", text=impostor(text) if options.impostor else text)
    answer.headers["Location"] = f"/whep/{name}"
    return answered(request, answer)


async def delete(request):
    if not allowed(request):
        return answered(request, web.Response(status=401))
    connection = sessions.pop(request.match_info["name"], None)
    if connection is None:
        return answered(request, web.Response(status=404))
    await connection.close()
    return answered(request, web.Response(status=200))


def moved(host):
    async def point(request):
        port = request.url.port
        place = f"{request.scheme}://{host or request.url.host}:{port}/whep"
        return answered(request, web.Response(status=307, headers={"Location": place}))

    return point


async def main():
    application = web.Application()
    application.router.add_options("/whep", ask)
    application.router.add_post("/whep", post)
    application.router.add_delete("/whep/{name}", delete)
    application.router.add_post("/moved", moved(None))
    application.router.add_post("/elsewhere", moved("127.0.0.1"))
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    secured = None
    if options.certificate:
        secured = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        secured.load_cert_chain(options.certificate, options.key)
    site = web.TCPSite(runner, "127.0.0.1", options.port, ssl_context=secured)
    await site.start()
    log.write(f"listening {runner.addresses[0][1]}\n")
    await asyncio.Event().wait()


asyncio.run(main())
