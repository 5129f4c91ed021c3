"""The control channel of the agent on the field firmware's transfer client: Wi-Fi and modem.

docs/integrating.md ("A client of another shape") lists what the agent asks of it.
"""

import os
import time

from micropython import const

_PUBLISH = const(0x31)  # the first byte of a retained PUBLISH
_ECONNRESET = const(104)
_ETIMEDOUT = const(110)
# The watchdog is fed so often while the node listens.
_TURN_MS = const(250)


def channel_of(client, config, feed):
    """The Channel for this client; None for one that has no MQTT.

    client: the field's connected transfer client. config: a configuration as for ota.Agent. feed:
    called while the node waits.
    """
    if client.modem_based:
        if getattr(client, "is_secondary_transfer_protocol", False):
            return None
        from .channel_modem import ModemChannel

        return ModemChannel(client, config, feed)
    if hasattr(getattr(getattr(client, "client", None), "client", None), "check_msg"):
        from .channel_wifi import WifiChannel

        return WifiChannel(client, config, feed)
    return None


class Channel:
    """What the agent uses as its client, and as the connection of that.

    `others` is what was heard that is not about packages: {topic: payload}, bytes. `said` turns a
    payload that is published into what the platform gets. What differs between the kinds of
    clients is in the methods attach(), detach(), ask_for_all(), send() and hear().
    """

    def __init__(self, client, config, feed):
        self.config = config
        self.field = client
        self.base = "channels/%s/messages/%s" % (config["control_channel"], config["device_id"])
        self.topic = (self.base + "/ota").encode()
        self.wait_ms = config.get("timeout_s", 20) * 1000
        self.feed = feed
        self.others = {}
        self.said = None
        self.lost = False
        self.ends = False  # where the agent gives it back, what comes next is the reset
        self._again = True  # one new connection in a check
        self._given_back = False
        self._rehearsed = False
        self._attached = False
        self._heard = []
        self._proofs = 0  # messages of this node's own that have to come back
        self._echo = None  # what was said, and what the agent thinks was
        self._pongs = 0
        # What the agent asks of a client and of its connection.
        self.cb = None
        self.kind = None
        self.skipped = 0
        self.wire = self

    # -- as a client

    @property
    def sock(self):
        """The connection; None where it is lost and can not be made again."""
        # Not where the agent only looks whether it has to give back a connection of its own.
        given_back, self._given_back = self._given_back, False
        if self.lost and self._again and not given_back:
            self._again = False
            self.field.disconnect()
            self.lost = not self.field.connect()
        return None if self.lost else self

    def set_callback(self, callback):
        """Who hears what is about packages; None: the agent gives the client back."""
        self.cb = callback
        self._pongs = 0
        if callback and not self._attached:
            self._attached = True
            self.attach()
        elif not callback and self._attached:
            self._attached = False
            self._given_back = True
            self._heard = []
            self.detach()
            if self.ends:
                self.leave()

    def subscribe(self, topic, qos=0):
        """Subscribe to all of the node's own topics; on trial, show that this works.

        Raises OSError when the subscription is refused or, on trial, when the node does not hear
        itself: new code that hears no request must not be kept. The message is empty and not
        retained: the same comes when a request is cleared. On trial it also raises what
        rehearsal.rehearse() does: nor must new code be kept that gets no package.
        """
        self.ask_for_all()
        try:
            os.stat("/.ota/state")
        except OSError:
            return
        self._proofs = 1
        self.send(self.topic, b"", False)
        if not self._wait(self.wait_ms, lambda: not self._proofs):
            self._proofs = 0
            raise OSError(_ETIMEDOUT)
        if not self._rehearsed:
            from .rehearsal import rehearse

            self._rehearsed = True
            rehearse(self)

    def publish(self, topic, payload, retain=False, qos=0):
        """Publish, and wait for the acknowledgement. Raises OSError."""
        said = payload
        if payload and not retain and self.said:
            said = self.said(payload)
            self._echo = said, payload
        self.send(topic, said, retain)

    def ping(self):
        """What the broker has sent before it answers has been heard: a subscription does that."""
        self.ask_for_all()
        self._pongs += 1

    def wait_msg(self):
        """Wait for one message, or for the answer to a ping (None). Raises OSError."""
        if not self.readable(self.wait_ms):
            raise OSError(_ETIMEDOUT)
        if self._heard:
            payload = self._heard.pop(0)
            self.kind = _PUBLISH
            self.cb(self.topic, payload)
            return _PUBLISH
        self._pongs -= 1
        return None

    # -- as its connection

    def send_after(self, data):
        """A ping that follows the subscription."""
        self._pongs += 1

    def readable(self, wait_ms):
        """True when something for the agent is there, or comes within wait_ms. Raises OSError."""
        return self._wait(wait_ms, lambda: self._heard or self._pongs)

    def close(self):
        """The agent has met an error on this connection."""
        self.lost = True

    def flush(self):
        """Nothing is kept back."""

    def setblocking(self, _flag):
        """Nothing: the client has its own."""

    # -- for this package

    def leave(self):
        """Disconnect the client: the node resets next."""
        self._again = False
        if self._attached:
            self._attached = False
            self.detach()
        self.field.disconnect()
        self.lost = True

    def take(self, topic, payload):
        """A message that has come, str or bytes."""
        topic, payload = _bytes(topic), _bytes(payload)
        if topic != self.topic:
            self.others.pop(topic, None)
            if payload:
                self.others[topic] = payload
        elif self._proofs and not payload:
            self._proofs -= 1
        elif self._echo and payload == self._echo[0]:
            self._heard.append(self._echo[1])
        else:
            self._heard.append(payload)

    def _wait(self, wait_ms, done):
        end = time.ticks_add(time.ticks_ms(), wait_ms)
        while True:
            left_ms = max(0, time.ticks_diff(end, time.ticks_ms()))
            # What is known already is not waited for.
            self.hear(0 if done() else min(left_ms, _TURN_MS))
            self.feed()
            if done():
                return True
            if self.lost:
                raise OSError(_ECONNRESET)
            if not left_ms:
                return False


def _bytes(value):
    return value.encode() if isinstance(value, str) else bytes(value)
