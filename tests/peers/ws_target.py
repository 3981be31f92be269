#!/usr/bin/env python3
"""Publishes a camera by the WS-Discovery of others (the package WSDiscovery): `ws_target.py ADDRESS`. Prints `ready`."""

import sys

from wsdiscovery import QName, Scope
from wsdiscovery.publishing import ThreadedWSPublishing

address = sys.argv[1]
publishing = ThreadedWSPublishing()
publishing.start()
types = [QName("http://www.onvif.org/ver10/network/wsdl", "NetworkVideoTransmitter")]
scopes = [Scope("onvif://www.onvif.org/name/Elsewhere"), Scope("onvif://www.onvif.org/hardware/X2")]
publishing.publishService(types=types, scopes=scopes, xAddrs=[address])
print("ready", flush=True)
sys.stdin.read()
publishing.stop()
