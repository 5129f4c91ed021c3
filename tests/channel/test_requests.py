"""Every kind of message that can stand on a node's ota topic, and what becomes of it."""

from __future__ import annotations

import json
import random

import pytest

from host_sim import sample
from host_sim.sample import DEVICE_ID
from tests.brokers import available_brokers
from tests.conftest import MakeSite
from tests.secrecy import WatchedSite

FUID = "fa8884d2"
GOOD = {"e": 0, "i": FUID, "t": ".tar.gz", "s": 3987}


def pack(**fields: object) -> bytes:
    """A SenML pack in the platform's shape; `None` leaves a field out."""
    entries = []
    for name, value in (GOOD | fields).items():
        if value is not None:
            entries.append({"n": name, "vs" if isinstance(value, str) else "v": value})
    return json.dumps(entries, separators=(",", ":")).encode()


def assert_untouched(site: WatchedSite) -> None:
    assert site.console.downloads == []
    assert site.flash_files() == site.files
    assert site.node.run(wakes=1).ops == 0  # and nothing is left to do


@pytest.mark.few(1)
@pytest.mark.parametrize("event", [1, 2, 3, "1"])
def test_another_event_is_no_request(make_site: MakeSite, event: object):
    site = make_site()
    payload = pack(e=event)
    site.console.request_raw(DEVICE_ID, payload)
    assert "check: idle" in site.run().output
    assert site.retained() == payload  # not ours to clear
    assert site.console.messages(DEVICE_ID)[-1].payload == payload  # and not ours to answer
    assert_untouched(site)


def test_an_empty_retained_message_is_nothing(make_site: MakeSite):
    site = make_site()
    site.console.request_raw(DEVICE_ID, b"")
    assert "check: idle" in site.run().output
    assert site.reports() == []
    assert_untouched(site)


LISTEN = """
import ota
from ota.control import Control
from ota.dial import look
from ota.install.report import finish
from ota.wire import Limits

config = ota.load_config()
control = Control(config, Limits(5000, 60000), None, look(config))
control.connect()

def hear(topic, payload):
    control.on_message(topic, payload)
    print("heard", payload, control.request, control.bad)

control.client.set_callback(hear)
for event, text in ((2, "not enough space"), (1, None)):
    finish(control, event, "fa8884d2", text, lambda step, value: print("sent", step))
while control.link.readable(300):
    control.client.wait_msg()
control.close()
"""


@pytest.mark.parametrize("broker", available_brokers())
def test_own_messages_are_no_requests(make_site: MakeSite, broker: str):
    """A node that stays hears its own clear and reports, and takes none of them for a request."""
    site = make_site(broker=broker)
    site.console.request_raw(DEVICE_ID, pack())
    run = site.node.exec(LISTEN)
    assert run.exit_code == 0, run.output
    heard = [line for line in run.output.splitlines() if line.startswith("heard")]
    assert len(heard) == 3
    assert all(line.endswith(" None None") for line in heard), run.output
    for text in ("heard b'' ", "not enough space", '"n":"e","v":1'):
        assert any(text in line for line in heard), (text, run.output)
    # The second report finds nothing to clear, and none of the reports is retained.
    assert run.output.count("sent clear") == 1
    assert site.retained() is None
    assert [r["e"] for r in site.reports()] == [2, 1]


@pytest.mark.check
def test_a_request_is_answered_once(make_site: MakeSite):
    site = make_site()
    site.console.request_raw(DEVICE_ID, pack(s=10**9))
    run = site.run(wakes=3)
    assert run.output.count("check: failed\nreason: not enough space: 1000000000 bytes") == 1
    assert run.output.count("check: idle") == 2
    assert [r["e"] for r in site.reports()] == [2]
    assert site.retained() is None


MALFORMED = {
    "i missing": (pack(i=None), "", "i is missing"),
    "i a list": (pack(i=[]), "", "i is missing"),
    "i empty": (pack(i=""), "", "i is missing"),
    "i leaves the URL": (pack(i="a&dk=x"), "", "i is missing"),
    "t missing": (pack(t=None), FUID, "t is missing"),
    "t a number": (pack(t=5), FUID, "t is missing"),
    "t unknown": (pack(t=".zip"), FUID, "t is missing"),
    "s missing": (pack(s=None), FUID, "s is missing"),
    "s a word": (pack(s="many"), FUID, "s is missing"),
    "s negative": (pack(s=-1), FUID, "s is missing"),
    "s nothing": (pack(s=0), FUID, "s is missing"),
    "e missing": (pack(e=None), FUID, "e is missing"),
    "not JSON": (b"update please", "", "not JSON"),
    "cut JSON": (pack()[:-1], "", "not JSON"),
    "not text": (bytes(range(128, 256)), "", "not JSON"),
    "an object": (b'{"e":0}', "", "not a SenML pack"),
    "deeply nested": (b"[" * 1500, "", "nested or long"),
    "2 KB of brackets": (b"[{" * 1000, "", "nested or long"),
    "2 KB of entries": (json.dumps([{"n": "x", "v": 1}] * 100).encode(), "", "nested or long"),
    "2 KB of numbers": (b"[" + b"1," * 1000 + b"1]", "", "not a SenML pack"),
    "2 KB of text": (pack(x="y" * 1800, i=None), "", "i is missing"),
    "2 KB of spaces": (b" " * 2048, "", "not JSON"),
    "64 KB of garbage": (random.Random(5).randbytes(65536), "", "longer than any request"),
    "64 KB of JSON": (pack(x="y" * 65536), "", "longer than any request"),
}


@pytest.mark.check
@pytest.mark.few(4)
@pytest.mark.parametrize("row", MALFORMED)
def test_a_malformed_request_is_answered_and_cleared(make_site: MakeSite, row: str):
    """A heap as small as a node's: a message must not be able to fill it."""
    payload, file_id, detail = MALFORMED[row]
    site = make_site(heap="96K")
    site.console.request_raw(DEVICE_ID, payload)
    run = site.run(wakes=2)
    assert run.exit_code == 0
    assert run.output.count("check: failed\nreason: bad request: ") == 1, run.output
    assert run.output.count("check: idle") == 1
    (report,) = site.reports()
    assert (report["e"], report["i"]) == (2, file_id)
    assert report["m"].startswith("bad request: " + detail)
    assert site.retained() is None
    assert_untouched(site)


@pytest.mark.parametrize("broker", available_brokers())
def test_64_kb_of_garbage_on_both_brokers(make_site: MakeSite, broker: str):
    site = make_site(broker=broker)
    site.console.request_raw(DEVICE_ID, random.Random(6).randbytes(65536))
    assert "check: failed" in site.run().output
    assert site.retained() is None


@pytest.mark.parametrize("broker", available_brokers())
def test_a_request_on_another_devices_topic_is_not_heard(make_site: MakeSite, broker: str):
    site = make_site(broker=broker)
    other = "11111111-2222-3333-4444-555555555555"
    site.console.add_device(other, "another-key", site.config["control_channel"])
    fuid = site.console.add_package(sample.tar({"main.py": sample.main_py(2)}), "p.tar").fuid
    site.console.request(other, fuid)
    assert "check: idle" in site.run().output
    assert site.console.retained(other) is not None
    assert site.reports() == []
    assert_untouched(site)


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "reshape",
    [
        lambda e: list(reversed(e)),
        lambda e: [{k: str(v) for k, v in row.items()} for row in e],
        lambda e: [{"vs" if k == "v" else k: str(v) for k, v in row.items()} for row in e],
        lambda e: [{"bn": "", "bt": 1.7e9, "u": "x", **row, "extra": [1, {"a": 2}]} for row in e],
        lambda e: [*e, {"n": "prio", "v": 3}, {"n": "note", "vs": "hello"}],
    ],
    ids=["reversed", "numbers as text in v", "numbers as text in vs", "base fields", "unknown"],
)
def test_unusual_but_sound_requests_are_acted_on(make_site: MakeSite, reshape):
    site = make_site()
    data = sample.tar_gz({"main.py": sample.main_py(2)})
    fuid = site.console.add_package(data, "p.tar.gz").fuid
    entries = json.loads(pack(i=fuid, s=len(data)))
    site.console.request_raw(DEVICE_ID, json.dumps(reshape(entries)).encode())
    assert "version 2 runs" in site.run().output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert site.retained() is None


def test_a_package_larger_than_free_flash_is_not_even_asked_for(make_site: MakeSite):
    site = make_site()
    site.console.request_raw(DEVICE_ID, pack(s=2 * 1024 * 1024))
    assert "check: failed" in site.run().output
    (report,) = site.reports()
    assert (report["e"], report["i"]) == (2, FUID)
    assert report["m"].startswith("not enough space: 2097152 bytes announced")
    assert site.retained() is None
    assert_untouched(site)


def test_a_package_that_grows_beyond_free_flash_stops_before_it_is_full(make_site: MakeSite):
    site = make_site(blocks=77)
    site.ask(sample.tar_gz({f"zeros/{n}.bin": bytes(20_000) for n in range(20)}))
    run = site.run()
    assert "check: failed" in run.output
    assert site.reports()[0]["m"].startswith("not enough space: ")
    assert site.retained() is None
    assert site.flash_files() == site.files
