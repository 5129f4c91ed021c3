"""An asyncio application with a client shaped as mqtt_as's: its loop runs on, and is heard."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest

from host_sim import sample
from tests.brokers import available_brokers
from tests.busy import factor
from tests.channel.test_own_client import Line, kick, tell
from tests.conftest import MakeSite
from tests.secrecy import WatchedSite

ROOT = Path(__file__).parents[2]
LIBRARY = {
    "lib/ota_asyncio.py": (ROOT / "examples/asyncio_mqtt_as/ota_asyncio.py").read_bytes(),
    "lib/mqtt_as.py": (ROOT / "tests/stand_ins/mqtt_as.py").read_bytes(),
}
MAIN = """
import asyncio
import machine
import time
import ota
from mqtt_as import MQTTClient, config as mqtt_config
from ota_asyncio import Bridge

VERSION = 1
QUEUE = 8
OUTCOMES = 1

config = ota.load_config()
device, mqtt = config["device_id"], config["mqtt"]
base = "channels/%s/messages/%s/" % (config["control_channel"], device)
longest = 0

def on_message(topic, payload, retained):
    if not bridge.handle(topic, payload, retained):
        text = bytes(payload).decode()
        print("heard", VERSION, text)
        asyncio.create_task(answer(text))

async def answer(text):
    await client.publish(base + "answer", text, False, 1)
    print("answered", VERSION, text)  # the broker has acknowledged

mqtt_config.update({"client_id": device, "server": mqtt["host"], "port": mqtt["port"]})
mqtt_config.update({"user": device, "password": config["device_key"], "queue_len": QUEUE})
mqtt_config["subs_cb"] = on_message
client = MQTTClient(mqtt_config)
bridge = Bridge(client, config)

async def listen():
    async for message in client.queue:
        on_message(*message)

async def subscribe():
    while True:
        await client.up.wait()
        client.up.clear()
        for leaf in ("ota", "cmd"):
            await client.subscribe(base + leaf, 1)

async def tick():
    global longest
    while True:
        began = time.ticks_ms()
        await asyncio.sleep_ms(10)
        longest = max(longest, time.ticks_diff(time.ticks_ms(), began))

async def main():
    tasks = [asyncio.create_task(subscribe()), asyncio.create_task(tick())]
    if QUEUE:
        tasks.append(asyncio.create_task(listen()))
    print("before:", bridge.agent.check(), bridge.agent.reason)
    await client.connect()
    outcomes = 0
    while outcomes < OUTCOMES:
        outcome = bridge.agent.poll()
        if outcome:
            print("poll:", outcome, bridge.agent.reason, "longest", longest)
        if outcome not in (None, "idle", "later"):
            outcomes += 1
        await asyncio.sleep_ms(50)
    print("still here:", asyncio.current_task() is not None and client.isconnected())
    machine.deepsleep(1000)

asyncio.run(main())
"""


def source(version: int = 1, queue: int = 8) -> bytes:
    text = MAIN.replace("VERSION = 1\n", f"VERSION = {version}\n")
    return text.replace("QUEUE = 8\n", f"QUEUE = {queue}\n").encode()


def asyncio_site(make_site: MakeSite, queue: int = 8, **options) -> WatchedSite:
    return make_site({"main.py": source(1, queue)} | LIBRARY, **options)


@pytest.mark.few(1)
@pytest.mark.parametrize("queue", [8, 0], ids=["queue", "callback"])
@pytest.mark.parametrize("broker", available_brokers())
def test_the_loop_runs_on_during_an_update(make_site: MakeSite, broker: str, queue: int):
    """Messages are heard and answered while a slow package comes; then version 2 confirms."""
    site = asyncio_site(make_site, queue, broker=broker)
    site.console.faults.drip = int(8000 / factor())  # the messages are to come in time
    tree = {"main.py": source(2, queue), "filler.bin": random.Random(1).randbytes(12_000)}
    fuid: list[str] = []

    def talk() -> None:
        fuid.append(site.ask(sample.tar_gz(tree)))
        site.console.wait_for(lambda: bool(site.console.downloads))
        for number in range(5):
            tell(site, "cmd", str(number))
            time.sleep(0.1)

    line = Line(site, "poll: idle", talk)
    run = site.run(timeout_s=60)
    assert line.thread is not None, run.output
    line.thread.join()
    assert run.names() == ["boot", "reset", "boot", "sleep", "flash"], run.output
    assert "before: later can not connect: the application's client is not connected" in run.output
    during = run.output[run.output.index("ota: download") : run.output.index("ota: commit")]
    assert re.findall(r"^heard 1 (\d)$", during, re.MULTILINE) == list("01234")
    # A task of its own answers each, so on a busy machine one may overtake another.
    assert sorted(re.findall(r"^answered 1 (\d)$", during, re.MULTILINE)) == list("01234")
    assert "poll: confirmed" in run.output
    assert "still here: True" in run.output
    assert [(r["e"], r["i"]) for r in site.reports()] == [(1, fuid[0])]
    assert site.retained() is None
    assert site.flash_files() == site.files | {f"/{name}": data for name, data in tree.items()}


BEGINS = """
import asyncio
import machine
import ota
from mqtt_as import MQTTClient, config as mqtt_config
from ota_asyncio import Bridge

config = ota.load_config()
device, mqtt = config["device_id"], config["mqtt"]
mqtt_config.update({"client_id": device, "server": mqtt["host"], "port": mqtt["port"]})
mqtt_config.update({"user": device, "password": config["device_key"]})
mqtt_config["subs_cb"] = lambda topic, payload, retained: bridge.handle(topic, payload, retained)
client = MQTTClient(mqtt_config)
bridge = Bridge(client, config, policy=lambda _: "later")

async def main():
    await client.connect()
    print("begun", bridge.agent.begin() is bridge, bridge.cb, bridge._heard)
    print("check:", bridge.agent.check(), bridge.agent.reason, bridge.cb)
    machine.deepsleep(1000)

asyncio.run(main())
"""


def test_begin_leaves_the_bridge_as_it_was(make_site: MakeSite):
    """Else it keeps each message from then on, and a withdrawn request is heard in the end."""
    site = make_site({"main.py": BEGINS.encode()} | LIBRARY, broker="mosquitto")
    site.ask(sample.tar({"a.txt": b"a"}))
    run = site.run(timeout_s=30)
    assert "begun True None []" in run.output
    assert "check: later the application's policy None" in run.output


@pytest.mark.slow
def test_how_long_the_loop_stands(make_site: MakeSite):
    """No longer than a silent network is waited for, and hardly so while bytes come."""
    site = asyncio_site(make_site, config={"timeout_s": 2, "max_attempts": 1})
    data = bytearray(sample.tar_gz({"filler.bin": random.Random(1).randbytes(30_000)}))
    data[-6] ^= 1
    for fault, least_ms, most_ms in (("drip", 0, 1000), ("stall_at", 1000, 3500)):
        site.configure()
        site.console.faults.clear()
        setattr(site.console.faults, fault, 9000)
        site.ask(bytes(data))
        run = site.run(timeout_s=100)
        match = re.search(r"^poll: failed .*longest (\d+)$", run.output, re.MULTILINE)
        assert match, run.output
        assert least_ms <= int(match[1]) < most_ms * factor(), (fault, run.output)
        assert "still here: True" in run.output


@pytest.mark.few(1)
@pytest.mark.parametrize("step", ["request", "download", "failed", "clear"])
def test_a_broker_that_drops_the_client(make_site: MakeSite, step: str):
    """It connects anew by itself; the request ends once, and nothing hangs."""
    site = asyncio_site(make_site, broker="mosquitto", config={"timeout_s": 3, "retry_s": 1})
    data = bytearray(sample.tar_gz({"filler.bin": random.Random(1).randbytes(6000)}))
    data[-6] ^= 1
    site.console.faults.drip = 9000
    fuid = site.ask(bytes(data))
    line = Line(site, f"ota: {step}", lambda: kick(site))
    run = site.run(timeout_s=60)
    assert line.thread is not None, run.output
    line.thread.join()
    assert "timeout" not in run.names(), run.output
    assert {(r["e"], r["i"], r["m"]) for r in site.reports()} == {
        (2, fuid, "can not apply: bad archive, CRC-32 differs")
    }, run.output
    assert site.retained() is None
    assert site.flash_files() == site.files
