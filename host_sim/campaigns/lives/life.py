"""The life of a seed: a node, packages for it, and what happens to it from wake to wake."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from host_sim import sample, signing
from host_sim.campaigns.lives.package import BAD, DOUBTFUL, MISCHIEF, REFUSED, Package, main_py
from host_sim.node import flash
from host_sim.node.flash_rules import TORN_KINDS
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID, DEVICE_KEY

#: Steps of the agent at which something can happen beside it.
STEPS = ("request", "download", "file", "commit", "install", "clear", "report", "confirm", "later")
#: Until the install has begun.
WHILE_STAGED = ("download", "file", "file", "commit")
CAUSES = ("power_on", "deepsleep", "hard", "soft")

_FOLDERS = ("", "", "lib", "data", "data/deep", "apps/demo", "new", "new/sub", "very/deep/er")
_ENDINGS = (".py", ".mpy", ".bin", ".txt")
_SIZES = (0, 40, 300, 1500, 6000)


@dataclass(frozen=True)
class Event:
    """What happens, when, and how: see :func:`_draw` for the kinds."""

    what: str
    at: int | str = ""
    how: str = ""

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.what, self.at, self.how) if part != "")


@dataclass(frozen=True)
class Wake:
    """One wake of the node; `cause`: why it begins, unless the power has failed before."""

    cause: str
    events: tuple[Event, ...] = ()

    def of(self, *whats: str) -> list[Event]:
        """Its events of these kinds."""
        return [event for event in self.events if event.what in whats]

    def __str__(self) -> str:
        return ", ".join((self.cause, *map(str, self.events)))


@dataclass(frozen=True)
class Life:
    """All of it. The same seed gives the same one."""

    seed: int
    config: dict
    old: sample.Tree
    packages: tuple[Package, ...]
    wakes: tuple[Wake, ...]

    def __str__(self) -> str:
        told = ("report", "trial_boots", "trial_wakes", "max_attempts")
        lines = [f"life {self.seed}: " + ", ".join(f"{key} {self.config[key]}" for key in told)]
        lines.append(f"  old: {', '.join(self.old)}")
        asked = {event.how for wake in self.wakes for event in wake.of("ask")}
        lines += [f"  {package}" for package in self.packages if package.fuid in asked]
        lines += [f"  wake {n}: {wake}" for n, wake in enumerate(self.wakes, 1)]
        return "\n".join(lines)

    @property
    def size(self) -> str:
        """How long it is."""
        events = sum(len(wake.events) for wake in self.wakes)
        files = len(self.old) + sum(len(package.tree) for package in self.packages)
        return f"{len(self.wakes)} wakes, {events} events, {files} files"

    def shorter(self) -> Iterator[Life]:
        """This life without one thing each: a wake, an event, a member of a package, a file."""
        for n in range(len(self.wakes)):
            yield dataclasses.replace(self, wakes=self.wakes[:n] + self.wakes[n + 1 :])
        for n, wake in enumerate(self.wakes):
            for event in wake.events:
                rest = tuple(other for other in wake.events if other is not event)
                wakes = (*self.wakes[:n], Wake(wake.cause, rest), *self.wakes[n + 1 :])
                yield dataclasses.replace(self, wakes=wakes)
        for n, package in enumerate(self.packages):
            for name in package.tree:
                if name == "main.py":
                    continue
                tree = {other: c for other, c in package.tree.items() if other != name}
                less = dataclasses.replace(package, tree=tree)
                packages = (*self.packages[:n], less, *self.packages[n + 1 :])
                yield dataclasses.replace(self, packages=packages)
        for name in self.old:
            if name != "main.py" and not name.startswith("ota."):
                old = {other: c for other, c in self.old.items() if other != name}
                yield dataclasses.replace(self, old=old)


def make(seed: int, firmware: Path = flash.FIRMWARE) -> Life:
    """The life of a seed."""
    chance = random.Random(seed)
    pool = _Pool(chance)
    old = {"main.py": main_py(0), "ota.key1": signing.modulus(1)}
    old |= pool.files(chance.randint(4, 16))
    count = chance.choices((1, 2, 3, 4, 5, 6), (2, 4, 4, 3, 2, 1))[0]
    packages = tuple(_package(chance, pool, n + 1, firmware) for n in range(count))
    length = min(25, max(5, round(chance.expovariate(1 / 3)) + 2 * count))
    ops = 40 + 14 * len(pool.names)
    places = [0, *sorted(chance.sample(range(1, length), min(count, length) - 1))]
    # More of it where there is something to disturb.
    busy = {place + after for place in places for after in (0, 0, 1, 2)}
    wakes = [Wake(chance.choice(CAUSES), _draw(chance, ops, n in busy)) for n in range(length)]
    for place, package in zip(places, packages, strict=False):
        when = "" if place == 0 or chance.random() < 0.6 else _step(chance, STEPS)
        events = (Event("ask", when, package.fuid), *wakes[place].events)
        wakes[place] = Wake(wakes[place].cause, events)
    config = {
        "device_id": DEVICE_ID,
        "device_key": DEVICE_KEY,
        "control_channel": CONTROL_CHANNEL,
        "mqtt": {"host": "127.0.0.1", "grace_ms": 0, "tls": False},
        "keys": ["/ota.key1"],
        "report": chance.choice(("installed", "installed", "confirmed")),
        "trial_boots": chance.choice((3, 3, 3, 2, 5)),
        "trial_wakes": chance.choice((4, 6, 24)),
        "trial_deadline_s": 60,
        "max_attempts": chance.choice((3, 5)),
    }
    old["ota.json"] = json.dumps(config).encode()
    return Life(seed, config, old, packages, tuple(wakes))


def final_package(life: Life) -> Package:
    """A good one that nothing stands in the way of: it shows that the node takes packages."""
    number = len(life.packages) + 1
    tree = {"main.py": main_py(number), "last/one.txt": b"the last one"}
    return Package(number, "good", "tar", tree)


class _Pool:
    """Names that packages of one life share, and a few contents for each, so that some agree."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.names: list[str] = []
        for n in range(chance.randint(8, 24)):
            folder = chance.choice(_FOLDERS)
            stem = f"{'!' * (chance.random() < 0.1)}f{n % 9}"
            self.names.append(f"{folder}{'/' * bool(folder)}{stem}{chance.choice(_ENDINGS)}")
        self.names = sorted(set(self.names))

    def files(self, most: int) -> sample.Tree:
        """Some of them, of twins only one."""
        chance = self._chance
        found: dict[str, str] = {}
        for name in chance.sample(self.names, min(most, len(self.names))):
            # One of x.py and x.mpy, under the name without its ending.
            found[name.rpartition(".")[0] if name.endswith("py") else name] = name
        return {name: self._content(name) for name in found.values()}

    def deletions(self, tree: sample.Tree) -> tuple[str, ...]:
        """Some of the names that the package's tree has nothing to do with."""
        kept = {name.rpartition(".")[0] for name in tree}
        others = [name for name in self.names if name.rpartition(".")[0] not in kept]
        return tuple(self._chance.sample(others, min(len(others), self._chance.randint(0, 4))))

    def _content(self, name: str) -> bytes:
        # One of three contents, the same ones whenever they are drawn.
        which = random.Random(f"{name} {self._chance.randrange(3)}")
        size = which.choice(_SIZES)
        if name.endswith(".mpy"):
            return bytes((77, 6, 0, 31)) + which.randbytes(size)
        if name.endswith(".py"):
            return b"x = %d\n" % which.randrange(99) + b"# some more\n" * (size // 12)
        return which.randbytes(size)


def _package(chance: random.Random, pool: _Pool, number: int, firmware: Path) -> Package:
    manner = "good"
    if chance.random() < 0.5:
        # Mischief more often: it has the most ways.
        bad = (*BAD, *MISCHIEF, *MISCHIEF, *REFUSED, *DOUBTFUL, *DOUBTFUL)
        manner = chance.choice(bad)
    tree = pool.files(chance.randint(0, 12))
    signed = chance.random() < 0.3 or manner == "deletes the agent"
    deleted = pool.deletions(tree) if signed else ()
    own = [
        "ota/errors.py",
        "ota/install/report.py",
        "ota/package/vetting.py",
        "ota/__init__.py",
        "ota/recovery.py",
    ]
    if chance.random() < 0.15 or manner == "removes the agent":
        for name in chance.sample(own, chance.randint(1, 3)):
            tree[name] = (firmware / name).read_bytes() + b"# newer %d\n" % number
    boot = chance.random()
    if manner == "its boot.py crashes":
        tree["boot.py"] = b"1 / 0  # %d\n" % number
    elif boot < 0.1:
        tree["boot.py"] = (firmware / "boot.py").read_bytes() + b"# newer %d\n" % number
    elif boot < 0.2:
        tree["boot.py"] = b"greeting = 'hello %d'\n" % chance.randrange(2)
    if manner == "its agent can not stage":
        tree["ota/install/staging.py"] = b"raise ValueError\n"
    elif manner == "deletes the agent":
        own = ("agent", "cycle", "control", "config")
        for name in chance.sample(own, chance.randint(1, 2)):
            deleted += (f"ota/{name}.py", f"ota/{name}.mpy")
    elif manner == "shadows":
        for name in chance.sample(("os.py", "machine.py", "ota.py", "ssl.py"), 2):
            tree[name] = chance.choice((b"broken = 1\n", b"raise ValueError\n"))
    tree["main.py"] = main_py(number, manner)
    names = list(tree)
    chance.shuffle(names)
    tree = {name: tree[name] for name in names}
    folders: tuple[str, ...] = ()
    if not signed and chance.random() < 0.2:
        folders = (chance.choice(("empty", "new/empty", "apps/more/and/more")),)
    kind = chance.choice(("tar", "tar", "tar.gz", "microfreezer"))
    if manner == "has no end":
        kind, folders = "tar", ()
    return Package(
        number, manner, kind, tree, folders, deleted, signed, bool(chance.getrandbits(1))
    )


def _step(chance: random.Random, steps: tuple[str, ...]) -> str:
    step = chance.choice(steps)
    return f"file {chance.randint(1, 5)}" if step == "file" else step


def _draw(chance: random.Random, ops: int, busy: bool) -> tuple[Event, ...]:
    """What happens in one wake."""

    def op() -> int:
        # Early ones more often: what comes after an install is short.
        return chance.randint(1, ops) if chance.random() < 0.5 else chance.randint(1, 30)

    kinds = (
        # Power fails at this flash operation, torn so; or again and again.
        (8, lambda: Event("cut", op(), chance.choice(TORN_KINDS))),
        (1, lambda: Event("storm", chance.randint(6, 60), chance.choice(TORN_KINDS))),
        # This flash operation fails, once.
        (3, lambda: Event("flash", op(), "EIO")),
        # The package's connection ends after so many bytes, once or always.
        (4, lambda: Event("body", chance.choice((0, 200, 5000)), chance.choice(("once", "")))),
        # The control channel ends at the node's so-many-th packet, before or after it is heard.
        (5, lambda: Event("mqtt", chance.randint(1, 9), chance.choice(("lost", "heard")))),
        (2, lambda: Event("mqtt", 1, "refused")),
        # The platform withdraws what stands there, before the wake or at a step.
        (2, lambda: Event("withdraw", chance.choice(("", _step(chance, STEPS))))),
        # The application changes a path of the package that is being staged.
        (
            4,
            lambda: Event(
                "disturb",
                _step(chance, WHILE_STAGED),
                chance.choice(("remove", "write", "make", "folder", "block", "new folder")),
            ),
        ),
        # The application writes a file of its own when it starts.
        (2, lambda: Event("write")),
    )
    found: list[Event] = []
    for _ in range(chance.choices((0, 1, 2, 3), (3, 6, 3, 1) if busy else (8, 2, 0, 0))[0]):
        event = chance.choices([k[1] for k in kinds], [k[0] for k in kinds])[0]()
        # One of a kind; and after an error of flash littlefs is wrong, whoever writes.
        apart = {event.what, *{"cut": {"storm"}, "storm": {"cut", "flash"}}.get(event.what, ())}
        if event.what == "flash":
            apart |= {"storm", "disturb", "write"}
        elif event.what in ("disturb", "write"):
            apart.add("flash")
        if not any(other.what in apart for other in found):
            found.append(event)
    return tuple(found)
