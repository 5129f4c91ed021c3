"""The control channel as an idle check needs it, over the umqtt.simple that firmware freezes.

Messages stand on `channels/<control channel>/messages/<device>/ota`; request.py and report.py know
what they say.
"""

import gc
import time

from micropython import const

from .errors import Transient, name_of
from .link import ECONNRESET, Link
from .wire import Limits

_PINGREQ = const(b"\xc0\x00")


def approach(agent):
    """What Agent.approach() says."""
    config = agent.config
    wait_s, watchdog_s = config["timeout_s"], config["watchdog_s"]
    if watchdog_s:
        # No wait may come near what the watchdog takes for a crash.
        wait_s = min(wait_s, watchdog_s / 2)
        if not agent.watchdog:
            import machine

            agent.watchdog = machine.WDT(timeout=watchdog_s * 1000)
    gc.collect()
    agent.limits = Limits(int(wait_s * 1000), config["cycle_s"] * 1000, agent.feed)
    if agent.client:
        from .borrowed import Borrowed

        agent.control = Borrowed(config, agent.limits, agent.client)
    else:
        agent.control = Control(config, agent.limits)


class Control:
    """The control channel of one node.

    config: a complete configuration; limits: Limits of this contact. `request` is what the
    retained message asks for (a Request), `bad` a BadRequest when it asks for nothing sensible;
    both None when nothing is pending. `link` is None while there is no connection. Everything that
    speaks raises Transient.
    """

    def __init__(self, config, limits):
        self.request = self.bad = None
        self.link = self.client = None
        self.pings = 0  # sent and not answered yet
        self.echo = None  # the last report, which this node hears as well
        self.topic = topic_of(config)
        self._config = config
        self.limits = limits
        self.heard = False
        self.keepalive_ms = config["mqtt"]["keepalive"] * 1000
        self.ping_at = None  # when a node that stays has to ping; ticks_ms, None for never

    def connect(self):
        """Connect, subscribe, and learn what is retained in the same round trip."""
        self.open()
        if self.keepalive_ms:
            self.ping_at = time.ticks_add(time.ticks_ms(), self.keepalive_ms // 2)
        # A broker sends what is retained before it answers a ping that follows the subscription:
        # one round trip tells "nothing pending". No standard promises it, hence the grace.
        self.link.send_after(_PINGREQ)
        self.pings = 1
        self.ask("subscribe", self.topic, 1)
        self.call(self._until_pong)
        self.call(self._listen_on, self._config["mqtt"]["grace_ms"])

    def pending(self):
        """The Request, or the BadRequest, that waits; None when there is none."""
        return self.request or self.bad

    def fence(self):
        """Hear everything that the broker sent before it answers a ping from now."""
        self.pings += 1
        self.ask("ping")
        self.call(self._until_pong)

    def ask(self, name, *args):
        """Call the client's method of this name, as call() does."""
        return self.call(getattr(self.client, name), *args)

    def call(self, function, *args):
        """Do something with the connection; after a failure there is none any more."""
        try:
            return function(*args)
        except MemoryError:
            # In the middle of a packet: what follows would be read as packets.
            self._lose()
            raise
        except OSError as error:
            detail = name_of(error)
        except Exception as error:
            if type(error).__name__ == "MQTTException":
                detail = "refused by the broker, code %s" % error.args[0]
            else:
                # umqtt.simple's protocol checks, where it has any, are asserts and indexes.
                detail = "the broker's answer makes no sense, " + type(error).__name__
        self._lose()
        raise Transient("can not connect", detail)

    def _lose(self):
        link, self.link = self.link, None
        if link:
            link.wire.close()
        self.limits.step()

    def close(self):
        """Leave the control channel."""
        link, self.link = self.link, None
        if link:
            try:
                self.client.disconnect()
            except OSError:
                pass
            link.wire.close()

    def open(self):
        """Get a client and a connected link. Raises Transient."""
        import umqtt.simple as umqtt

        gc.collect()  # as Agent.approach() does
        config = self._config
        mqtt = config["mqtt"]
        host, port = mqtt["host"], mqtt["port"]
        context = None
        if mqtt["tls"]:
            from .trust import trust

            context = trust(config["ca"], "can not connect")
        user, key = config["device_id"].encode(), config["device_key"].encode()
        client = umqtt.MQTTClient(user, host, port, user, key, mqtt["keepalive"])
        link = Link(self.limits)
        self.prepare(client, client.wait_msg)
        link.wire.open(host, port, context)
        self.link = link
        sockets = umqtt.socket
        try:
            # umqtt.simple opens its socket itself, without a time limit on every release before
            # 1.25, and knows no verified TLS on some. So it is handed one that is open already.
            umqtt.socket = link
            self.ask("connect")
        finally:
            umqtt.socket = sockets

    def prepare(self, client, wait_msg):
        """Listen to client, whose packets wait_msg() reads."""
        self.client = client
        client.set_callback(self.on_message)

        def counting_pongs():
            # umqtt.simple also waits in subscribe() and publish(): a PINGRESP that comes there
            # would be lost, and waiting for it later would never end.
            self.heard = False
            kind = wait_msg()
            # None for a PINGRESP, and on old releases for a message as well.
            if kind is None and not self.heard:
                self.pings -= 1
            return kind

        client.wait_msg = counting_pongs

    def on_message(self, topic, payload):
        """What the client calls with each message, both bytes."""
        self.heard = True
        skipped, self.link.skipped = self.link.skipped, 0
        if topic == self.topic and payload != self.echo:
            self.request = self.bad = None
            if payload or skipped:  # else our own clear, or somebody else's
                from .request import read

                self.request, self.bad = read(payload, skipped)

    def _until_pong(self):
        while self.pings > 0:
            self.hear()

    def _listen_on(self, wait_ms):
        end = time.ticks_add(time.ticks_ms(), min(wait_ms, self.limits.next_ms()))
        while not self.pending():
            # An application's messages may come in between.
            if not self.link.readable(max(0, time.ticks_diff(end, time.ticks_ms()))):
                return
            self.hear()

    def hear(self):
        """Wait for one message. Raises OSError."""
        if self.client.sock is not self.link:
            raise OSError(ECONNRESET)  # a callback has connected it anew: no limits there
        self.client.wait_msg()


def topic_of(config):
    """The ota topic of the node, as bytes."""
    topic = "channels/%s/messages/%s/ota" % (config["control_channel"], config["device_id"])
    return topic.encode()
