"""What can be asked of the field's classes: of the stand-ins, and of the real ones alike."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field

from host_sim.console.download_handler import PATH
from host_sim.modem import Modem
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID, DEVICE_KEY
from host_sim.site import Site

TOPIC = f"channels/{CONTROL_CHANNEL}/messages/{DEVICE_ID}"
PACKAGE = bytes(range(256)) * 4 + b"end"

_BEGIN = """
import sys
sys.path[:] = ["/lib", ".frozen", ""]
import logging
from utime import ticks_ms, ticks_diff
logging.setLevel(100)
answers = []

def tell(call, *args):
    try:
        answers.append(call(*args))
    except Exception as e:
        answers.append(type(e).__name__)

def timed(call, *args):
    start = ticks_ms()
    tell(call, *args)
    answers.append(round(ticks_diff(ticks_ms(), start) / 1000))
"""
_MODEM = """
from networking.modem.modem_bg600 import ModemBG600
m = ModemBG600(21, 13, 17, 16)
def online():
    m.init("IP", "internet", "lte-m")
    m.wait_for_registration(120000)
    m.connect()
def broker():
    online()
    return m.mqtt_connect("127.0.0.1", %(mqtt)d, "%(id)s", "%(key)s", 120, "node", 1)
"""
_WIFI = """
from protocols.mqtt_config import MQTTConfig
from protocols.mqtt_client import MQTTClientCustom
c = MQTTConfig()
c.server_ip, c.server_port = "127.0.0.1", %(mqtt)d
c.thing_id, c.thing_token, c.client_name = "%(id)s", "%(key)s", "node_wm"
c.control_channel_id = c.message_channel_id = "%(channel)s"
m = MQTTClientCustom(c)
"""


@dataclass(frozen=True)
class Check:
    """Code for the node that calls ``tell`` or ``timed``, and what these have to tell."""

    name: str
    code: str
    want: list
    #: What goes wrong with the modem: arguments of Modem.fail.
    faults: tuple[tuple[str, str | int], ...] = ()
    #: Files of the modem at the start.
    files: dict[str, bytes] = field(default_factory=dict)
    #: A message that is retained for the node.
    waits: bool = False
    #: The package server's fault.
    server: Callable | None = None
    wifi: bool = False

    def run(self, site: Site, modem: Modem | None) -> list:
        """Run it on this node; what it told."""
        console = site.console
        names = {
            "mqtt": console.ports.mqtt,
            "id": DEVICE_ID,
            "key": DEVICE_KEY,
            "channel": CONTROL_CHANNEL,
            "topic": TOPIC,
        }
        code = _BEGIN + (_WIFI if self.wifi else _MODEM) % names
        fuid = console.add_package(PACKAGE, "p.tar").fuid
        query = f"fuid={fuid}&did={DEVICE_ID}&dk={DEVICE_KEY}&cid={CONTROL_CHANNEL}"
        url = f"https://localhost:{console.ports.https}{PATH}?{query}"
        code += f"topic, url = {TOPIC!r}, {url!r}\n"
        console.request(DEVICE_ID, fuid)
        if not self.waits:
            console.clear(DEVICE_ID)
        if modem:
            modem.files |= self.files
            for command, what in self.faults:
                modem.fail(command, what)
        if self.server:
            self.server(console)
        run = site.node.exec(code + self.code + "\nprint('answers:', answers)", timeout_s=60)
        _, told, found = run.output.strip().rpartition("answers: ")
        if not told:
            return [run.output[-2000:], run.names()]
        answers = ast.literal_eval(found.replace("bytearray(b", "(b"))
        # The id of a request is drawn anew each time.
        return ast.literal_eval(repr(answers).replace(fuid, "FUID"))


_RETAINED = '[{"n":"e","v":0},{"n":"i","vs":"FUID"},{"n":"t","vs":".tar"},{"n":"s","v":1027}]'
_SIZE = len(PACKAGE)
_GET = 'online(); tell(m.http_get_file, url, "pkg"); tell(m.get_file_size, "pkg")\n'
_FETCH = 'tell(m.get_file, "pkg", "/pkg")\nimport os\ntell(lambda: os.stat("/pkg")[6])\n'

MODEM_CHECKS = [
    Check(
        "alive",
        "timed(m.is_alive); tell(m.get_model)",
        [True, 0, "quectel\nbg600l-m3\nrevision: bg600lm3lar02a02\nok"],
    ),
    Check(
        "send_at_cmd",
        'timed(m.send_at_cmd, "AT+CSQ"); timed(m.send_at_cmd, "AT+CSQ", 7000)',
        [(False, ["+CME ERROR: 3"]), 0, (True, ["+CSQ: 20,99", "OK"]), 0],
        faults=(("AT+CSQ", "+CME ERROR: 3"),),
    ),
    Check(
        "no_carrier_is_waited_for",
        'm.send_at_cmd("ATE0"); timed(m.send_at_cmd, "AT+CSQ", 7000)',
        [(False, ["NO CARRIER"]), 7],
        faults=(("AT+CSQ", "NO CARRIER"),),
    ),
    Check(
        "silence_is_false",
        'm.send_at_cmd("ATE0"); timed(m.send_at_cmd, "AT+CSQ", 7000)',
        [(False, []), 7],
        faults=(("AT+CSQ", "silence"),),
    ),
    Check(
        "registration",
        "m.init('IP', 'internet', 'lte-m')\n"
        "tell(m.wait_for_registration, 120000); tell(m.get_registered_mcc_mnc)",
        [True, (202, 1)],
    ),
    Check(
        "connect",
        "tell(broker); tell(m.mqtt_is_connected, 1); tell(m.is_connected)",
        [True, True, True],
    ),
    Check(
        "connect_refused",
        "online(); timed(m.mqtt_connect, '127.0.0.1', 1, 'nobody', 'x', 120, 'node', 1)",
        [False, 2],
    ),
    Check(
        "pdpdeact_while_it_opens",
        "tell(broker)",
        [False],
        faults=(("AT+QMTOPEN=", "pdpdeact"),),
    ),
    Check(
        "message",
        "broker(); tell(m.mqtt_get_message, topic + '/#', 5000)",
        [{"topic": f"{TOPIC}/ota", "message": _RETAINED}],
        waits=True,
    ),
    Check(
        "no_message_is_none_after_5_s",
        "broker(); timed(m.mqtt_get_message, topic + '/#', 5000)",
        [None, 5],
    ),
    Check(
        "a_failed_subscription_is_none_at_once",
        "broker(); timed(m.mqtt_get_message, topic + '/#', 5000)",
        [None, 0],
        faults=(("AT+QMTSUB", "ERROR"),),
        waits=True,
    ),
    Check(
        "publish",
        "broker(); tell(m.mqtt_publish, topic + '/x', 'text')\n"
        "tell(m.mqtt_publish, topic + '/x', 'text', 3, False, 0)",
        [True, True],
    ),
    Check(
        "publish_without_a_connection",
        "online(); timed(m.mqtt_publish, topic, 'text')",
        [False, 1],
    ),
    Check(
        "disconnect",
        "broker(); tell(m.mqtt_disconnect, 1); tell(m.mqtt_disconnect, 1)",
        [True, False],
    ),
    Check(
        "download",
        _GET
        + _FETCH
        + 'tell(m.delete_file, "pkg"); tell(m.get_file_size, "pkg"); tell(m.delete_file, "pkg")',
        [(True, _SIZE), _SIZE, True, _SIZE, True, None, False],
        waits=True,
    ),
    Check(
        "a_504_is_a_download",
        _GET,
        [(True, 30), 30],
        faults=(("AT+QHTTPGET", 504),),
        waits=True,
    ),
    Check(
        "a_get_that_fails_leaves_the_old_file",
        _GET,
        [(False, -1), 5],
        faults=(("AT+QHTTPGET", "ERROR"),),
        files={"pkg": b"stale"},
        waits=True,
    ),
    Check(
        "a_network_that_goes_while_it_is_stored",
        _GET,
        [(True, _SIZE), _SIZE // 2],
        faults=(("AT+QHTTPREADFILE", "pdpdeact"),),
        waits=True,
    ),
    Check(
        "a_reset_while_it_downloads",
        'online(); timed(m.http_get_file, url, "pkg", 20000); tell(m.get_file_size, "pkg")',
        [(False, -1), 20, None],
        faults=(("AT+QHTTPGET", "reset"),),
        waits=True,
    ),
    Check(
        "a_truncated_read_is_no_file",
        'm.send_at_cmd("ATE0")\n' + _FETCH,
        ["TypeError", 0],
        faults=(("AT+QFREAD", "truncate"),),
        files={"pkg": PACKAGE},
    ),
    Check(
        "a_read_that_fails_is_no_file",
        'm.send_at_cmd("ATE0")\n' + _FETCH,
        [False, 0],
        faults=(("AT+QFREAD", "+CME ERROR: 411"),),
        files={"pkg": PACKAGE},
    ),
    Check(
        "a_file_that_is_not_there",
        'tell(m.get_file, "pkg", "/pkg"); tell(m.open_file_read_only, "pkg")',
        [False, None],
    ),
    Check(
        "a_file_that_does_not_open",
        'm.send_at_cmd("ATE0"); tell(m.get_file, "pkg", "/pkg")',
        ["TypeError"],
        faults=(("AT+QFOPEN", "+CME ERROR: 426"),),
        files={"pkg": PACKAGE},
    ),
    Check(
        "a_silent_file_store",
        'm.send_at_cmd("ATE0"); timed(m.get_file_size, "pkg")',
        ["IndexError", 30],
        faults=(("AT+QFLST", "silence"),),
    ),
    Check("power_off", "timed(m.power_off); timed(m.is_alive)", [True, 0, False, 1]),
]

WIFI_CHECKS = [
    Check(
        "connect",
        "tell(m.connect); tell(m.is_connected); tell(m.disconnect); tell(m.is_connected)",
        [True, True, True, False],
        wifi=True,
    ),
    Check(
        "connect_refused",
        "c.thing_token = 'wrong'; m = MQTTClientCustom(c)\ntell(m.connect); tell(m.is_connected)",
        [False, False],
        wifi=True,
    ),
    Check(
        "publish",
        "m.connect(); tell(m.sendMessage, 'x'); tell(m.sendControlMessage, 'x', '/stat')",
        [True, True],
        wifi=True,
    ),
    Check(
        "publish_without_a_connection",
        "tell(m.sendMessage, 'x'); tell(m.subscribe_and_get_first_message)",
        [False, None],
        wifi=True,
    ),
    Check(
        "message",
        "m.connect(); tell(m.subscribe_and_get_first_message)\n"
        "answers.append(type(m.lastReceivedMessage).__name__)",
        [{"topic": f"{TOPIC}/ota".encode(), "message": _RETAINED.encode()}, "NoneType"],
        waits=True,
        wifi=True,
    ),
    Check(
        "no_message_is_none_after_10_s",
        "m.connect(); timed(m.subscribe_and_get_first_message)",
        [None, 10],
        wifi=True,
    ),
]
