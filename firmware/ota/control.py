"""The control channel as an idle check needs it, over the umqtt.simple that firmware freezes.

Messages stand on `channels/<control channel>/messages/<device>/ota`; request.py and report.py know
what they say.
"""

import gc
import os
import time

from micropython import const

from .errors import Transient, name_of
from .link import Link
from .wire import Limits

_ECONNRESET = const(104)
_PINGREQ = const(b"\xc0\x00")
_RETAINED = const(1)  # in the first byte of a PUBLISH
# How long any broker may take to send what is retained: a PINGRESP proves nothing on aedes,
# VerneMQ, EMQX and HiveMQ, which look it up meanwhile.
_PATIENCE_MS = const(10000)
# The least where anything has to be waited for, and how often the longest time seen lately.
_GRACE_MS = const(50)
_MARGIN = const(3)
# So many contacts after power-on are patient, and then each 24th: the first behind the others is
# the one that comes after 23 short ones.
_FIRST = const(3)
_NEXT = const(26)


def approach(agent):
    """What Agent.approach() says, on a client of ours."""
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
    agent.control = Control(config, agent.limits)


class Control:
    """The control channel of one node.

    config: a complete configuration; limits: Limits of this contact. `request` is what the
    retained message asks for (a Request), `bad` a BadRequest when it asks for nothing sensible;
    both None when nothing is pending, which is `sure` only where silence can not be the broker's
    delay. `link` is None while there is no connection. `kept` is what
    backoff.kept() says of this broker, before a contact and after it; None where there is nothing
    to keep. Everything that speaks raises Transient.
    """

    def __init__(self, config, limits):
        self.request = self.bad = None
        self.sure = False
        self.link = self.client = None
        self.pings = 0  # sent and not answered yet
        self.echo = None  # the last report, which this node hears as well
        self.topic = topic_of(config)
        self._config = config
        self.limits = limits
        self.kept = None
        self.heard = False
        self.keepalive_ms = config["mqtt"]["keepalive"] * 1000
        self.ping_at = None  # when a node that stays has to ping; ticks_ms, None until it stays

    def connect(self, patient=False):
        """Connect, subscribe, and hear what is retained.

        patient: False waits for it as long as this broker is known to take; True as long as any
        may take; None not at all, for a connection that stays and hears it in any case. Returns
        whether something is open on flash: a trial, a report, litter.
        """
        self.begin()
        return self._settle(patient)

    def begin(self):
        """Connect, subscribe, and hear what is retained if it comes within the same round trip."""
        self.open()
        self.request = self.bad = None
        self.sure = False
        # How late a retained message came after the fence; 0: before it, -1: nobody knows, -2:
        # none came.
        self._late_ms = -2
        self._fenced_at = None
        began = time.ticks_ms()
        # Many a broker sends what is retained before it answers a ping that follows the
        # subscription. No standard promises it: finish() waits on.
        self.link.send_after(_PINGREQ)
        self.pings = 1
        self.ask("subscribe", self.topic, 1)
        self.call(self._until_pong)
        self._fenced_at = time.ticks_ms()
        self._trip_ms = time.ticks_diff(self._fenced_at, began)

    def finish(self, patient):
        """The rest of connect(), when an application has done something else since begin()."""
        try:
            self.call(self._listen_on, 0)
        except Transient:
            # Dropped meanwhile: the application was silent for longer than the keep-alive, say,
            # and will be in the next wake, too.
            self.close()
            return self.connect(patient)
        if self._late_ms > 0:
            # It lay there while the application worked: a guess would make each later contact a
            # long one, or one that does not wait at all.
            self._late_ms = -1
        return self._settle(patient)

    def _settle(self, patient):
        busy = trial = False
        try:
            os.stat("/.ota")
            busy = True
            os.stat("/.ota/state")
            trial = True
        except OSError:
            pass
        wait_ms = self._config["mqtt"]["grace_ms"]
        if wait_ms >= 0:  # somebody knows his broker
            self.sure = True
        learns = self.kept and (trial or patient is not None)
        if learns:
            contacts, late_ms = self.kept
            # New code that hears no request must not be kept: a trial is patient.
            patient = patient or trial or contacts < _FIRST or contacts >= _NEXT
            wait_ms = max(_GRACE_MS, _MARGIN * max(late_ms, self._trip_ms)) if late_ms else 0
            wait_ms = min(wait_ms, _PATIENCE_MS)
        if patient:
            self.sure = True
            wait_ms = max(wait_ms, _PATIENCE_MS)
        waited_ms = time.ticks_diff(time.ticks_ms(), self._fenced_at)
        self.call(self._listen_on, max(0, wait_ms - waited_ms))
        if learns:
            contacts = min(contacts, _FIRST - 1) + 1 if patient else contacts + 1
            if self._late_ms >= 0:
                # Less by and by where messages come sooner now: one bad moment of a network must
                # not keep the radio on for years. Never nothing, once one came behind the fence.
                late_ms = max(self._late_ms, late_ms - late_ms // 8)
            self.kept = contacts, min(late_ms, _PATIENCE_MS)
        else:
            self.kept = None
        return busy

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
        except (ImportError, NameError, SyntaxError):
            raise  # of this agent itself, which a trial has to notice
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
        client, self.client = self.client, None
        if client:
            # An application may hold it, from begin(): it must not hold this code in RAM.
            client.cb = client.sock = client.wait_msg = None

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
            self.link.kind = None
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
            # Not what is published just now, which is late for no reason of the broker's.
            if self.link.kind & _RETAINED:
                self._late_ms = 0
                if self._fenced_at is not None:
                    self._late_ms = max(1, time.ticks_diff(time.ticks_ms(), self._fenced_at))
            self.request = self.bad = None
            if payload or skipped:  # else our own clear, or somebody else's
                from .request import read

                self.request, self.bad = read(payload, skipped)
            if not payload or self.pending():  # else somebody's report, which tells nothing
                self.sure = True

    def _until_pong(self):
        while self.pings > 0:
            self.hear()

    def _listen_on(self, wait_ms):
        end = time.ticks_add(time.ticks_ms(), min(wait_ms, self.limits.next_ms()))
        # There is one retained message at most, even if it asks for nothing.
        while not self.pending() and self._late_ms < -1:
            # An application's messages may come in between.
            if not self.link.readable(max(0, time.ticks_diff(end, time.ticks_ms()))):
                return
            self.hear()

    def hear(self):
        """Wait for one message. Raises OSError."""
        if self.client.sock is not self.link:
            raise OSError(_ECONNRESET)  # a callback has connected it again: no limits there
        self.client.wait_msg()


def topic_of(config):
    """The ota topic of the node, as bytes."""
    topic = "channels/%s/messages/%s/ota" % (config["control_channel"], config["device_id"])
    return topic.encode()
