"""What each broker does for a node, and that the console starts and ends it as a whole."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_sim import sample
from host_sim.campaigns.brokers.connection import PING, Connection, puback, subscribe
from host_sim.console import Console, mqtt_client
from host_sim.console.mqtt_client import MqttClient, Refused
from host_sim.console.process_broker import reserved
from host_sim.errors import SimError
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID, DEVICE_KEY
from tests.brokers import broker_params, need, real_brokers
from tests.busy import factor
from tests.conftest import MakeSite
from tests.processes import descendants, lives

OTHER = ("other-device", "other-key", "other-channel")


@contextlib.contextmanager
def running(broker: str, folder: Path) -> Iterator[Console]:
    with Console(folder, broker=need(broker)) as console:
        console.add_devices([(DEVICE_ID, DEVICE_KEY, CONTROL_CHANNEL), OTHER])
        yield console


@pytest.fixture(scope="module", params=broker_params(real_brokers()))
def console(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Console]:
    """One for all tests of a broker: some take ten seconds to start."""
    with running(request.param, tmp_path_factory.mktemp(request.param)) as console:
        yield console


def test_it_retains_and_forgets(console: Console):
    fuid = console.add_package(sample.tar({"a": b"b"}), "p.tar").fuid
    assert console.retained(DEVICE_ID) is None
    payload = console.request(DEVICE_ID, fuid)
    assert console.retained(DEVICE_ID) == payload.encode()
    assert console.retained(OTHER[0]) is None
    console.clear(DEVICE_ID)
    assert console.retained(DEVICE_ID) is None


def test_it_knows_who_may_connect(console: Console):
    port = console.ports.mqtt
    with MqttClient("127.0.0.1", port, OTHER[0], OTHER[1]):
        pass
    for user, key in ((OTHER[0], DEVICE_KEY), ("nobody", "x"), (None, None)):
        with pytest.raises(Refused):
            MqttClient("127.0.0.1", port, user, key)


def test_it_knows_a_new_device_when_that_is_added(console: Console):
    with pytest.raises(Refused):
        MqttClient("127.0.0.1", console.ports.mqtt, "third-device", "third-key")
    console.add_device("third-device", "third-key", "third-channel")
    with MqttClient("127.0.0.1", console.ports.mqtt, "third-device", "third-key") as client:
        assert client.subscribe(console.topic("third-device"), 1)


@pytest.mark.few(3)
def test_a_device_can_not_reach_another_ones_topics(
    console: Console, monkeypatch: pytest.MonkeyPatch
):
    """Whether the broker answers, stays silent or closes the connection: nothing comes of it."""
    victim = console.topic(DEVICE_ID)
    console.request_raw(DEVICE_ID, b"[]")
    heard: list[bytes] = []
    monkeypatch.setattr(mqtt_client, "TIMEOUT", 3 * factor())  # RabbitMQ does not even answer
    with MqttClient(
        "127.0.0.1", console.ports.mqtt, *OTHER[:2], lambda m: heard.append(m.payload)
    ) as thief:
        with contextlib.suppress(TimeoutError):
            thief.subscribe(victim, 1)
        with contextlib.suppress(TimeoutError, RuntimeError):  # paho's, for a connection that ends
            thief.publish(victim, b"", retain=True)
    time.sleep(0.3)
    assert heard == []
    assert console.retained(DEVICE_ID) == b"[]"
    console.clear(DEVICE_ID)


# -- a session that lasts ------------------------------------------------------------------------


def connect(console: Console) -> Connection:
    port = console.ports.mqtt
    assert port is not None
    return Connection(port, DEVICE_ID, DEVICE_KEY, clean=False)


def lose_some(console: Console) -> None:
    """Of five messages under way one is acknowledged, then the node is gone; three more follow."""
    topic = console.topic(DEVICE_ID, "config")

    def say(number: int) -> None:
        console.request_raw(DEVICE_ID, str(number), retain=False, topic=topic)

    with connect(console) as node:
        node.send(subscribe(topic))
        assert node.next().codes == (1,)
        for number in range(5):
            say(number)
        heard = [node.next() for _ in range(5)]
        assert [packet.payload for packet in heard] == [b"0", b"1", b"2", b"3", b"4"]
        node.send(puback(heard[0].pid) + PING)
        node.until("PINGRESP")  # else a reset may overtake what it has acknowledged
        node.lose()
    time.sleep(0.3)  # else NATS sends the next one to nobody, and again half a minute later
    for number in range(5, 8):
        say(number)


@pytest.mark.few(1)
@pytest.mark.parametrize("broker", broker_params(["amqtt", "mosquitto", "rabbitmq", "aedes"]))
def test_what_is_not_acknowledged_comes_again_and_in_order(broker: str, tmp_path: Path):
    """A node resets at any moment: with a session that lasts no message of QoS 1 is lost."""
    with running(broker, tmp_path) as console:
        lose_some(console)
        with connect(console) as node:
            assert b" ".join(node.acknowledge_all()) == b"1 2 3 4 5 6 7"
        with connect(console) as node:
            assert node.acknowledge_all(0.5) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nats_sends_again_what_is_half_a_minute_old(tmp_path: Path):
    """Nothing is lost there either, but what is new comes first (docs/brokers.md)."""
    with running("nats", tmp_path) as console:
        lose_some(console)
        with connect(console) as node:
            assert b" ".join(node.acknowledge_all()) == b"5 6 7"
            assert b" ".join(node.acknowledge_all(35)) == b"1 2 3 4"


# -- processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("broker", broker_params(["mosquitto", "nats", "rabbitmq", "aedes"]))
def test_it_leaves_no_process(broker: str, tmp_path: Path):
    """RabbitMQ is a dozen of them, one of which would like to be a daemon."""
    before = descendants(os.getpid())
    with running(broker, tmp_path):
        started = descendants(os.getpid()) - before
        assert started
    wait_for_end(started)


@pytest.mark.slow
@pytest.mark.parametrize("broker", broker_params(["mosquitto", "nats", "rabbitmq", "aedes"]))
def test_a_killed_console_leaves_no_process(broker: str, tmp_path: Path):
    """Else its broker would keep the port, and the next console could not begin."""
    need(broker)
    words = ["--dir", str(tmp_path / "console"), "--broker", broker]
    with reserved() as port:
        for _ in range(2):
            with subprocess.Popen(
                [sys.executable, "-m", "host_sim", "console", *words, "--mqtt", str(port)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ) as process:
                try:
                    assert process.stdout.readline()
                    started = descendants(process.pid)
                    assert started
                finally:
                    process.kill()
            wait_for_end(started)


def wait_for_end(pids: set[int]) -> None:
    deadline = time.monotonic() + 15 * factor()
    while any(map(lives, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in pids if lives(pid)] == []


@pytest.mark.parametrize("broker", ["nats", "rabbitmq", "aedes"])
def test_one_that_is_not_installed_says_what_to_do(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for module in ("nats", "rabbitmq", "aedes"):
        name = f"host_sim.console.{module}_broker"
        what = "find_program" if module == "nats" else f"find_{module}"
        monkeypatch.setattr(f"{name}.{what}", lambda *_: None)
    with pytest.raises(SimError, match=r"is not installed: (install Debian's package|make aedes)"):
        Console(tmp_path, broker=broker).__enter__()


@pytest.mark.slow
def test_a_broker_that_dies_at_its_start_is_told_of(tmp_path: Path):
    need("nats")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SimError, match=r"nats ended at once: .*address already in use"):
            Console(tmp_path, broker="nats", mqtt_port=port).__enter__()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a port can not be kept so")
def test_a_reserved_port_is_nobody_elses():
    """Whoever asks for any port gets another; who asks for this one may listen there."""
    with reserved() as port:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with socket.create_server(("127.0.0.1", port)):
            socket.create_connection(("127.0.0.1", port)).close()


# -- a node's whole update -----------------------------------------------------------------------


@pytest.mark.check
@pytest.mark.few(2)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("broker", broker_params(["nats", "rabbitmq", "aedes"]))
def test_an_update_on_each_broker(make_site: MakeSite, broker: str, tls: bool):
    """amqtt and Mosquitto have many such tests."""
    kind = "nats-tls" if (broker, tls) == ("nats", True) else broker
    site = make_site(broker=kind, tls=tls)
    fuid = site.ask(sample.tar_gz({"main.py": sample.main_py(2)}))
    run = site.run(wakes=2)
    assert "version 2 runs\nota: confirm" in run.output, run.output
    assert "check: idle" in run.output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert site.retained() is None
    assert site.flash_files()["/main.py"] == sample.main_py(2)
