"""A WHEP server that shares no code with MOS nor with GStreamer: aiortc, a WebRTC of its own, behind aiohttp.

    whep_server.py --file H264.mp4 [--port N] [--token T] [--certificate PEM --key PEM] [--log FILE]

Sends the access units of the file (MPEG-TS), coded as they are, once to whoever posts an offer to /whep. /moved points there by
307, /elsewhere to another host name. A line of the log for each request says what was asked, whether with the token, and
what was answered; "listening PORT" is the first. Only H.264, which is all that aiortc can send without coding it anew.
"""

import argparse
import asyncio
import ssl
import uuid

from aiohttp import web
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaPlayer

arguments = argparse.ArgumentParser()
arguments.add_argument("--file", required=True)
arguments.add_argument("--port", type=int, default=0)
arguments.add_argument("--token")
arguments.add_argument("--certificate")
arguments.add_argument("--key")
arguments.add_argument("--log", default="/dev/stdout")
options = arguments.parse_args()
log = open(options.log, "a", buffering=1)
sessions = {}


def answered(request, response):
    with_token = "with a token" if "Authorization" in request.headers else "without a token"
    log.write(f"{request.method} {request.host.split(':')[0]} {request.path} {with_token}: {response.status}\n")
    return response


def allowed(request):
    return options.token is None or request.headers.get("Authorization") == f"Bearer {options.token}"


async def post(request):
    if not allowed(request):
        return answered(request, web.Response(status=401))
    if request.content_type != "application/sdp":
        return answered(request, web.Response(status=415))
    connection, name = RTCPeerConnection(RTCConfiguration(iceServers=[])), uuid.uuid4().hex
    player = MediaPlayer(options.file, decode=False)
    sessions[name] = (connection, player)
    # aiortc as DTLS client takes certificates of ECDSA only, and GStreamer's is of RSA; as server, which the offer leaves to
    # it, it brings its own.
    offer = (await request.text()).replace("a=setup:actpass", "a=setup:active")
    await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    connection.addTrack(player.video)
    await connection.setLocalDescription(await connection.createAnswer())
    answer = web.Response(status=201, content_type="application/sdp", text=connection.localDescription.sdp)
    answer.headers["Location"] = f"/whep/{name}"
    return answered(request, answer)


async def delete(request):
    if not allowed(request):
        return answered(request, web.Response(status=401))
    connection, _ = sessions.pop(request.match_info["name"], (None, None))
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
