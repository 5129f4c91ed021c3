"""The page's server without a browser: who is let in, what is taken, what is told."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from host_sim import sample
from host_sim.console import DeviceView
from host_sim.errors import SimError
from host_sim.web import WebServer
from insigh_ota.package.build import build
from insigh_ota.package.sources import Selection
from tests.busy import factor
from tests.web.fake import FakeConsole

OURS = {"X-Insigh-Ota": "test"}
TREE = {"main.py": b"print('version 2')\n", "lib/größe.py": b"x = 1\n"}
PACKAGE = sample.tar_gz(TREE)
TOKEN = "a token of the test"


def post(web: WebServer, path: str, body: object, **headers: str) -> requests.Response:
    """A POST as the page sends it."""
    data = body if isinstance(body, bytes) else json.dumps(body)
    return requests.post(web.url + path, data=data, headers=OURS | headers, timeout=20)


def upload(web: WebServer, body: bytes, name: str) -> requests.Response:
    """Add a package."""
    return requests.post(
        web.url + "api/packages", params={"name": name}, data=body, headers=OURS, timeout=20
    )


def connect(web: WebServer) -> tuple[socket.socket, str]:
    """A bare connection, and what a request's Host is."""
    host = web.url.split("/")[2]
    address, port = host.split(":")
    return socket.create_connection((address, int(port)), timeout=20), host


@contextlib.contextmanager
def stream(web: WebServer, after: str = "") -> Iterator[Iterator[tuple[str, str, Any]]]:
    """Messages as they come: id, name, data."""

    def messages(answer: http.client.HTTPResponse) -> Iterator[tuple[str, str, Any]]:
        fields: dict[str, str] = {}
        while line := answer.readline().decode():
            name, _, value = line.rstrip("\r\n").partition(": ")
            if name:
                fields[name] = value
            elif fields:
                yield fields.get("id", ""), fields["event"], json.loads(fields["data"])
                fields = {}

    headers = {"Last-Event-ID": after} if after else {}
    place = http.client.HTTPConnection(web.url.split("/")[2], timeout=20)
    with contextlib.closing(place):
        place.request("GET", "/api/stream", headers=headers)
        yield messages(place.getresponse())


def until(messages: Iterator[tuple[str, str, Any]], name: str) -> list[tuple[str, str, Any]]:
    """All messages up to the first of that name."""
    seen = []
    for message in messages:
        seen.append(message)
        if message[1] == name:
            return seen
    raise AssertionError(f"no {name} in {seen}")


# -- who is let in --------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "static/page.js", "api/packages/none", "nowhere", "login"])
def test_each_answer_is_strict(web: WebServer, path: str) -> None:
    answer = requests.get(web.url + path, timeout=20)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "set-cookie" not in answer.headers


def test_the_page_loads_nothing_from_elsewhere(web: WebServer) -> None:
    for path in ("", "static/page.js", "static/page.css", "login"):
        text = requests.get(web.url + path, timeout=20).text
        assert "//" not in text.replace("// ", "") or "http" not in text, path
        assert "innerHTML" not in text and "style=" not in text and " on" + "click=" not in text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", ""])
def test_another_name_for_the_address_is_refused(web: WebServer, host: str) -> None:
    port = web.url.rstrip("/").rsplit(":", 1)[1]
    for path in ("", "api/stream", "static/page.js"):
        headers = {"Host": host.format(port=port)}
        assert requests.get(web.url + path, headers=headers, timeout=20).status_code == 421


def test_localhost_is_the_same_place(web: WebServer) -> None:
    answer = requests.get(web.url.replace("127.0.0.1", "localhost"), timeout=20)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
)
def test_other_sites_can_do_nothing(
    web: WebServer, fake: FakeConsole, headers: dict[str, str]
) -> None:
    fake.set("node")
    package = upload(web, PACKAGE, "a.tar.gz").json()["fuid"]
    for path, body in (
        ("api/request", {"ids": ["node"], "fuid": package}),
        ("api/cancel", {"ids": ["node"]}),
        ("api/packages?name=b.tar.gz", PACKAGE),
    ):
        assert post(web, path, body, **headers).status_code == 403
    assert not fake.orders and len(fake.packages()) == 1
    answer = requests.get(web.url + "api/stream", headers=headers, stream=True, timeout=20)
    assert answer.status_code == 403


def test_a_form_of_another_site_lacks_the_header(web: WebServer, fake: FakeConsole) -> None:
    fake.set("node")
    answer = requests.post(web.url + "api/cancel", data='{"ids":["node"]}', timeout=20)
    assert answer.status_code == 403 and not fake.orders


def test_a_token_is_made_where_others_can_reach_it(fake: FakeConsole) -> None:
    with WebServer(fake, host="0.0.0.0") as web:
        assert web.token and len(web.token) > 20
        here = f"http://127.0.0.1:{web.url.rstrip('/').rsplit(':', 1)[1]}/"
        for path in ("api/stream", "api/packages/none"):
            assert requests.get(here + path, stream=True, timeout=20).status_code == 401
        login = requests.get(here, timeout=20)
        assert login.url == here + "login" and "Token" in login.text
        with requests.Session() as session:
            first = session.get(here, params={"token": web.token}, timeout=20)
            assert first.url == here and "Devices" in first.text
            cookie = first.history[0].headers["set-cookie"]
            assert "HttpOnly" in cookie and "SameSite=strict" in cookie and web.token not in cookie
            assert session.get(here + "api/packages/none", timeout=20).status_code == 404


def test_the_token_is_taken_from_a_form_too(fake: FakeConsole) -> None:
    with WebServer(fake, token=TOKEN) as web, requests.Session() as session:
        for wrong in ("", "wrong", "é", TOKEN + "x", "\udcff"):
            data = {"token": wrong.encode("utf-8", "surrogateescape")}
            answer = session.post(web.url + "login", data=data, timeout=20)
            assert "not the token" in answer.text and not session.cookies
        evil = {"Origin": "http://evil.example"}
        answer = session.post(web.url + "login", data={"token": TOKEN}, headers=evil, timeout=20)
        assert answer.status_code == 403 and not session.cookies
        answer = session.post(web.url + "login", data={"token": TOKEN}, timeout=20)
        assert answer.url == web.url and "Devices" in answer.text
        assert session.post(web.url + "api/cancel", data="{}", timeout=20).status_code == 403
        session.cookies.set(next(iter(session.cookies.keys())), TOKEN, domain="127.0.0.1")
        other = {"Cookie": f"{next(iter(session.cookies.keys()))}={TOKEN}"}
        assert requests.get(web.url + "api/stream", headers=other, timeout=20).status_code == 401


def test_a_server_in_front_may_speak_https(fake: FakeConsole) -> None:
    with WebServer(fake, token=TOKEN) as web:
        named = {"Host": "fleet.example", "Origin": "https://fleet.example"}
        login = {"url": web.url + "login", "data": {"token": TOKEN}, "allow_redirects": False}
        answer = requests.post(**login, headers=named, timeout=20)
        assert answer.status_code == 303 and answer.cookies
        other = named | {"Origin": "https://evil.example"}
        assert requests.post(**login, headers=other, timeout=20).status_code == 403


def test_what_can_not_be_served_is_one_line(fake: FakeConsole, web: WebServer) -> None:
    port = int(web.url.rstrip("/").rsplit(":", 1)[1])
    for wrong in (
        {"port": port},
        {"host": "192.0.2.1"},
        {"host": "no such host"},
        {"token": "short"},
        {"token": "with\na line of its own"},
    ):
        with pytest.raises(SimError) as caught, WebServer(fake, **wrong):
            pass
        assert "\n" not in str(caught.value).strip()


# -- what is taken --------------------------------------------------------------------------


def stored(fake: FakeConsole) -> list[Path]:
    """Everything in the console's folder of packages."""
    return sorted(fake._registry._packages_folder.iterdir())


@pytest.mark.parametrize(
    "name, kept",
    [
        ("app.tar.gz", "app.tar.gz"),
        ("app 2 (ü).tgz", "app 2 (ü).tar.gz"),
        ("../../etc/app.tar.gz", "app.tar.gz"),
        ("C:\\work\\app.tar.gz", "app.tar.gz"),
        ("<img src=x onerror=alert(1)>.tar.gz", "<img src=x onerror=alert(1)>.tar.gz"),
        ("a\n\x1b[31m\u202eb.tar.gz", "a__[31m_b.tar.gz"),
    ],
)
def test_a_package_is_stored_and_told(
    web: WebServer, fake: FakeConsole, name: str, kept: str
) -> None:
    answer = upload(web, PACKAGE, name)
    assert answer.status_code == 200, answer.text
    (package,) = fake.packages()
    assert (package.name, package.path.read_bytes()) == (kept, PACKAGE)
    told = requests.get(f"{web.url}api/packages/{package.fuid}", timeout=20).json()
    assert told["name"] == kept
    assert told["files"] == [[path, len(content)] for path, content in TREE.items()]
    assert (told["compression"], told["count"], told["manifest"]) == ("gzip", 2, None)


BOMB = gzip.compress(bytes(80 << 20), 1)


@pytest.mark.parametrize(
    "name, body, line",
    [
        ("a.tar.gz", b"", "empty"),
        ("a.tar.gz", b"<html>not found</html>", "no tar archive"),
        ("a.tar.gz", PACKAGE[:-20], "damaged gzip"),
        ("a.tar", sample.tar(TREE)[:600], "damaged"),
        ("a.tar", bytes(10240), "no file in it"),
        ("a.tar.gz", BOMB, "unpacks to more than 64 MB"),
        ("a.tar.gz", gzip.compress(b"x") * 3 + BOMB, "unpacks to more than 64 MB"),
        ("a.tar.gz", bytes(3 << 20), "too large"),
        ("a.zip", PACKAGE, "must end in"),
        ("", PACKAGE, "no name"),
        ("/", PACKAGE, "no name"),
        ("x" * 200 + ".tar", PACKAGE, "too long"),
    ],
)
def test_no_package_is_stored_by_half(
    fake: FakeConsole, name: str, body: bytes, line: str
) -> None:
    before = stored(fake)
    with WebServer(fake, upload_limit=2 << 20) as web:
        answer = upload(web, body, name)
    assert answer.status_code in (400, 413)
    error = answer.json()["error"]
    assert line in error and "\n" not in error
    assert stored(fake) == before and not fake.packages()


@pytest.mark.parametrize(
    "request_line, header, status",
    [
        ("POST /api/packages?name=a.tar HTTP/1.1", "X-Insigh-Ota: a", 413),
        ("POST /api/packages?name= HTTP/1.1", "X-Insigh-Ota: a", 400),
        ("POST /api/packages?name=a.tar HTTP/1.1", "Accept: */*", 403),
        ("POST /api/packages?name=a.tar HTTP/1.1", "Origin: http://a.example", 403),
        ("POST /nowhere HTTP/1.1", "X-Insigh-Ota: a", 404),
        ("POST / HTTP/1.1", "X-Insigh-Ota: a", 405),
        ("POST / HTTP/1.0", "X-Insigh-Ota: a", 405),
        ("GET / HTTP/1.1", "Accept: */*", 200),
    ],
)
def test_who_still_sends_gets_the_answer(
    fake: FakeConsole, request_line: str, header: str, status: int
) -> None:
    body = bytes(3 << 20)
    with WebServer(fake, upload_limit=1 << 20) as web:
        client, host = connect(web)
        headers = f"Host: {host}\r\n{header}\r\nContent-Length: {len(body)}"
        with client:
            client.sendall(f"{request_line}\r\n{headers}\r\n\r\n".encode() + body[: 1 << 16])
            time.sleep(0.5)  # the answer is on its way, and the client does not look
            client.sendall(body[1 << 16 :])
            time.sleep(0.5)
            answer = http.client.HTTPResponse(client)
            answer.begin()
            text = answer.read()
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert len(text) == int(answer.headers["content-length"])
    assert not fake.packages()


def test_an_endless_body_is_cut(fake: FakeConsole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("host_sim.web.linger.LINGER_S", 1.0)
    with WebServer(fake, upload_limit=1 << 20) as web:

        def endless() -> Iterator[bytes]:
            while True:
                yield bytes(1 << 16)

        url = web.url + "api/packages?name=a.tar"
        began = time.monotonic()
        try:
            answer = requests.post(url, data=endless(), headers=OURS, timeout=20)
        except requests.ConnectionError:
            pass  # closed while it was still sending
        else:
            assert answer.status_code == 413
        assert time.monotonic() - began < 10 * factor()
    assert not fake.packages()


def test_nothing_of_a_refused_body_is_kept(fake: FakeConsole) -> None:
    part, count = bytes(1 << 16), 8 * 16
    with WebServer(fake, upload_limit=(8 << 20) - 1) as web:
        client, host = connect(web)
        head = "POST /api/packages?name=a.tar HTTP/1.1\r\nX-Insigh-Ota: a"
        tracemalloc.start()
        try:
            with client:
                client.sendall(
                    f"{head}\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
                )
                for _ in range(count):
                    client.sendall(b"10000\r\n" + part + b"\r\n")
                assert client.recv(1 << 16).startswith(b"HTTP/1.1 413 ")
                # Its end has not come: the connection is read on.
                kept, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert most > 8 << 20 > 4 * kept, (kept, most)


def to_the_end(client: socket.socket) -> bytes:
    """All that comes before the connection ends."""
    said = b""
    while part := client.recv(1 << 16):
        said += part
    return said


def test_a_body_that_stops_is_given_up(fake: FakeConsole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("host_sim.web.app._READ_S", 0.5)
    monkeypatch.setattr("host_sim.web.linger.LINGER_S", 0.5)
    with WebServer(fake) as web:
        client, host = connect(web)
        head = "POST /api/packages?name=a.tar HTTP/1.1\r\nX-Insigh-Ota: a"
        with client:
            client.sendall(f"{head}\r\nHost: {host}\r\nContent-Length: 9\r\n\r\nhalf".encode())
            said = to_the_end(client)
    assert said.startswith(b"HTTP/1.1 408 ") and b"did not come" in said
    assert not fake.packages()


def test_who_waits_to_be_told_is_told_no_at_once(fake: FakeConsole) -> None:
    with WebServer(fake, upload_limit=1 << 20) as web:
        client, host = connect(web)
        head = (
            "POST /api/packages?name=a.tar HTTP/1.1\r\nX-Insigh-Ota: a\r\nExpect: 100-continue\r\n"
        )
        with client:
            client.sendall(f"{head}Host: {host}\r\nContent-Length: {2 << 20}\r\n\r\n".encode())
            said = to_the_end(client)
    assert said.startswith(b"HTTP/1.1 413 ") and b"too large" in said


def test_nonsense_behind_an_answer_ends_the_connection(
    web: WebServer, capfd: pytest.CaptureFixture[str]
) -> None:
    client, host = connect(web)
    with client:
        head = f"POST /nowhere HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head.encode())
        said = b""
        while not said.endswith(b"}"):
            said += client.recv(1 << 16)
        client.sendall(b"zz\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1 << 16) == b""
    assert said.startswith(b"HTTP/1.1 403 ")
    assert requests.get(web.url, timeout=20).status_code == 200
    assert capfd.readouterr() == ("", "")


def test_a_full_disk_is_told(
    web: WebServer, fake: FakeConsole, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SimError("packages can not be written: No space left on device")

    monkeypatch.setattr("host_sim.files.write", full)
    answer = upload(web, PACKAGE, "a.tar.gz")
    assert (answer.status_code, "No space left" in answer.text) == (400, True)


@pytest.mark.parametrize(
    "body, compression",
    [
        (sample.microfreezer(TREE), "zlib"),
        (sample.tar(TREE), "none"),
        (sample.tar_gz_window(TREE, 12), "gzip"),
    ],
)
def test_all_that_nodes_take_is_taken(web: WebServer, body: bytes, compression: str) -> None:
    added = upload(web, body, "a.tar" if compression == "none" else "a.tar.gz")
    assert added.status_code == 200, added.text
    told = requests.get(f"{web.url}api/packages/{added.json()['fuid']}", timeout=20).json()
    assert (told["compression"], told["count"]) == (compression, len(TREE))


def test_inspect_tells_what_the_command_tells(web: WebServer) -> None:
    package = build(Selection(TREE, deleted={"old.py"}), sequence=7, board="b1", window=13)
    fuid = upload(web, package, "a.tar.gz").json()["fuid"]
    told = requests.get(f"{web.url}api/packages/{fuid}", timeout=20).json()
    assert told["manifest"] == {
        "key": "none",
        "sequence": 7,
        "board": "b1",
        "mpy": None,
        "requires": None,
        "signed": False,
    }
    assert (told["deleted"], told["window"], told["size"]) == (["old.py"], 8192, len(package))


@pytest.mark.check
def test_orders(web: WebServer, fake: FakeConsole) -> None:
    for name in ("a", "b", "c"):
        fake.set(name)
    fuid = upload(web, PACKAGE, "a.tar.gz").json()["fuid"]
    assert post(web, "api/request", {"ids": ["a", "b", "a"], "fuid": fuid}).json()["devices"] == 2
    assert post(web, "api/cancel", {"ids": ["b"]}).json()["devices"] == 1
    assert fake.orders == [("request", ["a", "b"], fuid), ("cancel", ["b"], None)]


@pytest.mark.parametrize(
    "body, line",
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff", "not JSON"),
        ([], "no device"),
        ({"ids": []}, "no device"),
        ({"ids": "abc"}, "no device"),
        ({"ids": [1]}, "no device"),
        ({"ids": ["a"]}, "no package"),
        ({"ids": ["a"], "fuid": "00000000"}, "is not known"),
        ({"ids": ["<b>"], "fuid": "00000000"}, "is not known"),
    ],
)
def test_an_order_that_can_not_be_carried_out(
    web: WebServer, fake: FakeConsole, body: object, line: str
) -> None:
    fake.set("a")
    answer = post(web, "api/request", body)
    assert answer.status_code == 400 and line in answer.json()["error"]
    assert answer.headers["content-type"] == "application/json" and not fake.orders


# -- what is told ---------------------------------------------------------------------------


def test_only_what_has_changed_is_told(fake: FakeConsole) -> None:
    for n in range(1200):
        fake.set(f"node-{n:04}")
    with WebServer(fake) as web:
        with stream(web) as messages:
            seen = until(messages, "events")
            assert seen[0][1] == "hello" and seen[0][2]["fresh"]
            assert [len(m[2]["rows"]) for m in seen if m[1] == "rows"] == [500, 500, 200]
            fake.set("node-0007", state="downloading", percent=3)
            place, _, _ = (again := until(messages, "events"))[-1]
            rows = [row for m in again if m[1] == "rows" for row in m[2]["rows"]]
            assert [(row["id"], row["percent"]) for row in rows] == [("node-0007", 3)]
        fake.set("node-0008", message="while nobody listened")
        with stream(web, place) as messages:
            seen = until(messages, "events")
            assert not seen[0][2]["fresh"]
            assert [row["id"] for m in seen if m[1] == "rows" for row in m[2]["rows"]] == [
                "node-0008"
            ]
            assert [event["text"] for event in seen[-1][2]["events"]] == ["while nobody listened"]
        for other in ("0.1.1", "x", "'\"", place.split(".")[0] + ".-1.x"):
            with stream(web, other) as messages:
                assert next(messages)[2]["fresh"]


@pytest.mark.slow
def test_a_browser_that_takes_nothing_holds_up_nobody(fake: FakeConsole) -> None:
    for n in range(3000):
        fake.set(f"node-{n:04}", message="x" * 300)
    deaf = []
    with WebServer(fake) as web:
        port = int(web.url.rstrip("/").rsplit(":", 1)[1])
        for _ in range(5):
            deaf.append(socket.create_connection(("127.0.0.1", port)))
            head = f"GET /api/stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
            deaf[-1].sendall(head.encode())
        with stream(web) as messages:
            until(messages, "events")
            for count in range(5):
                for n in range(3000):
                    fake.set(f"node-{n:04}", message=f"{count}" * 300)
                began = time.monotonic()
                fake.set("node-0000", message="heard")
                while "heard" not in str(until(messages, "events")[-1]):
                    pass
                assert time.monotonic() - began < 5 * factor()
        began = time.monotonic()
    assert time.monotonic() - began < 3 * factor()
    for each in deaf:
        each.close()


def test_a_browser_that_takes_nothing_is_given_up(
    fake: FakeConsole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host_sim.web.app._SEND_S", 1)
    for n in range(20_000):  # more than the system takes for somebody who does not read
        fake.set(f"node-{n:05}", message="x" * 400)
    with WebServer(fake) as web, socket.socket() as deaf:
        port = int(web.url.rstrip("/").rsplit(":", 1)[1])
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(20)
        deaf.connect(("127.0.0.1", port))
        deaf.sendall(f"GET /api/stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        time.sleep(4 * factor())
        taken = 0
        while part := deaf.recv(1 << 20):  # what was under way, and then the end
            taken += len(part)
        assert taken < 20_000 * 400


def test_the_end_closes_the_streams(fake: FakeConsole) -> None:
    with contextlib.ExitStack() as streams:
        with WebServer(fake) as web:
            many = [streams.enter_context(stream(web)) for _ in range(20)]
            for messages in many:
                assert next(messages)[1] == "hello"
            began = time.monotonic()
        assert time.monotonic() - began < 2 * factor()
        for messages in many:
            assert "hello" not in [name for _, name, _ in messages]


def test_no_event_is_told_before_its_row(
    fake: FakeConsole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something happens in the middle of a look at the console."""
    fake.set("a")
    look, due = fake.views, threading.Event()

    def views(after: int = 0) -> list[DeviceView]:
        found = look(after)
        if due.is_set():
            due.clear()
            fake.set("a", state="failed", message="just now")
        return found

    monkeypatch.setattr(fake, "views", views)
    with WebServer(fake) as web, stream(web) as messages:
        until(messages, "events")
        due.set()
        told = until(messages, "events")
        assert [row["state"] for m in told if m[1] == "rows" for row in m[2]["rows"]] == ["failed"]


def test_any_text_gets_through(web: WebServer, fake: FakeConsole) -> None:
    text = "\ud800 \u2028 \x00 \r\n\ndata: x\n\nevent: hello </script>" + "x" * 10_000
    with stream(web) as messages:
        until(messages, "packages")
        fake.set("node", message=text, state="failed")
        (row,) = next(m for m in until(messages, "rows") if m[1] == "rows")[2]["rows"]
        assert row["message"].startswith(text[:50]) and len(row["message"]) < 500


def test_a_device_that_is_removed_goes(fake: FakeConsole) -> None:
    fake.set("a")
    fake.set("b")
    with WebServer(fake) as web, stream(web) as messages:
        until(messages, "events")
        del fake._views["a"]
        rows = until(messages, "rows")[-1][2]["rows"]
        assert rows == [{"id": "a", "gone": True}]
