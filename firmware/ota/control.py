"""The control channel: request in, clear and report out, over a umqtt.simple-shaped client.

Messages stand on `channels/<control channel>/messages/<device>/ota`; messages.py knows what they
say.
"""

import time

from micropython import const

from .errors import Transient, name_of
from .link import Link

_PINGREQ = b"\xc0\x00"
# How often messages are listened to while something else goes on.
_SERVICE_MS = const(250)


class Control:
    """The control channel of one node.

    config: a complete configuration; limits: Limits of this contact; client: an application's own
    connected client, shaped as umqtt.simple's, to be used in place of one of ours. `request` is
    what the retained message asks for (a Request), `bad` a BadRequest when it asks for nothing
    sensible; both None when nothing is pending.
    """

    def __init__(self, config, limits, client=None):
        self.request = None
        self.bad = None
        self._config = config
        self._limits = limits
        self._topic = topic_of(config)
        self._theirs = client
        self._callback = self._wait_msg = self._socket = None
        self._client = None
        self._link = None
        self._heard = False
        self._pings = 0  # sent and not answered yet
        self._last_ping = self._last_service = 0

    def connect(self):
        """Connect, subscribe, and learn what is retained in the same round trip.

        Raises Transient.
        """
        if self._theirs:
            self._adopt(self._theirs)
        else:
            self._open()
        # A broker sends what is retained before it answers a ping that follows the subscription:
        # one round trip tells "nothing pending". No standard promises it, hence the grace.
        link = self._link
        link.send_after(_PINGREQ)
        self._pings = 1
        self._last_ping = time.ticks_ms()
        self._call("subscribe", self._topic, 1)
        self._guarded(self._until_pong)
        if not self.pending() and self._guarded(link.readable, self._config["mqtt"]["grace_ms"]):
            self._guarded(self._client.wait_msg)

    def connected(self):
        """True while the control channel is open, as far as this end knows."""
        return self._link is not None

    def pending(self):
        """The Request, or the BadRequest, that waits; None when there is none."""
        return self.request or self.bad

    def listen(self, wait_ms):
        """Hear what has come, or comes within wait_ms, and tell the broker that this node lives.

        Raises Transient, also when the broker has not answered the last ping.
        """
        while self._guarded(self._link.readable, wait_ms):
            wait_ms = 0
            self._guarded(self._client.wait_msg)
        self._keep_alive()

    def _keep_alive(self):
        keepalive_ms = self._config["mqtt"]["keepalive"] * 1000
        now = time.ticks_ms()
        # A broker drops who is silent for one and a half times the keep-alive.
        if keepalive_ms and time.ticks_diff(now, self._last_ping) > keepalive_ms // 2:
            if self._pings > 0:
                self._lose("the broker has not answered")
            self._last_ping = now
            self._ping()
            self._guarded(self._link.flush)

    def service(self):
        """listen() now and then, for the time of a download. Its failures are met later."""
        now = time.ticks_ms()
        if self._link and time.ticks_diff(now, self._last_service) >= _SERVICE_MS:
            self._last_service = now
            try:
                self.listen(0)
            except Transient:
                pass  # the report will connect anew

    def finish(self, event, file_id, text, progress):
        """Clear the retained request if it still is the one of file_id, then report.

        Each is acknowledged by the broker before the next step. event: 1 applied, 2 failed;
        text: str for people, or None. Raises Transient.
        """
        from .messages import report_payload

        if not self._link:
            self.connect()
        else:
            # The operator may have asked for another package meanwhile: that request must stay.
            self._ping()
            self._guarded(self._until_pong)
        pending = self.pending()
        if pending and pending.file_id == file_id:
            self._call("publish", self._topic, b"", True, 1)
            self.request = self.bad = None
            progress("clear", file_id)
        payload = report_payload(event, file_id, text).encode()
        self._call("publish", self._topic, payload, False, 1)
        progress("report", payload.decode())

    def close(self):
        """Leave the control channel. An application's client is given back as it was."""
        link, self._link = self._link, None
        client, self._client = self._client, None
        if client and self._theirs:
            client.wait_msg = self._wait_msg
            client.set_callback(self._callback)
            client.sock = link.release() if link else self._socket
        elif link:
            try:
                client.disconnect()
            except OSError:
                pass
            link.abort()

    def _open(self):
        import umqtt.simple as umqtt

        config = self._config
        mqtt = config["mqtt"]
        context = None
        if mqtt["tls"]:
            from .trust import trust

            context = trust(config["ca"], "can not connect")
        link = Link(self._limits)
        device_id = config["device_id"].encode()
        client = umqtt.MQTTClient(
            device_id,
            mqtt["host"],
            mqtt["port"],
            device_id,
            config["device_key"].encode(),
            mqtt["keepalive"],
        )
        self._prepare(client)
        link.open(mqtt["host"], mqtt["port"], context)
        self._link = link
        sockets = umqtt.socket
        try:
            # umqtt.simple opens its socket itself, without a time limit on every release before
            # 1.25, and knows no verified TLS on some. So it is handed one that is open already.
            umqtt.socket = _Opened(link)
            self._call("connect")
        finally:
            umqtt.socket = sockets

    def _adopt(self, client):
        if not client.sock:
            raise Transient("can not connect", "the application's client is not connected")
        link = Link(self._limits)
        self._callback = client.cb
        self._socket = client.sock
        self._prepare(client)
        link.adopt(client.sock)
        client.sock = self._link = link

    def _prepare(self, client):
        self._client = client
        client.set_callback(self._on_message)
        self._wait_msg = client.wait_msg
        plain = self._method("wait_msg")

        def counting_pongs():
            # umqtt.simple also waits in subscribe() and publish(): a PINGRESP that comes there
            # would be lost, and waiting for it later would never end.
            self._heard = False
            kind = plain()
            # None for a PINGRESP, and on old releases for a message as well.
            if kind is None and not self._heard:
                self._pings -= 1
            return kind

        client.wait_msg = counting_pongs

    def _method(self, name):
        """The client's method; of umqtt.robust, which would try for ever, its parent's."""
        import umqtt.simple as umqtt

        client = self._client
        if isinstance(client, umqtt.MQTTClient):
            method = getattr(umqtt.MQTTClient, name)
            return lambda *args: method(client, *args)
        return getattr(client, name)

    def _on_message(self, topic, payload):
        self._heard = True
        skipped, self._link.skipped = self._link.skipped, 0
        if topic == self._topic:
            self.hear(payload, skipped)
        elif self._callback:
            try:
                self._callback(topic, payload)
            except Exception as error:
                # The application's: it must not stand between an install and its report.
                print("ota: the application's callback failed,", name_of(error))

    def hear(self, payload, skipped=0):
        """Take note of a message (bytes) on our topic. skipped: bytes it was too long by."""
        self.request = self.bad = None
        if not payload and not skipped:
            return  # our own clear, or somebody else's
        from .messages import BadRequest, parse

        try:
            if skipped:
                raise BadRequest("longer than any request")
            self.request = parse(payload)
        except BadRequest as error:
            self.bad = error

    def _ping(self):
        self._pings += 1
        self._call("ping")

    def _until_pong(self):
        """Hear everything that the broker sent before it answered the last ping."""
        while self._pings > 0:
            self._client.wait_msg()

    def _call(self, name, *args):
        return self._guarded(self._method(name), *args)

    def _guarded(self, call, *args):
        try:
            return call(*args)
        except (MemoryError, Transient):
            raise
        except OSError as error:
            detail = name_of(error)
        except Exception as error:
            if type(error).__name__ == "MQTTException":
                detail = "refused by the broker, code %s" % error.args[0]
            else:
                # umqtt.simple's protocol checks, where it has any, are asserts and indexes.
                detail = "the broker's answer makes no sense, " + type(error).__name__
        self._lose(detail)

    def _lose(self, detail):
        """The connection is of no use any more, an application's neither: it may be mid-packet."""
        link, self._link = self._link, None
        if link:
            link.abort()
        raise Transient("can not connect", detail)


class _Opened:
    """Stands where umqtt.simple looks for the socket module while it connects."""

    def __init__(self, link):
        self._link = link

    def socket(self, *_):
        return self._link

    def getaddrinfo(self, host, port, *_):
        return ((0, 0, 0, "", (host, port)),)


def topic_of(config):
    """The ota topic of the node, as bytes."""
    topic = "channels/%s/messages/%s/ota" % (config["control_channel"], config["device_id"])
    return topic.encode()
