#!/usr/bin/env python3
"""Asks an ONVIF camera by the client of others (onvif-zeep, which checks answers against ONVIF's own WSDL files) and prints
what it learned as JSON. Used to judge tests/peers/onvif_camera.py: what it says must be ONVIF, not only what MOS reads."""

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
print(
    json.dumps(
        {
            "model": information.Model,
            "uris": uris,
            "pictures": pictures,
            "widths": sizes,
            "services": [s.Namespace for s in camera.devicemgmt.GetServices({"IncludeCapability": False})],
        }
    )
)
