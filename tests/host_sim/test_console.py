"""The simulated console: its broker, its package server, its faults and its command line."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import secrets
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from paho.mqtt.client import MQTTMessage

from host_sim.console import Console, Faults, Report
from host_sim.console.journal import Message, parse_report
from host_sim.console.mqtt_client import MqttClient, Refused
from host_sim.console.process_broker import reserved
from host_sim.errors import SimError
from tests.brokers import available_brokers, need, require_mosquitto
from tests.busy import factor
from tests.processes import descendants

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30  # a busy machine
DEVICE = "06c80d38-07a0-4f3a-87ed-ee17232cd7e7"
KEY = "6bb7163b-6edd-42b3-8546-c76693bc2f18"
CHANNEL = "6979beea-6c10-4ab2-a684-11989451d7e6"
FUID = "fa8884d2"
TOPIC = f"channels/{CHANNEL}/messages/{DEVICE}/ota"
REQUEST = '[{"n":"e","v":0},{"n":"i","vs":"fa8884d2"},{"n":"t","vs":".tar.gz"},{"n":"s","v":3987}]'
APPLIED = b'[{"n":"e","v":1},{"n":"i","vs":"fa8884d2"}]'
FAILED = b'[{"n":"e","v":2},{"n":"i","vs":"fa8884d2"},{"n":"m","vs":"not enough space"}]'
OTHER, OTHER_KEY, OTHER_CHANNEL = "other-device", "other-key", "other-channel"
PACKAGE = bytes(range(256)) * 15 + bytes(147)
assert len(PACKAGE) == 3987


@pytest.fixture(autouse=True)
def no_leftovers() -> Iterator[None]:
    """Every console ends all its threads."""
    before = set(threading.enumerate())
    yield
    left = [t for t in threading.enumerate() if t not in before and t.is_alive()]
    assert not left


def furnish(console: Console) -> Console:
    console.add_device(DEVICE, KEY, CHANNEL)
    console.add_device(OTHER, OTHER_KEY, OTHER_CHANNEL)
    console.add_package(PACKAGE, "x.tar.gz", fuid=FUID)
    return console


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    with Console(tmp_path) as console:
        yield furnish(console)


@pytest.fixture(params=available_brokers())
def on_each_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Console]:
    with Console(tmp_path, broker=need(request.param)) as console:
        yield furnish(console)


class Node:
    """A device's connection that remembers what it hears."""

    def __init__(self, console: Console, user: str | None = DEVICE, key: str | None = KEY) -> None:
        self.heard: list[tuple[str, bytes, bool]] = []
        self.new = threading.Condition()
        self.client = MqttClient("127.0.0.1", console.ports.mqtt, user, key, self._hear)

    def _hear(self, message: MQTTMessage) -> None:
        with self.new:
            self.heard.append((message.topic, message.payload, bool(message.retain)))
            self.new.notify_all()

    def wait(self, count: int) -> list[tuple[str, bytes, bool]]:
        with self.new:
            assert self.new.wait_for(lambda: len(self.heard) >= count, PATIENCE_S), self.heard
            return list(self.heard)

    def wait_for(self, payload: bytes) -> list[tuple[str, bytes, bool]]:
        with self.new:
            assert self.new.wait_for(lambda: payload in [p for _, p, _ in self.heard], PATIENCE_S)
            return list(self.heard)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()


# -- broker --------------------------------------------------------------------------------------


def test_a_request_is_retained_and_answered(on_each_broker: Console) -> None:
    console = on_each_broker
    assert console.retained(DEVICE) is None
    assert console.request(DEVICE, FUID) == REQUEST
    assert console.retained(DEVICE) == REQUEST.encode()
    assert console.retained(OTHER) is None
    with Node(console) as node:
        assert node.client.subscribe(TOPIC, 1)
        assert node.wait(1) == [(TOPIC, REQUEST.encode(), True)]
        node.client.publish(TOPIC, b"", retain=True)
        node.client.publish(TOPIC, APPLIED)
        assert console.wait_for_report(DEVICE, timeout=PATIENCE_S) == [Report(1, FUID, None)]
        # Live copies, the node's own among them, are not marked as retained.
        assert node.wait(3)[1:] == [(TOPIC, b"", False), (TOPIC, APPLIED, False)]
    assert console.retained(DEVICE) is None
    seen = [(m.topic, m.payload, m.retain) for m in console.messages(DEVICE)]
    assert seen == [(TOPIC, p, False) for p in (REQUEST.encode(), b"", APPLIED)]


def test_reports_keep_their_order(on_each_broker: Console) -> None:
    console = on_each_broker
    with Node(console) as node:
        for payload in (FAILED, b"not json", b'[{"n":"e","v":3}]', APPLIED, FAILED):
            node.client.publish(TOPIC, payload)
        console.wait_for_report(DEVICE, count=3, timeout=PATIENCE_S)
    failed = Report(2, FUID, "not enough space")
    assert console.reports(DEVICE) == [failed, Report(1, FUID, None), failed]
    assert console.reports(OTHER) == []
    assert len(console.messages(DEVICE)) == 5


def test_waiting_for_a_report_that_does_not_come(console: Console) -> None:
    with pytest.raises(TimeoutError, match="0 of 1 reports"):
        console.wait_for_report(DEVICE, timeout=0.05)


def test_a_wrong_account_is_refused(on_each_broker: Console) -> None:
    console = on_each_broker
    Node(console).client.close()
    wrong = [(DEVICE, "wrong"), (DEVICE, OTHER_KEY), (DEVICE, ""), ("nobody", KEY), (None, None)]
    for user, key in wrong:
        with pytest.raises(Refused):
            Node(console, user, key)


def test_a_device_is_kept_to_its_own_topics(on_each_broker: Console) -> None:
    console = on_each_broker
    foreign = console.topic(OTHER)
    console.request_raw(OTHER, b"secret", retain=True)
    console.request_raw(DEVICE, b"own", topic=console.topic(DEVICE, "config"))
    with Node(console) as node:
        # Granted or not: mosquitto says yes to everything and then delivers nothing.
        for forbidden in (foreign, "channels/+/messages/+/ota", "#", f"channels/{CHANNEL}/#"):
            node.client.subscribe(forbidden, 1)
        assert node.client.subscribe(f"channels/{CHANNEL}/messages/{DEVICE}/#", 1)
        node.client.publish(foreign, b"forged", retain=True)
        node.client.publish(foreign, b"forged")
        node.client.publish(f"channels/{OTHER_CHANNEL}/messages/{DEVICE}/ota", b"forged")
        console.request_raw(OTHER, b"live secret", retain=False)
        node.client.publish(console.topic(DEVICE, "cmd"), b"mine")
        node.wait_for(b"mine")
        console.request_raw(DEVICE, b"last")
        heard = node.wait_for(b"last")
    # Mosquitto sends one copy for each of the overlapping subscriptions it pretended to grant.
    assert {topic.rpartition("/")[0] for topic, _, _ in heard} == {TOPIC.rpartition("/")[0]}
    assert {payload for _, payload, _ in heard} == {b"own", b"mine", b"last"}
    assert console.retained(OTHER) == b"secret"
    assert [m.payload for m in console.messages(OTHER)] == [b"secret", b"live secret"]
    assert [m.payload for m in console.messages(DEVICE)] == [b"last"]


def test_amqtt_denies_in_the_answer(console: Console) -> None:
    with Node(console) as node:
        assert node.client.subscribe(TOPIC, 1)
        for forbidden in (
            console.topic(OTHER),
            "#",
            "channels/+/messages/+/ota",
            TOPIC[:-4] + "x",
        ):
            assert not node.client.subscribe(forbidden, 1)


def test_nothing_is_sent_to_who_has_not_subscribed(console: Console) -> None:
    """amqtt 0.12 sends a new connection what others have subscribed to, when left to itself."""
    console.request(DEVICE, FUID)
    with Node(console) as node:
        node.client.publish(console.topic(DEVICE, "cmd"), b"a round trip")
        node.client.subscribe(console.topic(DEVICE, "config"), 1)
        console.request_raw(DEVICE, b"x", topic=console.topic(DEVICE, "config"))
        assert [payload for _, payload, _ in node.wait(1)] == [b"x"]


@pytest.mark.parametrize("keepalive", [0, 60])
def test_a_ping_is_answered_after_the_subscription_before_it(
    on_each_broker: Console, keepalive: int
) -> None:
    """Sent in one go: who asked for what is retained has got it by then."""
    on_each_broker.request(DEVICE, FUID)

    def text(value: str) -> bytes:
        return len(value).to_bytes(2, "big") + value.encode()

    connect = text("MQTT") + b"\x04\xc2" + keepalive.to_bytes(2, "big") + text(DEVICE) * 2
    connect += text(KEY)
    subscribe = b"\0\1" + text(TOPIC) + b"\0"
    port = on_each_broker.ports.mqtt
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as link:
        link.sendall(b"\x10" + bytes([len(connect)]) + connect)
        assert link.recv(4, socket.MSG_WAITALL) == b"\x20\x02\0\0"
        link.sendall(b"\x82" + bytes([len(subscribe)]) + subscribe + b"\xc0\0")
        heard = b""
        while not heard.endswith(b"\xd0\0"):
            heard += link.recv(1000)
    assert heard.startswith(b"\x90\x03\0\1\0")
    assert REQUEST.encode() in heard


@pytest.mark.slow
def test_messages_reach_everybody_while_others_come_and_go(console: Console) -> None:
    """amqtt 0.12 loses messages when somebody subscribes at the same time, left to itself."""
    stop = threading.Event()

    def come_and_go() -> None:
        number = 0
        while not stop.is_set():
            with Node(console, OTHER, OTHER_KEY) as node:
                for _ in range(5):
                    node.client.subscribe(console.topic(OTHER, f"x{number}"), 0)
                    number += 1

    with Node(console) as node:
        node.client.subscribe(TOPIC, 1)
        threads = [threading.Thread(target=come_and_go) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for number in range(60):
                console.request_raw(DEVICE, b"%d" % number)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        heard = [int(payload) for _, payload, _ in node.wait(60)]
    assert heard == list(range(60))


def test_a_device_added_again_has_its_new_key_only(on_each_broker: Console) -> None:
    console = on_each_broker
    console.add_device(DEVICE, "new key", "new-channel")
    with pytest.raises(Refused):
        Node(console)
    with Node(console, DEVICE, "new key") as node:
        node.client.publish(TOPIC, b"old topic")
        node.client.publish(console.topic(DEVICE), APPLIED)
        console.wait_for_report(DEVICE, timeout=PATIENCE_S)
    assert [m.topic for m in console.messages(DEVICE)] == [console.topic(DEVICE)]


def test_mqtt_over_tls(on_each_broker: Console) -> None:
    console = on_each_broker
    trust = ssl.create_default_context(cafile=console.ca_pem)
    for name in ("localhost", "127.0.0.1"):
        with (
            socket.create_connection(
                ("127.0.0.1", console.ports.mqtts), timeout=PATIENCE_S
            ) as plain,
            trust.wrap_socket(plain, server_hostname=name) as secure,
        ):
            secure.sendall(connect_packet(DEVICE, KEY))
            assert secure.recv(4) == b"\x20\x02\x00\x00"


def connect_packet(user: str, password: str) -> bytes:
    fields = [b"\x00\x04MQTT\x04\xc2\x00\x3c"]
    for text in ("node", user, password):
        fields.append(len(text).to_bytes(2, "big") + text.encode())
    body = b"".join(fields)
    assert len(body) < 128
    return bytes([0x10, len(body)]) + body


def test_somebody_elses_broker(console: Console, tmp_path: Path) -> None:
    admin = console._registry.admin_user, console._registry.admin_password
    where = f"127.0.0.1:{console.ports.mqtt}"
    account = {"broker_user": admin[0], "broker_password": admin[1]}
    with Console(tmp_path / "second", broker=where, **account) as second:
        furnish(second)
        assert second.ports.mqtt == console.ports.mqtt
        assert second.ports.mqtts is None
        assert second.request(DEVICE, FUID) == REQUEST
        with Node(console) as node:
            node.client.publish(TOPIC, APPLIED)
            second.wait_for_report(DEVICE, timeout=PATIENCE_S)
    assert console.retained(DEVICE) == REQUEST.encode()
    with (
        pytest.raises(SimError, match="the broker refuses the console"),
        Console(tmp_path / "third", broker=where),
    ):
        pass


def test_the_console_stops_with_peers_that_say_nothing(tmp_path: Path) -> None:
    with contextlib.ExitStack() as peers:
        with Console(tmp_path) as console:
            for port in (console.ports.mqtt, console.ports.mqtts, console.ports.https):
                peers.enter_context(socket.create_connection(("127.0.0.1", port)))
            half = peers.enter_context(
                socket.create_connection(("127.0.0.1", console.ports.https))
            )
            half.sendall(b"\x16\x03\x01")
            time.sleep(0.05)
            begin = time.monotonic()
        assert time.monotonic() - begin < 2 * factor()


@pytest.mark.parametrize("broker", available_brokers())
def test_ports_are_as_asked_and_free_afterwards(tmp_path: Path, broker: str) -> None:
    keys = ("mqtt_port", "mqtts_port", "https_port")
    with reserved() as mqtt, reserved() as mqtts, reserved() as https:
        ports = (mqtt, mqtts, https)
        for _ in range(2):
            with Console(
                tmp_path, broker=need(broker), **dict(zip(keys, ports, strict=True))
            ) as console:
                assert (console.ports.mqtt, console.ports.mqtts, console.ports.https) == ports


@pytest.mark.parametrize("which", ["mqtt_port", "https_port"])
def test_a_port_in_use_is_a_clear_error(tmp_path: Path, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(SimError, match="already in use"),
            Console(tmp_path, **{which: port}),
        ):
            pass


# -- registry ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["", "a/b", "a+b", "#", "a\0b", "a b", "a\nb", "a:b"])
def test_ids_that_would_not_be_a_topic_level(console: Console, bad: str) -> None:
    with pytest.raises(SimError, match="device id"):
        console.add_device(bad, KEY, CHANNEL)
    with pytest.raises(SimError, match="control channel"):
        console.add_device(DEVICE, KEY, bad)


def test_what_is_not_known(console: Console, tmp_path: Path) -> None:
    with pytest.raises(SimError, match="device 'x' is not known"):
        console.request("x", FUID)
    with pytest.raises(SimError, match="package '00000000' is not known"):
        console.request(DEVICE, "00000000")
    with pytest.raises(SimError, match="No such file"):
        console.add_package(tmp_path / "missing.tar")
    with pytest.raises(SimError, match="must end in"):
        console.add_package(b"", "x.zip")
    with pytest.raises(SimError, match="8 lower-case hex digits"):
        console.add_package(b"", "x.tar", fuid="../../etc")


@pytest.mark.parametrize(
    ("name", "kind"), [("a.tar", ".tar"), ("a.tar.gz", ".tar.gz"), ("a.tgz", ".tar.gz")]
)
def test_the_type_follows_the_name(console: Console, tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"12345")
    package = console.add_package(tmp_path / name)
    assert len(package.fuid) == 8 and int(package.fuid, 16) >= 0
    fields = {
        e["n"]: e.get("v", e.get("vs")) for e in json.loads(console.request_payload(package.fuid))
    }
    assert fields == {"e": 0, "i": package.fuid, "t": kind, "s": 5}


def test_nodes_trust_a_console_that_starts_again(tmp_path: Path) -> None:
    with Console(tmp_path) as first:
        root = first.ca_pem.read_bytes()
    assert stat.S_IMODE((tmp_path / "ca-key.pem").stat().st_mode) == 0o600
    with Console(tmp_path) as again:
        assert (again.ca_pem.read_bytes(), again.next_authority().pem.read_bytes() != root) == (
            root,
            True,
        )
        context = ssl.create_default_context(cadata=root.decode())
        with (
            socket.create_connection(("127.0.0.1", again.ports.https)) as link,
            context.wrap_socket(link, server_hostname="localhost") as session,
        ):
            assert session.version()
    # Half of it is of no use, and nothing is lost by a new one.
    (tmp_path / "ca-key.pem").write_text("-----BEGIN")
    with Console(tmp_path) as third:
        assert third.ca_pem.read_bytes() != root


def test_devices_and_packages_survive_a_restart(tmp_path: Path) -> None:
    with Console(tmp_path) as console:
        furnish(console)
    with Console(tmp_path) as console:
        assert console.request(DEVICE, FUID) == REQUEST
        assert fetch(console)[2] == PACKAGE
    for path in tmp_path.rglob("*"):
        if path.is_file() and KEY.encode() in path.read_bytes():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", None),
        (b"{}", None),
        (b"[1,null]", None),
        (b'[{"n":"e","v":0}]', None),
        (b'[{"n":"e","v":null}]', None),
        (b'[{"n":"e","v":1e999}]', None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
        (b'[{"n":"e","vs":"1"},{"x":1}]', Report(1, None, None)),
        (b'[{"n":"m","vs":"no"},{"n":"e","v":2}]', Report(2, None, "no")),
    ],
)
def test_reading_reports_is_tolerant(payload: bytes, expected: Report | None) -> None:
    assert parse_report(Message(TOPIC, payload, 1, False)) == expected


# -- package server ------------------------------------------------------------------------------


def query(**changes: str | None) -> str:
    values = {"fuid": FUID, "did": DEVICE, "dk": KEY, "cid": CHANNEL, **changes}
    return urlencode({name: value for name, value in values.items() if value is not None})


def fetch(
    console: Console,
    headers: dict[str, str] | None = None,
    *,
    path: str = "/mf-rproxy/packages/download",
    host: str = "localhost",
    **changes: str | None,
) -> tuple[int, dict[str, str], bytes]:
    trust = ssl.create_default_context(cafile=console.ca_pem)
    connection = http.client.HTTPSConnection(
        host, console.ports.https, context=trust, timeout=PATIENCE_S
    )
    with contextlib.closing(connection):
        connection.request("GET", f"{path}?{query(**changes)}", headers=headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def raw_fetch(console: Console, stop: bytes = b"") -> tuple[str, bytes]:
    """Head and all that follows until the connection ends, as they are on the wire.

    Behind `stop` nothing is expected any more.
    """
    trust = ssl.create_default_context(cafile=console.ca_pem)
    received = b""
    with (
        socket.create_connection(("127.0.0.1", console.ports.https), timeout=PATIENCE_S) as plain,
        trust.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=True) as secure,
    ):
        text = f"GET /mf-rproxy/packages/download?{query()} HTTP/1.1\r\nHost: x\r\n"
        secure.sendall(f"{text}Connection: close\r\n\r\n".encode())
        with contextlib.suppress(TimeoutError):
            while data := secure.recv(65536):
                received += data
                if stop and received.endswith(stop):
                    secure.settimeout(0.2)
    head, _, body = received.partition(b"\r\n\r\n")
    return head.decode(), body


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_download(console: Console, host: str) -> None:
    status, headers, body = fetch(console, host=host)
    assert (status, body) == (200, PACKAGE)
    assert headers["Content-Length"] == "3987"
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["ETag"].startswith('"')
    assert headers["Content-Type"]
    (download,) = console.downloads
    assert (download.device_id, download.fuid, download.range) == (DEVICE, FUID, None)
    assert (download.status, download.bytes_sent) == (200, len(PACKAGE))
    assert console.wait_for(lambda: download.finished, PATIENCE_S)
    assert KEY not in repr(download)


@pytest.mark.check
@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (400, {"fuid": None}),
        (400, {"did": None}),
        (400, {"dk": None}),
        (400, {"cid": ""}),
        (401, {"dk": "wrong"}),
        (401, {"dk": OTHER_KEY}),
        (401, {"did": "nobody"}),
        (403, {"cid": OTHER_CHANNEL}),
        (404, {"fuid": "00000000"}),
        (404, {"fuid": "../state.json"}),
    ],
)
def test_refused_downloads(console: Console, status: int, changes: dict[str, str | None]) -> None:
    got, _, body = fetch(console, **changes)
    assert got == status
    assert len(body) < 10
    assert [d.status for d in console.downloads] == [status]
    assert console.downloads[0].bytes_sent == 0


def test_another_path(console: Console) -> None:
    assert fetch(console, path="/packages/download")[0] == 404
    assert console.downloads == []


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "expected"),
    [
        ("bytes=0-", 206, "bytes 0-3986/3987", PACKAGE),
        ("bytes=1000-", 206, "bytes 1000-3986/3987", PACKAGE[1000:]),
        ("bytes=1000-1999", 206, "bytes 1000-1999/3987", PACKAGE[1000:2000]),
        ("bytes=3986-9999", 206, "bytes 3986-3986/3987", PACKAGE[-1:]),
        ("bytes=-10", 206, "bytes 3977-3986/3987", PACKAGE[-10:]),
        ("bytes=3987-", 416, "bytes */3987", b"416\n"),
        ("bytes=5000-6000", 416, "bytes */3987", b"416\n"),
        ("bytes=20-10", 200, None, PACKAGE),
        ("bytes=0-1,5-6", 200, None, PACKAGE),
        ("lines=1-2", 200, None, PACKAGE),
        ("bytes=-", 200, None, PACKAGE),
    ],
)
def test_ranges(
    console: Console, asked: str, status: int, content_range: str | None, expected: bytes
) -> None:
    got, headers, body = fetch(console, {"Range": asked})
    assert (got, body) == (status, expected)
    assert headers.get("Content-Range") == content_range
    assert int(headers["Content-Length"]) == len(expected)
    assert console.downloads[0].range == asked


def test_if_range(console: Console) -> None:
    etag = fetch(console)[1]["ETag"]
    assert fetch(console, {"Range": "bytes=9-", "If-Range": etag})[0] == 206
    assert fetch(console, {"Range": "bytes=9-", "If-Range": '"another"'})[0] == 200
    other = console.add_package(PACKAGE + b"x", "y.tar").fuid
    assert fetch(console, fuid=other)[1]["ETag"] != etag


def test_a_connection_serves_several_requests(console: Console) -> None:
    trust = ssl.create_default_context(cafile=console.ca_pem)
    connection = http.client.HTTPSConnection("localhost", console.ports.https, context=trust)
    with contextlib.closing(connection):
        for _ in range(3):
            connection.request("GET", f"/mf-rproxy/packages/download?{query()}")
            assert connection.getresponse().read() == PACKAGE
        connected = connection.sock
        assert connected is not None
    assert len(console.downloads) == 3


# -- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 500, 503])
def test_fault_status(console: Console, status: int) -> None:
    console.faults.status = status
    assert fetch(console)[0] == status
    assert console.downloads[0].status == status
    console.faults.clear()
    assert fetch(console)[0] == 200


def test_fault_truncate(console: Console) -> None:
    console.faults.truncate_at = 1234
    head, body = raw_fetch(console)
    assert "Content-Length: 3987" in head
    assert body == PACKAGE[:1234]
    assert console.downloads[0].bytes_sent == 1234
    with pytest.raises(http.client.IncompleteRead):
        fetch(console)


def test_fault_truncate_beyond_the_end_is_none(console: Console) -> None:
    console.faults.truncate_at = len(PACKAGE)
    assert fetch(console)[2] == PACKAGE


def test_fault_extra(console: Console) -> None:
    console.faults = Faults(extra=b"EXTRA")
    _, headers, body = fetch(console)
    assert headers["Content-Length"] == "3992"
    assert body == PACKAGE + b"EXTRA"


def test_fault_extra_beyond_length(console: Console) -> None:
    console.faults = Faults(extra_beyond_length=b"EXTRA")
    head, body = raw_fetch(console)
    assert "Content-Length: 3987" in head
    assert body == PACKAGE + b"EXTRA"


def test_fault_no_length(console: Console) -> None:
    console.faults = Faults(no_length=True)
    head, body = raw_fetch(console)
    assert "Content-Length" not in head and "Transfer-Encoding" not in head
    assert body == PACKAGE


def test_fault_chunked(console: Console) -> None:
    console.faults = Faults(chunked=True)
    status, headers, body = fetch(console)
    assert (status, body) == (200, PACKAGE)
    assert headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in headers
    console.faults.truncate_at = 100
    _, body = raw_fetch(console)
    assert body == b"64\r\n" + PACKAGE[:100] + b"\r\n"


@pytest.mark.parametrize("length", [0, 100, 99999])
def test_fault_wrong_length(console: Console, length: int) -> None:
    console.faults = Faults(wrong_length=length)
    head, body = raw_fetch(console)
    assert f"Content-Length: {length}\r\n" in head + "\r\n"
    assert body == PACKAGE


@pytest.mark.parametrize("position", [0, 1000, 3986])
def test_fault_flip(console: Console, position: int) -> None:
    console.faults = Faults(flip_at=position)
    body = fetch(console)[2]
    assert [i for i in range(3987) if body[i] != PACKAGE[i]] == [position]
    assert (body[position] ^ PACKAGE[position]).bit_count() == 1


def test_fault_flip_far_into_a_large_package(console: Console) -> None:
    large = secrets.token_bytes(100_000)
    fuid = console.add_package(large, "large.tar").fuid
    console.faults = Faults(flip_at=70_000)
    body = fetch(console, fuid=fuid)[2]
    assert [i for i in range(len(large)) if body[i] != large[i]] == [70_000]


def test_fault_redirect(console: Console) -> None:
    console.faults = Faults(redirect_to="https://elsewhere.example/p?{query}")
    status, headers, _ = fetch(console)
    assert status == 302
    assert headers["Location"] == f"https://elsewhere.example/p?{query()}"
    assert console.downloads[0].status == 302


def test_fault_drip(console: Console) -> None:
    console.faults = Faults(drip=20_000)
    begin = time.monotonic()
    assert fetch(console)[2] == PACKAGE
    assert 0.18 < time.monotonic() - begin < 2 * factor()


def test_fault_stall(console: Console) -> None:
    console.faults = Faults(stall_at=500)
    head, body = raw_fetch(console, stop=PACKAGE[:500])
    assert "Content-Length: 3987" in head
    assert body == PACKAGE[:500]


def test_faults_with_a_range(console: Console) -> None:
    console.faults = Faults(flip_at=2)
    status, _, body = fetch(console, {"Range": "bytes=1000-1009"})
    assert status == 206
    assert [i for i in range(10) if body[i] != PACKAGE[1000 + i]] == [2]


def test_faults_for_the_first_downloads_only(console: Console) -> None:
    console.faults = Faults(status=503, times=2)
    assert [fetch(console)[0] for _ in range(4)] == [503, 503, 200, 200]
    assert console.faults.times == 0


def test_the_console_stops_in_the_middle_of_a_drip(tmp_path: Path) -> None:
    errors = []

    def download() -> None:
        try:
            fetch(console)
        except (OSError, http.client.HTTPException) as error:
            errors.append(error)

    with Console(tmp_path) as console:
        furnish(console)
        console.faults = Faults(drip=10)
        thread = threading.Thread(target=download)
        thread.start()
        assert console.wait_for(lambda: bool(console.downloads), PATIENCE_S)
        begin = time.monotonic()
    assert time.monotonic() - begin < 2 * factor()
    thread.join(PATIENCE_S)
    assert errors


# -- certificates --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("wrong-ca", "self-signed|self signed|unable to get local issuer"),
        ("wrong-host", "mismatch"),
        ("expired", "expired"),
        ("future", "not yet valid"),
    ],
)
def test_bad_certificates_are_refused(tmp_path: Path, kind: str, reason: str) -> None:
    with Console(tmp_path, certificate=kind) as console:
        furnish(console)
        with pytest.raises(ssl.SSLCertVerificationError, match=reason):
            fetch(console)
        trust = ssl.create_default_context(cafile=console.ca_pem)
        with (
            socket.create_connection(("127.0.0.1", console.ports.mqtts)) as plain,
            pytest.raises(ssl.SSLCertVerificationError, match=reason),
        ):
            trust.wrap_socket(plain, server_hostname="localhost")
        assert console.wait_for(lambda: bool(console.tls_failures), PATIENCE_S)
        assert console.downloads == []


def test_the_broker_may_have_another_certificate(tmp_path: Path) -> None:
    with Console(tmp_path, certificate="expired", mqtt_certificate="good") as console:
        trust = ssl.create_default_context(cadata=console.ca_der.read_bytes())
        with (
            socket.create_connection(("127.0.0.1", console.ports.mqtts)) as plain,
            trust.wrap_socket(plain, server_hostname="localhost"),
        ):
            pass


def test_an_unknown_kind_of_certificate(tmp_path: Path) -> None:
    with pytest.raises(SimError, match="certificate 'bad'"), Console(tmp_path, certificate="bad"):
        pass


@pytest.mark.parametrize("plain_port", [True, False])
def test_plain_http_is_recorded(tmp_path: Path, plain_port: bool) -> None:
    with Console(tmp_path, https_plain=plain_port) as console:
        furnish(console)
        connection = http.client.HTTPConnection(
            "127.0.0.1", console.ports.https, timeout=PATIENCE_S
        )
        with contextlib.closing(connection):
            connection.request("GET", f"/mf-rproxy/packages/download?{query()}")
            if plain_port:
                assert connection.getresponse().read() == PACKAGE
            else:
                with pytest.raises((http.client.HTTPException, OSError)):
                    connection.getresponse()
        assert console.wait_for(lambda: bool(console.plain_requests), PATIENCE_S)
        (seen,) = console.plain_requests
        assert (seen.method, seen.key_present) == ("GET", True)
        assert seen.path == "/mf-rproxy/packages/download"
        assert KEY not in repr(seen)


def test_tls_on_a_plain_port_is_no_request(tmp_path: Path) -> None:
    with Console(tmp_path, https_plain=True) as console:
        with pytest.raises((ssl.SSLError, OSError)):
            fetch(console)
        assert console.plain_requests == []


# -- secrets -------------------------------------------------------------------------------------


def test_the_key_is_in_no_log(
    console: Console, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    calls: list[Callable[[], object]] = [
        lambda: fetch(console),
        lambda: fetch(console, cid="wrong"),
        lambda: fetch(console, path="/elsewhere"),
        lambda: fetch(console, {"Range": "bytes=5-"}),
        lambda: Node(console).client.close(),
    ]
    for call in calls:
        call()
    console.faults = Faults(truncate_at=5)
    raw_fetch(console)
    # A request line that the standard library's server would quote in its complaint.
    trust = ssl.create_default_context(cafile=console.ca_pem)
    with (
        socket.create_connection(("127.0.0.1", console.ports.https)) as plain,
        trust.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(f"GET /?{query()} HTTP/9.9 nonsense\r\n\r\n".encode())
        while secure.recv(65536):
            pass
    with socket.create_connection(("127.0.0.1", console.ports.https)) as plain:
        plain.sendall(f"GET /?{query()} HTTP/1.1\r\n\r\n".encode())
        plain.recv(1)
    assert "download of" in caplog.text
    output = capfd.readouterr()
    assert KEY not in caplog.text + output.out + output.err


# -- command line --------------------------------------------------------------------------------


def run(*arguments: str, code: int = 0) -> str:
    """One command; its standard output, or its standard error when it is to fail."""
    done = subprocess.run(
        [sys.executable, "-c", _ONLY_CONSOLE, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr if code else done.stdout


# What `python -m host_sim` does, with the console's part only.
_ONLY_CONSOLE = """
import sys
from host_sim.command import run
from host_sim.console.cli import console
sys.exit(run(console, sys.argv[2:], program="console", speaker="host_sim"))
"""


@contextlib.contextmanager
def running(directory: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict]]:
    """A console of its own process, and its ready line."""
    log = directory.with_name(directory.name + ".log")
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", _ONLY_CONSOLE, "console", "--dir", str(directory), *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate()


def test_one_of_several_that_begin_at_once(tmp_path: Path) -> None:
    words = [sys.executable, "-c", _ONLY_CONSOLE, "console", "--dir", str(tmp_path / "console")]
    pipe = subprocess.PIPE
    begun = [
        subprocess.Popen(words, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) for _ in range(3)
    ]
    try:
        deadline = time.monotonic() + 60
        while sum(process.poll() is None for process in begun) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (first,) = (process for process in begun if process.poll() is None)
        assert first.stdout is not None and json.loads(first.stdout.readline())["event"] == "ready"
        first.send_signal(signal.SIGSTOP)  # one that does not answer runs as well
        again = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert (again.returncode, "already running" in again.stderr) == (2, True)
    finally:
        for process in begun:
            process.kill()
        told = [process.communicate()[1] for process in begun]
    assert sum("already running" in text for text in told) == 2


@pytest.mark.slow
def test_command_line(tmp_path: Path) -> None:
    folder = tmp_path / "console"
    d = str(folder)
    (tmp_path / "x.tar.gz").write_bytes(PACKAGE)
    with running(folder) as (process, ready):
        assert ready["event"] == "ready"
        assert {"mqtt", "mqtts", "https", "ca", "ca_der"} <= set(ready)
        assert Path(ready["ca"]).read_text().startswith("-----BEGIN CERTIFICATE-----")
        assert stat.S_IMODE((folder / "control.json").stat().st_mode) == 0o600

        assert run("console", "--dir", d, "device", "add", DEVICE, KEY, CHANNEL) == ""
        again = ("console", "--dir", d, "device", "add", DEVICE)
        run(*again, KEY, CHANNEL)
        for wrong in ((KEY, OTHER_CHANNEL), (OTHER_KEY, CHANNEL)):
            told = run(*again, *wrong, code=2)
            assert f"device '{DEVICE}' is there already, with another key or channel: " in told
            assert json.loads((folder / "state.json").read_text())["devices"] == [
                {"device_id": DEVICE, "key": KEY, "channel": CHANNEL}
            ]
        run(*again, OTHER_KEY, OTHER_CHANNEL, "--replace")
        run(*again, KEY, CHANNEL, "--replace")
        added = json.loads(
            run("console", "package", "add", str(tmp_path / "x.tar.gz"), "--dir", d)
        )
        assert set(added) == {"fuid", "size"} and added["size"] == 3987
        status: dict = json.loads(run("console", "status", DEVICE, "--dir", d))
        assert (status["retained"], status["reports"], status["state"]) == (None, [], "idle")
        message = run("console", "request", "--dir", d, DEVICE, added["fuid"])
        assert message == REQUEST.replace(FUID, added["fuid"]) + "\n"

        with MqttClient("127.0.0.1", ready["mqtt"], DEVICE, KEY) as node:
            node.publish(TOPIC, FAILED)
            node.publish(TOPIC, APPLIED)
        expected = [
            {"e": 2, "i": FUID, "m": "not enough space"},
            {"e": 1, "i": FUID, "m": None},
        ]
        deadline = time.monotonic() + PATIENCE_S
        while status.get("reports") != expected and time.monotonic() < deadline:
            output = run("console", "--dir", d, "status", DEVICE)
            assert output.count("\n") == 1
            status = json.loads(output)
        assert status["retained"] == message.strip() and status["reports"] == expected
        assert (status["state"], status["version"]) == ("requested", FUID)  # FUID is another
        assert [round(time.time() - at) // 60 for at in status["times"]] == [0, 0]

        assert "device 'x' is not known" in run("console", "--dir", d, "status", "x", code=2)
        assert "device id 'a/b'" in run(
            "console", "--dir", d, "device", "add", "a/b", KEY, CHANNEL, code=2
        )
        assert "already running" in run("console", "--dir", d, code=2)
        for port in ("a", "-1", "65536", "1.5"):
            told = run("console", "--dir", d, f"--mqtt={port}", code=2)
            assert f"'{port}' is no port: write a number from 0 to 65535" in told
        # Only who can read the token may give orders.
        port = json.loads((folder / "control.json").read_text())["port"]
        with socket.create_connection(("127.0.0.1", port)) as intruder:
            intruder.sendall(b'{"token":"x","operation":"status","arguments":[]}\n')
            assert b"wrong token" in intruder.recv(1000)

        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        assert process.stdout is not None and process.stdout.read() == ""
    assert not (folder / "control.json").exists()
    assert KEY not in (tmp_path / "console.log").read_text()
    assert "no console is running" in run("console", "--dir", d, "status", DEVICE, code=2)
    assert "--dir DIR is missing" in run("console", "status", DEVICE, code=2)


@pytest.mark.slow
def test_command_line_after_a_crash(tmp_path: Path) -> None:
    folder = tmp_path / "console"
    with running(folder) as (process, _):
        process.kill()
        process.wait()
    assert (folder / "control.json").exists()
    assert "no console is running" in run(
        "console", "--dir", str(folder), "status", DEVICE, code=2
    )
    with running(folder) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0  # that of the command line comes from ctrl_c.run
    assert not (folder / "control.json").exists()


@pytest.mark.slow
def test_command_line_with_mosquitto(tmp_path: Path) -> None:
    require_mosquitto()
    with running(tmp_path / "console", "--broker", "mosquitto") as (process, ready):
        (child,) = descendants(process.pid)
        run("console", "--dir", str(tmp_path / "console"), "device", "add", DEVICE, KEY, CHANNEL)
        MqttClient("127.0.0.1", ready["mqtt"], DEVICE, KEY).close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def test_without_mosquitto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("host_sim.console.mosquitto_broker.find_mosquitto", lambda: None)
    with (
        pytest.raises(SimError, match="install Debian's package mosquitto, or use --broker amqtt"),
        Console(tmp_path, broker="mosquitto"),
    ):
        pass


@pytest.mark.parametrize("broker", ["nonsense", "host:", ":1883", "host:99999"])
def test_a_broker_that_is_none(tmp_path: Path, broker: str) -> None:
    with pytest.raises(SimError, match=r"must be amqtt, mosquitto, .* or HOST:PORT"):
        Console(tmp_path, broker=broker).__enter__()


def test_no_broker_there(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(SimError, match="no broker at"):
            Console(tmp_path, broker=where).__enter__()
