"""The steps of a cycle at which a link may fall silent, and what the node may take for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from host_sim.campaigns.badlink.lane import NOT_CLEARED
from host_sim.console.faults import Faults

#: How long the resolver of these nodes is silent before it gives up.
DNS_S = 1.5
_BODY = 20_000
_HOUR_MS = 3_600_000

#: The node's application, for `% (DNS_S, fake, watchdog_s)`. It tells the longest time for which a
#: watchdog was not fed, waits of the port included.
MAIN = """
import machine
import socket
import sys
import time
import ota

class Watch:
    def __init__(self, timeout_s):
        self.longest = 0
        self._wdt = machine.WDT(timeout=timeout_s * 1000) if timeout_s else None
        self._fed = time.ticks_ms()

    def feed(self):
        now = time.ticks_ms()
        self.longest = max(self.longest, time.ticks_diff(now, self._fed))
        self._fed = now
        if self._wdt:
            self._wdt.feed()

class Sockets:
    def __init__(self, numbers, fault):
        self._numbers = numbers
        self._fault = fault

    def __getattr__(self, name):
        return getattr(socket, name)

    def getaddrinfo(self, *arguments):
        self._numbers -= 1
        if not self._numbers:
            self._fault()
        return socket.getaddrinfo(*arguments)

def silent_resolver():
    time.sleep(%r)
    raise OSError(-2)

def hang():
    while True:
        time.sleep(1)

%s
watch = Watch(%d)
agent = ota.Agent(ota.load_config(), watchdog=watch)
print("check:", agent.check())
if agent.reason:
    print("reason:", agent.reason)
watch.feed()
print("longest:", watch.longest)
machine.deepsleep(60_000)
"""

# Only at power-up, so that the next wake finds a network that works.
_RESOLVER = """
if machine.reset_cause() == machine.PWRON_RESET:
    sys.modules["socket"] = Sockets(%d, silent_resolver)
"""
HANG = 'sys.modules["socket"] = Sockets(%d, hang)\n'


@dataclass(frozen=True)
class Limit:
    """A time in terms of the configuration: `waits` timeout_s and `more_s`, or `cycles` cycle_s.

    `least`: so many of timeout_s at least, or the hole was not there.
    """

    waits: float = 1
    more_s: float = 0.0
    cycles: int = 0
    least: float = 1

    def seconds(self, timeout_s: float, cycle_s: float) -> float:
        """The limit in seconds."""
        return self.cycles * cycle_s or self.waits * timeout_s + self.more_s

    def __str__(self) -> str:
        if self.cycles:
            return f"{self.cycles} × cycle_s" if self.cycles > 1 else "cycle_s"
        if not self.waits:
            return "the port's resolver"
        return (f"{self.waits:g} × " if self.waits != 1 else "") + (
            f"timeout_s + {self.more_s:g} s" if self.more_s else "timeout_s"
        )


@dataclass(frozen=True)
class Hole:
    """Where the link falls silent, and how.

    `profile` is that of the link `link`; `{at}` in it becomes `at`, a number of bytes that come
    down or the name of a packet. With `then` that is the link's profile for new connections, once
    this one is silent. `reason` begins what the node says.
    """

    what: str
    reason: str
    limit: Limit = field(default_factory=Limit)
    link: str = "mqtt"
    profile: str = ""
    at: str | int = 0
    then: str = ""
    tls: bool = False
    faults: Callable[[float], Faults] = lambda timeout_s: Faults()
    fake: str = ""


_NO_ANSWER = "can not connect: OSError 110"
_NO_BROKER = "can not connect: the host does not answer, OSError"
_NO_TLS = "TLS failed, OSError 110"
_SILENT = "hold=both:{at}"
_BODY_LIMIT = Limit(4, 1.5, least=3.5)
_DRIP_LIMIT = Limit(4)

HOLES = {
    "dns-broker": Hole(
        "the resolver, for the broker's name",
        "can not connect: the host's name is not known",
        Limit(0, DNS_S, least=0),
        fake=_RESOLVER % 1,
    ),
    "connect-broker": Hole("connect to the broker", _NO_BROKER, profile="connect=drop"),
    "hello-broker": Hole(
        "the broker's TLS, after ClientHello",
        f"can not connect: {_NO_TLS}",
        profile="hold=0",
        tls=True,
    ),
    "flight-broker": Hole(
        "half-way through the broker's TLS handshake",
        f"can not connect: {_NO_TLS}",
        profile="hold=600",
        tls=True,
    ),
    "drip-broker": Hole(
        "the broker's TLS handshake drips",
        f"can not connect: {_NO_TLS}",
        Limit(cycles=1, least=3),
        profile="drip={drip}ms",
        tls=True,
    ),
    "connack": Hole("CONNACK", _NO_ANSWER, profile=_SILENT),
    "suback": Hole("SUBACK", _NO_ANSWER, profile=_SILENT, at="suback"),
    "retained": Hole("the retained request, half-way", _NO_ANSWER, profile=_SILENT, at="retained"),
    "pingresp": Hole("PINGRESP, behind the request", _NO_ANSWER, profile=_SILENT, at="pingresp"),
    "dns-server": Hole(
        "the resolver, for the server's name",
        "can not download: the host's name is not known",
        Limit(0, DNS_S, least=0),
        fake=_RESOLVER % 2,
    ),
    "connect-server": Hole(
        "connect to the server",
        "can not download: the host does not answer, OSError",
        link="https",
        profile="connect=drop",
    ),
    "hello-server": Hole(
        "the server's TLS, after ClientHello",
        f"can not download: {_NO_TLS}",
        link="https",
        profile="hold=0",
    ),
    "flight-server": Hole(
        "half-way through the server's TLS handshake",
        f"can not download: {_NO_TLS}",
        link="https",
        profile="hold=600",
    ),
    "drip-server": Hole(
        "the server's TLS handshake drips",
        f"can not download: {_NO_TLS}",
        _DRIP_LIMIT,
        link="https",
        profile="drip={drip}ms",
    ),
    "header": Hole(
        "the answer's header",
        "can not download: OSError 110",
        faults=lambda _: Faults(head_drip_ms=_HOUR_MS),
    ),
    "header-drips": Hole(
        "the answer's header drips",
        "can not download: OSError 110",
        _DRIP_LIMIT,
        faults=lambda timeout_s: Faults(head_drip_ms=int(timeout_s * 250)),
    ),
    "body-drop": Hole(
        "the body; then nobody can connect",
        "can not download: the host does not answer, OSError",
        _BODY_LIMIT,
        link="https",
        profile=_SILENT,
        at=_BODY,
        then="connect=drop",
    ),
    "body-hold": Hole(
        "the body; then new connections are silent",
        f"can not download: {_NO_TLS}",
        _BODY_LIMIT,
        link="https",
        profile=_SILENT,
        at=_BODY,
        then="connect=hold",
    ),
    "body-drips": Hole(
        "the body comes below min_rate",
        "can not download: the body stopped, OSError 110",
        Limit(cycles=1, least=2),
        faults=lambda _: Faults(drip=20),
    ),
    "drip-report": Hole(
        "the control channel drips when the report is due",
        "later can not connect: ",  # a wait is over, or all of the time
        Limit(cycles=3, least=6),
        at="pingresp",
        then="drip={drip}ms",
    ),
    "clear": Hole("PUBACK of the clear", NOT_CLEARED, profile=_SILENT, at="clear"),
    "clear-drop": Hole(
        "PUBACK of the clear; then nobody can connect",
        _NO_BROKER,
        Limit(3, least=2),
        profile=_SILENT,
        at="clear",
        then="connect=drop",
    ),
    "report": Hole("PUBACK of the report", _NO_ANSWER, profile=_SILENT, at="report"),
    "report-drop": Hole(
        "PUBACK of the report; then nobody can connect",
        _NO_BROKER,
        Limit(2, least=2),
        profile=_SILENT,
        at="report",
        then="connect=drop",
    ),
}
