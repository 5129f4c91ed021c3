"""The wiretap: decoding, whatever the pieces, and passing everything on unchanged."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_sim.console import Console
from host_sim.console.mqtt_client import MqttClient
from host_sim.link.wiretap import Decoder, Packet, Wiretap

DEVICE, KEY, CHANNEL = "a-device", "a-secret-key", "a-channel"
TOPIC = f"channels/{CHANNEL}/messages/{DEVICE}/ota"
REPORT = b'[{"n":"e","v":1},{"n":"i","vs":"fa8884d2"}]'


def text(value: str) -> bytes:
    return len(value.encode()).to_bytes(2, "big") + value.encode()


def packet(first: int, body: bytes) -> bytes:
    length, header = len(body), bytes([first])
    while True:
        header += bytes([length % 128 | (0x80 if length > 127 else 0)])
        length //= 128
        if not length:
            return header + body


CONNECT = packet(0x10, text("MQTT") + b"\x04\xc2\x00\x3c" + text("me") + text("user") + text(KEY))
LONG = bytes(range(256)) * 80
# Every type, as a client and a broker would send them.
STREAM: list[tuple[bytes, dict]] = [
    (CONNECT, {"type": "CONNECT", "client_id": "me", "clean_session": True, "keepalive": 60}),
    (packet(0x20, b"\x01\x05"), {"type": "CONNACK", "flags": 1, "codes": (5,)}),
    (
        packet(0x30, text("t/x") + b"hello"),
        {"type": "PUBLISH", "topic": "t/x", "payload": b"hello", "qos": 0, "pid": None},
    ),
    (
        packet(0x3B, text("t") + b"\x12\x34" + LONG),
        {
            "type": "PUBLISH",
            "payload": LONG,
            "qos": 1,
            "retain": True,
            "dup": True,
            "pid": 0x1234,
        },
    ),
    (
        packet(0x31, text("t")),
        {"type": "PUBLISH", "payload": b"", "qos": 0, "retain": True, "dup": False},
    ),
    (packet(0x40, b"\x12\x34"), {"type": "PUBACK", "pid": 0x1234}),
    (packet(0x50, b"\x00\x02"), {"type": "PUBREC", "pid": 2}),
    (packet(0x62, b"\x00\x02"), {"type": "PUBREL", "pid": 2, "flags": 2}),
    (packet(0x70, b"\x00\x02"), {"type": "PUBCOMP", "pid": 2}),
    (
        packet(0x82, b"\x00\x03" + text("a/#") + b"\x01" + text("b") + b"\x00"),
        {"type": "SUBSCRIBE", "pid": 3, "filters": (("a/#", 1), ("b", 0))},
    ),
    (packet(0x90, b"\x00\x03\x01\x80"), {"type": "SUBACK", "pid": 3, "codes": (1, 0x80)}),
    (
        packet(0xA2, b"\x00\x04" + text("b")),
        {"type": "UNSUBSCRIBE", "pid": 4, "filters": (("b", 0),)},
    ),
    (packet(0xB0, b"\x00\x04"), {"type": "UNSUBACK", "pid": 4}),
    (packet(0xC0, b""), {"type": "PINGREQ", "pid": None}),
    (packet(0xD0, b""), {"type": "PINGRESP"}),
    (packet(0xE0, b""), {"type": "DISCONNECT"}),
]
WHOLE = b"".join(data for data, _ in STREAM)


@pytest.fixture(autouse=True)
def no_leftovers() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert not [t for t in threading.enumerate() if t not in before and t.is_alive()]


def check(packets: list[Packet]) -> None:
    assert [p.type for p in packets] == [expected["type"] for _, expected in STREAM]
    for found, (data, expected) in zip(packets, STREAM, strict=True):
        assert {name: getattr(found, name) for name in expected} == expected
        assert found.length == len(data)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100, 127, 128, 4096, len(WHOLE)])
def test_decoding_pieces_of_any_size(size: int) -> None:
    decoder = Decoder()
    packets = []
    for start in range(0, len(WHOLE), size):
        packets += decoder.feed(WHOLE[start : start + size])
    check(packets)


def test_a_packet_is_reported_with_its_last_byte() -> None:
    for data, expected in STREAM:
        decoder = Decoder()
        assert decoder.feed(data[:-1]) == []
        assert [p.type for p in decoder.feed(data[-1:])] == [expected["type"]]


@pytest.mark.parametrize(
    "bad",
    [
        b"\x00\x00",
        b"\xf0\x00",
        b"\x30\xff\xff\xff\xff\x01",
        packet(0x30, b"\x00\x09abc"),
        packet(0x20, b"\x00"),
        packet(0x40, b"\x00"),
        packet(0x30, b"\x00\x01\xff"),
        packet(0x32, text("t") + b"\x01"),
        packet(0x10, b""),
        b"\x16\x03\x01\x02\x00" + bytes(600),
    ],
)
def test_what_is_not_mqtt_is_said_once(bad: bytes) -> None:
    decoder = Decoder()
    assert [p.type for p in decoder.feed(packet(0xC0, b"") + bad)] == ["PINGREQ", "MALFORMED"]
    assert decoder.feed(packet(0xC0, b"")) == []


def test_the_password_is_nowhere() -> None:
    decoder = Decoder()
    packets = decoder.feed(CONNECT)
    assert KEY not in repr(packets) + repr(vars(decoder))


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    with Console(tmp_path) as console:
        console.add_device(DEVICE, KEY, CHANNEL)
        yield console


def test_what_a_node_puts_on_the_wire(console: Console) -> None:
    console.request_raw(DEVICE, b"the request")
    with Wiretap(console.ports.mqtt) as tap:
        with MqttClient("127.0.0.1", tap.port, DEVICE, KEY) as node:
            node.subscribe(TOPIC, 1)
            assert tap.wait_for(lambda: bool(tap.sent("PUBACK")))
            node.publish(TOPIC, b"", retain=True)
            node.publish(TOPIC, REPORT)
            console.wait_for_report(DEVICE, timeout=5)
        assert tap.wait_for(lambda: bool(tap.sent("DISCONNECT")))
        ups = [p.type for p in tap.packets if p.direction == "up"]
        downs = [p.type for p in tap.packets if p.direction == "down"]
        clear, report = tap.sent("PUBLISH")
        (request, *_echoes) = tap.sent("PUBLISH", "down")
    # The node's acknowledgements of its own echoes may fall anywhere.
    assert [t for t in ups if t != "PUBACK"] == [
        "CONNECT",
        "SUBSCRIBE",
        "PUBLISH",
        "PUBLISH",
        "DISCONNECT",
    ]
    assert downs[:3] == ["CONNACK", "SUBACK", "PUBLISH"]
    assert (clear.topic, clear.payload, clear.qos, clear.retain) == (TOPIC, b"", 1, True)
    assert (report.topic, report.payload, report.qos, report.retain) == (TOPIC, REPORT, 1, False)
    assert (request.payload, request.retain) == (b"the request", True)
    # Each PUBLISH of the node was acknowledged before the next.
    order = [(p.direction, p.type, p.pid) for p in tap.packets]
    acknowledged = order.index(("down", "PUBACK", clear.pid))
    assert order.index(("up", "PUBLISH", clear.pid)) < acknowledged
    assert acknowledged < order.index(("up", "PUBLISH", report.pid))
    for direction in ("up", "down"):
        passed = sum(p.length for p in tap.packets if p.direction == direction)
        assert passed == sum(s.length for s in tap.segments if s.direction == direction)
    times = [p.t for p in tap.packets]
    assert times == sorted(times)
    assert KEY not in repr(tap.packets) + repr(tap.segments)


def test_several_connections(console: Console) -> None:
    with Wiretap(console.ports.mqtt) as tap, contextlib.ExitStack() as nodes:
        for number in range(5):
            node = nodes.enter_context(MqttClient("127.0.0.1", tap.port, DEVICE, KEY))
            node.publish(TOPIC, b"%d" % number)
        assert {p.connection: p.payload for p in tap.sent("PUBLISH")} == {
            number: b"%d" % number for number in range(5)
        }


@contextlib.contextmanager
def echo_after_end() -> Iterator[int]:
    """A server that answers only after the peer has ended its half."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                data = b""
                while piece := connection.recv(65536):
                    data += piece
                connection.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


def test_half_closing_and_unchanged_bytes() -> None:
    with (
        echo_after_end() as port,
        Wiretap(port) as tap,
        socket.create_connection(("127.0.0.1", tap.port), timeout=5) as client,
    ):
        threading.Thread(target=client.sendall, args=(WHOLE * 20,)).start()
        received, client_ended = b"", False
        while True:
            if not client_ended and tap.wait_for(
                lambda: sum(s.length for s in tap.segments) >= len(WHOLE) * 20
            ):
                client.shutdown(socket.SHUT_WR)
                client_ended = True
            piece = client.recv(65536)
            if not piece:
                break
            received += piece
        assert received == WHOLE * 20
        check([p for p in tap.packets if p.direction == "up"][: len(STREAM)])
        assert tap.segments[-1].length == 0


def test_bytes_that_are_not_mqtt_pass() -> None:
    with (
        echo_after_end() as port,
        Wiretap(port) as tap,
        socket.create_connection(("127.0.0.1", tap.port), timeout=5) as client,
    ):
        client.sendall(b"\x00\x00 not MQTT")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b"\x00\x00 not MQTT"
        assert [p.type for p in tap.packets] == ["MALFORMED", "MALFORMED"]


def test_a_target_that_is_not_there_ends_the_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with (
            Wiretap(unused.getsockname()[1]) as tap,
            socket.create_connection(("127.0.0.1", tap.port), timeout=5) as client,
        ):
            assert client.recv(1) == b""


def test_stopping_ends_open_connections(console: Console) -> None:
    with contextlib.ExitStack() as clients:
        with Wiretap(console.ports.mqtt) as tap:
            client = clients.enter_context(socket.create_connection(("127.0.0.1", tap.port)))
            client.sendall(CONNECT)
            client.settimeout(5)
            assert client.recv(100)[:1] == b"\x20"
            assert tap.sent("CONNACK", "down")
        assert client.recv(100) == b""
