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
        if begun.wait(20):
            call()
        if seen.wait(20):
            site.node.cut_power()

    site.node.log = hear
    cutter = threading.Thread(target=cut)
    cutter.start()
    run = site.run(timeout_s=20)
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
    assert shown == {*SLEEPERS, *AWAKE, "insighio_migration"}


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
    run = site.run(timeout_s=20)
    assert run.names() == ["boot", "reset", "boot", "sleep", "flash"], run.output
    assert SLEEPERS[name] in run.output
    assert "not published" not in run.output
    check_updated(site, brought, fuid)
    if name == "cellular_modem":
        # All of it went through the modem: both times MQTT, and the download.
        assert re.findall("AT.QIOPEN . (...)", run.output) == ["tcp", "ssl", "tcp"]
        assert "no connection" not in run.output
    idle = site.run(timeout_s=20)
    assert idle.ops == 0
    assert idle.names() == ["boot", "sleep", "flash"]


def test_the_sensor_sleeps_longer_when_it_failed(make_site: MakeSite) -> None:
    site = at_console(make_site, files(EXAMPLES / "deep_sleep_sensor") | files(EXAMPLES))
    site.configure(mqtt={"port": 1}, retry_s=86400)
    run = site.run(wakes=3, timeout_s=20)
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


# The field firmware


def field_node(make_site: MakeSite, modem: bool, **options) -> WatchedSite:
    """A node with the field firmware's files, and our `ota.py` in the place of its."""
    field = files(STAND_INS / "field")
    app = ("cfg.py", "control_messages.py", "transfer_protocol.py")
    tree = {f"apps/demo_console/{name}": field.pop(name) for name in app} | field
    tree["apps/demo_console/ota.py"] = (EXAMPLES / "insighio_migration/ota.py").read_bytes()
    tree["main.py"] = tree["main.py"].replace(b"MODEM = False", b"MODEM = %r" % modem)
    return at_console(make_site, tree, **options)


@pytest.mark.parametrize("modem", [False, True], ids=["wifi", "modem"])
def test_the_migration_speaks_the_old_interface(make_site: MakeSite, modem: bool) -> None:
    site = field_node(make_site, modem)
    brought, archive = package(site.files["/main.py"])
    fuid = site.ask(archive)
    run = site.run(timeout_s=20)
    assert run.names() == ["boot", "reset", "boot", "sleep", "flash"], run.output
    assert run.output.count("checkAndApply: None False") == 1  # in version 1 it never returned
    check_updated(site, brought | {"ota_applied_flag": b"done"}, fuid)
    looks, clears = "get_control_message", "clear_retained"
    ends = ["clearCachedStates", looks, clears, looks, "send_control_packet"]
    begins = re.findall(f"^(?:http_get_file|{'|'.join(ends)})", run.output, re.MULTILINE)
    # It looks before the commit, before the clear and behind it; and in the trial.
    assert begins == [looks, *["http_get_file"] * modem, looks, *ends, looks]
    assert len(site.console.downloads) == 1


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda archive: archive[:-6] + bytes([archive[-6] ^ 1]) + archive[-5:], "can not apply"),
        (None, "can not download"),
        (lambda archive: archive + bytes(300_000), "not enough space"),
    ],
    ids=["apply", "download", "space"],
)
def test_the_migration_has_the_field_texts(make_site: MakeSite, spoil, text: str) -> None:
    site = field_node(make_site, False, blocks=120)
    _, archive = package(site.files["/main.py"])
    fuid = site.ask(spoil(archive) if spoil else archive)
    if not spoil:
        site.console.faults.status = 404
    # What a server says is final when it says it twice.
    run = site.run(wakes=1 if spoil else 2, timeout_s=20)
    assert site.reports() == [{"e": 2, "i": fuid, "m": text}], run.output
    assert re.search(f"log: OTA: {text}: .", run.output)  # the detail is not lost
    assert site.retained() is None
    assert site.flash_files() == site.files


def test_the_migration_leaves_other_messages_to_the_old_code(make_site: MakeSite) -> None:
    site = field_node(make_site, False)
    topic = site.console.topic(DEVICE_ID, "cmd")
    site.console.request_raw(DEVICE_ID, "tare", retain=True, topic=topic)
    run = site.run(timeout_s=20)
    assert "other: cmd tare\nclear_retained\n" in run.output
    assert "other" not in site.run(timeout_s=20).output  # it was cleared


@pytest.mark.slow
@pytest.mark.parametrize("modem", [False, True], ids=["wifi", "modem"])
def test_the_migration_survives_a_power_cut(make_site: MakeSite, modem: bool) -> None:
    """In the middle of staging, of the install and of what follows: one of the two versions."""
    site = field_node(make_site, modem)
    brought, archive = package(site.files["/main.py"])
    new = site.files | {f"/{name}": content for name, content in brought.items()}
    flag = {"/ota_applied_flag": b"done"}
    site.ask(archive)
    pristine = site.image.read_bytes()
    total = site.run(timeout_s=20).ops
    phases = set()
    for cut in (total // 2, total - 20, total - 6):
        site.image.write_bytes(pristine)
        told = len(site.reports())
        fuid = site.ask(archive)
        run = site.run(cut=cut, torn="half", timeout_s=20)
        assert run.exit_code == 3
        phases.add(re.findall("OTA: (commit|download|report)", run.output)[-1])
        run = site.run(wakes=2, timeout_s=20)
        assert run.exit_code == 0, run.output
        assert new.items() <= site.flash_files().items(), (cut, run.output)
        assert site.flash_files().keys() - new.keys() <= flag.keys(), cut
        assert {(r["e"], r["i"]) for r in site.reports()[told:]} == {(1, fuid)}
        assert site.retained() is None
    assert phases == {"download", "commit", "report"}
