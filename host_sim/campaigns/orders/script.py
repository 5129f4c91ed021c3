"""What an operator does to a node's request, and when, drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from host_sim import sample
from host_sim.campaigns.orders.broker import REFUSALS
from host_sim.node.flash_rules import TORN_KINDS

#: Steps of the agent at which something can be done.
STEPS = (
    "request",
    "download",
    "bytes",
    "file",
    "commit",
    "install",
    "clear",
    "report",
    "failed",
    "confirm",
    "notice",
)
#: No wake has more packets of the node than this, but for a few.
PACKETS = 24

_HEAD = """\
import machine
import os
import ota
import socket

def tell(text):
    s = socket.socket()
    s.connect(socket.getaddrinfo("127.0.0.1", int(os.getenv("STEP_PORT")))[0][-1])
    s.write(text + "\\n")
    s.read(1)
    s.close()

def progress(step, value):
    if step != "space":
        tell("%s %s" % (step, value))

class Response:
    status_code = 200

    def __init__(self, url):
        self.raw = socket.socket()
        self.raw.connect(socket.getaddrinfo("127.0.0.1", int(os.getenv("PACKAGE_PORT")))[0][-1])
        self.raw.write(url.split("fuid=")[1].split("&")[0] + "\\n")

    def close(self):
        self.raw.close()

tell("boot VERSION")
config = ota.load_config()
config["mqtt"]["port"] = int(os.getenv("MQTT_PORT"))
"""
_OWN = """\
agent = ota.Agent(config, progress, Response)
"""
_BORROWED = """\
from umqtt.simple import MQTTClient
name = config["device_id"].encode()
client = MQTTClient(name, "127.0.0.1", config["mqtt"]["port"], name, b"", 60)
client.set_callback(lambda topic, payload: None)
try:
    client.connect()
except Exception as error:
    print("not connected", error)
agent = ota.Agent(config, progress, Response, client)
"""
_TAIL = """\
agent.config["timeout_s"] = float(os.getenv("TIMEOUT_S"))
print("check:", agent.check(), agent.reason)
machine.deepsleep(1000)
"""


def main_py(version: int, client: bool) -> bytes:
    """The application's `main.py`, in all versions the same but for its number."""
    head = _HEAD.replace("VERSION", str(version))
    return (head + (_BORROWED if client else _OWN) + _TAIL).encode()


def old_tree(client: bool) -> sample.Tree:
    """What every node begins with."""
    return {"main.py": main_py(1, client), "data/same.bin": b"the same" * 100}


@dataclass(frozen=True)
class Package:
    """One package. `manner` is "good", "damaged", "crashes" or "unchanged"."""

    tree: sample.Tree = field(repr=False)
    manner: str
    version: int

    def archive(self) -> bytes:
        """Its bytes."""
        data = bytearray(sample.tar_gz(self.tree))
        if self.manner == "damaged":
            data[-3] ^= 1
        return bytes(data)


@dataclass(frozen=True)
class Act:
    """What is done at a moment, in this order.

    `moment`: "start" of the wake, a step of the agent when it comes first, or "before 7" or
    "after 7", around the node's packet of that number. `moves`: "ask" for the next package,
    "again" for the same, "cancel", "drop" the connection, "power": it fails.
    """

    moment: str
    moves: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.moment}: {' '.join(self.moves)}"


@dataclass(frozen=True)
class Wake:
    """One wake in which things happen."""

    acts: tuple[Act, ...]
    cut: tuple[int, str] | None = None
    """The power fails at this operation of flash, torn so."""

    def __str__(self) -> str:
        return "; ".join([*map(str, self.acts), *([f"cut {self.cut}"] if self.cut else [])])


@dataclass
class Script:
    """A node, its packages in the order in which they are asked for, and its wakes."""

    seed: int
    client: bool
    report: str
    refusal: str
    packages: list[Package]
    wakes: list[Wake]

    def __str__(self) -> str:
        kind = "client=" if self.client else "own client"
        lines = [f"seed {self.seed}: {kind}, report {self.report}, {self.refusal or 'obeys'}"]
        lines += [f"  package {n}: {p.manner}" for n, p in enumerate(self.packages, 1)]
        lines += [f"  wake {n}: {wake}" for n, wake in enumerate(self.wakes, 1)]
        return "\n".join(lines)


def make(seed: int) -> Script:
    """The script of a seed."""
    chance = random.Random(f"orders {seed}")
    client = chance.random() < 0.3
    refusal = chance.choice(REFUSALS) if chance.random() < 0.25 else ""
    wakes = [_wake(chance, first=n == 0) for n in range(chance.randint(1, 3))]
    asks = sum(act.moves.count("ask") for wake in wakes for act in wake.acts)
    packages = [_package(chance, n + 2, client) for n in range(asks)]
    report = chance.choice(("installed", "installed", "confirmed"))
    return Script(seed, client, report, refusal, packages, wakes)


def _package(chance: random.Random, version: int, client: bool) -> Package:
    manner = chance.choices(("good", "damaged", "crashes", "unchanged"), (12, 2, 1, 1))[0]
    tree: sample.Tree = {
        "main.py": b"1 / 0\n" if manner == "crashes" else main_py(version, client),
        f"new/v{version}.bin": chance.randbytes(chance.randint(0, 3000)),
    }
    if manner == "unchanged":
        tree = {"data/same.bin": b"the same" * 100}
    return Package(tree, manner, version)


def _wake(chance: random.Random, first: bool) -> Wake:
    acts = [Act("start", ("ask",))] if first or chance.random() < 0.4 else []
    for _ in range(chance.choices((0, 1, 2, 3), (1, 5, 3, 1))[0]):
        acts.append(Act(_moment(chance), _moves(chance)))
    cut = None
    if chance.random() < 0.2:
        cut = chance.randint(1, 120), chance.choice(TORN_KINDS)
    return Wake(tuple(acts), cut)


def _moment(chance: random.Random) -> str:
    if chance.random() < 0.35:
        return chance.choice(STEPS)
    return f"{chance.choice(('before', 'after'))} {chance.randint(1, PACKETS)}"


def _moves(chance: random.Random) -> tuple[str, ...]:
    rows: tuple[tuple[tuple[str, ...], int], ...] = (
        (("ask",), 8),
        (("cancel",), 6),
        (("cancel", "ask"), 3),
        (("ask", "ask"), 1),
        (("ask", "cancel"), 1),
        (("again",), 1),
        (("drop",), 2),
        (("ask", "drop"), 1),
        (("power",), 2),
        (("ask", "power"), 2),
    )
    return chance.choices([row[0] for row in rows], [row[1] for row in rows])[0]
