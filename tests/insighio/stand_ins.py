"""A node of the field's: the stand-ins of its firmware, with a configuration."""

from __future__ import annotations

from pathlib import Path

from host_sim.sample import Tree

STAND_INS = Path(__file__).parents[1] / "stand_ins" / "insighio"
#: The UART at which the field's modem is.
MODEM_UART = 2
#: The pin that switches it on; Modem(power_key=...) has to know it where a node never sleeps.
POWER_KEY = 13

# Who the node is stands in /ota.json, the one file in which tests allow the device key.
_CONFIG = '''"""What the web page of the firmware writes, as far as it is needed."""

network = "{network}"
protocol = "mqtt"
_DEEP_SLEEP_PERIOD_SEC = 600
_LIGHT_SLEEP_ON = False
_LIGHT_SLEEP_NETWORK_ACTIVE = False
_LIGHT_SLEEP_DEACTIVATE_ON_BATTERY = False
_BATCH_UPLOAD_MESSAGE_BUFFER = None
_CHECK_FOR_OTA = True
_WD_PERIOD = 120
_SYSTEM_SETTINGS = '{{"loggingLevel": "INFO"}}'
_MEAS_NETWORK_STAT_ENABLE = False
_CONF_NETS = {{"home": {{"pwd": "12345678"}}}}
_MAX_CONNECTION_ATTEMPT_TIME_SEC = 60
_MAX_ATTACHMENT_ATTEMPT_TIME_SEC = 90
_APN = "internet"
_IP_VERSION = "IP"
_CELLULAR_TECHNOLOGY = "lte-m"
_UC_IO_RADIO_ON = 21
_UC_IO_PWRKEY = 13
_UC_UART_MODEM_TX = 17
_UC_UART_MODEM_RX = 16
{more}
protocol_config_instance = None


def get_protocol_config():
    global protocol_config_instance
    if protocol_config_instance is None:
        import json

        from protocols import mqtt_config

        with open("/ota.json") as file:
            known = json.load(file)
        config = protocol_config_instance = mqtt_config.MQTTConfig()
        config.server_ip = known["server"]
        config.server_port = known["mqtt"]["port"]
        config.thing_id = known["device_id"]
        config.thing_token = known["device_key"]
        config.control_channel_id = config.message_channel_id = known["control_channel"]
    return protocol_config_instance
'''


def tree(
    network: str = "wifi", *, ours: bool = False, listen_ms: int = 10_000, **settings: object
) -> Tree:
    """All files of such a node, by their places on flash.

    `network` is "wifi" or "cellular". `settings` replace those of its `demo_config.py`, such as
    ``_BATCH_UPLOAD_MESSAGE_BUFFER=25``. `listen_ms`: how long its MQTT client on Wi-Fi waits
    where the field's waits for ten seconds, of real time. `ours`: its boot.py is our agent's
    /boot_user.py.
    """
    files = {
        str(path.relative_to(STAND_INS)): path.read_bytes()
        for path in sorted(STAND_INS.rglob("*"))
        if path.is_file() and path.suffix in (".py", ".html")
    }
    if ours:
        files["boot_user.py"] = files.pop("boot.py")
    more = "".join(f"{name} = {value!r}\n" for name, value in settings.items())
    config = _CONFIG.format(network=network, more=more)
    files["apps/demo_console/demo_config.py"] = config.encode()
    for name, constant, least in (
        ("lib/external/umqtt/simple.py", b"PATIENCE_MS = %d", 10_000),
        ("lib/protocols/mqtt_client.py", b"LISTEN_MS = %d", 5_000),
    ):
        assert files[name].count(constant % least) == 1
        files[name] = files[name].replace(constant % least, constant % min(least, listen_ms))
    return files
