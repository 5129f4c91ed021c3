"""What the console says that devices are doing, and its events."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest

from host_sim.console import Console, DeviceView, Faults, state
from host_sim.console.control import ControlServer, call
from host_sim.console.mqtt_client import MqttClient
from host_sim.errors import SimError
from tests.brokers import need
from tests.busy import factor

KEY, CHANNEL = "key", "channel"
PACKAGE = bytes(100_000)


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    with Console(tmp_path) as console:
        console.add_devices([("a", KEY, CHANNEL), ("b", KEY, CHANNEL)])
        console.add_package(PACKAGE, "x.tar", fuid="00000001")
        console.add_package(PACKAGE, "y.tar", fuid="00000002")
        yield console


def say(console: Console, device: str, *payloads: bytes, leaf: str = "ota") -> None:
    """The device publishes; the console has heard it when this returns."""
    with MqttClient("127.0.0.1", console.ports.mqtt, device, KEY) as node:
        for payload in payloads:
            node.publish(console.topic(device, leaf), payload, retain=not payload)
    console.messages(device)


def report(e: int, fuid: str, m: str | None = None) -> bytes:
    pack: list[dict] = [{"n": "e", "v": e}, {"n": "i", "vs": fuid}]
    return json.dumps(pack + ([{"n": "m", "vs": m}] if m is not None else [])).encode()


@contextlib.contextmanager
def connection(console: Console) -> Iterator[http.client.HTTPSConnection]:
    trust = ssl.create_default_context(cafile=console.ca_pem)
    link = http.client.HTTPSConnection("localhost", console.ports.https, context=trust, timeout=60)
    with contextlib.closing(link):
        yield link


def get(
    link: http.client.HTTPSConnection,
    fuid: str = "00000001",
    device: str = "a",
    key: str = KEY,
    span: str | None = None,
) -> int:
    query = urlencode({"fuid": fuid, "did": device, "dk": key, "cid": CHANNEL})
    headers = {"Range": f"bytes={span}"} if span else {}
    link.request("GET", f"/mf-rproxy/packages/download?{query}", headers=headers)
    answer = link.getresponse()
    answer.read()
    return answer.status


def words(console: Console, device: str = "a") -> tuple[str, str | None]:
    view = console.view(device)
    return view.words, view.message


def told(console: Console, kind: str) -> list[str]:
    return [event.text for event in console.events() if event.kind == kind]


def test_an_update_from_request_to_report(console: Console) -> None:
    begin = time.time()
    since = console.view("a").since
    assert begin - 10 < since < begin
    assert console.view("a") == DeviceView("a", "idle", None, None, None, None, 0, since, None)
    console.request("a", "00000001")
    view = console.view("a")
    assert (view.state, view.fuid, view.last_contact) == ("requested", "00000001", None)
    with connection(console) as link:
        get(link)
    assert words(console) == ("downloading 100 %", None)
    assert console.view("a").attempts == 1
    say(console, "a", b"", report(1, "00000001"))
    view = console.view("a")
    assert (view.state, view.version, view.message) == ("installed on trial", "00000001", None)
    assert view.last_contact is not None and begin < view.last_contact < time.time()
    assert begin < view.since < time.time()
    assert words(console, "b") == ("idle", None)
    say(console, "a", report(2, "00000001", "rolled back: 3 boots without confirm"))
    view = console.view("a")
    assert (view.state, view.version) == ("rolled back", None)
    assert view.message == "rolled back: 3 boots without confirm"
    kinds = [event.kind for event in console.events() if event.device == "a"]
    assert kinds[0] == "request" and kinds[-3:] == ["cleared", "report", "report"]
    assert set(kinds[1:-3]) == {"download"}
    numbers = [event.number for event in console.events()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert console.last_event == len(numbers)


def test_where_nodes_report_when_they_confirm(tmp_path: Path) -> None:
    with Console(tmp_path, reports="confirmed") as console:
        console.add_device("a", KEY, CHANNEL)
        say(console, "a", report(1, "00000001"))
        assert console.view("a").state == "confirmed"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("rolled back: damaged", "rolled back"),
        ("not enough space: flash is full", "failed"),
        (None, "failed"),
    ],
)
def test_how_a_failure_is_called(console: Console, reason: str | None, expected: str) -> None:
    console.request("a", "00000001")
    say(console, "a", b"", report(2, "00000001", reason))
    assert words(console) == (expected, reason)
    assert console.view("a").version is None


def test_a_refusal_that_is_told_before_it_is_cleared(console: Console) -> None:
    console.request("a", "00000001")
    say(console, "a", report(2, "00000001", "bad request: e"), b"")
    assert words(console) == ("failed", "bad request: e")


def test_percent_moves_while_a_download_runs(console: Console) -> None:
    console.request("a", "00000001")
    console.faults = Faults(drip=200_000)
    seen = []
    with connection(console) as link:
        thread = threading.Thread(target=get, args=(link,))
        thread.start()
        while thread.is_alive():
            seen.append(console.view("a").percent)
            time.sleep(0.02)
        thread.join()
    moved = [percent for percent in seen if percent is not None]
    assert moved == sorted(moved)
    assert len(set(moved)) > 5
    steps = [text for text in told(console, "download") if text.endswith("% of 00000001")]
    assert 9 <= len(steps) <= 10


def test_what_nobody_has_read_is_not_shown_as_done(console: Console) -> None:
    fuid = console.add_package(bytes(4_000_000), "large.tar").fuid
    console.request("a", fuid)
    with connection(console) as link:
        query = urlencode({"fuid": fuid, "did": "a", "dk": KEY, "cid": CHANNEL})
        link.request("GET", f"/mf-rproxy/packages/download?{query}")
        link.getresponse().read(1000)
        before = -1
        while before != (before := console.downloads[-1].bytes_sent):
            time.sleep(0.3)
        assert 0 <= (console.view("a").percent or 0) < 50


def test_percent_of_parts_and_of_what_goes_on(console: Console) -> None:
    console.request("a", "00000001")
    expected = [("0-17", 0), ("0-5375", 5), ("40000-45999", 46), ("90000-90999", 91)]
    with connection(console) as link:
        for span, percent in expected:
            assert get(link, span=span) == 206
            assert console.view("a").percent == percent
    assert console.view("a").attempts == 1
    with connection(console) as link:  # another wake
        get(link, span="95000-")
    assert (console.view("a").percent, console.view("a").attempts) == (100, 2)
    assert "downloads 00000001, from byte 95000 of 100000" in told(console, "download")


def test_a_connection_that_breaks_off(console: Console) -> None:
    console.request("a", "00000001")
    console.faults = Faults(truncate_at=42_000)
    with connection(console) as link, pytest.raises(http.client.HTTPException):
        get(link)
    line = "connection broke off at 42 % of 00000001"
    assert console.wait_for(lambda: line in told(console, "download"), 5)
    assert words(console) == ("downloading 42 %", None)


def test_who_has_not_the_key_has_not_been_heard(console: Console) -> None:
    console.request("a", "00000001")
    with connection(console) as link:
        assert get(link, key="wrong") == 401
    view = console.view("a")
    assert (view.state, view.last_contact, view.attempts) == ("requested", None, 0)
    assert told(console, "download") == ["download of 00000001 answered with 401"]


def test_another_request_in_the_place_of_one(console: Console) -> None:
    console.request("a", "00000001")
    with connection(console) as link:
        get(link)
        console.request("a", "00000002")
        view = console.view("a")
        assert (view.state, view.fuid, view.attempts) == ("requested", "00000002", 0)
        get(link, "00000001")  # it had begun
        assert console.view("a").state == "requested"
        say(console, "a", report(1, "00000001"))  # it had committed
        view = console.view("a")
        assert (view.state, view.fuid, view.version) == ("requested", "00000002", "00000001")
        get(link, "00000002")
    say(console, "a", b"", report(2, "00000002", "rolled back: damaged"))
    view = console.view("a")
    assert (view.state, view.fuid, view.version) == ("rolled back", "00000002", "00000001")


def test_cancel_while_it_downloads(console: Console) -> None:
    console.request_many(["a", "b"], "00000001")
    console.faults = Faults(drip=100_000)
    with connection(console) as link:
        thread = threading.Thread(target=get, args=(link,))
        thread.start()
        try:
            assert console.wait_for(lambda: console.view("a").state == "downloading", 5)
            console.cancel(["a", "b"])
            assert words(console) == words(console, "b") == ("idle", "cancelled")
        finally:
            thread.join()
    assert words(console) == ("idle", "cancelled")
    assert console.retained("a") is None and console.retained("b") is None
    assert told(console, "cleared") == ["request cancelled"] * 2
    console.cancel(["a"])
    assert words(console) == ("idle", "cancelled")
    # Too late for a node that had committed.
    say(console, "a", report(1, "00000001"))
    assert console.view("a").state == "installed on trial"


def test_a_request_that_somebody_else_clears(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.request("a", "00000001")
    console.request_raw("a", b"")
    assert words(console) == ("requested", None)  # a report may follow
    monkeypatch.setattr(state, "_CLEARED_S", -1)
    assert words(console) == ("idle", "the request was cleared, and no report followed")
    after = console.last_event
    assert [view.id for view in console.views(after)] == ["a"]  # only time has changed it
    say(console, "a", report(1, "00000001"))
    assert console.view("a").state == "installed on trial"


def test_a_node_that_clears_and_reports_at_its_next_wake(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "_CLEARED_S", -1)
    console.request("a", "00000001")
    with connection(console) as link:
        get(link)
    say(console, "a", b"")
    assert words(console) == ("downloading 100 %", "request cleared: a report is to come")
    say(console, "a", report(1, "00000001"))
    assert words(console) == ("installed on trial", None)


def test_a_node_that_tells_that_its_request_was_withdrawn(console: Console) -> None:
    console.request("a", "00000001")
    with connection(console) as link:
        get(link)
    console.request_raw("a", b"")
    say(console, "a", b'[{"n":"e","v":3},{"n":"i","vs":"00000001"}]', leaf="stat")
    assert words(console) == ("idle", "withdrawn")


def test_overdue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = 0
    clock = SimpleNamespace(time=lambda: time.time() + later)
    monkeypatch.setattr(state, "time", clock)
    with Console(tmp_path, overdue_s=100) as console:
        console.add_devices([("a", KEY, CHANNEL), ("b", KEY, CHANNEL)])
        fuid = console.add_package(PACKAGE, "x.tar").fuid
        console.request("a", fuid)
        assert console.view("a").state == "requested"
        later = 210
        view = console.view("a")
        assert (view.state, view.message) == ("overdue", "not heard of for 4 min")
        assert view.since == pytest.approx(time.time() + 100, abs=60)
        assert [v.id for v in console.views(console.last_event)] == ["a"]
        assert console.view("b").state == "idle"
        with connection(console) as link:
            get(link, fuid)
        assert console.view("a").state == "downloading"


@pytest.mark.parametrize("broker", ["amqtt", "mosquitto"])
def test_what_others_have_retained(tmp_path: Path, broker: str) -> None:
    with Console(tmp_path / "1", broker=need(broker)) as first:
        first.add_device("a", KEY, CHANNEL)
        fuid = first.add_package(PACKAGE, "x.tar").fuid
        first.request("a", fuid)
        account = first._registry.admin_user, first._registry.admin_password
        with Console(
            tmp_path / "2",
            broker=f"127.0.0.1:{first.ports.mqtt}",
            broker_user=account[0],
            broker_password=account[1],
        ) as second:
            second.add_device("a", KEY, CHANNEL)
            second._listen(second._running)  # it hears what is retained when it has a device
            second.messages("a")
            assert (second.view("a").state, second.view("a").fuid) == ("requested", fuid)
            second.cancel(["a"])
            first.messages("a")
            assert first.retained("a") is None
            assert first.wait_for(lambda: not first._fleet.pending("a"), 5)
            # The second one's echo alone says that it was an order, not a node.
            assert words(second) == ("idle", "cancelled")


HOSTILE = [
    b"\x00\x1b[2J\r\n" * 100,
    b"\xff\xfe\xfd",
    b"x" * 1_000_000,
    b"[" * 100_000,
    b"{}",
    b"[null]",
    b'[{"n":"e","v":0},{"n":"i","v":' + b"[" * 900 + b"]" * 900 + b"}]",
    b'[{"n":"e","v":0},{"n":"i","vs":"\\u001b]0;x\\u0007\\ud800<script>"},{"n":"s","v":-1}]',
    report(2, "\x1b[31m\n" * 50, "<script>\x1b[2J\u202e\u2028\x9b" + "m" * 1_000_000),
    report(1, "\n"),
    b'[{"n":"e","v":2},{"n":"i","v":{"a":1}},{"n":"m","v":[1]}]',
    b'[{"n":"e","v":1e999}]',
    b'[{"n":"e","v":' + b"9" * 5000 + b"}]",
    b'[{"n":"e","v":NaN}]',
]


@pytest.mark.parametrize("leaf", ["ota", "stat"])
@pytest.mark.parametrize("payload", HOSTILE, ids=range(len(HOSTILE)))
def test_what_a_node_says_is_data(console: Console, payload: bytes, leaf: str) -> None:
    begin = console.last_event
    say(console, "a", payload, leaf=leaf)
    assert console.last_event == begin + 1
    lines = [event.text for event in console.events(begin)]
    lines += [text for view in console.views() for text in vars(view).values() if view and text]
    for line in lines:
        assert str(line).isprintable() and len(str(line)) <= 200
    with ControlServer(console):
        assert call(console.directory, "status", "a")["id"] == "a"
    say(console, "b", report(1, "00000001"))
    assert console.view("b").state == "installed on trial"


def test_a_node_that_nests_as_deep_as_it_can(
    console: Console, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "console")  # as the command does
    deepest = sys.getrecursionlimit()
    say(console, "a", *(_nested(depth) for depth in range(deepest - 120, deepest)))
    console.request("b", "00000001")
    assert console.view("b").state == "requested"
    assert max(len(record.getMessage()) for record in caplog.records) < 200


def _nested(depth: int) -> bytes:
    return b'[{"n":"e","v":%s1%s}]' % (b"[" * depth, b"]" * depth)


def test_what_a_node_tells_by_itself(console: Console) -> None:
    console.request("a", "00000001")
    begin = (
        b'[{"n":"e","v":0},{"n":"i","vs":"00000001"},{"n":"s","v":100000},{"n":"a","v":3},'
        b'{"n":"g","v":20480},{"n":"o","vs":"0000000f"}]'
    )
    say(console, "a", begin, leaf="stat")
    view = console.view("a")
    assert (view.words, view.attempts, view.version) == ("downloading 20 %", 3, "0000000f")
    assert view.last_contact == pytest.approx(time.time(), abs=5)
    assert told(console, "stat") == [
        "begins: file 00000001, size 100000, attempt 3, staged 20480, version before 0000000f"
    ]
    with connection(console) as link:
        get(link, span="20480-59999")
    assert (console.view("a").percent, console.view("a").attempts) == (60, 3)
    end = b'[{"n":"e","v":1},{"n":"i","vs":"00000001"},{"n":"c","vb":%s},{"n":"x","vs":"y"}]'
    say(console, "a", end % b"false", leaf="stat")
    assert (console.view("a").state, console.view("a").version) == (
        "installed on trial",
        "00000001",
    )
    say(console, "a", b"", report(1, "00000001"))
    assert console.view("a").state == "installed on trial"
    say(console, "a", end % b"true", leaf="stat")
    assert console.view("a").state == "confirmed"
    say(console, "a", report(1, "00000001"))  # once more, or behind the statistics
    assert console.view("a").state == "confirmed"
    assert told(console, "stat")[-1] == "applied: file 00000001, confirmed yes, x y"
    assert console.messages("a")[0].payload == console.request_payload("00000001").encode()


def test_statistics_of_another_package_decide_nothing(console: Console) -> None:
    console.request("a", "00000002")
    for event in range(4):
        pack = b'[{"n":"e","v":%d},{"n":"i","vs":"00000001"},{"n":"a","v":7}]' % event
        say(console, "a", pack, leaf="stat")
        assert (console.view("a").state, console.view("a").attempts) == ("requested", 0)
    assert console.view("a").version == "00000001"


def test_events_are_kept_within_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "EVENTS_KEPT", 5)
    with Console(tmp_path) as console:
        for number in range(8):
            console.add_device(f"d{number}", KEY, CHANNEL)
        assert [event.number for event in console.events()] == [4, 5, 6, 7, 8]
        assert [event.device for event in console.events(6)] == ["d6", "d7"]
        assert [event.number for event in console.events(0, 2)] == [4, 5]
        assert console.events(8) == console.events(99) == console.events(0, 0) == []
        assert console.wait_for_event(7, 0)
        assert not console.wait_for_event(8, 0.01)
        threading.Timer(0.1, console.add_device, ("late", KEY, CHANNEL)).start()
        assert console.wait_for_event(8, 5)


def test_nobody_is_asked_when_one_is_not_known(console: Console) -> None:
    for asked, fuid in ((["a", "x"], "00000001"), (["a"], "00000009")):
        with pytest.raises(SimError, match="is not known"):
            console.request_many(asked, fuid)
    with pytest.raises(SimError, match="is not known"):
        console.cancel(["a", "x"])
    assert {view.state for view in console.views()} == {"idle"}
    console.request_many([], "00000001")


def test_devices_and_packages_go(console: Console) -> None:
    console.request_many(["a", "b"], "00000001")
    with pytest.raises(SimError, match="00000001 is requested of a and 1 more: cancel that first"):
        console.remove_package("00000001")
    with pytest.raises(SimError, match="'x' is not known"):
        console.remove_devices(["a", "x"])
    assert len(console.views()) == 2
    topic = console.topic("a")
    console.remove_devices(["a"])
    assert [view.id for view in console.views()] == ["b"]
    heard: list = []
    with console._connect(heard.append) as client:
        client.subscribe(topic, 0)
        client.subscribe(topic + "/x", 0)
    assert heard == []  # withdrawn with it
    console.cancel(["b"])
    console.remove_package("00000001")
    assert [package.fuid for package in console.packages()] == ["00000002"]
    assert not (console.directory / "packages" / "00000001").exists()
    assert told(console, "package")[-1] == "00000001 removed"
    console.add_device("a", "another", CHANNEL)
    assert console.view("a").state == "idle"


def test_a_device_that_moves_to_another_channel_is_not_asked(console: Console) -> None:
    console.request("a", "00000001")
    console.add_device("a", KEY, "elsewhere")
    assert console.view("a").state == "idle"


def test_list_while_many_are_asked(console: Console) -> None:
    ids = [f"d{number:03}" for number in range(300)]
    console.add_devices([(device, KEY, CHANNEL) for device in ids])
    asking = threading.Thread(target=console.request_many, args=(ids, "00000001"))
    asking.start()
    counts = []
    while asking.is_alive():
        views = console.views()
        assert len(views) == 302
        counts.append(sum(view.state == "requested" for view in views))
    asking.join()
    assert counts == sorted(counts)
    assert sum(view.state == "requested" for view in console.views()) == 300


@pytest.mark.parametrize("broker", ["amqtt", "mosquitto"])
def test_a_thousand_requests(tmp_path: Path, broker: str) -> None:
    with Console(tmp_path, broker=need(broker)) as console, ControlServer(console):
        ids = [f"d{number:04}" for number in range(1000)]
        console.add_devices([(device, KEY, CHANNEL) for device in ids])
        fuid = console.add_package(PACKAGE, "x.tar").fuid
        begin = time.monotonic()
        call(console.directory, "request_many", None, fuid)
        # On a machine that does nothing else.
        busy = factor()
        assert time.monotonic() - begin < 5 * busy
        views = call(console.directory, "views")["views"]
        assert [view["id"] for view in views] == ids
        assert {view["state"] for view in views} == {"requested"}
        assert console.retained(ids[-1]) == console.request_payload(fuid).encode()
