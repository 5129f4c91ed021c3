"""Contacts of a node in virtual time: the agent's own Control at a broker that is a schedule."""

import sys

import ota
from ota import backoff, control, dial
from ota.halves import finish
from ota.wire import Limits

_IDS = {"device_id": "d", "device_key": "k", "control_channel": "c"}
REQUEST = b'[{"n":"e","v":0},{"n":"i","vs":"fa8884d2"},{"n":"t","vs":".tar"},{"n":"s","v":10240}]'
_SUBACK, _PONG = 0x90, None


class Clock:
    """In the place of the module time, for control.py."""

    def __init__(self):
        self.now = 0

    def ticks_ms(self):
        return int(self.now)

    def ticks_add(self, ticks, ms):
        return ticks + ms

    def ticks_diff(self, a, b):
        return a - b


class Rtc:
    """In the place of machine.RTC: what is kept through sleeps."""

    kept = b""
    writes = 0

    def memory(self, new=None):
        if new is None:
            return Rtc.kept
        Rtc.kept = new
        Rtc.writes += 1


class _Machine:
    RTC = Rtc


class _Os:
    """In the place of the module os, for dial.py: what there is on flash."""

    has = ()

    def stat(self, path):
        if path not in self.has:
            raise OSError(2)


clock = Clock()
flash = _Os()
control.time, dial.os = clock, flash
sys.modules["machine"] = _Machine


class Broker:
    """Sends what is retained late_ms after SUBACK and PINGRESP, which take trip_ms.

    early: before them. pong_first: PINGRESP before SUBACK.
    """

    def __init__(self, trip_ms=100, late_ms=0, early=False, pong_first=False):
        self.trip_ms, self.late_ms = trip_ms, late_ms
        self.early, self.pong_first = early, pong_first
        self.retained = b""

    def schedule(self):
        """[(at, what, retained)] of what a subscription now leads to, in their order."""
        at = clock.now + self.trip_ms
        answers = [(at, _PONG, 0), (at, _SUBACK, 0)]
        if not self.pong_first:
            answers.reverse()
        if self.retained:
            one = [(at + (0 if self.early else self.late_ms), self.retained, 1)]
            answers = one + answers if self.early else answers + one
        return answers


class _Link:
    """Connection and client at a time, as Control uses them."""

    skipped = 0
    kind = None

    def __init__(self, broker):
        self.broker = broker
        self.sock = self
        self.coming = []

    def send_after(self, data):
        """The PINGREQ: the schedule has its answer."""

    def set_callback(self, callback):
        self.callback = callback

    def subscribe(self, topic, qos):
        self.topic = topic
        self.coming = self.broker.schedule()
        while self.wait_msg() != _SUBACK:
            pass

    def wait_msg(self):
        at, what, retained = self.coming.pop(0)
        clock.now = max(clock.now, at)
        if type(what) is bytes:
            self.kind = 0x30 | retained
            self.callback(self.topic, what)
            return 0x30
        return what

    def readable(self, wait_ms):
        if self.coming and self.coming[0][0] <= clock.now + wait_ms:
            clock.now = max(clock.now, self.coming[0][0])
            return True
        clock.now += wait_ms
        return False


class Node(control.Control):
    """A Control whose connection is a schedule."""

    broker = None

    def open(self):
        self.link = _Link(self.broker)
        self.prepare(self.link, self.link.wait_msg)


def contact(broker, patient=False, grace_ms=-1, halves=None):
    """One contact as Agent.check() makes it, or with begin(); halves(node) is called in between.

    Returns (whether the request was heard, how long it took from SUBSCRIBE on).
    """
    config = ota.config.complete(dict(_IDS, mqtt={"grace_ms": grace_ms}))
    node = Node(config, Limits(20000, 900000), None, dial.look(config))
    node.broker = broker
    began = clock.now
    if halves:
        node.trip_ms = node.begin()
        halves(node)
        finish(node, patient)
    else:
        node.connect(patient)
    if node.learned:
        backoff.remember(None, node.learned)
    return node.pending() is not None, clock.now - began


def kept():
    """What is known of the broker: (contacts, how late a retained message came in ms)."""
    memory = sys.modules["ota.kept"][0]
    return memory[-3], int.from_bytes(memory[-2:], "big") - 1


def sleep():
    """Deep sleep: the RTC's memory alone is kept."""
    global backoff
    sys.modules.pop("ota.kept", None)
    ota.drop("backoff")
    from ota import backoff


def power_off():
    """Nothing is kept."""
    Rtc.kept = b""
    sleep()


def seconds_of(wakes, late_ms, early=False, asked=True, trip_ms=100):
    """Seconds from SUBSCRIBE to the end of the contact, over so many wakes after power-on.

    asked: whether the first wake finds a request; the others find nothing.
    """
    power_off()
    broker = Broker(trip_ms, late_ms, early)
    total = 0
    for n in range(wakes):
        broker.retained = REQUEST if asked and n == 0 else b""
        heard, took = contact(broker)
        if heard != bool(broker.retained):
            raise AssertionError("not heard")
        total += took
        sleep()
    return total / 1000
