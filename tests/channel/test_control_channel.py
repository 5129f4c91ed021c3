"""Brokers that refuse, lie or fall silent: the node says why, and its key stays its own."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from host_sim import sample
from host_sim.console.process_broker import reserved
from tests.brokers import available_brokers
from tests.busy import factor
from tests.conftest import MakeSite

CONNACK = b"\x20\x02\x00\x00"


@contextlib.contextmanager
def fake_broker(answer: bytes, *, close: bool) -> Iterator[tuple[int, list[bytes]]]:
    """A server that sends `answer` to every connection, then closes it or falls silent."""
    heard: list[bytes] = []
    connections: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            with contextlib.suppress(OSError):
                heard.append(connection.recv(4096))
                connection.sendall(answer)
                if close:
                    connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1], heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("broker", available_brokers())
def test_a_wrong_key_is_refused_by_the_broker(make_site: MakeSite, broker: str):
    site = make_site(broker=broker, config={"device_key": "another"})
    run = site.run()
    assert "check: later" in run.output
    assert "reason: can not connect: refused by the broker, code" in run.output
    assert run.exit_code == 0


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        ("wrong-ca", "certificate is not signed by the trust anchor"),
        ("wrong-host", "certificate is for another host"),
        ("expired", "certificate has expired"),
    ],
)
@pytest.mark.parametrize("broker", available_brokers())
def test_a_broker_that_is_not_ours_hears_no_key(
    make_site: MakeSite, broker: str, certificate: str, reason: str
):
    site = make_site(broker=broker, tls=True, mqtt_certificate=certificate)
    site.ask(sample.tar_gz({"main.py": sample.main_py(2)}))
    run = site.run()
    assert f"reason: can not connect: {reason}" in run.output
    assert site.console.downloads == []
    assert site.retained() is not None


def test_tls_asked_of_a_plain_broker_says_nothing(make_site: MakeSite):
    site = make_site(tls=True)
    with fake_broker(CONNACK * 3, close=False) as (port, heard):
        site.configure(mqtt={"port": port})
        assert "reason: can not connect: server does not speak TLS" in site.run().output
    assert heard and all(data[:1] == b"\x16" for data in heard)  # a TLS handshake, no CONNECT


def test_no_broker(make_site: MakeSite):
    site = make_site()
    with reserved() as port:
        site.configure(mqtt={"port": port})
        run = site.run(wakes=2)
    assert run.output.count("reason: can not connect: the host does not answer, OSError 111") == 2
    assert run.ops == 0


def test_no_such_host(make_site: MakeSite):
    site = make_site(config={"mqtt": {"host": "no.such.host.invalid"}})
    assert "reason: can not connect: the host's name is not known" in site.run().output


SUBACK = b"\x90\x03\x00\x01\x01"
PUBLISH = b"\x30\x7f\x00\x05"
ANSWERS = {
    "nothing": b"",
    "half a CONNACK": CONNACK[:2],
    "no SUBACK": CONNACK,
    "half a SUBACK": CONNACK + SUBACK[:3],
    "no PINGRESP": CONNACK + SUBACK,
    "half a message": CONNACK + PUBLISH,
    "a SUBACK that refuses": CONNACK + b"\x90\x03\x00\x01\x80",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an endless length": CONNACK + b"\x30\xff\xff\xff\xff\xff\xff\xff\xff",
    "a quarter of a gigabyte": CONNACK + b"\x30\xff\xff\xff\x7f\x00\x01x",
    "a topic longer than the message": CONNACK + b"\x30\x02\xff\xff" + bytes(70_000),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("close", [True, False], ids=["closed", "silent"])
@pytest.mark.parametrize("name", ANSWERS)
def test_a_broken_broker_ends_the_check_in_time(make_site: MakeSite, name: str, close: bool):
    """With a small heap: whatever it announces is not held in memory."""
    site = make_site(heap="96K", config={"timeout_s": 1})
    with fake_broker(ANSWERS[name], close=close) as (port, _):
        site.configure(mqtt={"port": port})
        began = time.monotonic()
        run = site.run()
    assert run.exit_code == 0, run.output
    assert "check: later" in run.output
    assert "reason: can not connect: " in run.output
    assert time.monotonic() - began < 6 * factor()
    assert run.ops == 0


NO_SOCKET = """
import socket
import ota, ota.dial

class Broken:
    def __getattr__(self, name):
        return getattr(socket, name)

    def %s

ota.dial.socket = Broken()
agent = ota.Agent(ota.load_config())
print("check:", agent.check())
print("reason:", agent.reason)
"""


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("socket(self, *_): raise OSError(23)", "no socket, OSError 23"),
        ("getaddrinfo(self, *_): return []", "the host's name is not known"),
        ("getaddrinfo(self, *_): raise OSError(-2)", "the host's name is not known"),
    ],
    ids=["no socket", "no addresses", "no name"],
)
def test_a_network_that_has_nothing_to_give(make_site: MakeSite, fault: str, reason: str):
    """As on a node whose interface is down, or that has too many sockets open."""
    site = make_site()
    site.ask(sample.tar({"main.py": sample.main_py(2)}), "p.tar")
    run = site.node.exec(NO_SOCKET % fault)
    assert run.output.endswith(f"check: later\nreason: can not connect: {reason}\n")
    assert site.retained() is not None


@pytest.mark.parametrize("broker", available_brokers())
def test_a_keepalive_of_nothing_switches_it_off(make_site: MakeSite, broker: str):
    site = make_site(broker=broker, config={"timeout_s": 2, "mqtt": {"keepalive": 0}})
    site.ask(sample.tar({"main.py": sample.main_py(2)}), "p.tar")
    run = site.run(wakes=2)
    assert "check: later" not in run.output, run.output
    assert "check: confirmed" in run.output
    assert "check: idle" in run.output


@pytest.mark.few(1)
@pytest.mark.parametrize("broker", available_brokers())
def test_a_request_that_comes_during_a_slow_download_takes_its_place(
    make_site: MakeSite, broker: str
):
    """Pings keep the node in touch meanwhile; their answers must not be taken for the last one."""
    site = make_site(broker=broker, config={"mqtt": {"keepalive": 1}})
    chance = random.Random(3)
    first = {"one.bin": chance.randbytes(12_000)}
    second = {"two.bin": chance.randbytes(500), "main.py": sample.main_py(2)}
    fuids = [site.ask(sample.tar_gz(first))]
    site.console.faults.drip, site.console.faults.times = 4000, 1

    def ask_again() -> None:
        # Not with the console's wait_for, which is not told of every piece of a download.
        limit = time.monotonic() + 20
        while time.monotonic() < limit and not site.console.downloads:
            time.sleep(0.02)
        time.sleep(1.2)
        fuids.append(site.ask(sample.tar_gz(second)))

    thread = threading.Thread(target=ask_again)
    thread.start()
    began = time.monotonic()
    run = site.run(wakes=2)
    thread.join()
    assert time.monotonic() - began > 2.5  # it did last for several pings
    expected = {"/" + name: content for name, content in second.items()}
    assert site.flash_files() == site.files | expected, run.output
    assert site.reports() == [{"e": 1, "i": fuids[1], "m": None}]
    assert site.retained() is None


def test_a_broker_that_answers_the_ping_first(make_site: MakeSite):
    """MQTT orders messages, not the answers to SUBSCRIBE and PINGREQ."""
    site = make_site(config={"timeout_s": 1})
    with fake_broker(CONNACK + b"\xd0\x00" + SUBACK, close=False) as (port, _):
        site.configure(mqtt={"port": port})
        assert "check: idle" in site.run().output
