"""Brokers that do not let a node clear its request: it is done once, and told once."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_sim import sample
from host_sim.campaigns.orders.broker import PUBLISH, REFUSALS, Broker
from host_sim.sample import DEVICE_ID
from tests.conftest import MakeSite
from tests.secrecy import WatchedSite

TEXT = "the request could not be cleared"
# More than the wakes that a trial may last.
WAKES = 30


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


def at(broker: Broker, make_site: MakeSite, **config: object) -> WatchedSite:
    """A node at this broker."""
    site = make_site(config={"timeout_s": 1} | config)
    site.configure(mqtt={"port": broker.port})
    return site


def ask(site: WatchedSite, broker: Broker, version: int, damaged: bool = False) -> str:
    data = bytearray(sample.tar_gz({"main.py": sample.main_py(version)}))
    if damaged:
        data[-6] ^= 1
    fuid = site.console.add_package(bytes(data), "p.tar.gz").fuid
    broker.retain(site.console.request_payload(fuid).encode())
    return fuid


def told(broker: Broker) -> list[tuple[int, str, str | None]]:
    """(event, file id, text) of each report."""
    found = []
    for payload in broker.reports:
        pack = {entry["n"]: entry.get("v", entry.get("vs")) for entry in json.loads(payload)}
        found.append((pack["e"], pack["i"], pack.get("m")))
    return found


def own_files(site: WatchedSite) -> dict[str, bytes]:
    return {p: c for p, c in site.flash_files().items() if p.startswith("/.ota/")}


@pytest.mark.few(1)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_good_update(make_site: MakeSite, broker: Broker, refusal: str):
    """One download, one report, and it stays, however long the broker keeps the request."""
    site = at(broker, make_site)
    broker.refusal = refusal
    fuid = ask(site, broker, 2)
    run = site.run()
    assert "version 2 runs\n" in run.output and "check: confirmed" in run.output, run.output
    assert told(broker) == [(1, fuid, f"installed, but {TEXT}")]
    assert f"ota: notice {TEXT}" in run.output
    assert list(own_files(site)) == ["/.ota/done"]
    run = site.run(cause="deepsleep", wakes=WAKES)
    assert run.output.count("version 2 runs") == WAKES
    assert run.output.count("check: idle") == WAKES, run.output
    assert run.output.count(f"ota: notice {TEXT}") == WAKES
    assert run.ops == 0
    assert len(told(broker)) == 1
    assert len(site.console.downloads) == 1
    # The operator does what the node may not.
    broker.refusal = ""
    broker.retain(b"")
    site.run(cause="deepsleep")
    assert own_files(site) == {}
    assert site.run(cause="deepsleep").ops == 0
    second = ask(site, broker, 3)
    assert "version 3 runs" in site.run(cause="deepsleep").output
    assert told(broker)[1:] == [(1, second, None)]
    assert broker.retained == b""


@pytest.mark.few(1)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_another_request_comes_in_its_place(make_site: MakeSite, broker: Broker, refusal: str):
    """The one that ended is forgotten; the same file id is then a new request."""
    site = at(broker, make_site)
    broker.refusal = refusal
    first = ask(site, broker, 2)
    site.run()
    again = broker.retained
    second = ask(site, broker, 3)
    assert "version 3 runs" in site.run(cause="deepsleep").output
    assert own_files(site)["/.ota/done"].split()[0].decode() == second
    broker.refusal = ""
    broker.retain(again)
    assert "version 2 runs" in site.run(cause="deepsleep").output
    assert [(e, i) for e, i, _ in told(broker)] == [(1, first), (1, second), (1, first)]
    assert broker.retained == b""


@pytest.mark.few(1)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_of_the_node(make_site: MakeSite, broker: Broker, refusal: str):
    """A damaged package: fetched once, told once."""
    site = at(broker, make_site)
    broker.refusal = refusal
    fuid = ask(site, broker, 2, damaged=True)
    run = site.run(wakes=4)
    assert run.output.count("check: failed") == 1
    assert run.output.count("check: idle") == 3, run.output
    assert told(broker) == [(2, fuid, "can not apply: bad archive, CRC-32 differs")]
    assert len(site.console.downloads) == 1
    assert site.flash_files().keys() - site.files.keys() == {"/.ota/done"}


@pytest.mark.few(1)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_request_that_makes_no_sense(make_site: MakeSite, broker: Broker, refusal: str):
    """It has no file id, and is known by its reason; another one is told as well."""
    site = at(broker, make_site)
    broker.refusal = refusal
    broker.retain(b"update please")
    run = site.run(wakes=3)
    assert run.output.count("check: idle") == 2, run.output
    assert told(broker) == [(2, "", "bad request: not JSON")]
    broker.retain(b"{}")
    site.run(cause="deepsleep", wakes=2)
    assert told(broker)[1:] == [(2, "", "bad request: not a SenML pack")]


@pytest.mark.slow
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_node_that_stays(make_site: MakeSite, broker: Broker, refusal: str):
    """serve(): it tries once, stays, and takes what comes next."""
    main = "import ota\nprint('version %d runs')\nota.Agent(ota.load_config()).serve()\n"
    site = make_site({"main.py": (main % 1).encode()}, config={"timeout_s": 1, "retry_s": 1})
    site.configure(mqtt={"port": broker.port})
    broker.refusal = refusal
    ends: list[str] = []

    def order(version: int) -> None:
        data = sample.tar({"main.py": (main % version).encode()})
        ends.append(site.console.add_package(data, "p.tar").fuid)
        broker.retain(site.console.request_payload(ends[-1]).encode())

    order(2)
    heard = ""

    def hear(text: str) -> None:
        nonlocal heard
        heard += text

    site.node.log = hear
    site.run(timeout_s=12)
    assert "version 2 runs" in heard
    assert heard.count("ota: notice") <= 3, heard
    broker.refusal = ""
    order(3)
    site.run(timeout_s=8)
    assert "version 3 runs" in heard, heard
    assert [(e, i) for e, i, _ in told(broker)] == [(1, fuid) for fuid in ends]
    assert len(site.console.downloads) == 2
    assert broker.retained == b""


def test_a_broker_whose_rules_have_been_mended(make_site: MakeSite, broker: Broker):
    """The clear is tried again at each wake, without a further report."""
    site = at(broker, make_site)
    broker.refusal = "drops"
    fuid = ask(site, broker, 2)
    site.run()
    broker.refusal = ""
    run = site.run(cause="deepsleep")
    assert f"ota: clear {fuid}" in run.output
    assert broker.retained == b""
    assert own_files(site) == {}
    assert len(told(broker)) == 1
    assert site.run(cause="deepsleep").ops == 0


def test_rolled_back_and_kept(make_site: MakeSite, broker: Broker):
    """New code that does not run is undone, told, and not installed again."""
    site = at(broker, make_site)
    broker.refusal = "closes"
    fuid = site.console.add_package(sample.tar({"main.py": b"1/0\n"}), "p.tar").fuid
    broker.retain(site.console.request_payload(fuid).encode())
    run = site.run(wakes=3)
    reason = "rolled back: 3 boots without confirm"
    assert told(broker) == [(1, fuid, f"installed, but {TEXT}"), (2, fuid, reason)], run.output
    assert len(site.console.downloads) == 1
    assert run.output.count("check: idle") == 2


@pytest.mark.few(1)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_report_after_the_confirm(make_site: MakeSite, broker: Broker, refusal: str):
    site = at(broker, make_site, report="confirmed")
    broker.refusal = refusal
    fuid = ask(site, broker, 2)
    assert "check: confirmed" in site.run().output
    assert told(broker) == [(1, fuid, f"installed, but {TEXT}")]
    assert site.run(cause="deepsleep", wakes=3).output.count("check: idle") == 3
    assert len(site.console.downloads) == len(told(broker)) == 1


def test_mosquitto_with_an_acl(make_site: MakeSite):
    """A real one: the node may read its topic and not write to it, which nobody tells it."""
    site = make_site(broker="mosquitto")
    fuid = site.ask(sample.tar_gz({"main.py": sample.main_py(2)}))
    acl = Path(site.console.directory, "mosquitto.acl")
    text = acl.read_text()
    acl.write_text(
        text.replace(f"user {DEVICE_ID}\ntopic readwrite", f"user {DEVICE_ID}\ntopic read")
    )
    assert acl.read_text() != text
    site.console._broker._process.send_signal(signal.SIGHUP)
    run = site.run(wakes=1)
    run = site.run(wakes=WAKES, cause="deepsleep")
    assert run.output.count("version 2 runs") == WAKES, run.output
    assert len(site.console.downloads) == 1
    assert json.loads(site.retained())[1]["vs"] == fuid
    assert run.ops == 0


BORROWED = """
import machine
import ota
from umqtt.simple import MQTTClient

config = ota.load_config()
name, mqtt = config["device_id"].encode(), config["mqtt"]
client = MQTTClient(name, mqtt["host"], mqtt["port"], name, config["device_key"].encode(), 60)
client.set_callback(lambda topic, payload: None)
client.connect()
print("check:", ota.Agent(config, client=client).check())
machine.deepsleep(60_000)
"""


@pytest.mark.few(2)
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("cancelled", [False, True])
def test_a_request_that_a_clear_wipes(
    make_site: MakeSite, broker: Broker, copies: int, cancelled: bool
):
    """It is put back, unless it is withdrawn; also where two subscriptions match, and each message
    comes twice.
    """
    site = make_site({"main.py": BORROWED.encode()}, config={"timeout_s": 2})
    site.configure(mqtt={"port": broker.port})
    pass_on = broker._pass_on
    broker._pass_on = lambda payload: [pass_on(payload) for _ in range(copies)]
    first = ask(site, broker, 2, damaged=True)
    other = broker.retained.replace(first.encode(), b"ffff0000")
    published: list[int] = []

    def replace(number: int, kind: int) -> bool:
        if kind == PUBLISH and not published:
            broker.retain(other)
            if cancelled:
                broker.retain(b"")
        published.extend([number] * (kind == PUBLISH))
        return True

    broker.before = replace
    run = site.run(wakes=1)
    assert [(e, i) for e, i, _ in told(broker)] == [(2, first)], run.output
    assert broker.retained == (b"" if cancelled else other)
    assert own_files(site) == {}


def test_somebody_who_does_not_stop(make_site: MakeSite, broker: Broker):
    """A request in each round trip of a clear: the node puts back a few, and ends all the same."""
    site = make_site({"main.py": BORROWED.encode()}, config={"timeout_s": 2})
    site.configure(mqtt={"port": broker.port})
    first = ask(site, broker, 2, damaged=True)
    template = broker.retained
    asked = 0

    def replace(number: int, kind: int) -> bool:
        nonlocal asked
        if kind == PUBLISH and asked < 60:
            asked += 1
            broker.retain(template.replace(first.encode(), b"%08x" % asked))
        return True

    broker.before = replace
    run = site.run(wakes=1, timeout_s=60)
    assert [(e, i) for e, i, _ in told(broker)] == [(2, first)], run.output
    assert "RuntimeError" not in run.output
    assert asked < 12
    assert broker.retained
    assert set(own_files(site)) <= {"/.ota/request"}
