"""What a node with `"stat": true` tells on `…/stat`, and that nothing of it touches an update."""

from __future__ import annotations

import contextlib
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host_sim import sample
from host_sim.campaigns.orders.broker import Broker
from host_sim.campaigns.scripts.steps import Steps
from host_sim.console import Console
from host_sim.link.wiretap import Wiretap
from host_sim.node.node import run_code
from host_sim.sample import DEVICE_ID
from tests.channel.test_asyncio_client import asyncio_site, source
from tests.channel.test_serve import QUICK, Serving, serving
from tests.channel.test_withdrawn import held, main_py
from tests.conftest import FIRMWARE, MakeSite
from tests.insighio.fleet import check_updated, field_node
from tests.insighio.fleet import package as field_package
from tests.package.test_signed_nodes import KEYS, NEW, OLD, make_package
from tests.secrecy import WatchedSite

STAT = {"stat": True}
FILLER = random.Random(5).randbytes(60_000)
#: Records of any pack, in the order of docs/protocol.md.
ORDER = "eiscagbdhrqop"
MOST = 200
POWER_ON, HARD, DEEPSLEEP = 1, 2, 4

Pack = dict[str, Any]


def read(payload: bytes) -> Pack:
    """A pack by names, after a look at its form."""
    assert len(payload) <= MOST
    records = json.loads(payload)
    found = {}
    for record in records:
        name, (kind, value) = record.pop("n"), next(iter(record.items()))
        assert len(record) == 1
        assert {"v": int, "vs": str, "vb": bool}[kind] is type(value)
        found[name] = value
    assert len(found) == len(records)
    assert [ORDER.index(name) for name in found] == sorted(ORDER.index(name) for name in found)
    return found


class Fleet:
    """All packs that a console's broker passes on from the node, in their order."""

    def __init__(self, console: Console, device: str = DEVICE_ID) -> None:
        self._payloads: list[bytes] = []
        self._fences = 0
        self._condition = threading.Condition()
        self._topic = console.topic(device, "stat")
        self._client = console._connect(self._hear)
        assert self._client.subscribe(self._topic, 1)

    def _hear(self, message: Any) -> None:
        with self._condition:
            assert not message.retain
            self._payloads.append(message.payload)
            self._condition.notify_all()

    @property
    def packs(self) -> list[Pack]:
        """What the node has published so far."""
        self._fences += 1
        self._client.publish(self._topic, b"fence")
        with self._condition:
            came = self._condition.wait_for(
                lambda: self._payloads.count(b"fence") == self._fences, 10
            )
            assert came
            return [read(payload) for payload in self._payloads if payload != b"fence"]

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def listen() -> Iterator[Any]:
    with contextlib.ExitStack() as stack:

        def begin(site: WatchedSite) -> Fleet:
            fleet = Fleet(site.console, site.config["device_id"])
            stack.callback(fleet.close)
            return fleet

        yield begin


@pytest.fixture
def steps() -> Iterator[Steps]:
    with Steps() as steps:
        yield steps


def without(pack: Pack, *names: str) -> Pack:
    """A pack without records that differ from run to run, which have to be there."""
    assert set(names) <= pack.keys()
    return {name: value for name, value in pack.items() if name not in names}


# -- what it tells --------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_an_update(make_site: MakeSite, listen: Any, tls: bool):
    site = make_site(config=STAT, tls=tls)
    fleet = listen(site)
    package = sample.tar({"main.py": sample.main_py(2), "filler.bin": FILLER})
    fuid = site.ask(package, "p.tar")
    run = site.run()
    assert "check: confirmed" in run.output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    begin, end = fleet.packs
    size = len(package)
    about = {"i": fuid, "a": 1, "r": POWER_ON}
    assert without(begin, "h") == about | {"e": 0, "s": size, "g": 0, "b": 0}
    assert without(end, "h", "d") == about | {"e": 1, "c": False, "b": size}
    assert 0 <= end["d"] < 60
    assert 20_000 < end["h"] <= begin["h"]


def test_a_report_of_the_confirm(make_site: MakeSite, listen: Any):
    """It comes from the boot after the install, which knows less."""
    site = make_site(config=STAT | {"report": "confirmed"})
    fleet = listen(site)
    fuid = site.ask(sample.tar({"main.py": sample.main_py(2)}), "p.tar")
    assert "check: confirmed" in site.run().output
    begin, end = fleet.packs
    assert begin["e"] == 0
    assert without(end, "h") == {"e": 1, "i": fuid, "c": True, "r": HARD}


def test_nothing_new(make_site: MakeSite, listen: Any):
    site = make_site({"main.py": sample.main_py(1)}, config=STAT)
    fleet = listen(site)
    fuid = site.ask(sample.tar({"main.py": sample.main_py(1)}), "p.tar")
    assert "check: installed" in site.run().output
    begin, end = fleet.packs
    assert (begin["e"], end["e"], end["c"], end["i"]) == (0, 1, True, fuid)


@pytest.mark.parametrize("report", ["installed", "confirmed"])
def test_a_roll_back(make_site: MakeSite, listen: Any, report: str):
    site = make_site(config=STAT | {"report": report})
    fleet = listen(site)
    fuid = site.ask(sample.tar({"main.py": b"1/0\n"}), "p.tar")
    run = site.run(timeout_s=60)
    assert "check: rolled_back" in run.output, run.output
    assert site.reports()[-1]["m"] == "rolled back: 3 boots without confirm"
    events = [pack["e"] for pack in fleet.packs]
    assert events == ([0, 1, 2] if report == "installed" else [0, 2])
    assert without(fleet.packs[-1], "h", "r") == {"e": 2, "i": fuid}


def test_a_refusal(make_site: MakeSite, listen: Any):
    """One that comes before any attempt has an end, and no beginning."""
    site = make_site(config=STAT)
    fleet = listen(site)
    fuid = site.console.add_package(b"x", "p.tar").fuid
    large = [{"n": "e", "v": 0}, {"n": "i", "vs": fuid}, {"n": "t", "vs": ".tar"}]
    site.console.request_raw(DEVICE_ID, json.dumps([*large, {"n": "s", "v": 10**300}]))
    assert "check: failed" in site.run().output
    assert site.reports()[-1]["m"].startswith("not enough space")
    assert [without(pack, "h") for pack in fleet.packs] == [{"e": 2, "i": fuid, "r": POWER_ON}]
    # What makes no sense has no file id either.
    site.console.request_raw(DEVICE_ID, "nonsense")
    assert "check: failed" in site.run().output
    assert without(fleet.packs[-1], "h") == {"e": 2, "i": "", "r": POWER_ON}


def test_a_damaged_package(make_site: MakeSite, listen: Any):
    site = make_site(config=STAT)
    fleet = listen(site)
    package = bytearray(sample.tar({"main.py": sample.main_py(2)}))
    package[3] ^= 1
    fuid = site.ask(bytes(package), "p.tar")
    assert "check: failed" in site.run().output
    begin, end = fleet.packs
    assert begin["e"] == 0
    found = without(end, "h", "d")
    assert 0 < found.pop("b") <= len(package)
    assert found == {"e": 2, "i": fuid, "a": 1, "r": POWER_ON}


def test_over_several_wakes(make_site: MakeSite, listen: Any):
    """One beginning for each attempt: a lost one hides nothing, the next tells how far it is."""
    site = make_site(config=STAT | {"budget": 25_000})
    fleet = listen(site)
    package = sample.tar({"filler.bin": FILLER, "main.py": sample.main_py(2)})
    fuid = site.ask(package, "p.tar")
    run = site.run(wakes=3)
    assert "version 2 runs" in run.output
    *begins, end = fleet.packs
    assert [(p["e"], p["i"], p["a"], p["s"]) for p in begins] == [(0, fuid, 1, len(package))] * 3
    assert begins[0]["g"] == begins[0]["b"] == 0
    for number, pack in enumerate(begins[1:], 1):
        assert number * 20_000 < pack["g"] <= pack["b"] <= number * 25_000
    assert [pack["r"] for pack in begins] == [POWER_ON, DEEPSLEEP, DEEPSLEEP]
    assert (end["e"], end["i"], end["a"]) == (1, fuid, 1)
    assert len(package) <= end["b"] <= len(package) + 5_000
    assert 0 <= end["d"] < 600


def test_the_last_of_fruitless_attempts(make_site: MakeSite, listen: Any):
    """`a` counts them."""
    site = make_site(config=STAT | {"max_attempts": 2, "timeout_s": 2})
    fleet = listen(site)
    fuid = site.ask(sample.tar({"main.py": sample.main_py(2)}), "p.tar")
    site.console.faults.status = 503
    site.run(wakes=2)
    assert [(p["e"], p["a"]) for p in fleet.packs] == [(0, 1), (0, 2), (2, 2)]
    assert site.reports()[-1]["i"] == fuid


@pytest.mark.parametrize("client", [False, True], ids=["own client", "client="])
def test_withdrawn(make_site: MakeSite, steps: Steps, listen: Any, client: bool):
    site = make_site({"main.py": main_py(1, client)}, config=STAT, broker="mosquitto")
    fleet = listen(site)
    tree = {"main.py": main_py(2, client), "filler.bin": FILLER}
    fuid = site.ask(sample.tar(tree), "v2.tar")
    run = held(site, steps, {"download": lambda: site.console.clear(DEVICE_ID)})
    assert "check: idle None False" in run.output, run.output
    assert site.reports() == []
    assert [(p["e"], p["i"]) for p in fleet.packs] == [(0, fuid), (3, fuid)]
    assert site.flash_files() == site.files


def test_withdrawn_between_two_wakes(make_site: MakeSite, listen: Any):
    site = make_site(config=STAT | {"budget": 25_000})
    fleet = listen(site)
    fuid = site.ask(sample.tar({"filler.bin": FILLER}), "p.tar")
    site.run()
    site.console.clear(DEVICE_ID)
    # Patient contacts, or a silence proves nothing.
    assert "check: idle" in site.run(wakes=2).output
    begin, end = fleet.packs
    assert (begin["e"], end["e"], end["i"], end["a"]) == (0, 3, fuid, 1)
    assert end["b"] > 20_000
    assert site.flash_files() == site.files
    # Once.
    site.run(cause="deepsleep", wakes=2)
    assert len(fleet.packs) == 2


def test_replaced(make_site: MakeSite, steps: Steps, listen: Any):
    site = make_site({"main.py": main_py(1)}, config=STAT, broker="mosquitto")
    fleet = listen(site)
    trees = [{"main.py": main_py(n), "filler.bin": FILLER} for n in (2, 3)]
    first = site.ask(sample.tar(trees[0]), "v2.tar")
    asked: list[str] = []
    run = held(
        site,
        steps,
        {"download": lambda: asked.append(site.ask(sample.tar(trees[1]), "v3.tar"))},
    )
    assert "version 3 runs" in run.output
    assert [(p["e"], p["i"]) for p in fleet.packs] == [
        (0, first),
        (3, first),
        (0, asked[0]),
        (1, asked[0]),
    ]


def test_sequence_numbers(make_site: MakeSite, tmp_path: Path, listen: Any):
    """Of signed packages: the floor before, and after."""
    site = make_site(OLD, config=KEYS | STAT)
    fleet = listen(site)
    for number, tree in (7, NEW), (12, NEW | {"main.py": sample.main_py(3)}):
        site.ask(make_package(tmp_path / "desk", tree, "--sequence", number), "p.tar")
        assert "check: confirmed" in site.run().output
    found = [(p["e"], p.get("q"), p.get("p")) for p in fleet.packs]
    assert found == [(0, None, None), (1, 7, None), (0, None, 7), (1, 12, 7)]


@pytest.mark.parametrize("report", ["installed", "confirmed"])
def test_a_node_that_stays(make_site: MakeSite, listen: Any, report: str):
    """It knows which version it has confirmed, as long as it is not reset."""
    site = make_site({"main.py": serving(1)}, config=QUICK | STAT | {"report": report})
    fleet = listen(site)
    with Serving(site) as node:
        node.wait_for("version 1 serves")
        first = site.ask(sample.tar_gz({"main.py": serving(2)}))
        node.wait_for("ota: confirm")
        second = site.ask(sample.tar_gz({"main.py": serving(3)}))
        node.wait_for("version 3 serves")
        node.wait_for("ota: confirm", 2)
        site.console.request_raw(DEVICE_ID, "nonsense")
        site.console.wait_for_report(DEVICE_ID, 3)
        again = site.ask(sample.tar_gz({"main.py": serving(3)}))
        site.console.wait_for_report(DEVICE_ID, 4)
        node.wait_for("ota: report", 4)
    packs = fleet.packs
    assert [(p["e"], p["i"]) for p in packs[:6]] == [
        *((0, first), (1, first)),
        *((0, second), (1, second)),
        (2, ""),
        (0, again),
    ]
    # After the reset nobody knows it.
    at_the_end = first if report == "installed" else None
    assert [p.get("o") for p in packs[:6]] == [None, None, first, at_the_end, second, second]


POLLING = """
import machine
import time
import ota
from umqtt.simple import MQTTClient

print("version VERSION polls")
config = ota.load_config()
name, mqtt = config["device_id"].encode(), config["mqtt"]
base = b"channels/%s/messages/%s/" % (config["control_channel"].encode(), name)
client = MQTTClient(name, mqtt["host"], mqtt["port"], name, config["device_key"].encode(), 60)

def on_message(topic, payload):
    agent.handle(topic, payload)

client.set_callback(on_message)
agent = ota.Agent(config, client=client)

def connect():
    client.connect()
    client.subscribe(base + b"ota", 1)

connect()
for _ in range(TURNS):
    try:
        client.check_msg()
        outcome = agent.poll()
        if outcome:
            print("poll:", outcome, agent.reason)
        if outcome in ("failed", "confirmed"):
            break
        client.ping()
    except (OSError, AttributeError, IndexError):
        print("connected anew")
        connect()
    time.sleep_ms(50)
machine.deepsleep(60_000)
"""


def polling(version: int, turns: int = 200) -> bytes:
    """An application that owns the client and the subscription."""
    return POLLING.replace("VERSION", str(version)).replace("TURNS", str(turns)).encode()


@pytest.mark.parametrize("report", ["installed", "confirmed"])
def test_an_application_with_its_own_client(make_site: MakeSite, listen: Any, report: str):
    site = make_site({"main.py": polling(1)}, config=STAT | {"report": report, "retry_s": 1})
    fleet = listen(site)
    fuid = site.ask(sample.tar({"main.py": polling(2), "filler.bin": FILLER}), "p.tar")
    run = site.run()
    assert "poll: confirmed" in run.output, run.output
    begin, end = fleet.packs
    assert (begin["e"], begin["i"], begin["a"]) == (0, fuid, 1)
    assert (end["e"], end["i"], end["c"]) == (1, fuid, report == "confirmed")
    assert "connected anew" not in run.output


def test_an_asyncio_client(make_site: MakeSite, listen: Any):
    site = asyncio_site(make_site, config=STAT)
    fleet = listen(site)
    fuid = site.ask(sample.tar_gz({"main.py": source(2), "filler.bin": FILLER}))
    run = site.run(timeout_s=60)
    assert "poll: confirmed" in run.output, run.output
    assert [(p["e"], p["i"]) for p in fleet.packs] == [(0, fuid), (1, fuid)]


@pytest.mark.parametrize("modem", [False, True], ids=["wifi", "modem"])
def test_a_client_of_another_shape(make_site: MakeSite, listen: Any, modem: bool):
    """That of the public insighioNode firmware."""
    site = field_node(make_site, modem, config=STAT)
    fleet = listen(site)
    brought, archive = field_package(site)
    fuid = site.ask(archive)
    site.run(wakes=2, timeout_s=120)
    check_updated(site, brought, fuid)
    assert [(p["e"], p["i"]) for p in fleet.packs] == [(0, fuid), (1, fuid)]


def test_begin_and_check(make_site: MakeSite, listen: Any):
    """The two halves of a check, with a client of ours."""
    code = sample.main_py(1).replace(b'print("check:"', b'agent.begin()\nprint("check:"')
    assert b"agent.begin()" in code
    site = make_site({"main.py": code}, config=STAT)
    fleet = listen(site)
    fuid = site.ask(sample.tar({"main.py": sample.main_py(2)}), "p.tar")
    assert "check: confirmed" in site.run().output
    assert [(p["e"], p["i"]) for p in fleet.packs] == [(0, fuid), (1, fuid)]


# -- what it costs --------------------------------------------------------------------------------


def test_nothing_when_idle_and_nothing_when_off(make_site: MakeSite):
    """Neither a message nor a module; without the key an update has nothing of it either."""
    main = b"""
import machine, sys
import ota

def look(step, value):
    if "ota.stat" in sys.modules:
        print("loaded at", step)

agent = ota.Agent(ota.load_config(), look)
print("check:", agent.check(), "ota.stat" in sys.modules)
machine.deepsleep(60_000)
"""
    package = sample.tar({"main.py": main + b"#\n"})
    for stat in (False, True):
        site = make_site({"main.py": main}, config={"stat": stat})
        with Wiretap(site.console.ports.mqtt) as tap:
            site.configure(mqtt={"port": tap.port})
            site.run(wakes=2)
            assert tap.wait_for(lambda tap=tap: len(tap.sent("DISCONNECT")) == 2)
            assert tap.sent("PUBLISH") == []
            fuid = site.ask(package, "p.tar")
            run = site.run()
            assert "check: confirmed False" in run.output
            published = [p for p in tap.sent("PUBLISH") if p.topic.endswith("/stat")]
        assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
        assert (run.output.count("loaded at") > 3) == stat
        assert ("loaded at" in run.output) == stat
        assert len(published) == 2 * stat


def test_no_flash_operation(make_site: MakeSite, tmp_path: Path):
    """The same operations, and the same flash but for the configuration."""
    endings = {
        "good": sample.tar({"main.py": sample.main_py(2), "filler.bin": FILLER}),
        "rolled back": sample.tar({"main.py": b"1/0\n"}),
        "same": sample.tar({"main.py": sample.main_py(1)}),
        "damaged": sample.tar({"main.py": sample.main_py(2)})[:700],
    }
    for name, package in endings.items():
        for more in {}, {"report": "confirmed"}, {"budget": 20_000}:
            found = []
            site = make_site()
            fuid = site.console.add_package(package, "p.tar").fuid
            for stat in (False, True):
                site.configure(**{"stat": stat} | more)
                site.console.request(DEVICE_ID, fuid)
                run = site.run(wakes=4)
                again = site.run(wakes=2, cause="deepsleep")
                files = site.flash_files()
                del files["/ota.json"]
                found.append((run.ops, run.erases, run.prog_bytes, again.ops, files))
            assert found[0] == found[1], (name, more)
            assert found[0][0] > 0


def test_the_order_on_the_wire(make_site: MakeSite):
    """QoS 0; a beginning before the node leaves for the download, an end behind the report."""
    site = make_site(config=STAT)
    site.ask(sample.tar_gz({"main.py": sample.main_py(2)}))
    with Wiretap(site.console.ports.mqtt) as tap:
        site.configure(mqtt={"port": tap.port})
        site.run()
        # The node is gone; its last bytes may still be on their way through the tap.
        assert tap.wait_for(lambda: len(tap.sent("DISCONNECT")) == 3)
        packets = [p for p in tap.packets if p.direction == "up"]
    names = [p.topic.rpartition("/")[2] if p.type == "PUBLISH" else p.type for p in packets]
    names = [name for name in names if name not in ("PINGREQ", "PUBACK")]
    assert names == [
        *("CONNECT", "SUBSCRIBE", "stat", "DISCONNECT"),
        *("CONNECT", "SUBSCRIBE", "ota", "ota", "stat", "DISCONNECT"),
        *("CONNECT", "SUBSCRIBE", "DISCONNECT"),
    ]
    packs = [p for p in packets if p.type == "PUBLISH" and p.topic.endswith("/stat")]
    assert [(p.qos, p.retain) for p in packs] == [(0, False)] * 2


def test_the_broker_has_a_pack_before_the_node_leaves(make_site: MakeSite):
    """A close with something unread is a reset, and may lose what the broker has not read."""
    site = make_site(config=STAT)
    site.ask(sample.tar_gz({"main.py": sample.main_py(2)}))
    with Wiretap(site.console.ports.mqtt) as tap:
        site.configure(mqtt={"port": tap.port})
        site.run()
        assert tap.wait_for(lambda: len(tap.sent("DISCONNECT")) == 3)
        packets = tap.packets
    packs = [p for p in packets if (p.topic or "").endswith("/stat")]
    assert len(packs) == 2
    for pack in packs:
        behind = [p for p in packets[packets.index(pack) + 1 :] if p.connection == pack.connection]
        names = [p.type for p in behind]
        assert names.index("PINGREQ") < names.index("PINGRESP") < names.index("DISCONNECT")


# -- what may go wrong ----------------------------------------------------------------------------

#: What a broker does with a message on a topic that it does not allow.
REFUSALS = ("drops", "closes", "silent")


class Refusing(Broker):
    """A broker that lets the node do all but publish on `…/stat`."""

    stat_refusal = "drops"

    def __init__(self) -> None:
        super().__init__()
        self.stats: list[Pack] = []
        self.silent: list[Any] = []

    def _deal_with(self, connection: Any, kind: int, first: int, body: bytes) -> bool:
        size = int.from_bytes(body[:2], "big")
        if first == 0x30 and body[2 : 2 + size].endswith(b"/stat"):
            self.stats.append(read(body[2 + size :]))
            if self.stat_refusal == "silent":
                self.silent.append(connection)
            return self.stat_refusal != "closes"
        # One that hangs for good: not a word more on this connection.
        if any(each is connection for each in self.silent):
            return True
        return super()._deal_with(connection, kind, first, body)


@pytest.fixture
def refusing() -> Iterator[Refusing]:
    with Refusing() as broker:
        yield broker


def ask(site: WatchedSite, broker: Broker, package: bytes) -> str:
    fuid = site.console.add_package(package, "p.tar").fuid
    broker.retain(site.console.request_payload(fuid).encode())
    return fuid


def events(broker: Broker) -> list[tuple[int, str]]:
    packs = [json.loads(payload) for payload in broker.reports]
    return [(pack[0]["v"], pack[1]["vs"]) for pack in packs]


@pytest.mark.parametrize("report", ["installed", "confirmed"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_broker_that_refuses(make_site: MakeSite, refusing: Refusing, refusal: str, report: str):
    """The update takes the same wakes, flash operations and reports as without."""
    found = []
    for stat in (False, True):
        refusing.stat_refusal = refusal
        site = make_site(config={"stat": stat, "report": report, "timeout_s": 2})
        site.configure(mqtt={"port": refusing.port})
        refusing.begin()
        fuid = ask(site, refusing, sample.tar({"main.py": sample.main_py(2), "f": FILLER}))
        run = site.run()
        assert "check: confirmed" in run.output, run.output
        assert "ota: later" not in run.output
        assert events(refusing) == [(1, fuid)]
        assert refusing.retained == b""
        bad = ask(site, refusing, b"x" * 700)
        again = site.run(cause="deepsleep")
        assert "check: failed" in again.output, again.output
        assert events(refusing) == [(1, fuid), (2, bad)]
        found.append((run.ops, again.ops, len(site.console.downloads)))
    assert found[0] == found[1]
    assert [p["e"] for p in refusing.stats] == [0, 1, 0, 2]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_node_that_stays_at_a_broker_that_refuses(
    make_site: MakeSite, refusing: Refusing, refusal: str
):
    """It comes back, and goes on."""
    refusing.stat_refusal = refusal
    site = make_site({"main.py": serving(1)}, config=QUICK | STAT | {"timeout_s": 2})
    site.configure(mqtt={"port": refusing.port, "keepalive": 2})
    with Serving(site) as node:
        node.wait_for("version 1 serves")
        first = ask(site, refusing, b"x" * 700)
        node.wait_for("ota: report", 1)
        second = ask(site, refusing, sample.tar({"main.py": serving(2)}))
        node.wait_for("ota: confirm", 1, 40)
    assert events(refusing) == [(2, first), (1, second)]


@pytest.mark.parametrize("attempts", [1, 5])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_own_client_at_a_broker_that_refuses(
    make_site: MakeSite, refusing: Refusing, refusal: str, attempts: int
):
    """Its connection may be lost once for a package, never the package."""
    refusing.stat_refusal = refusal
    config = STAT | {"timeout_s": 1, "retry_s": 1, "max_attempts": attempts}
    site = make_site({"main.py": polling(1)}, config=config)
    site.configure(mqtt={"port": refusing.port})
    fuid = ask(site, refusing, sample.tar({"main.py": polling(2, 40), "f": FILLER}))
    run = site.run(wakes=2, timeout_s=90)
    assert "version 2 polls" in run.output, run.output
    assert events(refusing) == [(1, fuid)]
    later = run.output.count("poll: later")
    assert later <= (0 if attempts == 1 or refusal == "drops" else 1), run.output
    # What was staged stays: it is not fetched twice.
    assert sum(d.bytes_sent for d in site.console.downloads) < 1.3 * len(FILLER)
    assert sum(p["e"] == 0 for p in refusing.stats) == (attempts > 1)


def test_the_longest_ids(make_site: MakeSite, listen: Any):
    """What does not fit is left out, from the end of the list on; the rest is as ever."""
    site = make_site(config=STAT)
    fleet = listen(site)
    fuid = "A" * 64
    request = [{"n": "e", "v": 0}, {"n": "i", "vs": fuid}, {"n": "t", "vs": ".tar"}]
    site.console.request_raw(DEVICE_ID, json.dumps([*request, {"n": "s", "v": 1_000_000}]))
    # The server has no such file; the second refusal ends it.
    site.run(wakes=2)
    assert site.reports()[-1]["i"] == fuid
    packs = fleet.packs
    assert [(p["e"], p["i"], p["a"], p["b"]) for p in packs] == [
        (0, fuid, 1, 0),
        (0, fuid, 2, 0),
        (2, fuid, 2, 0),
    ]
    assert ["r" in pack for pack in packs] == [False, False, True]
    assert all("h" in pack for pack in packs)


#: For the module alone, without a node around it.
ALONE = """
import sys

class Machine:
    def reset_cause(self):
        return 1

sys.modules["machine"] = Machine()

"""


def test_the_longest_pack():
    """Every record at its longest, in the module itself."""
    code = """
import json
from ota.stat import Stat

class Agent:
    config = {"max_days": 365}
    fetched = (1 << 62) - 1
    control = client = None
    file_id = "o" * 64

for file_id in "", "f" * 8, "f" * 64, '"' * 64, "\\u03b1" * 64, "\\x01" * 64, "x" * 300:
    for big in 1, 10 ** 9, 10 ** 18, 10 ** 30:
        stat = Stat(Agent())
        stat._free = big
        stat._attempts = [file_id] + [str(big)] * 6
        stat._before = big
        stat._at = 0
        stat._add(0, file_id, big, big, None, None)
        stat._add(1, file_id, None, None, True, big)
        for pack in stat._packs:
            print(len(file_id), len(pack), str([r["n"] for r in json.loads(pack)]))
"""
    run = run_code(ALONE + code, path=[FIRMWARE])
    lines = run.output.splitlines()
    assert len(lines) == 7 * 4 * 2, run.output
    for line in lines:
        length, size, names = line.split(" ", 2)
        assert int(size) <= MOST
        assert names.startswith("['e', 'i'") or int(length) > 0
        if int(length) in (0, 8):
            assert "'i', " in names
    assert any(int(line.split(" ")[1]) > MOST - 4 for line in lines)
    plain = [line for line in lines if line.startswith("64 ") and "'i'" in line]
    assert len(plain) >= 8  # `e` and `i` of a file id that a request can have always fit


def test_what_fails_at_its_end_does_not_end_an_update():
    code = """
import ota
from ota import stat

class Agent:
    config = {"max_days": 365}
    fetched = 0
    control = client = None

ended = stat.Stat(Agent())
ended._trial = "f" * 8

def no_memory(path):
    raise MemoryError

stat._is_there = no_memory
print(ended.close(), "ota.stat" in sys.modules)
"""
    assert run_code(ALONE + code, path=[FIRMWARE]).output.split() == ["None", "False"]
