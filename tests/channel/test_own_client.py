"""An application's own MQTT client: its messages keep coming, and it is given back as it was."""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from host_sim import sample
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID, DEVICE_KEY
from tests.brokers import available_brokers
from tests.busy import factor
from tests.conftest import MakeSite
from tests.secrecy import WatchedSite

# What every application here begins with. `Robust` has the shape of umqtt.robust: what fails is
# tried again for ever, in a new connection.
PRELUDE = """
import machine
import time
import ota
from umqtt.simple import MQTTClient

_trial = False  # what boot.py leaves: here it does not run

class Robust(MQTTClient):
    def reconnect(self):
        while True:
            try:
                return self.connect(False)
            except OSError:
                time.sleep_ms(50)

    def publish(self, *args):
        while True:
            try:
                return super().publish(*args)
            except OSError:
                self.reconnect()

    def wait_msg(self):
        while True:
            try:
                return super().wait_msg()
            except OSError:
                self.reconnect()

def on_message(topic, payload):
    print("heard", topic.split(b"/", 4)[-1].decode(), payload.decode())

config = ota.load_config()
mqtt = config["mqtt"]
base = b"channels/%s/messages/%s/" % (
    config["control_channel"].encode(),
    config["device_id"].encode(),
)

def new_client(kind):
    name = config["device_id"].encode()
    key = config["device_key"].encode()
    client = kind(name, mqtt["host"], mqtt["port"], name, key, 60, mqtt["tls"])
    client.set_callback(on_message)
    return client
"""
CLIENT = "client = new_client(MQTTClient)\nclient.connect()\n"


def package(version: int = 2, filler: int = 0) -> bytes:
    """A package that brings this version, and some bytes that do not compress."""
    tree = {"main.py": sample.main_py(version)}
    if filler:
        tree["filler.bin"] = random.Random(version).randbytes(filler)
    return sample.tar_gz(tree)


def tell(site: WatchedSite, leaf: str, text: str) -> None:
    """The platform says something to the node's application."""
    site.console.request_raw(
        DEVICE_ID, text, retain=False, topic=site.console.topic(DEVICE_ID, leaf)
    )


def kick(site: WatchedSite) -> None:
    """Have the broker drop the node: it does when another client comes under the same name."""

    def text(value: str) -> bytes:
        return struct.pack(">H", len(value)) + value.encode()

    body = b"\0\4MQTT\4\xc2\0\0" + text(DEVICE_ID) + text(DEVICE_ID) + text(DEVICE_KEY)
    with socket.create_connection(("127.0.0.1", site.console.ports.mqtt)) as other:
        other.sendall(b"\x10" + bytes([len(body)]) + body)
        assert other.recv(4)[3:] == b"\0"
        other.sendall(b"\xe0\0")


class Line:
    """Calls a function, on a thread of its own, when the node prints a line that begins so."""

    def __init__(self, site: WatchedSite, begin: str, call: Callable[[], object]) -> None:
        self._begin, self._call, self.text = begin, call, ""
        self.thread: threading.Thread | None = None
        site.node.log = self._hear

    def _hear(self, text: str) -> None:
        self.text += text
        if self.thread is None and re.search(f"^{self._begin}", self.text, re.MULTILINE):
            self.thread = threading.Thread(target=self._call)
            self.thread.start()


# -- messages keep coming ------------------------------------------------------------------------

LISTENING = """
stopped = False

def on_message(topic, payload):
    global stopped
    if agent.handle(topic, payload):
        return
    leaf = topic[len(base):].decode()
    print("heard", VERSION, leaf, payload[:payload.find(b" ")].decode(), len(payload))
    stopped = payload.startswith(b"stop")

client = new_client(KIND)
agent = ota.Agent(config, client=client)
# Not a clean session: the broker keeps what is said at QoS 1 while the node resets.
client.connect(False)
for leaf, qos in FILTERS:
    client.subscribe(base + leaf, qos)
print("version", VERSION, "listens")
while not stopped:
    client.wait_msg()
    agent.poll()
print("poll:", agent.poll())
machine.deepsleep(1000)
"""
EXACT = [(b"config", 1), (b"cmd", 0)]


class Talk(threading.Thread):
    """The platform talks on /config and /cmd all the while, and asks for a package meanwhile."""

    def __init__(self, site: WatchedSite, data: bytes) -> None:
        super().__init__()
        self.site, self.data = site, data
        self.said: list[tuple[str, str, int]] = []
        self.fuid = ""
        self.listens = threading.Event()
        self.confirmed = threading.Event()
        self._heard = ""

    def run(self) -> None:
        self.listens.wait(60)
        fillers = ["", "x" * 300, self.request_like(), "y" * 6000]
        after = 0
        for n in range(2000):
            for leaf in ("config", "cmd"):
                self._say(leaf, f"{n} {fillers[n % len(fillers)]}")
            if n == 5:
                self.fuid = self.site.ask(self.data)
            after += self.confirmed.is_set()
            if after == 5:
                break
            time.sleep(0.01)
        self._say("config", "stop ")

    def request_like(self) -> str:
        """What would be a request if it stood on another topic."""
        pack = [{"n": "e", "v": 0}, {"n": "i", "vs": "0badf00d"}, {"n": "t", "vs": ".tar"}]
        return json.dumps([*pack, {"n": "s", "v": 10240}])

    def _say(self, leaf: str, text: str) -> None:
        self.said.append((leaf, text.split(" ")[0], len(text)))
        tell(self.site, leaf, text)

    def hear(self, text: str) -> None:
        """The node's output, in pieces as they come."""
        self._heard += text
        if "listens" in self._heard:
            self.listens.set()
        if "ota: confirm" in self._heard:
            self.confirmed.set()


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("broker", "tls", "client", "filters"),
    [
        ("amqtt", False, "MQTTClient", EXACT),
        ("mosquitto", True, "MQTTClient", EXACT),
        ("mosquitto", False, "Robust", [(b"#", 1)]),
    ],
    ids=["amqtt, simple", "mosquitto, simple, TLS", "mosquitto, robust, wildcard"],
)
def test_messages_before_during_and_after_an_update(
    make_site: MakeSite, broker: str, tls: bool, client: str, filters: list
):
    """None lost, none misread as ours, in their order; also during a slow download and a reset."""
    ours = f"KIND = {client}\nFILTERS = {filters!r}\n{LISTENING}"
    main = {v: f"{PRELUDE}VERSION = {v}\n{ours}".encode() for v in (1, 2)}
    site = make_site({"main.py": main[1]}, broker=broker, tls=tls)
    filler = random.Random(1).randbytes(8000)
    site.console.faults.drip = int(8000 / factor())
    talk = Talk(site, sample.tar_gz({"main.py": main[2], "filler.bin": filler}))
    site.node.log = talk.hear
    talk.start()
    run = site.run(timeout_s=120)
    talk.join()

    assert "ota: later" not in run.output, run.output[run.output.index("ota: later") - 500 :][:600]
    assert run.names() == ["boot", "reset", "boot", "sleep", "flash"], run.output[-2000:]
    assert site.reports() == [{"e": 1, "i": talk.fuid, "m": None}]
    assert site.retained() is None
    assert site.flash_files() == site.files | {"/main.py": main[2], "/filler.bin": filler}

    heard = re.findall(r"^heard (\d) (\S+) (\S+) (\d+)$", run.output, re.MULTILINE)
    assert {leaf for _, leaf, _, _ in heard} == {"config", "cmd"}
    during = run.output[run.output.index("ota: download") : run.output.index("ota: commit")]
    assert during.count("heard") > 20
    for leaf, qos in (("config", 1), ("cmd", 1 if filters != EXACT else 0)):
        said = [(n, size) for each, n, size in talk.said if each == leaf]
        if qos:
            got = [(n, int(size)) for _, each, n, size in heard if each == leaf]
            # What was not acknowledged before the reset comes again.
            assert list(dict.fromkeys(got)) == said
            assert len(got) - len(said) <= 20
        else:
            # While the node resets nobody keeps them: no gap before that, and none after it.
            for version in "12":
                got = [(n, int(s)) for v, each, n, s in heard if (v, each) == (version, leaf)]
                assert len(got) > 5
                begin = said.index(got[0])
                assert got == said[begin : begin + len(got)]
                assert got[0] == said[0] if version == "1" else got[-1] == said[-1]


HANDLED = """
def on_message(topic, payload):
    print(topic[len(base):].decode(), len(payload), agent.handle(topic, payload), agent.pending)

client.set_callback(on_message)
agent = ota.Agent(config, client=client, progress=lambda *_: None)
for leaf in (b"ota", b"config"):
    client.subscribe(base + leaf, 1)
print("listens")
for _ in range(COUNT):
    client.wait_msg()
print("check:", agent.check(), agent.pending)
client.sock.settimeout(0.5)
try:
    while True:
        client.wait_msg()
except OSError:
    pass
"""


def test_what_handle_takes_and_what_pending_tells(make_site: MakeSite):
    site = make_site()
    rows = [
        ("config", "x", "False False"),
        ("ota", '[{"n":"e","v":1},{"n":"i","vs":"a"}]', "True False"),  # a report
        ("ota", '[{"n":"e","v":0},{"n":"i","vs":"a"}]', "True True"),  # one that makes no sense
        ("config", "y" * 3000, "False True"),
        ("ota", '[{"n":"e","v":3},{"n":"i","vs":"a"}]', "True True"),  # cancelled
        ("ota", "no JSON", "True True"),
        ("otaX", "", ""),  # nobody has subscribed to it
    ]

    def talk() -> None:
        for leaf, payload, _ in rows:
            tell(site, leaf, payload)
        site.ask(sample.tar_gz({"main.py": sample.main_py(1)}))  # no change, so no reset

    line = Line(site, "listens", talk)
    run = site.node.exec(f"{PRELUDE}{CLIENT}COUNT = {len(rows)}\n{HANDLED}")
    line.thread.join()
    expected = [f"{leaf} {len(text)} {end}" for leaf, text, end in rows if end]
    request = len(site.console.request_payload(site.console.downloads[0].fuid))
    lines = run.output.splitlines()
    at = lines.index("check: installed False")
    assert lines[:at] == ["listens", *expected, f"ota {request} True True"], run.output
    # What it hears of its own clear and report asks for nothing: `pending` was set back before.
    assert all(re.fullmatch(r"ota (0|43) True False", line) for line in lines[at + 1 :])


# -- given back as it was ------------------------------------------------------------------------

GIVEN_BACK = """
client = new_client(KIND)
client.connect()
client.subscribe(base + b"config", 1)
callback, sock = client.cb, client.sock
agent = ota.Agent(config, client=client, policy=lambda _: answer)
for answer in ("later", ("refuse", "not today"), "go"):
    print("check:", agent.check())
    print("same:", client.cb is callback and client.sock is sock)
    print("listens", answer)
    began = time.ticks_ms()
    client.wait_msg()
    print("blocked:", time.ticks_diff(time.ticks_ms(), began) > 200)
    print("nothing:", client.check_msg())
    client.publish(base + b"answer", b"acknowledged", False, 1)
"""


@pytest.mark.parametrize("kind", ["MQTTClient", "Robust"])
def test_callback_and_socket_are_given_back_as_they_were(make_site: MakeSite, kind: str):
    """The same objects, and blocking as before, whatever the check came to."""
    site = make_site(broker="mosquitto")
    site.ask(package())
    said = iter(("one", "two", "three"))
    heard = ""

    def hear(text: str) -> None:
        nonlocal heard
        heard += text
        while "listens" in heard:
            heard = heard[heard.index("listens") + 7 :]
            threading.Timer(0.4, tell, (site, "config", next(said))).start()

    site.node.log = hear
    run = site.node.exec(f"{PRELUDE}KIND = {kind}\n{GIVEN_BACK}")
    assert re.findall("^(?:check|heard): ?.*|^heard.*", run.output, re.MULTILINE) == [
        "check: later",
        "heard config one",
        "check: failed",
        "heard config two",
        "check: idle",
        "heard config three",
    ], run.output
    for what in ("same: True", "blocked: True", "nothing: None"):
        assert run.output.count(what) == 3, run.output
    assert site.reports()[0]["m"] == "refused: not today"


NOT_CONNECTED = """
client = new_client(KIND)
agent = ota.Agent(config, client=client, progress=lambda *_: None)

def check(state):
    print(state, agent.check(), agent.reason, client.cb is on_message)

check("never:")
print(client.sock)
client.connect()
client.disconnect()
check("closed:")
check("again:")
client.connect()
check("connected:")
client.sock.close()
agent.handle(base + b"ota", REQUEST)
print("poll:", agent.poll(), agent.reason, agent.retry_ms() <= 2000)
print("early:", agent.poll())
"""


@pytest.mark.parametrize("kind", ["MQTTClient", "Robust"])
def test_a_client_that_is_not_connected(make_site: MakeSite, kind: str):
    """It is the application's to connect: the agent says so, and neither resets nor writes."""
    site = make_site(config={"retry_s": 2})
    begin = f"{PRELUDE}KIND = {kind}\nREQUEST = b'[]'\n"
    run = site.node.exec(begin + NOT_CONNECTED)
    later = "later can not connect: the application's client is not connected"
    assert run.output.splitlines() == [
        f"never: {later} True",
        "None",
        f"closed: {later} True",
        f"again: {later} True",
        "connected: idle None True",
        f"poll: {later} True",
        "early: None",
    ]
    assert run.names() == ["boot", "repl", "exit", "flash"]
    assert run.ops == 0


RAISING = """
client = new_client(MQTTClient)
client.connect()
numbers = []

def on_message(topic, payload):
    numbers.append(int(payload))
    raise ERRORS[int(payload) % len(ERRORS)]("the application's own")

ERRORS = ValueError, OSError, MemoryError
client.set_callback(on_message)
client.subscribe(base + b"cmd", 1)
agent = ota.Agent(config, client=client)
print("listens")
print("check:", agent.check())
print("heard:", numbers)
while True:
    try:
        client.wait_msg()
    except Exception as error:
        print("outside:", type(error).__name__)
        break
"""


def test_a_callback_that_raises(make_site: MakeSite):
    """Inside of a check it can not do harm; outside it raises, as it always did."""
    site = make_site(broker="mosquitto")
    fuid = site.ask(sample.tar({"main.py": sample.main_py(1)}), "p.tar")
    site.console.faults.drip = int(10_000 / factor())  # the messages are to come in time
    checked = threading.Event()

    def talk() -> None:
        for number in range(6):
            tell(site, "cmd", str(number))
        checked.wait(60)
        tell(site, "cmd", "7")

    line = Line(site, "ota: download", talk)
    hear = site.node.log

    def listen(text: str) -> None:
        hear(text)
        if "heard: [" in line.text:
            checked.set()

    site.node.log = listen
    run = site.node.exec(PRELUDE + RAISING)
    line.thread.join()
    assert "heard: [0, 1, 2, 3, 4, 5]" in run.output, run.output
    for name in ("ValueError", "OSError", "MemoryError"):
        assert run.output.count(f"ota: the application's callback failed, {name}") == 2
    assert "check: installed" in run.output
    assert run.output.endswith("outside: OSError\n")
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]


# -- lost connections ----------------------------------------------------------------------------

DROPPED = """
def progress(step, value):
    if step not in ("bytes", "file"):
        print("step", step)
    if step == "STEP" and VERSION == 1:
        time.sleep_ms(400)

client = new_client(KIND)
agent = ota.Agent(config, client=client, progress=progress)
while True:
    client.connect(False)
    client.subscribe(base + b"config", 1)
    outcome = agent.check()
    print("check:", outcome, agent.reason)
    if outcome != "later":
        break
print("given back:", client.cb is on_message)
machine.deepsleep(1000)
"""


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("kind", "step", "good"),
    [
        ("MQTTClient", "request", True),
        ("Robust", "download", True),
        ("MQTTClient", "install", True),
        ("Robust", "clear", True),
        ("MQTTClient", "download", False),
        ("Robust", "failed", False),
        ("MQTTClient", "clear", False),
    ],
)
def test_a_broker_that_drops_the_client(make_site: MakeSite, kind: str, step: str, good: bool):
    """At any step of an update: one end, and no reset but the one after an install."""
    begin = f"{PRELUDE}KIND = {kind}\n"
    body = DROPPED.replace("STEP", step)
    main = {v: f"{begin}VERSION = {v}\n{body}".encode() for v in (1, 2)}
    site = make_site({"main.py": main[1]}, broker="mosquitto")
    tree = {"main.py": main[2], "filler.bin": random.Random(2).randbytes(3000)}
    data = sample.tar_gz(tree)
    if not good:
        data = data[:-6] + bytes([data[-6] ^ 1]) + data[-5:]
    site.console.faults.drip = 10_000
    fuid = site.ask(data)
    line = Line(site, f"step {step}", lambda: kick(site))
    run = site.run()
    assert line.thread is not None
    line.thread.join()
    assert "timeout" not in run.names(), run.output
    ends = {(r["e"], r["i"]) for r in site.reports()}
    assert run.names().count("reset") == (1 if good else 0), run.output
    assert site.retained() is None, run.output
    if good:
        assert ends == {(1, fuid)}
        assert "check: confirmed" in run.output
        assert site.flash_files() == site.files | {"/" + n: c for n, c in tree.items()}
    else:
        assert ends == {(2, fuid)}, run.output
        assert site.reports()[0]["m"] == "can not apply: bad archive, CRC-32 differs"
        assert site.flash_files() == site.files
    assert "given back: True" in run.output


# -- what the application itself has under way ---------------------------------------------------


def message(leaf: str, payload: bytes) -> bytes:
    """A PUBLISH at QoS 0."""
    topic = f"channels/{CONTROL_CHANNEL}/messages/{DEVICE_ID}/{leaf}".encode()
    body = struct.pack(">H", len(topic)) + topic + payload
    return bytes([0x30, len(body) & 127 | 128, len(body) >> 7]) + body


REQUEST = b'[{"n":"e","v":0},{"n":"i","vs":"fa8884d2"},{"n":"t","vs":".tar"},{"n":"s","v":10240}]'
CONNACK, PONG = b"\x20\2\0\0", b"\xd0\0"


def suback(pid: int) -> bytes:
    return b"\x90\3\0" + bytes([pid, 1])


def puback(pid: int) -> bytes:
    return b"\x40\2\0" + bytes([pid])


@contextlib.contextmanager
def scripted_broker(answer: bytes) -> Iterator[int]:
    """A broker for one client: CONNACK, and this as soon as something follows."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(ConnectionResetError):
                connection.recv(4096)
                connection.sendall(CONNACK)
                connection.recv(4096)
                connection.sendall(answer)
                while connection.recv(4096):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


UNDER_WAY = """
def on_message(topic, payload):
    print("heard", payload.decode())
    if ANSWERS:
        client.publish(base + b"answer", payload, False, 1)

client = new_client(MQTTClient)
client.connect()
agent = ota.Agent(config, client=client, policy=lambda _: "later", progress=lambda *_: None)
if not ANSWERS:
    client.ping()
print("check:", agent.check(), agent.reason)
client.sock.close()
"""


@pytest.mark.parametrize(
    ("answers", "stream"),
    [
        (True, [message("cmd", b"1"), puback(2), suback(1), message("cmd", b"2"), puback(3)]),
        (False, [PONG, suback(1), message("cmd", b"1"), message("cmd", b"2")]),
    ],
    ids=["a callback that answers at QoS 1", "a ping that is not answered yet"],
)
def test_what_the_application_has_under_way_ends_no_fence(
    make_site: MakeSite, answers: bool, stream: list[bytes]
):
    """The answer to a ping of ours is what tells that nothing is retained, and nothing else."""
    site = make_site(config={"timeout_s": 2})
    with scripted_broker(b"".join([*stream, message("ota", REQUEST), PONG])) as port:
        site.configure(mqtt={"port": port})
        run = site.node.exec(f"{PRELUDE}ANSWERS = {answers}\n{UNDER_WAY}")
    assert "heard 1\nheard 2\n" in run.output, run.output
    assert "check: later the application's policy" in run.output


POLLING = """
client = new_client(MQTTClient)
client.connect()
agent = ota.Agent(config, client=client)

def on_message(topic, payload):
    agent.handle(topic, payload)

client.set_callback(on_message)
while True:
    outcome = agent.poll()
    if outcome:
        print("poll:", outcome, agent.reason)
    if outcome == "installed":
        break
    client.sock.settimeout(0.02)
    try:
        client.wait_msg()
    except OSError:
        pass
"""


@pytest.mark.few(1)
@pytest.mark.parametrize("broker", available_brokers())
def test_a_newer_request_is_not_forgotten_over_the_end_of_an_older_one(
    make_site: MakeSite, broker: str
):
    """Whether it is heard during the check or after it, and though the node hears its report."""
    site = make_site(broker=broker)
    damaged = bytearray(package(filler=8000))
    damaged[-6] ^= 1
    first = site.ask(bytes(damaged))
    second: list[str] = []
    line = Line(
        site,
        "ota: failed",
        lambda: second.append(site.ask(sample.tar_gz({"main.py": sample.main_py(1)}))),
    )
    run = site.node.exec(PRELUDE + POLLING)
    assert line.thread is not None
    line.thread.join()
    assert "poll: failed can not apply: bad archive, CRC-32 differs" in run.output, run.output
    assert "poll: installed None" in run.output
    assert [(r["e"], r["i"]) for r in site.reports()] == [(2, first), (1, second[0])]
    assert site.retained() is None
