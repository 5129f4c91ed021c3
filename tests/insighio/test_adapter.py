"""The field firmware's `checkAndApply(client)` with the agent behind it, on Wi-Fi and modem."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest

from host_sim.node.node import run_code
from host_sim.sample import DEVICE_ID
from tests.conftest import FIRMWARE, MakeSite
from tests.insighio.fleet import (
    ADAPTER,
    FIELD,
    check_updated,
    field_node,
    package,
    replace,
    tree_of,
)
from tests.secrecy import WatchedSite, blocks_with_key

both = pytest.mark.parametrize("modem", [False, True], ids=["wifi", "modem"])
FORK = "external/umqtt/simple.py"


@both
def test_an_update_from_request_to_confirm(make_site: MakeSite, modem: bool) -> None:
    site = field_node(make_site, modem)
    brought, archive = package(site)
    fuid = site.ask(archive)
    run = site.run(timeout_s=60)
    assert run.names() == ["boot", "reset", "boot", "sleep", "flash"], run.output
    assert run.output.count("checkAndApply: None False") == 1  # in version 1 it never returned
    check_updated(site, brought, fuid)
    assert "log: OTA: confirmed" in run.output
    assert len(site.console.downloads) == 1
    # The field's way of listening takes its seconds, and says nothing of a failure.
    assert "get_control_message" not in run.output
    order = re.findall("^(?:log: OTA: )?(clearC|clear|report|disconnect)", run.output, re.M)
    assert order == ["clearC", "clear", "report", "disconnect", "disconnect"]
    assert said(site) == EMPTY  # the clear, and what the trial has to hear
    idle = site.run(timeout_s=60)
    assert idle.ops == 0
    assert "still connected: True" in idle.output
    assert "log: OTA: idle" in idle.output
    assert said(site) == EMPTY


EMPTY = 2


def said(site: WatchedSite) -> int:
    """How many empty messages the node has published."""
    return sum(not message.payload for message in site.console.messages(DEVICE_ID))


BROKEN = {
    "does nothing": b"    def subscribe(self, topic, qos=0):\n        return\n",
    "raises": b"    def subscribe(self, topic, qos=0):\n        raise OSError(-1)\n",
}


@pytest.mark.few(1)
@pytest.mark.parametrize("how", BROKEN)
def test_a_version_that_hears_nothing_comes_back(make_site: MakeSite, how: str) -> None:
    site = field_node(make_site, config={"trial_wakes": 2, "timeout_s": 2})
    tree = tree_of(FIELD)
    replace(tree, FORK, b"    def subscribe(self, topic, qos=0):\n", BROKEN[how])
    _, archive = package(site, {FORK: tree[FORK]})
    fuid = site.ask(archive)
    run = site.run(wakes=6, timeout_s=120)
    reports = site.reports()
    assert [(each["e"], each["i"]) for each in reports] == [(1, fuid), (2, fuid)], run.output
    assert reports[1]["m"].startswith("rolled back: 2 wakes without confirm")
    assert "confirmed" not in run.output
    flag = {"/ota_applied_flag": b"done"}
    assert site.flash_files() == site.files | flag


@pytest.mark.few(1)
@pytest.mark.parametrize("fault", ["deaf", "refused"])
def test_a_modem_that_hears_nothing_confirms_nothing(make_site: MakeSite, fault: str) -> None:
    site = field_node(make_site, True, config={"trial_wakes": 2, "timeout_s": 2})
    _, archive = package(site, {"faults.py": b"FAULTS = {%r: True}\n" % fault})
    fuid = site.ask(archive)
    run = site.run(wakes=6, timeout_s=120)
    assert [(r["e"], r["i"]) for r in site.reports()] == [(1, fuid), (2, fuid)], run.output
    assert site.flash_files()["/main.py"] == site.files["/main.py"]
    # A check that has failed costs no second connection.
    assert run.output.count("mqtt_connect") == run.output.count("connect: True")


def test_a_modem_that_subscribes_at_the_second_try(make_site: MakeSite) -> None:
    site = field_node(make_site, True, {"again": True})
    run = site.run(timeout_s=60)
    assert "log: OTA: idle" in run.output


@both
def test_other_messages_go_to_the_field_s_updater(make_site: MakeSite, modem: bool) -> None:
    site = field_node(make_site, modem)
    for leaf, text in (("cmd", "tare"), ("partialConfig", "a=1")):
        topic = site.console.topic(DEVICE_ID, leaf)
        site.console.request_raw(DEVICE_ID, text, retain=True, topic=topic)
    run = site.run(timeout_s=60)
    heard = re.findall("^field: (.*)$", run.output, re.MULTILINE)
    assert heard == [f"cmd tare {modem}", "None", f"partialConfig a=1 {modem}", "None"]
    assert "field:" not in site.run(timeout_s=60).output  # they were cleared


def test_a_message_that_is_no_text_goes_on_as_it_is(make_site: MakeSite) -> None:
    site = field_node(make_site)
    for leaf, text in (("cmd", b"\xff\x00"), ("config", b"a=1")):
        topic = site.console.topic(DEVICE_ID, leaf)
        site.console.request_raw(DEVICE_ID, text, retain=True, topic=topic)
    heard = re.findall("^field: (c.*)$", site.run(timeout_s=60).output, re.MULTILINE)
    assert sorted(heard) == ["cmd b'\\xff\\x00' False", "config a=1 False"]


BAD_JSON = {
    "end": ("text + '\\n{'", "ValueError"),
    "list": ("'[' + text + '\\n]'", "ValueError"),
    "key": ("'{\"other\": 1,' + text[1:]", "bad configuration: unknown key other"),
    "type": ("'{\"timeout_s\": null,' + text[1:]", "TypeError"),
}


@pytest.mark.few(3)
@both
@pytest.mark.parametrize("how", BAD_JSON)
def test_an_ota_json_that_can_not_be_used(make_site: MakeSite, modem: bool, how: str) -> None:
    """Commands are heard, and nothing is installed: nobody knows whose signature it needs."""
    # Where the stand-in has the identity from.
    cfg = "apps/demo_console/cfg.py"
    tree = tree_of(FIELD)
    first = b"json.loads(file.readline().lstrip('['))"
    replace(tree, cfg, b"json.load(file)", first)
    site = field_node(make_site, modem, extra={cfg: tree[cfg]})
    text, told = BAD_JSON[how]
    code = f"""
with open("/ota.json") as file:
    text = file.read().replace("\\n", " ")
with open("/ota.json", "w") as file:
    file.write({text})
"""
    site.node.exec(code)
    site.key_blocks = blocks_with_key(site.image)
    site.ask(package(site)[1])
    topic = site.console.topic(DEVICE_ID, "cmd")
    site.console.request_raw(DEVICE_ID, "tare", retain=True, topic=topic)
    run = site.run(timeout_s=60)
    assert f"field: cmd tare {modem}" in run.output, run.output
    assert f"log: OTA: /ota.json can not be used, {told}" in run.output
    assert "log: OTA: later" in run.output
    assert site.retained()
    assert not (site.reports() or site.console.downloads)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda archive: archive[:-6] + bytes([archive[-6] ^ 1]) + archive[-5:], "can not apply"),
        (None, "can not download"),
        (lambda archive: archive + bytes(300_000), "not enough space"),
    ],
    ids=["apply", "download", "space"],
)
def test_the_texts_are_the_field_s(make_site: MakeSite, spoil: Callable, text: str) -> None:
    site = field_node(make_site, blocks=163)
    _, archive = package(site)
    fuid = site.ask(spoil(archive) if spoil else archive)
    if not spoil:
        site.console.faults.status = 404
    # What a server says is final when it says it twice.
    run = site.run(wakes=1 if spoil else 2, timeout_s=60)
    assert site.reports() == [{"e": 2, "i": fuid, "m": text}], run.output
    assert re.search(f"log: OTA: {text}: .", run.output)  # the detail is not lost
    assert site.retained() is None
    assert site.flash_files() == site.files


@pytest.mark.slow
def test_a_request_that_the_agent_hears_late(make_site: MakeSite) -> None:
    """Without a fixed wait: the first checks after power-on listen for 10 s."""
    site = field_node(make_site)
    del site.config["mqtt"]["grace_ms"]
    site.configure()
    brought, archive = package(site)
    fuid = site.ask(archive)
    run = site.run(timeout_s=90)
    check_updated(site, brought, fuid)
    assert "log: OTA: confirmed" in run.output


# The configuration


def on_node(code: str, settings: dict, field: str = "") -> str:
    """What code prints, with the adapter's package as `adapter`."""
    script = f"""
import sys
class cfg: pass
module = cfg()
module.get = {settings!r}.get
class Field:
    thing_id, thing_token, control_channel_id, server_ip = "d", "k", "c", "console.insigh.io"
{field}
module.get_protocol_config = Field
for name in ("apps", "apps.demo_console"):
    sys.modules[name] = cfg()
sys.modules["apps.demo_console"].cfg = sys.modules["apps.demo_console.cfg"] = module
import ota_insighio as adapter
config = adapter.configuration()
from ota.config import complete
complete(config)
{code}
"""
    return run_code(script, path=[FIRMWARE, ADAPTER, FIELD]).output.strip()


@pytest.mark.parametrize(
    ("address", "server"),
    [
        ("console.insigh.io", "console.insigh.io"),
        ("localhost:8443", "localhost:8443"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "[2001:db8::1]"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
    ],
)
def test_the_server(address: str, server: str) -> None:
    assert on_node("print(config['server'])", {}, f"Field.server_ip = {address!r}") == server


@pytest.mark.parametrize(
    ("settings", "days", "deadline_s"),
    [
        ({}, 14, 900),
        ({"_DEEP_SLEEP_PERIOD_SEC": 300}, 14, 900),
        # A batch of 100 measurements, one an hour: four days between two uploads.
        ({"_DEEP_SLEEP_PERIOD_SEC": 3600, "_BATCH_UPLOAD_MESSAGE_BUFFER": 100}, 47, 900),
        ({"_DEEP_SLEEP_PERIOD_SEC": 86400, "_BATCH_UPLOAD_MESSAGE_BUFFER": 100}, 365, 900),
        # A modem: 120 s to register, and then as the settings say.
        (
            {
                "_MAX_ATTACHMENT_ATTEMPT_TIME_SEC": 600,
                "_MAX_CONNECTION_ATTEMPT_TIME_SEC": 600,
                "_MEAS_GPS_TIMEOUT": 120,
            },
            14,
            1920,
        ),
        (
            {
                "_LIGHT_SLEEP_ON": True,
                "_DEEP_SLEEP_PERIOD_SEC": 600,
                "_BATCH_UPLOAD_MESSAGE_BUFFER": 10,
            },
            14,
            12600,
        ),
    ],
)
def test_the_limits_of_a_trial(settings: dict, days: int, deadline_s: int) -> None:
    code = "print(config['trial_days'], config['trial_deadline_s'])"
    assert on_node(code, settings) == f"{days} {deadline_s}"


def test_a_short_watchdog_shortens_all_waits() -> None:
    code = """
import device_info
device_info.wdt, device_info.wdt_timeout = 1, 10
print(adapter.configuration()["timeout_s"])
"""
    assert on_node(code, {}) == "4"


def test_the_web_server_asks_for_space(make_site: MakeSite) -> None:
    code = "print(adapter.has_enough_free_space(1000), adapter.has_enough_free_space(1 << 40))"
    assert on_node(code, {}) == "True False"


def test_an_upload_that_a_cut_has_left_is_removed(make_site: MakeSite) -> None:
    before = b"with open('/ota_upload.tar', 'w') as file:\n    file.write('left')\n"
    site = field_node(make_site, before=before)
    site.run(timeout_s=20)
    assert site.flash_files() == site.files


@pytest.mark.slow
@both
def test_a_watchdog_of_10_s_on_a_slow_link(make_site: MakeSite, modem: bool) -> None:
    """6 KB/s, and a package that takes longer than the watchdog."""
    faults = {"slow_ms": 43}  # for each piece of 256 bytes that is read from the modem
    site = field_node(make_site, modem, faults, watchdog_s=10)
    brought, archive = package(site, {"lib/more.bin": random.Random(1).randbytes(80_000)})
    if not modem:
        site.console.faults.drip = 6000
    fuid = site.ask(archive)
    run = site.run(timeout_s=120)
    assert run.names() == ["boot", "reset", "boot", "sleep", "flash"], run.output
    check_updated(site, brought, fuid)
    # Over the agent's own HTTPS the first bytes of a .tar.gz are asked for alone.
    assert len(site.console.downloads) == (1 if modem else 2)
