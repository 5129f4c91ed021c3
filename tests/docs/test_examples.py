"""Every example updates itself, on the virtual node, through the simulated console."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from host_sim import sample
from host_sim.console.mosquitto_broker import find_mosquitto
from host_sim.node.node import Run
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID, Tree
from tests.channel.test_control_channel import fake_broker
from tests.conftest import MakeSite
from tests.secrecy import WatchedSite

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
STAND_INS = ROOT / "tests" / "stand_ins"
BROKER = "mosquitto" if find_mosquitto() else "amqtt"


def files(folder: Path) -> Tree:
    """The modules of a folder, by their names."""
    return {path.name: path.read_bytes() for path in folder.glob("*.py")}


def second(main: bytes) -> bytes:
    """Version 2 of a main.py."""
    assert main.count(b"VERSION = 1\n") == 1
    return main.replace(b"VERSION = 1\n", b"VERSION = 2\n")


def package(main: bytes) -> tuple[Tree, bytes]:
    """Version 2 of an example, with a file that is new: what it brings, and the archive."""
    tree = {"main.py": second(main), "lib/new.bin": random.Random(7).randbytes(5000)}
    return tree, sample.tar_gz(tree)


def at_console(make_site: MakeSite, tree: Tree, **options) -> WatchedSite:
    stand_ins = {f"lib/{name}.py": (STAND_INS / f"{name}.py").read_bytes() for name in NETWORK}
    return make_site(tree | stand_ins, broker=BROKER, **options)


NETWORK = ("network", "ntptime", "mqtt_as")


def run_until(site: WatchedSite, text: str, begin: str = "", call: Callable = print) -> Run:
    """Let a node that never sleeps run until it has printed `text`, then cut its power.

    When it has printed `begin`, `call` is called.
    """
    heard = ""
    begun, seen = threading.Event(), threading.Event()

    def hear(piece: str) -> None:
        nonlocal heard
        heard += piece
        if begin in heard:
            begun.set()
        if text in heard:
            seen.set()

    def cut() -> None:
        if begun.wait(60):
            call()
        if seen.wait(60):
            site.node.cut_power()

    site.node.log = hear
    cutter = threading.Thread(target=cut)
    cutter.start()
    run = site.run()
    cutter.join()
    return run


def check_updated(site: WatchedSite, brought: Tree, fuid: str) -> None:
    """Version 2 is there, byte for byte, all else is as it was, and the platform knows."""
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert site.retained() is None
    after = {f"/{name}": content for name, content in brought.items()}
    assert site.flash_files() == site.files | after


def test_every_example_is_here() -> None:
    shown = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert shown == {*SLEEPERS, *AWAKE}


AWAKE = ("mains_serve", "own_client", "asyncio_mqtt_as")
SLEEPERS = {
    "quick_start": "check: confirmed",
    "deep_sleep_sensor": "check: confirmed",
    "cellular_modem": "ota: confirm",
}


@pytest.mark.few(1)
@pytest.mark.parametrize("name", SLEEPERS)
def test_one_that_sleeps(make_site: MakeSite, name: str) -> None:
    tree = files(EXAMPLES / name)
    if name == "deep_sleep_sensor":
        tree |= files(EXAMPLES)
        channel = b'DATA_CHANNEL = "the id of your channel for measurements"'
        assert channel in tree["main.py"]
        # The simulated console knows one channel.
        own = b'DATA_CHANNEL = "%s"' % CONTROL_CHANNEL.encode()
        tree["main.py"] = tree["main.py"].replace(channel, own)
    if name == "cellular_modem":
        tree["modem.py"] = (STAND_INS / "modem.py").read_bytes()
    site = at_console(make_site, tree)
    brought, archive = package(tree["main.py"])
    fuid = site.ask(archive)
    run = site.run()
    assert run.names() == ["boot", "reset", "boot", "sleep", "flash"], run.output
    assert SLEEPERS[name] in run.output
    assert "not published" not in run.output
    check_updated(site, brought, fuid)
    if name == "cellular_modem":
        # All of it went through the modem: both times MQTT, and the download.
        assert re.findall("AT.QIOPEN . (...)", run.output) == ["tcp", "ssl", "tcp"]
        assert "no connection" not in run.output
    idle = site.run()
    assert idle.ops == 0
    assert idle.names() == ["boot", "sleep", "flash"]


def test_the_sensor_sleeps_longer_when_it_failed(make_site: MakeSite) -> None:
    site = at_console(make_site, files(EXAMPLES / "deep_sleep_sensor") | files(EXAMPLES))
    site.configure(mqtt={"port": 1}, retry_s=86400)
    run = site.run(wakes=3)
    assert "not published" in run.output
    assert run.output.count("check: later can not connect") == 3
    slept = [event["ms"] for event in run.events if event["event"] == "sleep"]
    assert min(slept) >= 15 * 60 * 1000
    assert max(slept) > 15 * 60 * 1000  # drawn from days: not by chance


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("name", "begin", "end"),
    [
        ("mains_serve", "version 1 serves", "ota: confirm"),
        ("own_client", "update: idle", "update: confirmed"),
        ("asyncio_mqtt_as", "update: idle", "update: confirmed"),
    ],
)
def test_one_that_stays_awake(make_site: MakeSite, name: str, begin: str, end: str) -> None:
    """The request comes while it is connected."""
    tree = files(EXAMPLES / name) | files(EXAMPLES)
    site = at_console(make_site, tree)
    brought, archive = package(tree["main.py"])
    asked: list[str] = []
    run = run_until(site, end, begin, lambda: asked.append(site.ask(archive)))
    assert "version 1" in run.output
    assert "version 2" in run.output
    assert end in run.output, run.output
    check_updated(site, brought, *asked)


def test_the_own_client_of_the_page(make_site: MakeSite) -> None:
    """The code of integrating.md, word for word, takes a package that is asked for meanwhile."""
    page = (ROOT / "docs/integrating.md").read_text().partition("## An MQTT client of your own")[2]
    main = re.search(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[1]
    site = at_console(make_site, {"main.py": main.encode()})
    brought = {"main.py": sample.main_py(2)}
    archive = sample.tar_gz(brought)
    asked: list[str] = []
    end = "check: confirmed"
    run = run_until(site, end, "update: idle", lambda: asked.append(site.ask(archive)))
    assert "version 2 runs" in run.output
    check_updated(site, brought, *asked)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["deep_sleep_sensor", "own_client", "cellular_modem"])
def test_no_example_sends_its_key_in_clear(make_site: MakeSite, name: str) -> None:
    """Where /ota.json does not say so. A server that answers nothing hears the begin of TLS."""
    tree = files(EXAMPLES / name) | files(EXAMPLES)
    if name == "cellular_modem":
        tree["modem.py"] = (STAND_INS / "modem.py").read_bytes()
    site = at_console(make_site, tree, tls=True, config={"timeout_s": 2})
    with fake_broker(b"", close=True) as (port, heard):
        del site.config["mqtt"]["tls"]
        site.configure(mqtt={"port": port})
        if name == "own_client":
            run_until(site, "connection lost")
        else:
            site.run(timeout_s=60)
    assert all(data[:1] == b"\x16" for data in heard), heard
    assert heard or name == "own_client"  # which fails in umqtt.simple 1.3.4 before it sends


def test_the_own_client_keeps_its_subtopics(make_site: MakeSite) -> None:
    tree = files(EXAMPLES / "own_client") | files(EXAMPLES)
    site = at_console(make_site, tree)
    for leaf, text in (("config", "interval=5"), ("cmd", "pump on")):
        site.console.request_raw(
            DEVICE_ID, text, retain=True, topic=site.console.topic(DEVICE_ID, leaf)
        )
    run = run_until(site, "pump on")
    assert "configuration: interval=5" in run.output
