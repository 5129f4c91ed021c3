"""The schedule of a seed: a node, a package, and how each wake ends that is to fetch it."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import random
from dataclasses import dataclass, field

from host_sim import sample, signing
from host_sim.campaigns.lives import package
from host_sim.campaigns.plain import APPLICATION
from host_sim.node.flash_rules import TORN_KINDS
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID, DEVICE_KEY, Tree
from insigh_ota.package import delta, index, restarts
from insigh_ota.package.manifest import Manifest, parse

#: How a wake ends. "cuts": the link breaks, and comes back in the same wake.
ENDS = ("link", "cuts", "budget", "reset", "power", "nothing")
#: What may happen between two wakes, once or again and again.
TROUBLES = (
    "another package",  # under the same file id, of the same length
    "another length",
    "another tag",  # of the same bytes
    "lies",  # another package, and the server serves the range all the same
    "no tag",
    "weak tag",
    "no range",
    "replaced",
    "withdrawn",
    "asked again",  # after it was withdrawn
    "clock",
    "flip",
    "application",
)
KINDS = ("tar", "tar.gz", "tar.gz, of somebody else", "tar.gz, with patches")
PATCHES = KINDS[3]
LEAST = 2048
#: Of so many bytes a node fetches all.
ALL = 16 * 1024
_WINDOW = 13
_YEARS = (1990, 2000, 2001, 2026, 2027, 2037, 2060)

_MAIN = """\
config = __import__("ota").load_config()
config["mqtt"]["port"] = int(os.getenv("MQTT_PORT"))
config["server"] = "127.0.0.1:" + os.getenv("HTTPS_PORT")
for key, value in json.loads(os.getenv("LIMITS")).items():
    if key in config:
        config[key] = value
agent = __import__("ota").Agent(config)
# Not in the configuration, where it would be another one in each wake.
agent.budget = int(os.getenv("BUDGET"))
print("version %d", agent.check())
if agent.reason:
    print("reason:", agent.reason)
machine.deepsleep(60000)
"""


def main_py(version: int) -> bytes:
    """The campaign's `main.py`."""
    return (APPLICATION + _MAIN % version).encode()


@dataclass(frozen=True, eq=False)
class Package(package.Package):
    """A good one; `kind` is one of KINDS."""

    release: Tree = field(default_factory=dict, repr=False)
    """Of one with patches: what they are made from."""
    size: int = 0
    """So many bytes are stored, zeros behind it, where it would be shorter."""

    @property
    def fuid(self) -> str:
        """Its file id, as the server wants it."""
        return f"{self.number:08x}"

    @property
    def extension(self) -> str:
        """ "tar" or "tar.gz"."""
        return self.kind.partition(",")[0]

    @functools.cached_property
    def archive(self) -> bytes:
        """Its bytes."""
        if self.kind == PATCHES:
            raw = self._built[0]
            return raw + bytes(max(0, self.size - len(raw)))
        tree = self.tree
        if self.signed:
            tree = signing.sign(tree, 1, self.number, self.deleted)
        data = sample.tar(tree, with_folders=self.with_folders)
        if self.kind == "tar":
            return data
        return (
            restarts.compress(data, _WINDOW, signed=self.signed)
            if self.kind == "tar.gz"
            else sample.tar_gz(tree)
        )

    @functools.cached_property
    def _built(self) -> tuple[bytes, delta.Layout]:
        manifest = Manifest(sequence=self.number)
        for name, content in self.tree.items():
            manifest.add(name, content)
        manifest.deleted += self.deleted
        if self.signed:
            made = signing.sign(self.tree, 1, self.number, self.deleted)
            manifest = parse(made[signing.MANIFEST])
        patches = delta.patches_for(self.tree, [delta.Release("old", self.release)])
        return delta.build(manifest, self.tree, _WINDOW, patches)

    def wanted(self, there: dict[str, bytes | None]) -> list[range]:
        """What a node fetches that has these files (absolute paths): all of most packages."""
        if self.kind != PATCHES or len(self.archive) <= ALL:
            first = range(index.FIRST if self.extension == "tar.gz" else 0)
            return [first, range(len(self.archive))]
        old = {path[1:]: content for path, content in there.items() if content is not None}
        return self._built[1].wanted(self.tree, old)

    @property
    def request(self) -> bytes:
        """The retained message."""
        pack = [
            {"n": "e", "v": 0},
            {"n": "i", "vs": self.fuid},
            {"n": "t", "vs": "." + self.extension},
            {"n": "s", "v": len(self.archive)},
        ]
        return json.dumps(pack, separators=(",", ":")).encode()

    def other(self, longer: bool = False) -> Package:
        """Another one under the same file id, of the same length or not."""
        chance = random.Random(f"{self.number} {longer}")
        tree = {name: chance.randbytes(len(content)) for name, content in self.tree.items()}
        if self.kind == PATCHES:
            # Most of it is as before, that patches are patches still; and it has to be shorter.
            tree = dict(self.tree)
            large = max(tree, key=lambda name: len(tree[name]))
            tree[large] = tree[large][: len(tree[large]) // 2][::-1]
        tree["main.py"] = self.tree["main.py"].replace(b"version", b"VERSION")
        if longer:
            tree["longer.bin"] = chance.randbytes(20_000)
        size = 0 if longer else len(self.archive)
        return dataclasses.replace(self, tree=tree, size=size)


@dataclass(frozen=True)
class Wake:
    """One wake. `at`: bytes of the body after which it ends, or the operation of flash.

    With "cuts" it ends when the link breaks for the last time.
    """

    end: str = "nothing"
    at: int = 0
    torn: str = "none"
    cuts: tuple[int, ...] = ()
    """With "cuts": the offsets in the package."""

    def __str__(self) -> str:
        more = f" {self.torn}" if self.end == "power" else "".join(f" {n}" for n in self.cuts)
        return self.end + f" {self.at}" * bool(self.at) + more


@dataclass(frozen=True)
class Trouble:
    """What happens before wake `before` (from 1), and with `lasts` before each one after it."""

    what: str
    before: int
    lasts: bool = False
    code: str = ""
    """With "application": what it does, where that is not to be drawn."""

    def __str__(self) -> str:
        return f"{self.what} before wake {self.before}" + " and all later ones" * self.lasts


@dataclass(frozen=True)
class Schedule:
    """All of it. The same seed gives the same one."""

    seed: int
    config: dict
    old: Tree
    package: Package
    next: Package
    """What the request is for once it is replaced."""
    wakes: tuple[Wake, ...]
    troubles: tuple[Trouble, ...] = ()
    limits: dict = field(default_factory=lambda: {"max_fetched": 100})
    """Of the configuration: those of a drawn one end nothing."""
    given_up: bool = False
    """Whether they have to end it."""
    blocks: int = 224

    def __str__(self) -> str:
        tree = self.package.tree
        what = f"{self.package.kind}, {len(tree)} members, {len(self.package.archive):,} bytes"
        signed = ", signed" * self.package.signed
        lines = [f"schedule {self.seed}: {what}{signed}, report {self.config['report']}"]
        lines += [f"  {trouble}" for trouble in self.troubles]
        lines += [f"  wake {n}: {wake}" for n, wake in enumerate(self.wakes, 1)]
        return "\n".join(lines)

    def has(self, *whats: str) -> bool:
        """Whether one of these troubles is in it."""
        return any(trouble.what in whats for trouble in self.troubles)


def make(seed: int) -> Schedule:
    """The schedule of a seed."""
    chance = random.Random(seed)
    trouble = chance.choice(TROUBLES) if chance.random() < 0.5 else ""
    kind = chance.choices(KINDS, (5, 5, 1, 5))[0]
    if trouble in ("another package", "lies") and kind != PATCHES:
        kind = "tar"  # the length of a compressed one would tell
    signed = chance.random() < 0.4
    trees = _versions if kind == PATCHES else _trees
    old, first = trees(chance, chance.choice((16, 24, 32, 48, 72, 96)) * 1024)
    first["main.py"] = main_py(2)
    second = dict(list(first.items())[: len(first) // 2 + 1]) | {"main.py": main_py(3)}
    second["next.bin"] = chance.randbytes(9000)
    gone = tuple(name for name in old if name.startswith("gone")) if signed else ()
    with_folders = chance.random() < 0.5
    release = old | {"main.py": main_py(1)} if kind == PATCHES else {}
    one, two = (
        Package(n, "good", kind, tree, (), gone, signed, with_folders, release)
        for n, tree in ((1, first), (2, second))
    )
    if kind == PATCHES and chance.random() < 0.3:
        # Somebody has been there since: no patch begins with that.
        old[chance.choice(sorted(old))] = b"not of any release"
    config = {
        "device_id": DEVICE_ID,
        "device_key": DEVICE_KEY,
        "control_channel": CONTROL_CHANNEL,
        "mqtt": {"host": "127.0.0.1", "grace_ms": 0, "tls": False},
        "keys": ["/ota.key1"],
        "report": chance.choice(("installed", "installed", "confirmed")),
        "trial_deadline_s": 60,
        "max_attempts": 100,
    }
    old |= {"main.py": main_py(1), "ota.json": json.dumps(config).encode()}
    old |= {"ca.der": b"anchor", "ota.key1": signing.modulus(1)}
    wakes = _wakes(chance, len(one.archive), bool(trouble))
    troubles = _troubles(chance, trouble, wakes)
    # Text is as large as it is on flash.
    blocks = 480 if kind == PATCHES else 224
    return Schedule(seed, config, old, one, two, wakes, troubles, blocks=blocks)


def _trees(chance: random.Random, size: int) -> tuple[Tree, Tree]:
    """An old tree without its `main.py`, and about so many bytes for it, some of them unchanged.

    A few large members, many small ones; text and what does not compress.
    """
    old: Tree = {f"gone{n}.txt": b"gone %d" % n for n in range(2)}
    new: Tree = {}
    words = [b"sample ", b"average ", b"offset ", b"battery ", b"level "]
    n, left = 0, size
    while left > 0:
        large = chance.random() < 0.2
        most = min(left, chance.randint(8000, 60_000) if large else chance.randint(0, 4000))
        folder = chance.choice(("", "lib/", "data/", "data/deep/", "new/", "new/er/"))
        name = f"{folder}f{n}.bin"
        if chance.random() < 0.5:
            content = chance.randbytes(most)
        else:
            content = b"".join(chance.choices(words, k=most // 7))
        new[name] = content
        place = chance.random()
        if place < 0.2 and not folder.startswith("new"):
            old[name] = content  # unchanged
        elif place < 0.5 and not folder.startswith("new"):
            old[name] = chance.randbytes(len(content) // 2) + b"old"
        left -= most + 1536
        n += 1
    # Where the version says so is not always where the archive begins.
    at = chance.randint(0, len(new))
    items = list(new.items())
    return old, dict([*items[:at], ("main.py", b""), *items[at:]])


def _versions(chance: random.Random, size: int) -> tuple[Tree, Tree]:
    """The same for a package with patches: most files are new versions of the old ones.

    A large one comes whole. Others are unchanged, or new, or quite another content.
    """
    old: Tree = {f"gone{n}.txt": b"gone %d" % n for n in range(2)}
    new: Tree = {}
    left = size
    n = large = 0
    while left > 0 or not large:
        folder = chance.choice(("", "lib/", "data/", "data/deep/", "new/"))
        name = f"{folder}f{n}.bin"
        content = sample._source(chance, f"f{n}", chance.randint(200, 6000))
        most = chance.random()
        if n and not large:
            large = chance.randint(30_000, 60_000)
            content = chance.randbytes(large)
            if chance.random() < 0.5:  # restart points in it, and small files behind it
                content = sample._source(chance, name, 2 * large)
            if most < 0.5:
                old[name] = chance.randbytes(chance.choice((large, large // 2)))
        elif most < 0.5 and folder != "new/":
            at = chance.randrange(len(content))
            old[name] = content
            content = content[:at] + chance.randbytes(chance.randint(1, 90)) + content[at + 40 :]
        elif most < 0.8 and folder != "new/":
            old[name] = content  # unchanged
        elif most < 0.9 and folder != "new/":
            old[name] = chance.randbytes(len(content) // 3)
        new[name] = content
        left -= len(content) // 3
        n += 1
    at = chance.randint(0, len(new))
    items = list(new.items())
    return old, dict([*items[:at], ("main.py", b""), *items[at:]])


def _wakes(chance: random.Random, size: int, troubled: bool) -> tuple[Wake, ...]:
    if not troubled and chance.random() < 0.2:
        # The same again and again, as a node with a budget does it.
        share = chance.randint(max(LEAST, size // 12), max(LEAST, size // 2))
        end = chance.choice(("budget", "link"))
        return (Wake(end, share),) * math.ceil(size / share)
    wakes = []
    for n in range(chance.randint(2, 7)):
        ends = ENDS[:-1] if n < 2 else ENDS
        end = chance.choices(ends, (4, 2, 4, 3, 4, 1)[: len(ends)])[0]
        # Most of them small ones: something is to be left for the next.
        at = round(LEAST * (max(size, LEAST) / LEAST) ** (chance.random() ** 1.3))
        if end == "power":
            wakes.append(Wake(end, chance.randint(1, 20 + size // 900), chance.choice(TORN_KINDS)))
        elif end == "cuts":
            cuts = sorted(chance.sample(range(1, size), chance.randint(1, 3)))
            wakes.append(Wake(end, cuts=tuple(cuts)))
        else:
            wakes.append(Wake(end, 0 if end == "nothing" else at))
    return tuple(wakes)


def _troubles(chance: random.Random, what: str, wakes: tuple[Wake, ...]) -> tuple[Trouble, ...]:
    if not what:
        return ()
    before = chance.randint(2, len(wakes) + 1)
    if what == "asked again":
        after = before + chance.randint(0, 2)
        return Trouble("withdrawn", before), Trouble(what, after)
    lasts = what in ("clock", "flip") or (what == "application" and chance.random() < 0.5)
    return (Trouble(what, before, lasts),)


def year(chance: random.Random) -> float:
    """The beginning of some year, as a clock that jumps has it: seconds since 1970."""
    return (chance.choice(_YEARS) - 1970) * 365.25 * 86400 + chance.randint(0, 86400 * 300)
