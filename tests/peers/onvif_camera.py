#!/usr/bin/env python3
"""An ONVIF camera for tests, with the standard library only.

Answers WS-Discovery on the multicast group, device, media, media2 and event services over real HTTP, and checks logins by
itself: HTTP Digest (RFC 7616, MD5) or WS-UsernameToken with a digest whose time must be within 5 s of the camera's own clock.
Prints `port N` when it listens. Lines on standard input: `uri URL` (another stream address), `event TOPIC true|false`,
`end` (drops all subscriptions). Every request is logged as one line of JSON: operation, how it logged in, whether it was let
in, and whether the password stood anywhere in it.
"""

import argparse
import base64
import datetime
import hashlib
import json
import os
import queue
import re
import socket
import ssl
import struct
import sys
import threading
import uuid
import xml.etree.ElementTree as ET
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

GROUP = ("239.255.255.250", 3702)
ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://www.w3.org/2003/05/soap-envelope" xmlns:wsa5="http://www.w3.org/2005/08/addressing"'
    ' xmlns:tt="http://www.onvif.org/ver10/schema" xmlns:tds="http://www.onvif.org/ver10/device/wsdl"'
    ' xmlns:trt="http://www.onvif.org/ver10/media/wsdl" xmlns:tr2="http://www.onvif.org/ver20/media/wsdl"'
    ' xmlns:tev="http://www.onvif.org/ver10/events/wsdl" xmlns:wsnt="http://docs.oasis-open.org/wsn/b-2"'
    ' xmlns:tns1="http://www.onvif.org/ver10/topics" xmlns:ter="http://www.onvif.org/ver10/error">'
    "<SOAP-ENV:Header>{header}</SOAP-ENV:Header><SOAP-ENV:Body>{body}</SOAP-ENV:Body></SOAP-ENV:Envelope>"
)


def local(tag):
    return tag.rsplit("}", 1)[-1]


def find(node, name):
    return next((n for n in node.iter() if local(n.tag) == name), None)


def text(node, name):
    found = find(node, name)
    return (found.text or "").strip() if found is not None else ""


class Camera:
    def __init__(self, options):
        self.options = options
        self.uri = options.uri
        self.nonce = uuid.uuid4().hex
        self.tokens = set()
        self.subscriptions = {}
        self.properties = {}
        self.lock = threading.Lock()
        self.log = open(options.log, "a", buffering=1) if options.log else None

    def now(self):
        return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=self.options.clock)

    def stamp(self, seconds=0):
        return (self.now() + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def xaddr(self, host, path):
        """Where a service is, or where a camera behind a translated address believes it to be."""
        scheme = "https" if self.options.certificate else "http"
        return f"{scheme}://{self.options.lie or host}/onvif/{path}"

    # Logins

    def token_fits(self, envelope):
        token = find(envelope, "UsernameToken")
        if token is None:
            return False
        password, nonce, created = text(token, "Password"), text(token, "Nonce"), text(token, "Created")
        when = datetime.datetime.strptime(created[:19] + "+0000", "%Y-%m-%dT%H:%M:%S%z")
        digest = hashlib.sha1(base64.b64decode(nonce) + created.encode() + self.options.password.encode()).digest()
        fits = (
            text(token, "Username") == self.options.user
            and password == base64.b64encode(digest).decode()
            and abs((when - self.now()).total_seconds()) < 5
            and nonce not in self.tokens
        )
        self.tokens.add(nonce)
        return fits

    def digest_fits(self, header, path):
        fields = dict(re.findall(r'(\w+)="?([^",]+)"?', header or ""))
        h = lambda s: hashlib.md5(s.encode()).hexdigest()
        ha1 = h(f"{self.options.user}:camera:{self.options.password}")
        wanted = h(
            ":".join([ha1, self.nonce, fields.get("nc", ""), fields.get("cnonce", ""), "auth", h(f"POST:{path}")])
        )
        return (
            fields.get("response") == wanted and fields.get("uri") == path and fields.get("username") == self.options.user
        )

    # Events

    def event(self, topic, state, operation="Changed"):
        name = {"IsMotion": "IsMotion", "State": "State"}["IsMotion" if "Motion" in topic and "Cell" in topic else "State"]
        return (
            '<wsnt:NotificationMessage><wsnt:Topic Dialect="http://www.onvif.org/ver10/tev/topicExpression/ConcreteSet">'
            f"tns1:{topic}</wsnt:Topic><wsnt:Message><tt:Message UtcTime=\"{self.stamp()}\" PropertyOperation=\"{operation}\">"
            '<tt:Source><tt:SimpleItem Name="VideoSourceConfigurationToken" Value="vs0"/></tt:Source>'
            f'<tt:Data><tt:SimpleItem Name="{name}" Value="{state}"/></tt:Data></tt:Message></wsnt:Message>'
            "</wsnt:NotificationMessage>"
        )

    def tell(self, line):
        word, _, rest = line.strip().partition(" ")
        with self.lock:
            if word == "uri":
                self.uri = rest
            elif word == "event":
                topic, _, state = rest.partition(" ")
                self.properties[topic] = state
                for waiting in self.subscriptions.values():
                    waiting.put(self.event(topic, state))
            elif word == "end":
                self.subscriptions.clear()

    # Services

    def answer(self, operation, envelope, host, path):
        o = self.options
        if operation == "GetSystemDateAndTime":
            n = self.now()
            return (
                "<tds:GetSystemDateAndTimeResponse><tds:SystemDateAndTime><tt:DateTimeType>Manual</tt:DateTimeType>"
                "<tt:DaylightSavings>false</tt:DaylightSavings><tt:TimeZone><tt:TZ>UTC0</tt:TZ></tt:TimeZone><tt:UTCDateTime>"
                f"<tt:Time><tt:Hour>{n.hour}</tt:Hour><tt:Minute>{n.minute}</tt:Minute><tt:Second>{n.second}</tt:Second></tt:Time>"
                f"<tt:Date><tt:Year>{n.year}</tt:Year><tt:Month>{n.month}</tt:Month><tt:Day>{n.day}</tt:Day></tt:Date>"
                "</tt:UTCDateTime></tds:SystemDateAndTime></tds:GetSystemDateAndTimeResponse>"
            )
        if operation == "GetServices" and not o.old:
            services = [
                ("http://www.onvif.org/ver10/device/wsdl", "device_service"),
                ("http://www.onvif.org/ver10/media/wsdl", "media"),
                ("http://www.onvif.org/ver10/events/wsdl", "events"),
            ] + ([("http://www.onvif.org/ver20/media/wsdl", "media2")] if o.media2 else [])
            return "<tds:GetServicesResponse>{}</tds:GetServicesResponse>".format(
                "".join(
                    f"<tds:Service><tds:Namespace>{n}</tds:Namespace><tds:XAddr>{self.xaddr(host, p)}</tds:XAddr>"
                    "<tds:Version><tt:Major>2</tt:Major><tt:Minor>6</tt:Minor></tds:Version></tds:Service>"
                    for n, p in services
                )
            )
        if operation == "GetCapabilities":
            return (
                "<tds:GetCapabilitiesResponse><tds:Capabilities>"
                f"<tt:Device><tt:XAddr>{self.xaddr(host, 'device_service')}</tt:XAddr></tt:Device>"
                f"<tt:Events><tt:XAddr>{self.xaddr(host, 'events')}</tt:XAddr>"
                "<tt:WSSubscriptionPolicySupport>false</tt:WSSubscriptionPolicySupport><tt:WSPullPointSupport>true</tt:WSPullPointSupport>"
                "<tt:WSPausableSubscriptionManagerInterfaceSupport>false</tt:WSPausableSubscriptionManagerInterfaceSupport></tt:Events>"
                f"<tt:Media><tt:XAddr>{self.xaddr(host, 'media')}</tt:XAddr><tt:StreamingCapabilities/></tt:Media>"
                "</tds:Capabilities></tds:GetCapabilitiesResponse>"
            )
        if operation == "GetDeviceInformation":
            return (
                "<tds:GetDeviceInformationResponse><tds:Manufacturer>Example</tds:Manufacturer><tds:Model>Dome &lt;1&gt;</tds:Model>"
                "<tds:FirmwareVersion>1.2.3</tds:FirmwareVersion><tds:SerialNumber>0042</tds:SerialNumber>"
                "<tds:HardwareId>h1</tds:HardwareId></tds:GetDeviceInformationResponse>"
            )
        if operation == "GetEndpointReference":
            return (
                f"<tds:GetEndpointReferenceResponse><tds:GUID>urn:uuid:{o.uuid}</tds:GUID>"
                "</tds:GetEndpointReferenceResponse>"
            )
        if operation == "GetProfiles":
            return self.profiles2() if path.endswith("media2") else self.profiles()
        if operation in ("GetStreamUri", "GetSnapshotUri"):
            token = text(envelope, "ProfileToken")
            if token not in ("main", "sub"):
                return None
            secure = self.options.secure_uri if text(envelope, "Protocol") == "RtspsUnicast" else None
            if text(envelope, "Protocol").startswith("Rtsps") and not secure:
                return None
            uri = (secure or self.uri) if operation == "GetStreamUri" else f"http://{host}/picture?profile={token}"
            uri = escape(uri)
            if path.endswith("media2"):
                return f"<tr2:{operation}Response><tr2:Uri>{uri}</tr2:Uri></tr2:{operation}Response>"
            return (
                f"<trt:{operation}Response><trt:MediaUri><tt:Uri>{uri}</tt:Uri><tt:InvalidAfterConnect>false</tt:InvalidAfterConnect>"
                "<tt:InvalidAfterReboot>false</tt:InvalidAfterReboot><tt:Timeout>PT0S</tt:Timeout></trt:MediaUri>"
                f"</trt:{operation}Response>"
            )
        if operation == "CreatePullPointSubscription":
            name = uuid.uuid4().hex
            waiting = queue.Queue()
            with self.lock:
                for topic, state in self.properties.items():
                    waiting.put(self.event(topic, state, "Initialized"))
                self.subscriptions[name] = waiting
            return (
                "<tev:CreatePullPointSubscriptionResponse><tev:SubscriptionReference>"
                f"<wsa5:Address>{self.xaddr(host, 'pull/' + name)}</wsa5:Address></tev:SubscriptionReference>"
                f"<wsnt:CurrentTime>{self.stamp()}</wsnt:CurrentTime><wsnt:TerminationTime>{self.stamp(60)}</wsnt:TerminationTime>"
                "</tev:CreatePullPointSubscriptionResponse>"
            )
        with self.lock:
            waiting = self.subscriptions.get(path.rsplit("/", 1)[-1])
        if waiting is None:
            return None
        if operation == "PullMessages":
            seconds = re.match(r"PT(\d+)S", text(envelope, "Timeout"))
            messages = []
            try:
                messages.append(waiting.get(timeout=int(seconds.group(1)) if seconds else 1))
                while True:
                    messages.append(waiting.get_nowait())
            except queue.Empty:
                pass
            return (
                f"<tev:PullMessagesResponse><tev:CurrentTime>{self.stamp()}</tev:CurrentTime>"
                f"<tev:TerminationTime>{self.stamp(60)}</tev:TerminationTime>{''.join(messages)}</tev:PullMessagesResponse>"
            )
        if operation == "Renew":
            return (
                f"<wsnt:RenewResponse><wsnt:TerminationTime>{self.stamp(60)}</wsnt:TerminationTime>"
                f"<wsnt:CurrentTime>{self.stamp()}</wsnt:CurrentTime></wsnt:RenewResponse>"
            )
        if operation == "Unsubscribe":
            with self.lock:
                self.subscriptions.pop(path.rsplit("/", 1)[-1], None)
            return "<wsnt:UnsubscribeResponse/>"
        return None

    def profiles(self):
        one = (
            '<trt:Profiles token="{t}" fixed="true"><tt:Name>{n}</tt:Name>'
            '<tt:VideoSourceConfiguration token="vs0"><tt:Name>vs</tt:Name><tt:UseCount>2</tt:UseCount><tt:SourceToken>s0</tt:SourceToken>'
            '<tt:Bounds x="0" y="0" width="1920" height="1080"/></tt:VideoSourceConfiguration>'
            '<tt:VideoEncoderConfiguration token="ve{t}"><tt:Name>ve</tt:Name><tt:UseCount>1</tt:UseCount><tt:Encoding>H264</tt:Encoding>'
            "<tt:Resolution><tt:Width>{w}</tt:Width><tt:Height>{h}</tt:Height></tt:Resolution><tt:Quality>4</tt:Quality>"
            "<tt:RateControl><tt:FrameRateLimit>25</tt:FrameRateLimit><tt:EncodingInterval>1</tt:EncodingInterval>"
            "<tt:BitrateLimit>4096</tt:BitrateLimit></tt:RateControl><tt:H264><tt:GovLength>25</tt:GovLength>"
            "<tt:H264Profile>High</tt:H264Profile></tt:H264><tt:Multicast><tt:Address><tt:Type>IPv4</tt:Type>"
            "<tt:IPv4Address>0.0.0.0</tt:IPv4Address></tt:Address><tt:Port>0</tt:Port><tt:TTL>0</tt:TTL><tt:AutoStart>false</tt:AutoStart>"
            "</tt:Multicast><tt:SessionTimeout>PT60S</tt:SessionTimeout></tt:VideoEncoderConfiguration></trt:Profiles>"
        )
        main = one.format(t="main", n="Main stream", w=640, h=360)
        return f"<trt:GetProfilesResponse>{one.format(t='sub', n='Sub', w=320, h=180)}{main}</trt:GetProfilesResponse>"

    def profiles2(self):
        one = (
            '<tr2:Profiles token="{t}" fixed="true"><tr2:Name>{n}</tr2:Name><tr2:Configurations><tr2:VideoEncoder token="ve{t}" GovLength="25"'
            ' Profile="Main"><tt:Name>ve</tt:Name><tt:UseCount>1</tt:UseCount><tt:Encoding>H265</tt:Encoding><tt:Resolution><tt:Width>{w}'
            "</tt:Width><tt:Height>{h}</tt:Height></tt:Resolution><tt:RateControl><tt:FrameRateLimit>25</tt:FrameRateLimit>"
            "<tt:BitrateLimit>4096</tt:BitrateLimit></tt:RateControl><tt:Quality>4</tt:Quality></tr2:VideoEncoder></tr2:Configurations>"
            "</tr2:Profiles>"
        )
        main = one.format(t="main", n="Main stream", w=640, h=360)
        return f"<tr2:GetProfilesResponse>{one.format(t='sub', n='Sub', w=320, h=180)}{main}</tr2:GetProfilesResponse>"


def handler(camera):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def reply(self, status, body, headers=()):
            data = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/soap+xml; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def fault(self, status, code, reason):
            body = (
                "<SOAP-ENV:Fault><SOAP-ENV:Code><SOAP-ENV:Value>SOAP-ENV:Sender</SOAP-ENV:Value><SOAP-ENV:Subcode><SOAP-ENV:Value>"
                f"ter:{code}</SOAP-ENV:Value></SOAP-ENV:Subcode></SOAP-ENV:Code><SOAP-ENV:Reason><SOAP-ENV:Text xml:lang=\"en\">{reason}"
                "</SOAP-ENV:Text></SOAP-ENV:Reason></SOAP-ENV:Fault>"
            )
            self.reply(status, ENVELOPE.format(header="", body=body))

        def do_POST(self):
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            envelope = ET.fromstring(raw)
            body = find(envelope, "Body")
            operation = local(body[0].tag)
            o = camera.options
            authorization = self.headers.get("Authorization")
            login = "digest" if authorization else "token" if "UsernameToken" in raw else "none"
            digest, token = camera.digest_fits(authorization, self.path), camera.token_fits(envelope)
            fits = {"none": True, "digest": digest, "token": token}[o.login]
            allowed = fits or operation == "GetSystemDateAndTime"
            leaks = bool(o.password) and (o.password in raw or o.password in str(self.headers))
            if camera.log:
                entry = {"operation": operation, "path": self.path, "login": login, "allowed": allowed, "leaks": leaks}
                camera.log.write(json.dumps(entry) + "\n")
            if not allowed and o.login == "digest":
                challenge = f'Digest realm="camera", qop="auth", nonce="{camera.nonce}", algorithm=MD5'
                return self.reply(401, "", [("WWW-Authenticate", 'Basic realm="camera"'), ("WWW-Authenticate", challenge)])
            if not allowed:
                return self.fault(400, "NotAuthorized", f"Sender not authorized: {o.user}")
            host = self.headers.get("Host")
            answer = camera.answer(operation, envelope, host, self.path)
            if answer is None:
                return self.fault(500, "InvalidArgVal", "no such thing")
            action = text(envelope, "Action")
            header = f"<wsa5:Action>{escape(action).replace('Request', 'Response')}</wsa5:Action>" if action else ""
            self.reply(200, ENVELOPE.format(header=header, body=answer))

    return Handler


def discovery(camera, port):
    """Answers probes on the multicast group, on every interface and on loopback."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(GROUP)
    for index, _ in socket.if_nameindex():
        try:
            member = struct.pack("=4s4si", socket.inet_aton(GROUP[0]), b"\0\0\0\0", index)
            s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        except OSError:
            pass  # an interface without IPv4
    while True:
        data, sender = s.recvfrom(65536)
        try:
            envelope = ET.fromstring(data)
        except ET.ParseError:
            continue
        types, message = text(envelope, "Types"), text(envelope, "MessageID")
        if find(envelope, "Probe") is None or (types and "NetworkVideoTransmitter" not in types):
            continue
        host = camera.options.lie or f"127.0.0.1:{port}"
        answer = (
            '<?xml version="1.0"?><e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope"'
            ' xmlns:w="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery"'
            f' xmlns:dn="http://www.onvif.org/ver10/network/wsdl"><e:Header><w:MessageID>urn:uuid:{uuid.uuid4()}</w:MessageID>'
            f"<w:RelatesTo>{message}</w:RelatesTo><w:To>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</w:To>"
            "<w:Action>http://schemas.xmlsoap.org/ws/2005/04/discovery/ProbeMatches</w:Action>"
            '<d:AppSequence InstanceId="1" MessageNumber="1"/></e:Header><e:Body><d:ProbeMatches><d:ProbeMatch>'
            f"<w:EndpointReference><w:Address>urn:uuid:{camera.options.uuid}</w:Address></w:EndpointReference>"
            "<d:Types>dn:NetworkVideoTransmitter</d:Types><d:Scopes>onvif://www.onvif.org/name/Front%20door"
            " onvif://www.onvif.org/hardware/Dome1 onvif://www.onvif.org/type/video_encoder</d:Scopes>"
            f"<d:XAddrs>http://{host}/onvif/device_service</d:XAddrs><d:MetadataVersion>1</d:MetadataVersion>"
            "</d:ProbeMatch></d:ProbeMatches></e:Body></e:Envelope>"
        )
        s.sendto(answer.encode(), sender)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--uri", required=True, help="the stream address that it tells")
    p.add_argument("--port", type=int, default=0)
    p.add_argument("--user", default="")
    p.add_argument("--password", default="")
    p.add_argument("--login", choices=["none", "digest", "token"], default="none")
    p.add_argument("--clock", type=int, default=0, help="seconds that its clock is ahead")
    p.add_argument("--media2", action="store_true", help="has the Media2 service")
    p.add_argument("--old", action="store_true", help="knows GetCapabilities only")
    p.add_argument("--lie", help="the host that it names instead of its own")
    p.add_argument("--uuid", default=str(uuid.uuid4()))
    p.add_argument("--discoverable", action="store_true")
    p.add_argument("--certificate", help="it speaks TLS and shows this")
    p.add_argument("--key")
    p.add_argument("--newest-tls", choices=["1.2", "1.3"], default="1.3")
    p.add_argument("--secure-uri", help="the stream address over TLS, told by Media2")
    p.add_argument("--log")
    camera = Camera(p.parse_args())
    server = ThreadingHTTPServer(("127.0.0.1", camera.options.port), handler(camera))
    server.daemon_threads = True
    o = camera.options
    if o.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(o.certificate, o.key)
        context.maximum_version = ssl.TLSVersion.TLSv1_2 if o.newest_tls == "1.2" else ssl.TLSVersion.TLSv1_3
        # The handshake is a matter of each connection's thread.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    if camera.options.discoverable:
        threading.Thread(target=discovery, args=(camera, port), daemon=True).start()
    print(f"port {port}", flush=True)
    for line in sys.stdin:
        camera.tell(line)
    os._exit(0)


if __name__ == "__main__":
    main()
