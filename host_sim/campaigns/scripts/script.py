"""What goes wrong in a script, drawn from its seed."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from host_sim import sample
from host_sim.console.faults import Faults, in_turn
from host_sim.node import flash
from host_sim.node.flash_rules import TORN_KINDS
from host_sim.sample import Tree

#: Steps of the agent at which the platform can ask anew, or the power can fail.
STEPS = ("request", "download", "commit", "install", "clear", "report", "confirm", "later")

# The node's application, the same in all versions. The bench says how long it may wait, and may
# stop it at each step of the agent until it has done something.
_MAIN = """\
import machine
import os
import ota
import socket
import time

def progress(step, value):
    if step in ("bytes", "file", "space"):
        return
    print("step", step, value)
    port = os.getenv("STEP_PORT")
    if port:
        s = socket.socket()
        s.connect(socket.getaddrinfo("127.0.0.1", int(port))[0][-1])
        s.write(step + "\\n")
        s.read(1)
        s.close()

agent = ota.Agent(ota.load_config(), progress=progress)
agent.config["timeout_s"] = int(os.getenv("TIMEOUT_MS")) / 1000
agent.config["cycle_s"] = int(os.getenv("CYCLE_S"))
print("version %d check:", agent.check())
machine.deepsleep(1000)
"""
# What new code can be like that has to be undone, by the manner of its failure.
_BAD_MAINS = {
    "crashes": b"1 / 0\n",
    "does not compile": b"def (:\n",
    "resets": b"import machine\nmachine.reset()\n",
    "never connects": b"import machine\nimport ota\nconfig = ota.load_config()\n"
    b"config['mqtt']['port'] = 1\nota.Agent(config).check()\nmachine.deepsleep(1000)\n",
}


def main_py(version: int) -> bytes:
    """The application's `main.py`."""
    return (_MAIN % version).encode()


def old_tree() -> Tree:
    """What every node begins with."""
    chance = random.Random("the old tree")
    return {
        "main.py": main_py(1),
        "app.bin": chance.randbytes(700),
        "lib/driver.py": b"import sys\n\ndef read():\n    return 42\n",
        "data/large.bin": chance.randbytes(6000),
        "data/small.txt": b"1,2,3\n",
        "data/deep/er/x.bin": chance.randbytes(100),
    }


@dataclass(frozen=True)
class Package:
    """One package. `manner`: "good", "damaged", or what is wrong with its `main.py`."""

    tree: Tree = field(repr=False)
    kind: str
    manner: str

    @property
    def name(self) -> str:
        """As the platform stores it."""
        return "package.tar" if self.kind == "tar" else "package.tar.gz"

    def archive(self) -> bytes:
        """Its bytes."""
        build = {"tar": sample.tar, "gzip": sample.tar_gz, "microfreezer": sample.microfreezer}
        data = build[self.kind](self.tree)
        if self.manner == "damaged":
            # In the trailer of a compressed one, in a header of a plain one.
            at = 120 if self.kind == "tar" else len(data) - 3
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        return data


@dataclass
class Wake:
    """What goes wrong from one sleep to the next."""

    cause: str
    mqtt: str = ""
    https: str = ""
    server: Faults = field(default_factory=Faults)
    cut: tuple[int, str] | None = None
    """Power fails at this flash operation, torn so."""
    cut_at_step: str | None = None
    fail: tuple[int, str] | None = None
    """Flash returns this error at this operation."""
    persistent: bool = False
    asks: str | None = None
    """The platform asks for the next package at this step, or "before" the wake, or before it
    if "idle" tells truly that nothing is retained."""

    def __str__(self) -> str:
        texts = [self.cause]
        for item in dataclasses.fields(self)[1:]:
            value = getattr(self, item.name)
            if value == item.default or (item.name == "server" and value == Faults()):
                continue
            if isinstance(value, Faults):
                value = _told(value)
            texts.append(f"{item.name} {value}")
        return "; ".join(texts)


@dataclass
class Script:
    """A node, its packages in the order in which they are asked for, and its bad wakes."""

    seed: int
    report: str
    tls: bool
    packages: list[Package]
    wakes: list[Wake]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: report {self.report}, {'MQTT over TLS' * self.tls or 'MQTT'}"]
        lines += [f"  package {n}: {p.kind}, {p.manner}" for n, p in enumerate(self.packages, 1)]
        lines += [f"  wake {n}: {wake}" for n, wake in enumerate(self.wakes, 1)]
        return "\n".join(lines)


def _told(faults: Faults | None) -> str:
    texts = []
    while faults is not None:
        changed = {
            f.name: getattr(faults, f.name)
            for f in dataclasses.fields(Faults)
            if f.name != "then" and getattr(faults, f.name) not in (f.default, [])
        }
        texts.append(str(changed))
        faults = faults.then
    return ", then ".join(texts)


def make(seed: int) -> Script:
    """The script of a seed."""
    chance = random.Random(seed)
    count = chance.choices((1, 2, 3, 4), (4, 4, 2, 1))[0]
    packages = [_package(chance, n + 2) for n in range(count)]
    tls = chance.random() < 0.25
    wakes = [_wake(chance, packages, tls) for _ in range(chance.randint(1, 5))]
    for wake in chance.sample(wakes, min(count - 1, len(wakes))):
        wake.asks = chance.choice(("idle", "idle", "idle", "before", *STEPS))
    report = chance.choice(("installed", "installed", "confirmed"))
    return Script(seed, report, tls, packages, wakes)


def _package(chance: random.Random, version: int) -> Package:
    manner = "good"
    if chance.random() < 0.3:
        manner = chance.choice(("damaged", *_BAD_MAINS))
    tree: Tree = {"main.py": _BAD_MAINS.get(manner, main_py(version))}
    changes: Tree = {
        "app.bin": chance.randbytes(chance.randint(0, 900)),
        "boot.py": (flash.FIRMWARE / "boot.py").read_bytes() + b"# %d\n" % version,
        "lib/driver.py": b"def read():\n    return %d\n" % version,
        "data/large.bin": chance.randbytes(6000),
        "data/small.txt": b"1,2,3\n",  # no change
        f"new/v{version}/file.bin": chance.randbytes(chance.randint(0, 5000)),
        "new/common.txt": b"%d" % version,
        "very/deep/folder/readme.md": b"# %d\n" % version,
    }
    for name in chance.sample(sorted(changes), chance.randint(0, len(changes))):
        tree[name] = changes[name]
    kind = chance.choice(("tar", "tar", "gzip", "microfreezer"))
    return Package(tree, kind, manner)


# -- one wake ------------------------------------------------------------------------------------


def _wake(chance: random.Random, packages: list[Package], tls: bool) -> Wake:
    wake = Wake(chance.choice(("power_on", "deepsleep", "deepsleep")))
    size = max(len(p.archive()) for p in packages)
    compressed = all(p.kind != "tar" for p in packages)
    kinds: dict[Callable[[], None], int] = {}

    def draw(*rows: tuple[str, int]) -> str:
        return chance.choices([text for text, _ in rows], [weight for _, weight in rows])[0]

    def link(most_up: int, most_down: int, encrypted: bool) -> str:
        up, down = chance.randrange(most_up), chance.randrange(most_down)
        reset = chance.choice(("", "reset:"))
        text = draw(
            (f"cut={reset}{down}", 4),
            (f"cut=up:{reset}{up}", 4),
            (f"cut={reset}{down},cut=up:{down // 2}", 1),
            (f"hold={down}", 1),
            (f"hold=up:{up}", 1),
            (f"hold=both:{down}", 1),
            ("connect=hold", 1),
            ("connect=refuse", 3),
            (f"corrupt={down}", 2 * encrypted),
            (f"corrupt=up:{up}", 2 * encrypted),
            (
                f"tls={chance.choice(('garbage', 'alert', 'record', 'overlong', 'http'))}",
                encrypted,
            ),
            ("drip=3ms", 1),
            ("rtt=40ms,loss=5%", 1),
        )
        if text != "connect=refuse" and chance.random() < 0.5:
            text += ",times=1"
        return text

    def mqtt() -> None:
        wake.mqtt = link(3500, 6500, True) if tls else link(1300, 800, False)

    def https() -> None:
        wake.https = link(1500, 2500 + size, True)

    def server() -> None:
        wake.server = _server(chance, size, compressed)

    def cut() -> None:
        wake.cut = chance.randint(1, 140), chance.choice(TORN_KINDS)

    def cut_at_step() -> None:
        wake.cut_at_step = chance.choice(STEPS)

    def fail() -> None:
        wake.fail = chance.randint(1, 140), chance.choice(("EIO", "ENOSPC"))
        wake.persistent = chance.random() < 0.15

    kinds = {mqtt: 6, https: 4, server: 4, cut: 6, cut_at_step: 3, fail: 4}
    for _ in range(chance.choices((0, 1, 2, 3), (1, 4, 4, 2))[0]):
        chance.choices(list(kinds), list(kinds.values()))[0]()
    return wake


def _server(chance: random.Random, size: int, compressed: bool) -> Faults:
    def cuts() -> list[int]:
        return sorted(chance.sample(range(size), min(size, chance.randint(1, 3))))

    def resumed(**fault: object) -> Faults:
        """Cut off once, and wrong when it is taken up again."""
        return in_turn(Faults(cut_at=cuts()[:1]), Faults(**fault))

    other = '"another"'
    rows: list[tuple[Callable[[], Faults], int]] = [
        (lambda: Faults(status=chance.choice((500, 503, 429, 408))), 3),
        (lambda: Faults(status=chance.choice((401, 403, 404, 410))), 1),
        (lambda: Faults(status=503, times=chance.randint(1, 2)), 1),
        (lambda: Faults(cut_at=cuts()), 4),
        (lambda: Faults(truncate_at=cuts()[0], etag=""), 1),
        (lambda: Faults(stall_at=cuts()[0], times=1), 1),
        (lambda: resumed(range_taken_as=""), 2),
        (lambda: resumed(range_taken_as=f"bytes={cuts()[0]}-"), 1),
        (lambda: resumed(range_shift=chance.choice((-1, 1, 512))), 1),
        (lambda: resumed(content_range="bytes {first:+1}-{last}/{size}"), 1),
        (lambda: resumed(content_range="bytes 0-{last}/{size}"), 1),
        (lambda: resumed(content_range=""), 1),
        (lambda: resumed(etag=other), 1),
        # The rest of another package of the same size: only its tag tells.
        (lambda: resumed(etag=other, if_range_ignored=True, flip_at=chance.randrange(3000)), 4),
        (lambda: resumed(status=503), 1),
        (lambda: Faults(flip_at=cuts()[0]) if compressed else Faults(chunked=True), 2),
        (lambda: Faults(wrong_length=cuts()[0]), 1),
        (lambda: Faults(extra_beyond_length=b"x"), 1),
        (lambda: Faults(no_length=True, extra_beyond_length=b"x"), 1),
        (lambda: Faults(chunked=True, cut_at=cuts()), 1),
        (lambda: Faults(no_length=True, cut_at=cuts()), 1),
        (lambda: Faults(drip=chance.choice((20, 3000))), 1),
    ]
    return chance.choices([row[0] for row in rows], [row[1] for row in rows])[0]()
