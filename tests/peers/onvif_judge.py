#!/usr/bin/env python3
"""Asks an ONVIF camera by the client of others (onvif-zeep, which checks answers against ONVIF's own WSDL files) and prints
what it learned as JSON. Used to judge tests/peers/onvif_camera.py: what it says must be ONVIF, not only what MOS reads."""

import datetime
import json
import sys

from onvif import ONVIFCamera

host, port, user, password = sys.argv[1:5]
camera = ONVIFCamera(host, int(port), user, password, adjust_time=True)
information = camera.devicemgmt.GetDeviceInformation()
media = camera.create_media_service()
profiles = media.GetProfiles()
setup = {"Stream": "RTP-Unicast", "Transport": {"Protocol": "RTSP"}}
uris = {p.token: media.GetStreamUri({"StreamSetup": setup, "ProfileToken": p.token}).Uri for p in profiles}
pictures = {p.token: media.GetSnapshotUri({"ProfileToken": p.token}).Uri for p in profiles}
sizes = {p.token: p.VideoEncoderConfiguration.Resolution.Width for p in profiles}
pulling = camera.create_pullpoint_service()
pulled = pulling.PullMessages({"Timeout": datetime.timedelta(seconds=2), "MessageLimit": 8})
message = pulled.NotificationMessage[0].Message._value_1
states = [item.get("Value") for item in message.iter("{http://www.onvif.org/ver10/schema}SimpleItem")]
binding = "{http://www.onvif.org/ver10/events/wsdl}SubscriptionManagerBinding"
subscription = pulling.zeep_client.create_service(binding, pulling.xaddr)
renewed = subscription.Renew(TerminationTime="PT60S").TerminationTime
subscription.Unsubscribe()
print(
    json.dumps(
        {
            "model": information.Model,
            "uris": uris,
            "pictures": pictures,
            "widths": sizes,
            "event": states,
            "renewed": renewed.isoformat(),
            "services": [s.Namespace for s in camera.devicemgmt.GetServices({"IncludeCapability": False})],
        }
    )
)
