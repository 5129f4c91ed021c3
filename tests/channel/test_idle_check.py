"""What a check costs that finds nothing, on a link with a round trip of 200 ms.

By a node that has learned that its broker keeps the order; with others: test_patience.py.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from host_sim.link import Link, Segment, count_round_trips
from host_sim.link.wiretap import Packet, Wiretap
from host_sim.node import stock
from host_sim.node.node import Run, run_code
from tests.brokers import available_brokers
from tests.busy import factor
from tests.conftest import MakeSite
from tests.secrecy import WatchedSite

RTT_S = 0.2
#: How long the field firmware listens when there is nothing to hear.
FIELD_LISTENS_S = 5
MAIN = b"""
import machine
import time
import ota

agent = ota.Agent(ota.load_config())
began = time.ticks_ms()
outcome = agent.check()
print("check:", outcome, time.ticks_diff(time.ticks_ms(), began))
machine.deepsleep(60_000)
"""


@dataclass
class Idle:
    """One idle check: what passed, as the node saw it."""

    run: Run
    segments: list[Segment]
    packets: list[Packet]

    @property
    def seconds(self) -> float:
        """How long it took, by the node's own clock."""
        match = re.search(r"check: idle (\d+)", self.run.output)
        assert match, self.run.output
        return int(match[1]) / 1000

    def size(self, direction: str) -> int:
        """Bytes that went one way, above TCP."""
        return sum(s.length for s in self.segments if s.direction == direction)


def idle_check(site: WatchedSite, port: int) -> Idle:
    """The second wake's, so that nothing is there for the first time.

    Of a node that remembers three contacts, and a retained message that was not late.
    """
    with (
        Wiretap(port) as tap,
        Link("127.0.0.1", tap.port, f"rtt={RTT_S:g}s") as link,
    ):
        site.configure(mqtt={"port": link.port, "grace_ms": -1})
        memory = b"ota\2\0\3\0\1"
        site.node.rtc_memory = len(memory).to_bytes(2, "little") + memory
        run = site.run(wakes=2, cause="deepsleep")
        assert run.output.count("check: idle") == 2
        # The last words are still on their way.
        assert link.wait_for(lambda: [c.ended for c in link.connections] == ["closed"] * 2)
        first, second = (
            Idle(
                run,
                sorted((s for s in link.segments if s.connection == n), key=lambda s: s.at_node),
                [p for p in tap.packets if p.connection == n],
            )
            for n in (0, 1)
        )
    assert first.size("up") == second.size("up")
    return second


@pytest.mark.parametrize("broker", available_brokers())
def test_one_round_trip_after_connack(make_site: MakeSite, broker: str):
    site = make_site({"main.py": MAIN}, broker=broker)
    idle = idle_check(site, site.console.ports.mqtt)
    # What passed, packet by packet, …
    assert [(p.direction, p.type) for p in idle.packets] == [
        ("up", "CONNECT"),
        ("down", "CONNACK"),
        ("up", "SUBSCRIBE"),
        ("up", "PINGREQ"),
        ("down", "SUBACK"),
        ("down", "PINGRESP"),
        ("up", "DISCONNECT"),
    ]
    # … and how much of it was under way at a time.
    connect, connack, subscribe, *answers, disconnect = idle.segments
    assert (connect.direction, connack.direction) == ("up", "down")
    assert subscribe.length == idle.packets[2].length + idle.packets[3].length
    assert {s.direction for s in answers} == {"down"}
    assert disconnect.direction == "up"
    assert count_round_trips(idle.segments) == 2
    assert count_round_trips(idle.segments[2:]) == 1

    # Nothing is waited for beside that round trip.
    assert RTT_S <= disconnect.at_node - connack.at_node < 1.5 * RTT_S * factor()
    assert idle.seconds < FIELD_LISTENS_S / 2 * factor()  # TCP's handshake and CONNECT included
    assert idle.run.ops == 0
    assert idle.size("up") == 232
    assert idle.size("down") == 4 + 5 + 2


@pytest.mark.few(1)
@pytest.mark.parametrize("broker", available_brokers())
def test_one_round_trip_after_connack_over_tls(make_site: MakeSite, broker: str):
    site = make_site({"main.py": MAIN}, broker=broker, tls=True)
    idle = idle_check(site, site.console.ports.mqtts)
    sent = [n for n, segment in enumerate(idle.segments) if segment.direction == "up"]
    connect, subscribe, disconnect = sent[-3:]
    assert count_round_trips(idle.segments[subscribe:disconnect]) == 1
    assert count_round_trips(idle.segments[connect:disconnect]) == 2
    assert count_round_trips(idle.segments[:disconnect]) <= 4
    connack = idle.segments[subscribe - 1]
    assert idle.segments[disconnect].at_node - connack.at_node < 1.5 * RTT_S * factor()
    assert idle.seconds < FIELD_LISTENS_S / 2 * factor()
    assert idle.run.ops == 0
    assert idle.size("up") < 700
    assert idle.size("down") < 1500


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        ("", set()),
        # Its names would not be those of the next check's module.
        ("import umqtt.simple", {"umqtt", "umqtt.simple"}),
        ("agent.begin()", {"umqtt", "umqtt.simple"}),
    ],
    ids=["nothing", "the application imports it", "the application gets its client"],
)
def test_what_stays_in_ram(make_site: MakeSite, compiled: Path, before: str, kept: set[str]):
    """In the bare interpreter: the simulator has umqtt.simple in RAM from the start."""
    code = f"import sys\nimport ota\nagent = ota.Agent({make_site().config})\n{before}\n"
    code += "print(agent.check())\n" * 2 + "print(sorted(sys.modules))\n"
    run = run_code(code, path=[compiled, stock.ensure()], timeout_s=60)
    *_, first, second, names = run.output.splitlines()
    assert (first, second) == ("idle", "idle"), run.output
    ours = {"ota", "ota.agent", "ota.errors", "ota.kept"}
    found = {name for name in ast.literal_eval(names) if name.startswith(("ota", "umqtt"))}
    assert found == ours | kept
