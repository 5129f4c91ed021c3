"""Control channels that break or fall silent, and brokers that are not there.

All places are tried by `make badlink`; here it is a sample of them.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator

import pytest

from host_sim import sample
from host_sim.campaigns.badlink.control import PACKAGE, STEP, ControlChannel
from host_sim.campaigns.badlink.lane import Lane
from host_sim.campaigns.badlink.parts import run_part
from host_sim.link import Link
from tests.brokers import available_brokers, need
from tests.channel.test_own_client import kick
from tests.conftest import MakeSite
from tests.secrecy import WatchedSite

UP = {"CONNECT", "SUBSCRIBE", "PINGREQ", "PUBLISH", "PUBACK", "DISCONNECT"}
DOWN = {"CONNACK", "SUBACK", "PINGRESP", "PUBLISH", "PUBACK"}


@pytest.fixture(scope="module", params=available_brokers())
def channel(request: pytest.FixtureRequest) -> Iterator[ControlChannel]:
    with ControlChannel(need(request.param)) as channel:
        yield channel


def test_every_boundary_and_every_seventh_byte_is_a_case(channel: ControlChannel):
    packets, cases = channel.packets(), channel.cases()
    for direction, types in (("up", UP), ("down", DOWN)):
        mine = [packet for packet in packets if packet.direction == direction]
        assert {packet.type for packet in mine} == types
        ends = [sum(packet.length for packet in mine[:n]) for n in range(len(mine) + 1)]
        for offset in {*ends, *range(STEP, ends[-1], STEP)}:
            assert f"{direction}.reset.{offset}" in cases
            assert f"{direction}.silence.{offset}" in cases


@pytest.mark.few(1)
def test_a_sample_of_them(channel: ControlChannel):
    cases = random.Random(channel.name).sample(channel.cases(), 14)
    result = run_part(channel, cases)
    assert len(result.outcomes) == 14
    assert result.failures == []


@pytest.mark.few(1)
def test_the_judge_can_say_no(channel: ControlChannel):
    """A link that never comes back, a request that is not taken, a report too many."""
    with contextlib.ExitStack() as stack:
        lane: Lane = channel.open(stack)
        lane.begin(channel.fuid)
        lane.mqtt.profile = "cut=each:100"
        wake = lane.run(wakes=3)
        wrong = lane.wrong_end(wake, channel.fuid, PACKAGE)
        assert [text.split()[1] for text in wrong] == ["new", "request", "[]"]
        lane.begin(channel.fuid)
        wake = lane.run()
        assert lane.wrong_end(wake, channel.fuid, PACKAGE) == []
        other = lane.wrong_end(wake, "another", PACKAGE | {"x": b""})
        assert [text.split()[0] for text in other] == ["the", "reports"]


@contextlib.contextmanager
def behind_a_link(site: WatchedSite) -> Iterator[Link]:
    """The site's node, flashed anew, with a link between it and the broker."""
    with Link("127.0.0.1", site.console.ports.mqtt) as link:
        site.configure(mqtt={"port": link.port})
        yield link


@contextlib.contextmanager
def broker_goes_down(site: WatchedSite, link: Link) -> Iterator[None]:
    """As soon as the node downloads, which takes it a second."""
    site.console.faults.pause_every, site.console.faults.pause_ms = 10_000, 500

    def go_down() -> None:
        if site.console.wait_for(lambda: bool(site.console.downloads)):
            link.profile = "connect=refuse"

    thread = threading.Thread(target=go_down)
    thread.start()
    yield
    thread.join()


FILLER = {"filler.bin": random.Random(6).randbytes(15_000)}
# It is held at the commit until the broker has gone.
COMMITTED = b"""
import machine
import os
import ota
import socket

def progress(step, value):
    if step == "commit":
        s = socket.socket()
        s.connect(socket.getaddrinfo("127.0.0.1", int(os.getenv("COMMITTED")))[0][-1])
        s.read(1)
        s.close()

print("check:", ota.Agent(ota.load_config(), progress).check())
machine.deepsleep(60_000)
"""


@pytest.mark.parametrize("broker", available_brokers())
def test_a_failure_waits_for_the_broker(make_site: MakeSite, broker: str):
    """It is down for 20 wakes, in which nothing is written to flash."""
    site = make_site(broker=broker)
    with behind_a_link(site) as link:
        damaged = bytearray(sample.tar_gz(FILLER))
        damaged[-6] ^= 1
        fuid = site.ask(bytes(damaged))
        with broker_goes_down(site, link):
            assert "failed can not apply: bad archive, CRC-32 differs" in site.run().output
        down = site.run(cause="deepsleep", wakes=20)
        assert down.output.count("check: later") == 20
        assert down.output.count("reason: can not connect: the host does not answer") == 20
        assert down.ops == 0
        assert site.reports() == []
        assert site.retained() is not None
        link.profile = ""
        assert "check: failed" in site.run(cause="deepsleep").output
        reason = "can not apply: bad archive, CRC-32 differs"
        assert site.reports() == [{"e": 2, "i": fuid, "m": reason}]
        assert site.retained() is None
        assert "check: idle" in site.run(cause="deepsleep").output
    assert len(site.console.downloads) == 1
    assert site.flash_files() == site.files


@pytest.mark.slow
@pytest.mark.parametrize("broker", available_brokers())
def test_an_install_waits_for_the_broker(make_site: MakeSite, broker: str):
    """The new version runs on trial all the while, and is neither trusted nor rolled back."""
    site = make_site({"main.py": COMMITTED}, broker=broker)
    package = FILLER | {"main.py": sample.main_py(2)}
    with behind_a_link(site) as link, socket.create_server(("127.0.0.1", 0)) as told:
        site.node.environ = {"COMMITTED": str(told.getsockname()[1])}
        fuid = site.ask(sample.tar_gz(package))

        def go_down() -> None:
            connection, _ = told.accept()
            link.profile = "connect=refuse"
            kick(site)
            connection.close()

        thread = threading.Thread(target=go_down)
        thread.start()
        assert "version 2 runs" in site.run().output
        thread.join()
        down = site.run(cause="deepsleep", wakes=20)
        assert down.output.count("version 2 runs") == 20
        assert down.output.count("check: later") == 20
        assert site.reports() == []
        link.profile = ""
        assert "check: confirmed" in site.run(cause="deepsleep").output
        assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
        assert site.retained() is None
        assert "check: idle" in site.run(cause="deepsleep").output
    assert len(site.console.downloads) == 1
    expected = {f"/{name}": content for name, content in package.items()}
    assert site.flash_files() == site.files | expected
