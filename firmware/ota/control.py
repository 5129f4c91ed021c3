"""The control channel: request in, clear and report out, over a umqtt.simple-shaped client.

Messages are SenML packs (RFC 8428) in JSON on `channels/<control channel>/messages/<device>/ota`;
docs/protocol.md has them all.
"""

import json

from micropython import const

from .errors import Refused, Transient, name_of

_PENDING = const(0)
_PINGREQ = b"\xc0\x00"
_LONGEST_REPORT_TEXT = const(160)
_MOST_BRACKETS = const(64)


class Request:
    """A package waits. file_id: str; kind: ".tar" or ".tar.gz"; size: bytes of the archive."""

    def __init__(self, file_id, kind, size):
        self.file_id = file_id
        self.kind = kind
        self.size = size


class BadRequest(Refused):
    """A retained message that can not be acted on. file_id: str, "" where it could not be read."""

    def __init__(self, detail, file_id=""):
        super().__init__("bad request", detail)
        self.file_id = file_id


def parse(payload):
    """What a message on the ota topic asks for: a Request, or None when it is not a request.

    payload: bytes. Liberal in what is read (numbers as text, any order, unknown fields), strict in
    what is acted on: raises BadRequest for anything that is neither a sound request nor a message
    with another event.
    """
    if not payload:
        return None  # our own clear, or somebody else's
    if payload.count(b"[") + payload.count(b"{") > _MOST_BRACKETS:
        raise BadRequest("nested or long beyond any request")  # it could exhaust the memory
    try:
        pack = json.loads(payload)
    except (ValueError, RuntimeError):  # RuntimeError: nested deeper than the stack
        raise BadRequest("not JSON")
    if not isinstance(pack, list):
        raise BadRequest("not a SenML pack")
    found = {}
    base = ""
    for entry in pack:
        if not isinstance(entry, dict):
            raise BadRequest("not a SenML pack")
        base = entry.get("bn", base)
        name = entry.get("n", "")
        if name not in ("e", "i", "t", "s") and isinstance(base, str) and isinstance(name, str):
            name = base + name
        if name in ("e", "i", "t", "s"):
            if name in found:
                raise BadRequest(name + " stands twice")
            found[name] = entry.get("v", entry.get("vs"))
    file_id = found.get("i")
    if type(file_id) is int:
        file_id = str(file_id)
    if not _is_file_id(file_id):
        file_id = ""
    event = _whole(found.get("e"))
    if event is None:
        raise BadRequest("e is missing or not a number", file_id)
    if event != _PENDING:
        return None  # a report: our own, heard because we are subscribed
    if not file_id:
        raise BadRequest("i is missing or not a file id")
    if found.get("t") not in (".tar", ".tar.gz"):
        raise BadRequest("t is missing or neither .tar nor .tar.gz", file_id)
    size = _whole(found.get("s"))
    if not size or size < 0:
        raise BadRequest("s is missing or not a size", file_id)
    return Request(file_id, found["t"], size)


def _is_file_id(text):
    # It goes into a URL, into /.ota/state between spaces and back into a report.
    if not isinstance(text, str) or not 0 < len(text) <= 64:
        return False
    for c in text:
        if not ("0" <= c <= "9" or "a" <= c <= "z" or "A" <= c <= "Z" or c in "-._"):
            return False
    return True


def _whole(value):
    """value as int when it is a whole number or the text of one, else None."""
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            return None
    if type(value) is float and value == value // 1:
        value = int(value)
    return value if type(value) is int else None


def report_payload(event, file_id, text=None):
    """A report as the platform's page prints it. event: 1 applied, 2 failed. Returns str."""
    payload = '[{"n":"e","v":%d},{"n":"i","vs":%s}' % (event, json.dumps(file_id))
    if text:
        payload += ',{"n":"m","vs":%s}' % json.dumps(text[:_LONGEST_REPORT_TEXT])
    return payload + "]"


class Control:
    """The control channel of one node.

    config: a complete configuration. `request` is what the retained message asks for (a Request),
    `bad` a BadRequest when it asks for nothing sensible; both None when nothing is pending.
    """

    def __init__(self, config):
        self.request = None
        self.bad = None
        self._config = config
        topic = "channels/%s/messages/%s/ota" % (config["control_channel"], config["device_id"])
        self._topic = topic.encode()
        self._client = None
        self._link = None
        self._heard = False
        self._pings = 0  # sent and not answered yet

    def connect(self):
        """Connect, subscribe, and learn what is retained in the same round trip.

        Raises Transient.
        """
        import umqtt.simple as umqtt

        from .link import Link, trust

        config = self._config
        mqtt = config["mqtt"]
        context = trust(config["ca"], "can not connect") if mqtt["tls"] else None
        link = Link(config["timeout_s"] * 1000)
        device_id = config["device_id"].encode()
        client = umqtt.MQTTClient(
            device_id,
            mqtt["host"],
            mqtt["port"],
            device_id,
            config["device_key"].encode(),
            mqtt["keepalive"],
        )
        client.set_callback(self._on_message)
        wait_msg = client.wait_msg

        def counting_pongs():
            # umqtt.simple also waits in subscribe() and publish(): a PINGRESP that comes there
            # would be lost, and waiting for it later would never end.
            self._heard = False
            kind = wait_msg()
            # None for a PINGRESP, and on old releases for a message as well.
            if kind is None and not self._heard:
                self._pings -= 1
            return kind

        client.wait_msg = counting_pongs
        link.open(mqtt["host"], mqtt["port"], context)
        self._link, self._client = link, client
        self._pings = 0
        sockets = umqtt.socket
        try:
            # umqtt.simple opens its socket itself, without a time limit on every release before
            # 1.25, and knows no verified TLS on some. So it is handed one that is open already.
            umqtt.socket = _Opened(link)
            self._guarded(client.connect)
        finally:
            umqtt.socket = sockets
        # A broker sends what is retained before it answers a ping that follows the subscription:
        # one round trip tells "nothing pending". No standard promises it, hence the grace.
        link.send_after(_PINGREQ)
        self._pings = 1
        self._guarded(client.subscribe, self._topic, 1)
        self._guarded(self._until_pong)
        if not (self.request or self.bad) and link.readable(mqtt["grace_ms"]):
            self._guarded(client.wait_msg)

    def keep_alive(self):
        """Tell the broker that this node still lives; for the time of a download."""
        if self._link:
            try:
                self._ping()
                self._guarded(self._link.flush)
            except Transient:
                pass  # the report will connect anew

    def finish(self, event, file_id, text, progress):
        """Clear the retained request if it still is the one of file_id, then report.

        Each is acknowledged by the broker before the next step. event: 1 applied, 2 failed;
        text: str for people, or None. Raises Transient.
        """
        if not self._link:
            self.connect()
        else:
            # The operator may have asked for another package meanwhile: that request must stay.
            self._ping()
            self._guarded(self._until_pong)
        pending = self.request or self.bad
        if pending and pending.file_id == file_id:
            self._guarded(self._client.publish, self._topic, b"", True, 1)
            self.request = self.bad = None
            progress("clear", file_id)
        payload = report_payload(event, file_id, text).encode()
        self._guarded(self._client.publish, self._topic, payload, False, 1)
        progress("report", payload.decode())

    def close(self):
        """Leave the control channel."""
        link, self._link = self._link, None
        if link:
            try:
                self._client.disconnect()
            except OSError:
                pass
            link.abort()

    def _on_message(self, topic, payload):
        self._heard = True
        skipped, self._link.skipped = self._link.skipped, 0
        if topic != self._topic:
            return
        self.request = self.bad = None
        try:
            if skipped:
                raise BadRequest("longer than any request")
            self.request = parse(payload)
        except BadRequest as error:
            self.bad = error

    def _ping(self):
        self._pings += 1
        self._guarded(self._client.ping)

    def _until_pong(self):
        """Hear everything that the broker sent before it answered the last ping."""
        while self._pings > 0:
            self._client.wait_msg()

    def _guarded(self, call, *args):
        try:
            return call(*args)
        except MemoryError:
            raise
        except OSError as error:
            detail = name_of(error)
        except Exception as error:
            if type(error).__name__ == "MQTTException":
                detail = "refused by the broker, code %s" % error.args[0]
            else:
                # umqtt.simple's protocol checks, where it has any, are asserts and indexes.
                detail = "the broker's answer makes no sense, " + type(error).__name__
        self._link.abort()
        self._link = None
        raise Transient("can not connect", detail)


class _Opened:
    """Stands where umqtt.simple looks for the socket module while it connects."""

    def __init__(self, link):
        self._link = link

    def socket(self, *_):
        return self._link

    def getaddrinfo(self, host, port, *_):
        return ((0, 0, 0, "", (host, port)),)
