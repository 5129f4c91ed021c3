# The field's network module for Wi-Fi.

import _thread

from networking import wifi

from .messages import create_message  # noqa: F401 (scenario calls it)

transfer_client = None
mutex = _thread.allocate_lock()


def init(cfg):
    pass


def deinit():
    wifi.deactivate()


def update_hw_ids(measurements, is_senml=True, is_json=False):
    pass


def connect(cfg, explicit_protocol=None):
    global transfer_client
    with mutex:
        joined = wifi.connect(cfg.get("_CONF_NETS"), cfg.get("_MAX_CONNECTION_ATTEMPT_TIME_SEC"))[
            0
        ]
        results = {"status": {"value": joined}}
        if joined:
            from . import transfer_protocol

            transfer_client = transfer_protocol.TransferProtocolMQTT(cfg)
            transfer_client.protocol_config.client_name = "%s_wm" % cfg.get("device_id")
            results["status"]["value"] = transfer_client.connect()
        return results


def is_connected():
    with mutex:
        return wifi and transfer_client and transfer_client.is_connected() and wifi.is_connected()


def disconnect():
    global transfer_client
    with mutex:
        if transfer_client is not None:
            transfer_client.disconnect()
            transfer_client = None


def send_message(cfg, message, explicit_channel_name=None):
    with mutex:
        if transfer_client is not None:
            return transfer_client.send_packet(message, explicit_channel_name)


def send_control_message(cfg, message, subtopic):
    with mutex:
        if transfer_client is not None:
            return transfer_client.send_control_packet(message, subtopic)


def send_config_message(cfg, message):
    pack = '[{"n":"config","vs":"%s"}, { "n": "e", "v": 9 }]' % message
    return send_control_message(cfg, pack, "/configResponse")


def check_and_apply_ota(cfg):
    with mutex:
        if transfer_client is not None:
            from . import ota

            ota.checkAndApply(transfer_client)
