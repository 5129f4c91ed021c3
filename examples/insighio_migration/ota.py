"""The field firmware's `ota.checkAndApply(client)`, with our agent behind it.

It takes the place of /apps/demo_console/ota.py. The client is the field firmware's own: all that
goes over the control channel goes through its get_control_message(), clear_retained() and
send_control_packet(), and the reports have the field firmware's texts.
"""

import json
import logging
import os

import ota
import utils
from ota.errors import Transient
from ota.request import read

from . import cfg, control_messages

_FIELD_TEXTS = ("not enough space", "can not download", "can not apply")
_MODEM_FILE = "ota_package"
_MODEM_TIMEOUT_MS = 250000


def checkAndApply(client):
    """Look for a package; what an earlier wake left open is finished first.

    client: the connected transfer client. Does not return when the node was updated: it resets.
    False without a client, else None.
    """
    if client is None:
        logging.debug("OTA check aborted, no active transfer client")
        return False
    agent = _Agent(client)
    outcome = agent.check()
    logging.info("OTA: %s %s" % (outcome, agent.reason or ""))
    for topic, message in agent.channel.others:
        # The other half of the field firmware's checkAndApply(): config, partialConfig, cmd.
        control_messages.handle(client, topic, message)


class _Agent(ota.Agent):
    def __init__(self, client):
        field = cfg.get_protocol_config()
        config = {
            "device_id": field.thing_id,
            "device_key": field.thing_token,
            "control_channel": field.control_channel_id,
            "server": field.server_ip,
        }
        open_stream = None
        if client.modem_based:

            def open_stream(url):
                return _ModemFile(client.modem_instance, url)

        super().__init__(config, progress=_on_progress, open_stream=open_stream)
        self.channel = _Channel(client)

    def approach(self):
        super().approach()  # for the limits; the connection is the client's
        self.control = self.channel


class _Channel:
    """The agent's Control (its file says what it needs) on the field's client."""

    topic = "channels/%s/messages/%s/ota"
    sure = True  # fence() waits for as long as the client can

    def __init__(self, client):
        field = cfg.get_protocol_config()
        self.topic = self.topic % (field.control_channel_id, field.thing_id)
        self.request = self.bad = self.echo = self.link = self.kept = None
        self.others = []
        self._field = client
        # The agent asks these of a client of umqtt.simple, and of its connection.
        self.client = self
        self.cb = self._on_message
        self.skipped = 0

    def connect(self, patient=False):
        self.link = self
        self.fence()
        return True  # the agent looks whether something is open on flash

    def fence(self):
        # The client waits up to 5 s, and tells of one message at a time.
        heard = self._field.get_control_message()
        if not heard or heard["topic"] is None or heard["message"] is None:
            return
        topic, message = _text(heard["topic"]), _text(heard["message"])
        if topic != self.topic:
            self.others.append((topic, message))
        else:
            self.cb(topic, message.encode())

    def _on_message(self, topic, payload):
        request, bad = read(payload)
        if request or bad or not payload:  # else a report
            self.request, self.bad = request, bad

    def set_callback(self, callback):
        self.cb = callback

    def call(self, function, *args):
        return function(*args)

    def readable(self, wait_ms):
        return False  # fence() has waited

    def pending(self):
        return self.request or self.bad

    def ask(self, _publish, topic, payload, retained, _qos):
        if retained:
            sent = self._field.clear_retained(topic)
        else:
            sent = self._field.send_control_packet(_as_the_field_says(payload), "/ota")
        if sent is False:
            raise Transient("can not connect", "the client did not send")

    def close(self):
        self.link = None


class _ModemFile:
    """A package that the modem has downloaded, as open_stream= has to return it.

    The modem speaks HTTPS, and keeps the file: whether it verifies the server is its affair.
    """

    def __init__(self, modem, url):
        self.status_code = 200
        if not modem.http_get_file(url, _MODEM_FILE, _MODEM_TIMEOUT_MS):
            raise OSError("no file")
        try:
            if not modem.get_file(_MODEM_FILE, "/" + _MODEM_FILE):
                raise OSError("no file")
        finally:
            modem.delete_file(_MODEM_FILE)
        self._file = open("/" + _MODEM_FILE, "rb")
        self.raw = self

    def readinto(self, buffer, n):
        return self._file.readinto(memoryview(buffer)[:n])

    def close(self):
        self._file.close()
        os.remove("/" + _MODEM_FILE)


def _on_progress(step, value):
    if step == "install":
        # As the field firmware does between the install and its reset.
        utils.clearCachedStates()
        utils.writeToFlagFile("/ota_applied_flag", "done")
    if step not in ("bytes", "file"):
        logging.debug("OTA: %s %s" % (step, value))


def _as_the_field_says(payload):
    """A report whose reason is one of the field's texts, without the detail that ours add."""
    pack = json.loads(payload)
    for entry in pack:
        text = entry.get("vs", "").split(":")[0]
        if entry["n"] == "m" and text in _FIELD_TEXTS:
            logging.error("OTA: %s" % entry["vs"])
            entry["vs"] = text
    return json.dumps(pack)


def _text(value):
    return value if isinstance(value, str) else value.decode()
