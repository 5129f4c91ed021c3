"""The simulated link: what it delays, what it breaks and where, and what it leaves alone."""

from __future__ import annotations

import contextlib
import gc
import json
import random
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host_sim import sample
from host_sim.__main__ import main
from host_sim.console import Console, certificates
from host_sim.console.process_broker import reserved
from host_sim.errors import SimError
from host_sim.link import HELP, Corrupt, Cut, Hold, Link, Profile, count_round_trips, parse
from host_sim.link.wire import SEGMENT, Lane, Wire
from host_sim.site import Site
from tests.busy import factor

ROOT = Path(__file__).parents[2]
DATA = random.Random(3).randbytes(6000)
PATIENCE_S = 30  # a busy machine


@pytest.fixture(autouse=True)
def no_leftovers() -> Iterator[None]:
    """Every link ends its thread."""
    threads = set(threading.enumerate())
    yield
    assert not [t for t in threading.enumerate() if t not in threads]


def open_files() -> int:
    gc.collect()  # what other tests left, which must not go away in the middle of this one
    return len(list(Path("/dev/fd").iterdir()))


class Bench:
    """A link, and both ends of every connection through it."""

    def __init__(self, spec: str, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._console = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._console.settimeout(PATIENCE_S)
        self.link = stack.enter_context(Link(*self._console.getsockname(), spec))

    def node(self) -> socket.socket:
        """The node's end of a new connection."""
        address = ("127.0.0.1", self.link.port)
        return self._stack.enter_context(socket.create_connection(address, timeout=PATIENCE_S))

    def console(self) -> socket.socket:
        """The console's end of the next connection."""
        end = self._stack.enter_context(self._console.accept()[0])
        end.settimeout(PATIENCE_S)
        return end

    def ends(self, way: str = "up") -> tuple[socket.socket, socket.socket]:
        """Both ends of a new connection, that which sends this way first."""
        node = self.node()
        return (node, self.console()) if way == "up" else (self.console(), node)

    def nobody_came(self) -> bool:
        """No connection has reached the console."""
        self._console.settimeout(0.05)
        try:
            self._console.accept()[0].close()
        except TimeoutError:
            return True
        finally:
            self._console.settimeout(PATIENCE_S)
        return False


@pytest.fixture
def bench() -> Iterator[Callable[[str], Bench]]:
    files = open_files()
    with contextlib.ExitStack() as stack:
        yield lambda spec: Bench(spec, stack)
    assert open_files() == files


def read(end: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        data = end.recv(count - len(received))
        assert data, f"ended after {len(received)} bytes"
        received += data
    return received


def read_all(end: socket.socket) -> tuple[bytes, str]:
    """All that comes, and how it ends: "fin" or "reset"."""
    received = b""
    try:
        while data := end.recv(65536):
            received += data
    except ConnectionResetError:
        return received, "reset"
    return received, "fin"


def is_silent(end: socket.socket) -> bool:
    """Nothing comes, not even an end."""
    end.settimeout(0.1)
    try:
        end.recv(1)
    except TimeoutError:
        end.settimeout(PATIENCE_S)
        return True
    return False


def ended_at_once(link: Link) -> str:
    """How a connection ends on which nobody sends anything."""
    try:
        with socket.create_connection(("127.0.0.1", link.port), timeout=PATIENCE_S) as node:
            return read_all(node)[1]
    except ConnectionResetError:  # so soon that it has hit the connect
        return "reset"


def break_off(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


def seconds(function: Callable[[], object]) -> float:
    begin = time.monotonic()
    function()
    return time.monotonic() - begin


# -- the text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "profile"),
    [
        ("", Profile()),
        (" rtt=200ms , loss=2%,", Profile(rtt_ms=200, loss=0.02)),
        ("rtt=1.5s,down=20k,up=1.5M", Profile(rtt_ms=1500, down=20_000, up=1_500_000)),
        ("loss=0.25,seed=7,rto=1s", Profile(loss=0.25, seed=7, rto_ms=1000)),
        ("cut=4096", Profile(strikes=(Cut(4096),))),
        ("cut=up:reset:each:9", Profile(strikes=(Cut(9, "up", each=True, reset=True),))),
        ("cut=1,cut=down:2k", Profile(strikes=(Cut(1), Cut(2000)))),
        ("hold=both:7,corrupt=up:8", Profile(strikes=(Hold(7, both=True), Corrupt(8, "up")))),
        ("drip=50ms,drip=up:1s", Profile(drip_down_ms=50, drip_up_ms=1000)),
        ("tls=alert,times=3", Profile(tls="alert", times=3)),
        ("connect=refuse", Profile(connect="refuse")),
    ],
)
def test_texts(text: str, profile: Profile) -> None:
    assert parse(text) == profile


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("nonsense", "link: 'nonsense': must be KEY=VALUE, KEY being one of rtt, down, up"),
        ("rtt=1s,speed=5", "link: 'speed=5': must be KEY=VALUE"),
        ("rtt", "'rtt': must be KEY=VALUE"),
        ("rtt=200", "'rtt=200': must be a time such as 200ms"),
        ("rtt=-1s", "must be a time"),
        ("rtt=1s,rtt=2s", "'rtt=2s': given twice"),
        ("down=0", "must be bytes per second"),
        ("down=20K", "must be bytes per second"),
        ("loss=100%", "must be a share such as 2% or 0.02, 90% at most"),
        ("loss=2", "must be a share"),
        ("seed=x", "must be a whole number"),
        ("cut=", "must be a number of bytes such as 4096"),
        ("cut=x:5", "must be a number of bytes, with up, down, each, reset in front"),
        ("cut=up:down:5", "must be a number of bytes, with"),
        ("corrupt=reset:5", "must be a number of bytes, with up, down, each in front"),
        ("drip=left:5ms", "must be a time such as 50ms, with up: or down: in front"),
        ("tls=bad", "must be one of garbage, alert, record, overlong, http"),
        ("connect=never", "must be one of open, hold, drop, refuse"),
        ("connect=drop,times=2", "times counts connections, and connect=drop has none"),
    ],
)
def test_texts_that_describe_no_link(text: str, error: str) -> None:
    with pytest.raises(SimError, match=re.escape(error)) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_the_help_tells_of_every_key_by_examples_that_work() -> None:
    lines = re.findall(r"^  ((?:\w+=\S+ )+)", HELP, re.MULTILINE)
    inline = re.findall(r"\((\w+=\S+)\)|times: (\S+)\.", HELP)
    examples = [word for line in lines for word in line.split()]
    examples += [one or other for one, other in inline]
    assert {example.partition("=")[0] for example in examples} == set(_keys())
    for example in examples:
        parse(example)


def _keys() -> list[str]:
    with pytest.raises(SimError) as caught:
        parse("?")
    return str(caught.value).partition("one of ")[2].split(", ")


# -- what a good link does -----------------------------------------------------------------------


@pytest.mark.parametrize("way", ["up", "down"])
def test_bytes_and_the_ends_of_both_halves_pass(bench: Callable[[str], Bench], way: str) -> None:
    link = (b := bench("")).link
    one, other = b.ends(way)
    one.sendall(DATA)
    one.shutdown(socket.SHUT_WR)
    assert read_all(other) == (DATA, "fin")
    other.sendall(DATA[::-1])
    other.close()
    assert read_all(one) == (DATA[::-1], "fin")
    assert link.wait_for(lambda: link.connections[0].ended is not None)
    (connection,) = link.connections
    assert (connection.up, connection.down, connection.ended) == (6000, 6000, "closed")
    assert link.delivered("up") == link.delivered("down") == 6000
    assert all(0 < s.length <= SEGMENT and s.entered <= s.t for s in link.segments)


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_reset_passes_behind_what_was_sent_before(
    bench: Callable[[str], Bench], way: str
) -> None:
    link = (b := bench("rtt=60ms")).link
    one, other = b.ends(way)
    one.sendall(b"last words")
    break_off(one)
    # The other does not know yet; what it sends finds nobody, and must not take that along.
    other.sendall(DATA)
    assert read_all(other) == (b"last words", "reset")
    assert link.wait_for(lambda: link.connections[0].ended == "reset")


def test_a_console_that_is_not_there(bench: Callable[[str], Bench]) -> None:
    with reserved() as port, Link("127.0.0.1", port) as link:
        assert ended_at_once(link) == "reset"
        assert [c.ended for c in link.connections] == ["unreachable"]
    with pytest.raises(SimError, match=r"link: host 'no\.such\.host\.invalid'"):
        Link("no.such.host.invalid", 1).__enter__()


def test_many_connections_at_once(bench: Callable[[str], Bench]) -> None:
    b = bench("rtt=20ms,loss=5%,rto=10ms")
    nodes = [b.node() for _ in range(60)]
    for number, node in enumerate(nodes):
        node.sendall(b"%c" % number + DATA[number:])
        node.shutdown(socket.SHUT_WR)
    for _ in nodes:
        console = b.console()
        said, _ = read_all(console)
        assert said[1:] == DATA[said[0] :]
        console.sendall(b"hello %d" % said[0])
        console.close()
    for number, node in enumerate(nodes):
        assert read_all(node) == (b"hello %d" % number, "fin")


# -- time ----------------------------------------------------------------------------------------


def test_latency_adds_a_round_trip(bench: Callable[[str], Bench]) -> None:
    link = (b := bench("rtt=100ms")).link
    begin = time.monotonic()
    node, console = b.ends()

    def exchange() -> None:
        node.sendall(b"question")
        assert read(console, 8) == b"question"
        console.sendall(b"answer")
        assert read(node, 6) == b"answer"

    exchange()
    # TCP's own handshake, then question and answer.
    assert 0.2 <= time.monotonic() - begin < 0.4 * factor()
    assert 0.1 <= min(seconds(exchange) for _ in range(3)) < 0.14 * factor()
    assert 0.05 <= min(s.t - s.entered for s in link.segments) < 0.07 * factor()
    assert count_round_trips(link.segments) == 4


def test_round_trips_are_counted_as_the_node_sees_them(bench: Callable[[str], Bench]) -> None:
    """A second question that leaves before the first answer is there is no second round trip."""
    link = (b := bench("rtt=600ms")).link
    node, console = b.ends()
    node.sendall(b"a")
    assert read(console, 1) == b"a"
    console.sendall(b"A")
    time.sleep(0.1)
    node.sendall(b"b")
    assert read(console, 1) == b"b"
    console.sendall(b"B")
    assert read(node, 2) == b"AB"
    assert [s.direction for s in link.segments] == ["up", "down", "up", "down"]
    assert count_round_trips(link.segments) == 1


@pytest.mark.few(3)
@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("connections", [1, 3])
def test_bandwidth_is_shared_by_all_connections(
    bench: Callable[[str], Bench], way: str, connections: int
) -> None:
    b = bench(f"{way}=150k")
    ends = [b.ends(way) for _ in range(connections)]
    share = 60_000 // connections
    begin = time.monotonic()
    for sender, _ in ends:
        sender.sendall(bytes(share))
    for _, receiver in ends:
        read(receiver, share)
    assert 0.37 < time.monotonic() - begin < 0.5 * factor()
    # What does not fit waits in the sender, not in the link.
    assert max(s.t - s.entered for s in b.link.segments) < 0.25 * factor()
    begin = time.monotonic()
    ends[0][1].sendall(bytes(60_000))
    read(ends[0][0], 60_000)
    assert time.monotonic() - begin < 0.25 * factor()  # the other direction is free


@pytest.mark.parametrize("way", ["up", "down"])
def test_byte_by_byte(bench: Callable[[str], Bench], way: str) -> None:
    b = bench(f"drip={way}:10ms")
    one, other = b.ends(way)
    one.sendall(DATA[:20])
    assert 0.19 <= seconds(lambda: read(other, 20)) < 0.6 * factor()
    other.sendall(DATA)
    assert read(one, 6000) == DATA
    assert [s.length for s in b.link.segments if s.direction == way] == [1] * 20


def arrivals(spec: str, connection: int = 0, count: int = 10_000) -> list[float]:
    """When segments arrive that are sent at a second's distance from each other."""
    wire = Wire(Lane(None), parse(spec), connection, "up")
    return [wire.arrival(100, float(second)) - second for second in range(count)]


def test_lost_segments_are_pauses_of_a_seed() -> None:
    delays = arrivals("loss=2%,rto=300ms,seed=7")
    assert delays == arrivals("loss=2%,rto=300ms,seed=7")
    assert delays != arrivals("loss=2%,rto=300ms,seed=8")
    assert delays != arrivals("loss=2%,rto=300ms,seed=7", connection=1)
    assert 150 < sum(delay > 0 for delay in delays) < 250
    assert {round(delay, 6) for delay in delays} >= {0, 0.3, 0.9}
    # By default a round trip and 200 ms, above the half round trip that each segment takes.
    assert min(d for d in arrivals("loss=2%,rtt=100ms") if d > 0.1) == pytest.approx(0.35)


def test_a_lost_segment_holds_up_what_follows() -> None:
    wire = Wire(Lane(None), parse("loss=2%,rto=10s,seed=1"), 0, "up")
    times = [wire.arrival(100, float(now)) for now in range(1000)]
    assert times == sorted(times)
    held_up = sum(t > now for now, t in enumerate(times))
    lost = sum(delay > 0 for delay in arrivals("loss=2%,rto=1ms,seed=1", count=1000))
    assert held_up > 5 * lost > 0


@settings(max_examples=25, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.sampled_from(["up", "down"]), st.binary(min_size=1)), max_size=9),
    spec=st.sampled_from(["loss=40%,rto=1ms", "rtt=4ms,loss=20%,rto=2ms", "up=90k,down=80k", ""]),
    seed=st.integers(0, 999),
)
def test_order_and_bytes_are_kept(pieces: list[tuple[str, bytes]], spec: str, seed: int) -> None:
    with contextlib.ExitStack() as stack:
        node, console = Bench(f"{spec},seed={seed}", stack).ends()
        for way, data in pieces:
            (node if way == "up" else console).sendall(data)
        for way, sender, receiver in (("up", node, console), ("down", console, node)):
            sender.shutdown(socket.SHUT_WR)
            expected = b"".join(data for at, data in pieces if at == way)
            assert read(receiver, len(expected)) == expected
            assert receiver.recv(1) == b""


# -- faults at a byte ----------------------------------------------------------------------------


@pytest.mark.few(8)
@pytest.mark.parametrize("at", [0, 1, 1460, 5000])
@pytest.mark.parametrize("end", ["fin", "reset"])
@pytest.mark.parametrize("way", ["up", "down"])
def test_a_cut_at_a_byte(bench: Callable[[str], Bench], way: str, end: str, at: int) -> None:
    b = bench(f"cut={way}:{'reset:' if end == 'reset' else ''}{at}")
    if at == 0:
        assert ended_at_once(b.link) == end
        assert b.nobody_came()
    else:
        sender, receiver = b.ends(way)
        sender.sendall(DATA)
        assert read_all(receiver) == (DATA[:at], end)
        assert read_all(sender) == (b"", end)
    (connection,) = b.link.connections
    assert (getattr(connection, way), connection.ended) == (at, "cut")
    sender, receiver = b.ends(way)
    sender.sendall(DATA)
    assert read(receiver, 6000) == DATA


def test_a_cut_with_nothing_behind_it_is_a_fin_to_both(bench: Callable[[str], Bench]) -> None:
    """It strikes when the byte before it has been delivered, not when another one comes."""
    node, console = bench("cut=9").ends()
    console.sendall(DATA[:9])
    assert read_all(node) == (DATA[:9], "fin")
    assert read_all(console) == (b"", "fin")


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_a_cut_waits_for_a_slow_reader(bench: Callable[[str], Bench], end: str) -> None:
    """And it takes nothing away from it when bytes of its own are left unread."""
    b = bench(f"up=100,cut={'reset:' if end == 'reset' else ''}100k")
    with socket.socket() as node:
        node.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        node.settimeout(PATIENCE_S)
        node.connect(("127.0.0.1", b.link.port))
        node.sendall(DATA)
        b.console().sendall(bytes(200_000))
        assert b.link.wait_for(lambda: b.link.delivered("down") == 100_000)
        time.sleep(0.05)
        received, how = read_all(node)
        assert (len(received), how) == (100_000, end)


def test_cuts_count_over_the_life_or_in_each_connection(bench: Callable[[str], Bench]) -> None:
    def lengths(b: Bench, count: int) -> list[int]:
        found = []
        for _ in range(count):
            console, node = b.ends("down")
            with contextlib.suppress(OSError):  # it may have been cut by then
                console.sendall(DATA)
                console.shutdown(socket.SHUT_WR)
            found.append(len(read_all(node)[0]))
        return found

    assert lengths(bench("cut=100,cut=250,cut=5000"), 4) == [100, 150, 4750, 6000]
    assert lengths(bench("cut=each:97"), 3) == [97, 97, 97]
    assert lengths(bench("cut=each:97,times=2"), 3) == [97, 97, 6000]


@pytest.mark.few(4)
@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("at", [0, 1, 3000])
def test_a_hole_behind_a_byte(bench: Callable[[str], Bench], way: str, at: int) -> None:
    b = bench(f"hold={way}:{at}")
    sender, receiver = b.ends(way)
    sender.sendall(DATA)
    assert read(receiver, at) == DATA[:at]
    receiver.sendall(DATA)
    assert read(sender, 6000) == DATA
    sender.shutdown(socket.SHUT_WR)
    assert is_silent(receiver)
    receiver.close()
    assert read_all(sender) == (b"", "fin")
    sender, receiver = b.ends(way)
    sender.sendall(DATA)
    assert read(receiver, 6000) == DATA  # over the life: once


def test_a_hole_for_both_directions(bench: Callable[[str], Bench]) -> None:
    b = bench("hold=each:both:5")
    for _ in range(2):
        node, console = b.ends()
        console.sendall(DATA)
        assert read(node, 5) == DATA[:5]
        assert is_silent(node)
        node.sendall(DATA)
        node.close()
        assert is_silent(console)


@pytest.mark.few(4)
@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("at", [0, 1459, 1460, 5999])
def test_a_damaged_byte(bench: Callable[[str], Bench], way: str, at: int) -> None:
    b = bench(f"corrupt={way}:{at}")
    for expected in ([at], []):
        sender, receiver = b.ends(way)
        sender.sendall(DATA)
        got = read(receiver, 6000)
        assert [i for i in range(6000) if got[i] != DATA[i]] == expected


def test_another_profile_counts_from_the_beginning(bench: Callable[[str], Bench]) -> None:
    b = bench("cut=10")
    for _ in range(2):
        console, node = b.ends("down")
        console.sendall(DATA)
        assert len(read_all(node)[0]) == 10
        b.link.profile = "cut=10"
    with pytest.raises(SimError):
        b.link.profile = "nonsense"
    assert b.link.profile == parse("cut=10")


# -- doors ---------------------------------------------------------------------------------------


def test_nobody_listens_and_later_somebody_does(bench: Callable[[str], Bench]) -> None:
    b = bench("connect=refuse")
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", b.link.port))
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            b.node()
        b.link.profile = ""
        node, console = b.ends()
        node.sendall(DATA)
        assert read(console, 6000) == DATA
        b.link.profile = "connect=refuse"
        # Who is connected stays connected.
        console.sendall(DATA)
        assert read(node, 6000) == DATA


@pytest.mark.skipif(sys.platform != "linux", reason="connect=drop is for Linux")
def test_a_door_that_does_not_answer(bench: Callable[[str], Bench]) -> None:
    b = bench("connect=drop")
    for _ in range(5):
        with pytest.raises(TimeoutError):
            socket.create_connection(("127.0.0.1", b.link.port), timeout=0.05)
    b.link.profile = ""
    node, console = b.ends()
    node.sendall(DATA)
    assert read(console, 6000) == DATA
    b.link.profile = "connect=drop"
    with pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", b.link.port), timeout=0.05)


def test_accepted_and_never_passed_on(bench: Callable[[str], Bench]) -> None:
    b = bench("connect=hold,times=1")
    node = b.node()
    node.sendall(DATA)
    assert is_silent(node)
    assert b.nobody_came()
    node.close()
    assert b.link.wait_for(lambda: b.link.connections[0].ended == "held")
    node, console = b.ends()
    node.sendall(DATA)
    assert read(console, 6000) == DATA


def test_it_ends_at_once_whatever_is_under_way(bench: Callable[[str], Bench]) -> None:
    with contextlib.ExitStack() as stack:
        for spec in ("connect=hold", "rtt=99s", "hold=0", "drip=up:99s", "up=1", "loss=90%", ""):
            b = Bench(spec, stack)
            b.node().sendall(DATA)
        b.link.wait_for(lambda: b.link.delivered("up") == 6000)
        begin = time.monotonic()
    assert time.monotonic() - begin < 1 * factor()


# -- TLS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("tls=garbage", "wrong version number"),
        ("tls=http", "wrong version number|http request"),
        ("tls=alert", "handshake failure"),
        ("tls=record", "unexpected message|wrong version"),
        ("tls=overlong", "packet length|length too long|record"),
        ("cut=up:100", "EOF|eof"),
        ("cut=500", "EOF|eof"),
        ("cut=reset:500", "reset"),
        ("corrupt=300", "(?i)mac|decrypt|signature|parameter|certificate|decod"),
    ],
)
def test_handshakes_that_fail(tmp_path: Path, spec: str, error: str) -> None:
    authority = certificates.create(tmp_path, "good", "good")
    with contextlib.ExitStack() as stack:
        b = Bench(spec, stack)
        server = threading.Thread(target=serve_tls, args=(b, authority), daemon=True)
        server.start()
        trust = ssl.create_default_context(cafile=authority.pem)
        with pytest.raises(OSError, match=error):
            stack.enter_context(trust.wrap_socket(b.node(), server_hostname="localhost"))
        b.link.profile = ""
        with trust.wrap_socket(b.node(), server_hostname="localhost") as secure:
            assert secure.recv(5) == b"hello"
        server.join(5)


def serve_tls(bench: Bench, authority: certificates.Authority) -> None:
    """Say hello to the first who gets through the handshake."""
    context = certificates.server_context(authority.https)
    while True:
        with (
            contextlib.suppress(OSError),
            context.wrap_socket(bench.console(), server_side=True) as secure,
        ):
            secure.sendall(b"hello")
            return


# -- in front of the console -------------------------------------------------------------------


def test_a_node_behind_a_link(tmp_path: Path) -> None:
    with (
        Console(tmp_path / "console") as console,
        Site(tmp_path, console, tls=True, link="rtt=10ms", https_link="rtt=10ms,down=50k") as site,
    ):
        package = sample.tar({"main.py": sample.main_py(2), "data.bin": DATA})
        site.ask(package, "p.tar")
        assert "version 2 runs" in site.run().output
        assert site.mqtt_link and site.https_link
        assert site.https_link.delivered("down") > len(package)
        (download,) = site.https_link.connections
        assert download.ended in ("closed", "reset")  # nodes do not wait for the server's goodbye
        assert len(site.mqtt_link.connections) >= 2
        assert count_round_trips(site.https_link.segments) <= 3


def test_a_link_for_one_of_the_two(tmp_path: Path) -> None:
    with (
        Console(tmp_path / "console") as console,
        Site(tmp_path, console, mqtt_link="rtt=1ms") as site,
    ):
        assert site.https_link is None
        assert site.config["server"] == f"localhost:{console.ports.https}"
        assert site.mqtt_link and site.config["mqtt"]["port"] == site.mqtt_link.port
        assert "check: idle" in site.run().output
        assert len(site.mqtt_link.connections) == 1


def test_the_command_line(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "host_sim", "console", "--dir", tmp_path, "--link", "rtt=150ms"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(words, cwd=ROOT, **options) as process:
        try:
            ready = json.loads(process.stdout.readline())
            check_links(ready)
            process.send_signal(signal.SIGTERM)
            assert process.wait(5 * factor()) == 0
        finally:
            process.kill()


def check_links(ready: dict) -> None:
    """Each of the printed ports is behind a link of 150 ms."""
    trust = ssl.create_default_context(cafile=ready["ca"])
    for name in ("https", "mqtts"):
        begin = time.monotonic()
        plain = socket.create_connection(("127.0.0.1", ready[name]), timeout=PATIENCE_S)
        trust.wrap_socket(plain, server_hostname="localhost").close()
        assert time.monotonic() - begin > 0.3
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", ready["mqtt"]), timeout=PATIENCE_S) as mqtt:
        mqtt.sendall(b"\x10\x0e\0\4MQTT\4\2\0\0\0\2me")
        assert mqtt.recv(1) == b"\x20"
        assert time.monotonic() - begin > 0.3


def test_the_command_line_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["console", "--dir", str(tmp_path), "--link", "rtt=5"]) == 2
    error = "host_sim: link: 'rtt=5': must be a time such as 200ms or 1.5s\n"
    assert capsys.readouterr() == ("", error)
    assert main(["console", "--link", "help"]) == 0
    assert capsys.readouterr() == (HELP + "\n", "")
