"""The control channel as an idle check needs it, over the umqtt.simple that firmware freezes.

Messages stand on `channels/<control channel>/messages/<device>/ota`; request.py and report.py know
what they say.
"""

import time

from micropython import const

_ECONNRESET = const(104)
_PINGREQ = const(b"\xc0\x00")
# How long any broker may take to send what is retained: a PINGRESP proves nothing on aedes,
# VerneMQ, EMQX and HiveMQ, which look it up meanwhile.
_PATIENCE_MS = const(10000)
# The least where anything has to be waited for, and how often the longest time seen lately.
_GRACE_MS = const(50)
_MARGIN = const(3)


class Control:
    """The control channel of one node.

    config: a complete configuration; limits: Limits of this contact; client: one that is
    connected to a Link, for the first open(), or None; seen: what dial.look() says. `request` is
    what the retained message asks for (a Request), `bad` a BadRequest when it asks for nothing
    sensible; both None when nothing is pending, which is `sure` only where silence can not be the
    broker's delay. `late_ms` is how late a retained message came after the fence; 0: before it,
    -1: nobody knows, -2: none came. `link` is None while there is no connection. `learned` is for
    backoff.remember(). Everything that speaks raises Transient.
    """

    def __init__(self, config, limits, client, seen):
        self.request = self.bad = None
        self.sure = False
        self.client = client
        self.link = client and client.sock
        self.pings = 0  # sent and not answered yet
        self.echo = None  # the last report, which this node hears as well
        self.topic = seen[0]
        self.config = config
        self.limits = limits
        self.learned = None
        self._seen = seen
        self.heard = False

    def connect(self, patient=False):
        """Connect, subscribe, and hear what is retained.

        patient: False waits for it as long as this broker is known to take; True as long as any
        may take; None not at all, for a connection that stays and hears it in any case. Returns
        whether something is open on flash: a trial, a report, litter.
        """
        return self.settle(patient, self.begin())

    def begin(self):
        """Connect, subscribe, and hear what is retained if it comes within the same round trip.

        Returns how long that took, in ms, for settle().
        """
        self.open()
        self.request = self.bad = None
        self.sure = False
        self.late_ms = -2
        self._fenced_at = None
        began = time.ticks_ms()
        # Many a broker sends what is retained before it answers a ping that follows the
        # subscription. No standard promises it: settle() waits on.
        self.link.send_after(_PINGREQ)
        self.pings = 0
        self.fence("subscribe", self.topic, 1)
        self._fenced_at = time.ticks_ms()
        return time.ticks_diff(self._fenced_at, began)

    def settle(self, patient, trip_ms):
        """The rest of connect(), after begin()."""
        _, busy, trial, known = self._seen
        wait_ms = self.config["mqtt"]["grace_ms"]
        if wait_ms >= 0:  # somebody knows his broker
            self.sure = True
        learns = known and (trial or patient is not None)
        if learns:
            due, late_ms = known
            # New code that hears no request must not be kept: a trial is patient.
            patient = patient or trial or due
            wait_ms = max(_GRACE_MS, _MARGIN * max(late_ms, trip_ms)) if late_ms else 0
            wait_ms = min(wait_ms, _PATIENCE_MS)
        if patient:
            self.sure = True
            wait_ms = max(wait_ms, _PATIENCE_MS)
        waited_ms = time.ticks_diff(time.ticks_ms(), self._fenced_at)
        self.call(self.listen, max(0, wait_ms - waited_ms))
        self.learned = (bool(patient), self.late_ms) if learns else None
        return busy

    def pending(self):
        """The Request, or the BadRequest, that waits; None when there is none."""
        return self.request or self.bad

    def fence(self, name="ping", *args):
        """Hear everything that the broker sent before it answers a ping from now.

        name, args: what is asked of the client, as ask() has it; it has to send a ping.
        """
        self.pings += 1
        self.ask(name, *args)
        while self.pings > 0:
            self.call(self.hear)

    def ask(self, name, *args):
        """Call the client's method of this name, as call() does."""
        return self.call(getattr(self.client, name), *args)

    def call(self, function, *args):
        """Do something with the connection; after a failure there is none any more."""
        try:
            return function(*args)
        except (ImportError, NameError, SyntaxError):
            raise  # of this agent itself, which a trial has to notice
        except Exception as error:
            link, self.link = self.link, None
            if link:
                link.wire.close()
            self.limits.step()
            if type(error) is MemoryError:
                raise  # in the middle of a packet: what follows would be read as packets
            from .enter import lose

            lose(error)

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
        """Get a client that is connected. Raises Transient."""
        if not self.link:
            from .dial import linked
            from .enter import enter

            self.client = enter(self.config, linked(self.config, self.limits))
            self.link = self.client.sock
        self.prepare(self.client, self.client.wait_msg)

    def prepare(self, client, wait_msg):
        """Listen to client, whose packets wait_msg() reads."""
        self.client = client
        client.set_callback(self.on_message)
        self._read = wait_msg
        client.wait_msg = self._wait

    def _wait(self):
        # umqtt.simple also waits in subscribe() and publish(): a PINGRESP that comes there would
        # be lost, and waiting for it later would never end.
        self.heard = False
        self.link.kind = None
        kind = self._read()
        # None for a PINGRESP, and on old releases for a message as well.
        if kind is None and not self.heard:
            self.pings -= 1
        return kind

    def on_message(self, topic, payload):
        """What the client calls with each message, both bytes."""
        self.heard = True
        skipped, self.link.skipped = self.link.skipped, 0
        if topic == self.topic and payload != self.echo:
            late_ms = 0
            if self._fenced_at is not None:
                late_ms = max(1, time.ticks_diff(time.ticks_ms(), self._fenced_at))
            from .request import note

            note(self, payload, skipped, late_ms)

    def listen(self, wait_ms):
        """Hear what comes within wait_ms, up to what is retained. Raises OSError."""
        end = time.ticks_add(time.ticks_ms(), min(wait_ms, self.limits.next_ms()))
        # There is one retained message at most, even if it asks for nothing.
        while not self.pending() and self.late_ms < -1:
            # An application's messages may come in between.
            if not self.link.readable(max(0, time.ticks_diff(end, time.ticks_ms()))):
                return
            self.hear()

    def hear(self):
        """Wait for one message. Raises OSError."""
        if self.client.sock is not self.link:
            raise OSError(_ECONNRESET)  # a callback has connected it again: no limits there
        self.client.wait_msg()
