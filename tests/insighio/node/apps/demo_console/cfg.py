# The field firmware's configuration, as far as its updater looks at it; its own lies elsewhere.

import json

SETTINGS = {}


class Protocol:
    pass


def get(name):
    return SETTINGS.get(name)


def get_protocol_config():
    with open("/ota.json") as file:
        known = json.load(file)
    protocol = Protocol()
    protocol.thing_id = known["device_id"]
    protocol.thing_token = known["device_key"]
    protocol.control_channel_id = known["control_channel"]
    protocol.server_ip = known["server"]
    protocol.mqtt = known["mqtt"]
    return protocol
