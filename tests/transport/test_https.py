"""Answers of all kinds from a server of our own, read by the node's HTTPS client."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urldefrag, urljoin, urlsplit

import pytest

from host_sim.console import certificates
from host_sim.node.node import run_code
from host_sim.sample import DEVICE_KEY
from tests.secrecy import holds_key

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH_5 = b"Content-Length: 5\r\n"
HELLO = LENGTH_5 + b"\r\nhello"

FETCH = """
import gc
from ota.errors import OtaError
from ota.download import Response
from ota.https import get
from ota.wire import Limits
url, ca = %s
gc.collect()
try:
    response = get(Response, url, ca, Limits(3000, 60000))
    body = b""
    buffer = bytearray(512)
    while True:
        n = response.raw.readinto(buffer, 512)
        if not n:
            break
        body += bytes(buffer[:n])
    response.close()
    print(response.status_code, response.length, body)
except OtaError as error:
    print(type(error).__name__, str(error))
"""


class Server:
    """A TLS server that gives each connection the next of its answers, whatever was asked."""

    def __init__(self, context: ssl.SSLContext, host: str = "127.0.0.1") -> None:
        self.answers: list[bytes] = []
        self.heard: list[bytes] = []
        self._context = context
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(30)
            # A node that has heard enough goes away in the middle.
            with contextlib.suppress(OSError):
                self._answer(connection)
            connection.close()

    def _answer(self, connection: socket.socket) -> None:
        with self._context.wrap_socket(connection, server_side=True) as secure:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                piece = secure.recv(4096)
                if not piece:
                    return  # it has asked for nothing, and gone
                request += piece
            self.heard.append(request)
            secure.sendall(self.answers.pop(0))
            secure.settimeout(0)  # say goodbye, and do not wait for the other's
            secure.unwrap()

    def stop(self) -> None:
        """Leave no thread."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> certificates.Authority:
    return certificates.create(tmp_path_factory.mktemp("ca"), "good", "good")


@pytest.fixture
def server(authority: certificates.Authority) -> Iterator[Server]:
    server = Server(certificates.server_context(authority.https))
    yield server
    server.stop()


@pytest.fixture
def server6(authority: certificates.Authority) -> Iterator[Server]:
    server = Server(certificates.server_context(authority.https), "::1")
    yield server
    server.stop()


Fetch = Callable[..., str]


@pytest.fixture
def fetch(agent: Path, authority: certificates.Authority, server: Server) -> Fetch:
    """Ask the server, which gives these answers; returns `STATUS LENGTH BODY` or the error."""

    def ask(*answers: bytes, heap: str = "4M") -> str:
        server.answers[:] = answers
        url = f"https://localhost:{server.port}/package?dk={DEVICE_KEY}&cid=1"
        script = FETCH % json.dumps([url, str(authority.der)])
        result = run_code(script, path=[agent], heap=heap, timeout_s=100)
        assert result.exit_code == 0, result.output
        assert not holds_key(result.output)
        return result.output.strip()

    return ask


READ = {
    "length": (OK + HELLO, "200 5 b'hello'"),
    "no length": (OK + b"\r\nhello", "200 None b'hello'"),
    "no body": (OK + b"Content-Length: 0\r\n\r\n", "200 0 b''"),
    "old protocol, bare line ends": (
        b"HTTP/1.0 200 OK\n" + HELLO.replace(b"\r", b""),
        "200 5 b'hello'",
    ),
    "no phrase": (b"HTTP/1.1 200\r\n" + HELLO, "200 5 b'hello'"),
    "names in any case": (OK + b"CONTENT-LENGTH:5\r\n\r\nhello", "200 5 b'hello'"),
    "the same length twice": (OK + LENGTH_5 + HELLO, "200 5 b'hello'"),
    "interim answers": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
        + OK
        + HELLO,
        "200 5 b'hello'",
    ),
    "a long header": (OK + b"X-Long: " + b"x" * 3000 + b"\r\n" + HELLO, "200 5 b'hello'"),
    "62 headers": (OK + b"X: y\r\n" * 62 + HELLO, "200 5 b'hello'"),
    "identity": (OK + b"Content-Encoding: identity\r\n" + HELLO, "200 5 b'hello'"),
    "chunks": (CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", "200 None b'hello'"),
    "chunks with extensions": (
        CHUNKED + b'0003;a="b"\r\nhel\r\n2 \r\nlo\r\n000\r\n\r\n',
        "200 None b'hello'",
    ),
    "chunks in hexadecimal": (
        CHUNKED + b"1A\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n",
        f"200 None {b'x' * 26!r}",
    ),
    "trailers": (CHUNKED + b"5\r\nhello\r\n0\r\nSum: 1\r\nEnd: 2\r\n\r\n", "200 None b'hello'"),
    "chunks and a length": (
        OK + LENGTH_5 + b"Transfer-Encoding: chunked\r\n\r\n6\r\nhello!\r\n0\r\n\r\n",
        "200 None b'hello!'",
    ),
    "another status": (b"HTTP/1.1 404 Not Found\r\n" + HELLO, "404 5 b'hello'"),
}


@pytest.mark.check
@pytest.mark.parametrize("row", READ)
def test_answers_that_are_read(fetch: Fetch, row: str):
    answer, expected = READ[row]
    assert fetch(answer) == expected


TRANSIENT = {
    "silence": (b"", "the answer ended early"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "the server does not speak HTTP"),
    "HTTP/2": (b"HTTP/2 200 OK\r\n" + HELLO, "the server does not speak HTTP"),
    "no status": (b"HTTP/1.1\r\n" + HELLO, "the server does not speak HTTP"),
    "status a word": (b"HTTP/1.1 OK 200\r\n" + HELLO, "the server does not speak HTTP"),
    "status negative": (b"HTTP/1.1 -200 OK\r\n" + HELLO, "the server does not speak HTTP"),
    "bytes": (bytes(range(128, 256)) + b"\r\n\r\n", "the server does not speak HTTP"),
    "interim for ever": (b"HTTP/1.1 100 Continue\r\n\r\n" * 9, "only interim answers"),
    "65 headers": (OK + b"X: y\r\n" * 65 + HELLO, "more than 64 headers"),
    "headers for ever": (OK + b"X: y\r\n" * 20_000, "more than 64 headers"),
    "cut in a header": (OK + b"Content-Le", "the answer ended early"),
    "two lengths": (OK + b"Content-Length: 6\r\n" + HELLO, "Content-Length makes no sense"),
    "a length negative": (OK + b"Content-Length: -5\r\n\r\n", "Content-Length makes no sense"),
    "a length with a sign": (OK + b"Content-Length: +5\r\n\r\n", "Content-Length makes no sense"),
    "a length with a _": (OK + b"Content-Length: 1_0\r\n\r\n", "Content-Length makes no sense"),
    "a length empty": (OK + b"Content-Length:\r\n\r\n", "Content-Length makes no sense"),
    "a length huge": (OK + b"Content-Length: 9999999999\r\n\r\n", "Content-Length makes no sense"),
    "deflate": (OK + b"Content-Encoding: deflate\r\n" + HELLO, "unknown Content-Encoding"),
    "gzip twice": (OK + b"Content-Encoding: gzip, gzip\r\n" + HELLO, "unknown Content-Encoding"),
    "br": (OK + b"Content-Encoding: br\r\n" + HELLO, "unknown Content-Encoding"),
    "transfer gzip": (
        OK + b"Transfer-Encoding: gzip, chunked\r\n" + HELLO,
        "unknown Transfer-Encoding",
    ),
    "a shorter body": (OK + LENGTH_5 + b"\r\nhell", "the body ended early"),
    "a shorter chunk": (CHUNKED + b"5\r\nhell", "the body ended early"),
    "no chunk": (CHUNKED, "the answer ended early"),
    "no last chunk": (CHUNKED + b"5\r\nhello\r\n", "the answer ended early"),
    "junk behind a chunk": (
        CHUNKED + b"3\r\nhelJUNK\r\n0\r\n\r\n",
        "a chunk is longer than it says",
    ),
    "trailers for ever": (CHUNKED + b"0\r\n" + b"X: y\r\n" * 20_000, "more than 64 headers"),
    "trailers cut": (CHUNKED + b"0\r\nX: y\r\n", "the answer ended early"),
} | {
    f"chunk of {size!r}": (
        CHUNKED + size + b"\r\n" + b"x" * 99 + b"\r\n0\r\n\r\n",
        "a chunk's size makes no sense",
    )
    for size in (b"1_0", b"0x3", b"-1", b"+3", b" ", b";x", b"g", b"3 3", b"000000003", b"\xb2")
}


@pytest.mark.parametrize("row", TRANSIENT)
def test_answers_that_make_no_sense(fetch: Fetch, row: str):
    """A proxy's or a captive portal's work: another time it may go well."""
    answer, reason = TRANSIENT[row]
    assert fetch(answer) == f"Transient can not download: {reason}"


@pytest.mark.parametrize("end", [b"", b"\r\n" + HELLO], ids=["endless", "ended"])
def test_a_header_of_a_hundred_kilobytes_is_not_held_in_memory(fetch: Fetch, end: bytes):
    answer = OK + b"X: " + b"x" * 100_000 + end
    assert fetch(answer, heap="72K") == "Transient can not download: a header line is too long"


def redirect(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\n".encode("latin-1") + HELLO


REFUSED, TRY_AGAIN = "Refused can not download: ", "Transient can not download: "
UNUSABLE = REFUSED + "redirected to an unusable address"
NOT_HTTPS = REFUSED + "redirected to something other than HTTPS"
NOWHERE = TRY_AGAIN + "redirected to nowhere"
QUERY = f"dk={DEVICE_KEY}&cid=1"
LOCATIONS = {
    f"https://no.such.host.invalid?{QUERY}": TRY_AGAIN + "the host's name is not known",
    f"https://no.such.host.invalid#{QUERY}": TRY_AGAIN + "the host's name is not known",
    f"https://x&{QUERY}": UNUSABLE,
    f"https://{DEVICE_KEY}@localhost/": UNUSABLE,
    f"https://user:{DEVICE_KEY}@localhost/": UNUSABLE,
    f"https://localhost:0/?{QUERY}": UNUSABLE,
    f"https://localhost:99999/?{QUERY}": UNUSABLE,
    f"https://localhost:123456789/?{QUERY}": UNUSABLE,
    f"https://localhost:4x4/?{QUERY}": UNUSABLE,
    f"https://localhost:443:443/?{QUERY}": UNUSABLE,
    f"https://[::1/?{QUERY}": UNUSABLE,
    f"https://::1]/?{QUERY}": UNUSABLE,
    f"https://x[::1]/?{QUERY}": UNUSABLE,
    f"https://[::1]x/?{QUERY}": UNUSABLE,
    f"https://[]/?{QUERY}": UNUSABLE,
    f"https://[::1%25eth0]/?{QUERY}": UNUSABLE,
    f"https://[{DEVICE_KEY}]/?{QUERY}": UNUSABLE,
    f"https:/localhost/?{QUERY}": UNUSABLE,
    f"https:?{QUERY}": UNUSABLE,
    f"https://local\\host/?{QUERY}": UNUSABLE,
    f"https:///?{QUERY}": UNUSABLE,
    f"https://?{QUERY}": UNUSABLE,
    f"https://local host/?{QUERY}": NOWHERE,
    f"https://localhost/a b?{QUERY}": NOWHERE,
    f"https://localhost/\x01?{QUERY}": NOWHERE,
    f"https://localhost/\t?{QUERY}": NOWHERE,
    f"https://localhost/\xe9?{QUERY}": NOWHERE,
    "": NOWHERE,
    f"//?{QUERY}": UNUSABLE,
    f"///x?{QUERY}": UNUSABLE,
    f"//{DEVICE_KEY}@localhost/?{QUERY}": UNUSABLE,
    f"http://localhost/?{QUERY}": NOT_HTTPS,
    f"HTTP://localhost/?{QUERY}": NOT_HTTPS,
    f"httpsx://localhost/?{QUERY}": NOT_HTTPS,
    f"file:///ota.json?{QUERY}": NOT_HTTPS,
    f"://localhost/?{QUERY}": NOT_HTTPS,
    f"https%3A://localhost/?{QUERY}": NOT_HTTPS,
    f"{DEVICE_KEY}:8443/?{QUERY}": NOT_HTTPS,
    "/" + "x" * 4096: TRY_AGAIN + "a header line is too long",
}


@pytest.mark.parametrize("location", LOCATIONS, ids=range(len(LOCATIONS)))
def test_redirects_to_what_is_no_address(fetch: Fetch, server: Server, location: str):
    """The reason never quotes more of it than a host name; `fetch` looks for the key."""
    assert fetch(redirect(location)) == LOCATIONS[location]
    assert len(server.heard) == 1


def test_a_redirect_without_a_location(fetch: Fetch):
    assert fetch(b"HTTP/1.1 302 Found\r\n" + HELLO) == NOWHERE


def test_the_fragment_of_a_redirect_stays_here(fetch: Fetch, server: Server):
    there = f"https://localhost:{server.port}/x?a=1#part-{QUERY}"
    assert fetch(redirect(there), redirect("/y#z"), OK + HELLO) == "200 5 b'hello'"
    asked = [request.split(b"\r\n")[0] for request in server.heard]
    assert asked[1:] == [b"GET /x?a=1 HTTP/1.1", b"GET /y HTTP/1.1"]


def test_a_redirect_to_a_host_alone(fetch: Fetch, server: Server):
    """Nothing behind the host and port: the root is meant."""
    assert fetch(redirect(f"https://localhost:{server.port}?a=1"), OK + HELLO) == "200 5 b'hello'"
    assert server.heard[1].startswith(b"GET /?a=1 HTTP/1.1\r\n")


RELATIVE = [
    "/",
    "/x",
    "/x?y=1&z=/../a",
    "x",
    "x?y",
    "x/y/",
    "./x",
    "../x",
    "../../x",
    "../../../../x",
    "../x/./y/../z?a=./../b",
    "..",
    ".",
    "../",
    "/a/../../b/./c/.",
    "/a/..",
    "/a//b/../c",
    "?y",
    "?y=http://else.where/#no",
    "a/b:c",
    "x%2e%2e/%2E./y",
    "/x;p=1/y;q",
    "//localhost:{port}/x",
    "//localhost:{port}",
    "//localhost:{port}?y",
    "HTTPS://LOCALHOST:{port}/x",
    "hTTps://localhost:{port}/A?b",
    "/..x/.y/...",
]


def test_relative_redirects_are_what_cpython_makes_of_them(fetch: Fetch, server: Server):
    """From /a/b/c?old=1; the query stays behind, the fragment never leaves."""
    wrong = []
    for reference in (each.format(port=server.port) for each in RELATIVE):
        base = f"https://localhost:{server.port}/a/b/c?old=1"
        expected = urlsplit(urldefrag(urljoin(base, reference)).url)
        target = (expected.path or "/") + (f"?{expected.query}" if expected.query else "")
        server.heard.clear()
        answer = fetch(redirect("/a/b/c?old=1"), redirect(reference), OK + HELLO)
        asked = [request.split(b" ")[1].decode() for request in server.heard]
        if asked[2:] != [target] or answer != "200 5 b'hello'":
            wrong.append((reference, target, asked[2:], answer))
    assert wrong == []


def test_a_presigned_address_of_four_kilobytes(fetch: Fetch, server: Server):
    """Sent as it came, twice in a row; the reason of a longer one stands in LOCATIONS."""
    for length in (1000, 1018, 1700, 4096):
        server.heard.clear()
        begin = f"https://localhost:{server.port}/store/p.tar?X-Amz-Signature="
        there = begin + "f" * (length - len(begin))
        again = "?" + "e" * (length - 1)
        answer = fetch(redirect(there), redirect(again), OK + HELLO)
        assert answer == "200 5 b'hello'"
        asked = [request.split(b" ")[1].decode() for request in server.heard]
        path = there[there.index("/store") :]
        assert asked[1:] == [path, path.partition("?")[0] + again]


IPV6_OR_NAMED = """
import socket as real
import ota.dial

class Socket:
    SOCK_STREAM = real.SOCK_STREAM
    def getaddrinfo(self, host, port, *rest):
        print("asked for", host, port)
        return PLACES(host, port)
    def socket(self, *what):
        print("socket", *what[:2])
        return real.socket(*what)

ota.dial.socket = Socket()

def at(host, port):
    return real.getaddrinfo(host, port, 0, real.SOCK_STREAM)
"""


@pytest.fixture
def elsewhere(agent: Path, authority: certificates.Authority, server: Server):
    """Ask the server as `fetch` does, under a URL, and with names that mean what `places` says."""

    def ask(url: str, places: str, *answers: bytes) -> list[str]:
        server.answers[:] = answers
        script = IPV6_OR_NAMED.replace("PLACES", f"(lambda host, port: {places})")
        script += FETCH % json.dumps([url.format(port=server.port), str(authority.der)])
        result = run_code(script, path=[agent], heap="4M", timeout_s=100)
        assert result.exit_code == 0, result.output
        return result.output.splitlines()

    return ask


def test_a_host_with_an_underscore(elsewhere, server: Server):
    """No host name by the book, but DNS has them, and certificates with a wildcard."""
    lines = elsewhere("https://my_store.localhost:{port}/x", "at('127.0.0.1', port)", OK + HELLO)
    assert lines == [f"asked for my_store.localhost {server.port}", "socket 2 1", "200 5 b'hello'"]
    assert f"\r\nHost: my_store.localhost:{server.port}\r\n".encode() in server.heard[0]


def test_an_address_of_ipv6(elsewhere, server6: Server):
    """In brackets in the URL and in Host, without them where it is looked up and verified."""
    url = f"https://[::1]:{server6.port}/x"
    server6.answers[:] = redirect("/y"), OK + HELLO
    lines = elsewhere(url, "at(host, port)")
    lookup = [f"asked for ::1 {server6.port}", "socket 10 1"]
    assert lines == [*lookup, *lookup, "200 5 b'hello'"]
    for request in server6.heard:
        assert f"\r\nHost: [::1]:{server6.port}\r\n".encode() in request


DEAD = "at('127.0.0.1', 1)"


@pytest.mark.parametrize(
    ("places", "tried"),
    [
        (f"{DEAD} + at('::1', 1) + at('127.0.0.1', port)", [2, 10, 2]),
        ("[(99, 1, 6, '', b'')] + at('127.0.0.1', port)", [99, 2]),
        (f"at('127.0.0.1', port) + {DEAD}", [2]),
    ],
    ids=["two that refuse", "a family that is not known", "the first one answers"],
)
def test_each_address_in_turn(elsewhere, server: Server, places: str, tried: list[int]):
    lines = elsewhere("https://localhost:{port}/x", places, OK + HELLO)
    assert [line for line in lines if "socket " in line] == [f"socket {n} 1" for n in tried]
    assert lines[-1] == "200 5 b'hello'"
    assert len(server.heard) == 1


def test_no_address_answers(elsewhere):
    lines = elsewhere("https://localhost:{port}/x", f"{DEAD} + {DEAD}")
    assert lines[1:] == ["socket 2 1"] * 2 + [TRY_AGAIN + "the host does not answer, OSError 111"]


def test_what_is_asked(fetch: Fetch, server: Server):
    fetch(OK + HELLO)
    (request,) = server.heard
    line, *headers = request.decode().split("\r\n")
    assert line == f"GET /package?{QUERY} HTTP/1.1"
    assert f"Host: localhost:{server.port}" in headers
    assert "Connection: close" in headers
    assert "Accept-Encoding: identity" in headers
    assert not any(holds_key(header) for header in headers)
