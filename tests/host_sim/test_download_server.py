"""Resumed downloads: what the package server does well, and what it can be told to do badly."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from host_sim.console import Faults, certificates
from host_sim.console.download_server import DownloadServer
from host_sim.console.faults import in_turn
from host_sim.console.journal import Download, Journal
from host_sim.console.registry import Registry
from tests.busy import factor

PACKAGE = random.Random(5).randbytes(5000)
FUID = "fa8884d2"
KEY = "secret"
TARGET = f"/mf-rproxy/packages/download?fuid={FUID}&did=node&dk={KEY}&cid=channel"


@pytest.fixture(autouse=True)
def no_leftovers() -> Iterator[None]:
    """Every server ends all its threads."""
    before = set(threading.enumerate())
    yield
    assert not [t for t in threading.enumerate() if t not in before]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> certificates.Authority:
    return certificates.create(tmp_path_factory.mktemp("ca"), "good", "good")


@dataclass
class Bench:
    """A package server alone, and what it has been told."""

    registry: Registry
    trust: ssl.SSLContext
    etag: str
    faults: Faults = field(default_factory=Faults)
    journal: Journal = field(default_factory=Journal)
    port: int = 0

    @property
    def downloads(self) -> list[Download]:
        return self.journal.downloads()

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        return self.trust.wrap_socket(plain, server_hostname="localhost")


@pytest.fixture
def bench(tmp_path: Path, authority: certificates.Authority) -> Iterator[Bench]:
    registry = Registry(tmp_path)
    registry.add_device("node", KEY, "channel")
    package = registry.add_package(PACKAGE, "x.tar", FUID)
    bench = Bench(registry, ssl.create_default_context(cafile=authority.pem), package.etag)
    tls = certificates.server_context(authority.https)
    server = DownloadServer(0, tls, registry, bench.journal, lambda: bench.faults)
    bench.port = server.server_port
    server.start()
    yield bench
    server.stop()


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes
    whole: bool = True
    """False: the connection ended before the announced length did."""


def fetch(bench: Bench, start: int | None = None, if_range: str | None = None) -> Answer:
    """One download on a connection of its own, from byte `start` where one is given."""
    headers = {} if start is None else {"Range": f"bytes={start}-"}
    if if_range is not None:
        headers["If-Range"] = if_range
    connection = http.client.HTTPSConnection("localhost", bench.port, context=bench.trust)
    connection.timeout = 30
    with contextlib.closing(connection):
        connection.request("GET", TARGET, headers=headers)
        answer = connection.getresponse()
        try:
            return Answer(answer.status, answer.headers, answer.read())
        except http.client.IncompleteRead as error:
            return Answer(answer.status, answer.headers, error.partial, whole=False)


def resume(bench: Bench) -> tuple[bytes, int]:
    """Download as a node would, going on where the body broke off; also how many tries it took."""
    answer = fetch(bench)
    body, tries = answer.body, 1
    while not answer.whole:
        tries += 1
        assert tries < 200
        answer = fetch(bench, len(body), answer.headers["ETag"])
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes {len(body)}-4999/5000"
        body += answer.body
    return body, tries


# -- what it does well ---------------------------------------------------------------------------


def test_a_download_from_the_middle(bench: Bench) -> None:
    answer = fetch(bench, 1234, bench.etag)
    assert (answer.status, answer.body) == (206, PACKAGE[1234:])
    assert answer.headers["Content-Range"] == "bytes 1234-4999/5000"
    assert answer.headers["Content-Length"] == "3766"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["ETag"] == bench.etag


def test_another_package_under_the_same_name_comes_whole(bench: Bench) -> None:
    first = fetch(bench).headers["ETag"]
    other = PACKAGE[::-1]
    etag = bench.registry.add_package(other, "x.tar", FUID).etag
    answer = fetch(bench, 1234, first)
    assert (answer.status, answer.body) == (200, other)
    assert answer.headers["ETag"] == etag != first
    assert answer.headers["Content-Range"] is None


@pytest.mark.parametrize("start", [5000, 5001, 10**9])
def test_beyond_the_end(bench: Bench, start: int) -> None:
    answer = fetch(bench, start, bench.etag)
    assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */5000")
    assert answer.headers["ETag"] == bench.etag
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert [d.bytes_sent for d in bench.downloads] == [0]


def test_every_answer_with_a_package_has_a_strong_etag(bench: Bench) -> None:
    for start in (None, 0, 4999, 5000):
        etag = fetch(bench, start).headers["ETag"]
        assert etag == bench.etag
        assert etag[0] == etag[-1] == '"'


def test_each_request_is_recorded(bench: Bench) -> None:
    bench.faults.truncate_at = 100
    fetch(bench)
    fetch(bench, 100, bench.etag)
    bench.faults.clear()
    fetch(bench, 4000, '"other"')
    fetch(bench, 4000)
    seen = [(d.range, d.status, d.bytes_sent) for d in bench.downloads]
    assert seen == [
        (None, 200, 100),
        ("bytes=100-", 206, 100),
        ("bytes=4000-", 200, 5000),
        ("bytes=4000-", 206, 1000),
    ]
    assert KEY not in repr(bench.downloads)


# -- bodies that break off -----------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_cut_after_some_bytes_of_each_body(bench: Bench, chunked: bool) -> None:
    bench.faults = Faults(truncate_at=97, chunked=chunked)
    body, tries = resume(bench)
    assert body == PACKAGE
    assert tries == -(-5000 // 97)
    assert sum(d.bytes_sent for d in bench.downloads) == 5000


def test_cut_at_offsets_of_the_package_once_each(bench: Bench) -> None:
    cuts = [4999, 0, 1, 2500, 5000, 9999]
    bench.faults.cut_at = cuts
    bodies = [fetch(bench).body for _ in range(6)]
    assert [len(body) for body in bodies] == [0, 1, 2500, 4999, 5000, 5000]
    assert bodies[-1] == PACKAGE
    assert cuts == [5000, 9999]


def test_cut_at_offsets_while_resuming(bench: Bench) -> None:
    bench.faults.cut_at = [0, 1, 2500, 4999]
    assert resume(bench) == (PACKAGE, 5)
    assert [d.bytes_sent for d in bench.downloads] == [0, 1, 2499, 2499, 1]


def test_silence_while_resuming(bench: Bench) -> None:
    bench.faults.stall_at = 10
    with bench.connect() as link:
        link.sendall(f"GET {TARGET} HTTP/1.1\r\nRange: bytes=100-\r\n\r\n".encode())
        received = b""
        while not received.endswith(b"\r\n\r\n" + PACKAGE[100:110]):
            received += link.recv(10_000)
        link.settimeout(0.2)
        with pytest.raises(TimeoutError):
            link.recv(10_000)


def test_a_body_in_small_pieces_with_pauses(bench: Bench) -> None:
    bench.faults = Faults(pause_every=2000, pause_ms=60)
    begin = time.monotonic()
    with bench.connect() as link:
        link.sendall(f"GET {TARGET} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        records = []
        while data := link.recv(10_000):
            records.append((time.monotonic() - begin, data))
    assert [data for _, data in records[1:]] == [
        PACKAGE[:2000],
        PACKAGE[2000:4000],
        PACKAGE[4000:],
    ]
    # Not from one to the next: this thread may be late for the first, and in time for the second.
    second, third = records[2][0], records[3][0]
    assert 0.05 < second < 0.5 * factor() and 0.11 < third < 1 * factor()


# -- answers to a Range that are wrong -----------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "status", "content_range", "body"),
    [
        (Faults(range_taken_as=""), 200, None, PACKAGE),
        (Faults(range_taken_as="", chunked=True), 200, None, PACKAGE),
        (Faults(range_taken_as="bytes=10-19"), 206, "bytes 10-19/5000", PACKAGE[10:20]),
        (Faults(range_shift=7), 206, "bytes 107-4999/5000", PACKAGE[107:]),
        (Faults(range_shift=-100), 206, "bytes 0-4999/5000", PACKAGE),
        (Faults(range_shift=9999), 206, "bytes 4999-4999/5000", PACKAGE[-1:]),
        (Faults(content_range="bytes {first:+1}-{last}/{size}"), 206, "bytes 101-4999/5000", None),
        (Faults(content_range="bytes {first}-{last:-2}/{size}"), 206, "bytes 100-4997/5000", None),
        (Faults(content_range="bytes {first}-{last}/{size:+9}"), 206, "bytes 100-4999/5009", None),
        (Faults(content_range="bytes {first}-{last}/*"), 206, "bytes 100-4999/*", None),
        (Faults(content_range="lines of {size}"), 206, "lines of 5000", None),
        (Faults(content_range=""), 206, None, None),
        (
            Faults(range_shift=7, content_range="bytes {first:-7}-{last}/{size}"),
            206,
            "bytes 100-4999/5000",
            PACKAGE[107:],
        ),
        (Faults(range_taken_as="bytes=9999-"), 416, "bytes */5000", b"416\n"),
        (Faults(status=416), 416, None, b"416\n"),
    ],
)
def test_wrong_answers_to_a_range(
    bench: Bench, faults: Faults, status: int, content_range: str | None, body: bytes | None
) -> None:
    bench.faults = faults
    answer = fetch(bench, 100, bench.etag)
    assert (answer.status, answer.headers["Content-Range"]) == (status, content_range)
    assert answer.body == (PACKAGE[100:] if body is None else body)
    assert ("Content-Length" in answer.headers) != faults.chunked


def test_a_part_that_nobody_asked_for(bench: Bench) -> None:
    bench.faults.range_taken_as = "bytes=0-"
    answer = fetch(bench)
    assert (answer.status, answer.body) == (206, PACKAGE)
    assert answer.headers["Content-Range"] == "bytes 0-4999/5000"


@pytest.mark.parametrize("start", [None, 100])
@pytest.mark.parametrize("etag", ['"another"', 'W/"weak"', "no quotes", ""])
def test_another_etag_or_none(bench: Bench, start: int | None, etag: str) -> None:
    bench.faults.etag = etag
    answer = fetch(bench, start, bench.etag)
    assert answer.headers["ETag"] == (etag or None)
    assert (answer.status, answer.body) == (206 if start else 200, PACKAGE[start or 0 :])


def test_a_server_that_does_not_know_if_range(bench: Bench) -> None:
    bench.faults.if_range_ignored = True
    answer = fetch(bench, 100, '"of another package"')
    assert (answer.status, answer.body) == (206, PACKAGE[100:])


def test_one_fault_after_the_other(bench: Bench) -> None:
    elsewhere = "https://localhost/x?{query}"
    bench.faults = in_turn(
        Faults(truncate_at=300), Faults(status=503, times=2), Faults(redirect_to=elsewhere)
    )
    statuses = [fetch(bench, start, bench.etag).status for start in (None, 300, 300, 300, 300)]
    assert statuses == [200, 503, 503, 302, 206]
    assert fetch(bench).body == PACKAGE


def test_what_comes_after_some_downloads_may_stay(bench: Bench) -> None:
    bench.faults = Faults(status=503, times=1, then=Faults(etag=""))
    assert fetch(bench).status == 503
    for _ in range(3):
        assert "ETag" not in fetch(bench).headers


def test_nothing_in_turn_is_no_fault(bench: Bench) -> None:
    bench.faults = in_turn()
    assert fetch(bench).body == PACKAGE


# -- heads ---------------------------------------------------------------------------------------


def read_head(link: ssl.SSLSocket) -> list[bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        data = link.recv(65536)
        assert data
        received += data
    return received.partition(b"\r\n\r\n")[0].split(b"\r\n")


@pytest.mark.parametrize("status", [None, 404])
@pytest.mark.parametrize(
    "lines",
    [[b"X: y"] * 1000, [b"X: " + b"y" * 100_000], [b"no colon", b"\0\xff"]],
    ids=["many", "long", "senseless"],
)
def test_more_header_lines(bench: Bench, lines: list[bytes], status: int | None) -> None:
    bench.faults = Faults(status=status, extra_head=b"\r\n".join(lines) + b"\r\n")
    with bench.connect() as link:
        link.sendall(f"GET {TARGET} HTTP/1.1\r\n\r\n".encode())
        head = read_head(link)
    assert head[0].startswith(b"HTTP/1.1 %d " % (status or 200))
    assert head[1 : 1 + len(lines)] == lines
    assert any(line.startswith(b"Content-Length: ") for line in head)


def test_a_head_byte_by_byte(bench: Bench) -> None:
    bench.faults.head_drip_ms = 1
    begin = time.monotonic()
    with bench.connect() as link:
        link.sendall(f"GET {TARGET} HTTP/1.1\r\n\r\n".encode())
        assert link.recv(1000) == b"H"
        length = len(b"\r\n".join(read_head(link)))
    assert time.monotonic() - begin > length / 1000
