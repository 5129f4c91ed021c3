"""What is cut: nodes, packages for them, and the only two trees that may ever be seen."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
from dataclasses import dataclass, field
from pathlib import Path

from host_sim import sample, signing
from host_sim.campaigns.plain import APPLICATION
from host_sim.node import flash
from host_sim.node.agent_code import compile_agent
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID, DEVICE_KEY, Tree
from insigh_ota.package import delta, restarts
from insigh_ota.package.manifest import parse

FUID = "fa8884d2"
#: What the names of scenarios end with whose agent is frozen.
FROZEN = "+frozen"

# The node's application: the agent as it is, over a transport without TLS that is told its ports,
# because a campaign needs the same flash in every run.
_MAIN = """\
import machine
import os
import socket
import ota

class Response:
    status_code = 200

    def __init__(self):
        self.raw = socket.socket()
        self.raw.connect(socket.getaddrinfo("127.0.0.1", int(os.getenv("PACKAGE_PORT")))[0][-1])

    def close(self):
        self.raw.close()

VERSION = %d
# What the campaign wants to go wrong in this application: see mishaps.py.
if VERSION == 2:
    exec(os.getenv("ON_TRIAL") or "")

def progress(step, value):
    if ("%%s %%s" %% (step, value)).startswith(os.getenv("AT") or "never"):
        exec(os.getenv("DO"))

config = ota.load_config()
config["mqtt"]["port"] = int(os.getenv("MQTT_PORT"))
agent = ota.Agent(config, progress, open_stream=lambda url: Response())
print("version", VERSION, agent.check(), agent.reason)
machine.deepsleep(1000)
"""
#: A version that fails in each of its boots.
BAD_MAIN = b"""\
import os
exec(os.getenv("ON_TRIAL") or "")
1/0
"""
# Each boot of it is a soft reset.
_RESTLESS_MAIN = b"""\
import machine
machine.soft_reset()
"""


def main_py(version: int) -> bytes:
    """The campaign's `main.py`."""
    return (_MAIN % version).encode()


def own_https_main_py(version: int) -> bytes:
    """One that leaves HTTPS to the agent on a trial: what looks at its trust runs then."""
    stream = b"open_stream="
    on_trial = b'None if ".ota" in os.listdir() and "state" in os.listdir(".ota") else '
    return main_py(version).replace(stream, stream + on_trial)


def fetching_main_py(version: int) -> bytes:
    """One that leaves HTTPS to the agent altogether, without TLS."""
    place = 'config["server"] = "127.0.0.1:" + os.getenv("HTTPS_PORT")\n'
    main = (_MAIN % version).replace(", open_stream=lambda url: Response()", "")
    return (APPLICATION + main.replace("agent = ", place + "agent = ")).encode()


def deaf_main_py() -> bytes:
    """One that tries, but never reaches its control channel."""
    return main_py(2).replace(b'int(os.getenv("MQTT_PORT"))', b"1")


@dataclass(frozen=True)
class Scenario:
    """One node and one package.

    `wakes` is how many the complete cycle takes, `after_cut` how many a node gets after a cut to
    finish it. `end` is which tree it ends with, `reports` the distinct reports, in order, `reason`
    what the text of the last one begins with.
    """

    name: str
    what: str
    old: Tree
    package: Tree
    kind: str = "tar"
    config: dict = field(default_factory=dict)
    blocks: int = 134
    mpy: bool = True
    wakes: int = 1
    after_cut: int = 2
    end: str = "new"
    reports: tuple[str, ...] = ("1",)
    reason: str = ""
    spoil: bool = False
    fuid: str = FUID
    with_folders: bool = True
    """Whether the archive names folders, as some programs do."""
    deleted: tuple[str, ...] = ()
    floor: bytes = b""
    """What `/ota.sequence` holds once the package has been confirmed."""
    firmware: Path = flash.FIRMWARE
    frozen: bool = False
    """Whether the agent is in the firmware, and nothing of it but boot.py on flash."""
    https: bool = False
    """Whether the node asks a server that knows ranges."""
    window: int = 0
    """With "tar.gz": that of a package as `package build` makes it, with restart points."""
    release: Tree = field(default_factory=dict)
    """Where there is one: the package, a signed one, has an index and patches from these files."""
    foreign_boot: bool = False
    """Whether the package's boot.py, though one of ours, is of another release."""

    def rolled_back(self) -> Scenario:
        """The same, but for its end: too many boots of the trial, and the old tree is back."""
        return dataclasses.replace(
            self,
            end="old",
            reports=(*self.reports, "2") if self.reports == ("1",) else self.reports,
            reason="rolled back: 3 boots without confirm",
        )

    @functools.cached_property
    def archive(self) -> bytes:
        """The package as the platform stores it."""
        if self.release:
            files = dict(self.package)
            manifest = parse(files.pop(signing.MANIFEST))
            patches = delta.patches_for(files, [delta.Release("old", self.release)])
            data, _ = delta.build(manifest, files, self.window, patches)
        elif self.window:
            signed = signing.MANIFEST in self.package
            data = restarts.compress(sample.tar(self.package), self.window, signed=signed)
        elif self.kind == "tar.gz":
            data = sample.tar_gz(self.package)
        else:
            data = sample.tar(self.package, with_folders=self.with_folders)
        return data[:-1] + bytes([data[-1] ^ 1]) if self.spoil else data

    @property
    def request(self) -> bytes:
        """The retained message."""
        pack = [
            {"n": "e", "v": 0},
            {"n": "i", "vs": self.fuid},
            {"n": "t", "vs": "." + self.kind},
            {"n": "s", "v": len(self.archive)},
        ]
        return json.dumps(pack, separators=(",", ":")).encode()

    def build(self, image: Path, scratch: Path) -> None:
        """Flash the node."""
        config = {
            "device_id": DEVICE_ID,
            "device_key": DEVICE_KEY,
            "control_channel": CONTROL_CHANNEL,
            "mqtt": {"host": "127.0.0.1", "tls": False, "grace_ms": 0},
        } | self.config
        root = sample.write_tree(self.old, scratch)
        (root / "ota.json").write_text(json.dumps(config))
        if self.frozen:
            (root / "boot.py").write_bytes((self.firmware / "boot.py").read_bytes())
        flash.build(
            root,
            image,
            blocks=self.blocks,
            mpy=self.mpy,
            agent=not self.frozen,
            firmware=self.firmware,
        )

    def new_tree(self, old: Tree) -> Tree:
        """What the package makes of the files of an old tree (absolute paths), by the rules."""
        new = dict(old)
        for name, content in self.package.items():
            path = "/" + name
            ours = b"ota.recovery" in content and not self.foreign_boot
            if path == "/boot.py" and not ours:
                path = "/boot_user.py"
            twin = path[:-3] + "py" if path.endswith(".mpy") else path[:-2] + "mpy"
            if path.endswith((".py", ".mpy")):
                new.pop(twin, None)
            new[path] = content
        for name in (signing.MANIFEST, *self.deleted):
            new.pop("/" + name, None)
        return new


def _forty() -> tuple[Tree, Tree]:
    rng = random.Random(40)
    # Names in front of .ota and of boot.py: a rename out of the root would hide those two.
    old: Tree = {"main.py": main_py(1), "!first.txt": b"first", "app.bin": rng.randbytes(400)}
    for n in range(28):
        old[f"d{n % 5}/file{n}.bin"] = rng.randbytes(rng.choice([0, 40, 200, 600, 1500]))
    package: Tree = {"main.py": main_py(2), "!first.txt": b"1st", "app.bin": rng.randbytes(300)}
    for n in range(24):
        name = f"d{n % 5}/file{n}.bin"
        changed = rng.randbytes(rng.choice([0, 60, 300, 900, 4200 if n == 3 else 100]))
        package[name] = old[name] if n % 3 == 0 else changed
    for n in range(13):
        package[f"new{n % 3}/deep/file{n}.bin"] = rng.randbytes(rng.choice([10, 150, 700]))
    return old, package


def _sources() -> Tree:
    return {
        p.relative_to(flash.FIRMWARE).as_posix(): p.read_bytes()
        for p in sorted(flash.FIRMWARE.rglob("*.py"))
    }


def _moved() -> Tree:
    """A next version of the agent whose recovery lives in a module of another name."""
    sources = _sources()
    body = sources["ota/recovery.py"]
    package = {"ota/recovery.py": b"from .zz_core import *  # noqa\n", "ota/zz_core.py": body}
    return {"main.py": main_py(2)} | package


def _compiled(scratch: Path) -> Tree:
    """Half of the agent as .mpy; the large modules would only add data blocks."""
    needed = ("recovery.py", "journal.py")  # by a boot, and by each update
    tree: Tree = {}
    for name, source in _sources().items():
        if name != "boot.py" and (len(source) < 5000 or name.endswith(needed)):
            file, out = scratch / "m.py", scratch / "m.mpy"
            file.write_bytes(source)
            compile_agent(file, out, name)
            tree[name.removesuffix(".py") + ".mpy"] = out.read_bytes()
    tree["app.mpy"] = tree["ota/errors.mpy"]
    return tree


def _signed() -> list[Scenario]:
    """Files replaced, added and deleted, in the root and below it; a key replaced by another."""
    old: Tree = {
        "main.py": main_py(1),
        "!gone.txt": b"gone",
        "lib/gone.py": b"gone = 1\n",
        "lib/kept.py": b"kept = 1\n",
        "lib/twin.py": b"twin = 1\n",
        "ota.key1": signing.modulus(1),
        "ota.key2": bytes(384),
        "ota.sequence": b"6",
    }
    package: Tree = {
        "main.py": main_py(2),
        "lib/kept.py": b"kept = 2\n",
        "lib/twin.mpy": bytes([77, 6, 0, 31]) + b"twin",
        "lib/new.txt": b"new",
        "ota.key2": signing.modulus(2),
    }
    deleted = ("!gone.txt", "lib/gone.py", "lib/twin.py", "lib/never.was")
    good = Scenario(
        "signed",
        "a signed package that adds, replaces, deletes, and brings another key",
        old,
        signing.sign(package, 1, 7, deleted),
        config={"keys": ["/ota.key1", "/ota.key2"], "require_signature": True},
        deleted=deleted,
        floor=b"7",
    )
    bad = package | {"main.py": BAD_MAIN}
    back = dataclasses.replace(
        good,
        name="undeleted",
        what="the same, rolled back after 3 bad boots",
        package=signing.sign(bad, 1, 7, deleted),
        config=good.config | {"trial_deadline_s": 60},
        end="old",
        floor=b"6",
        reports=("1", "2"),
        reason="rolled back: 3 boots",
    )
    return [good, back]


def _few() -> Scenario:
    """Little of everything: its journal is short enough to flip every bit of it."""
    return Scenario(
        "few",
        "four files: replaced, added, in a new folder; rolled back after 3 bad boots",
        {"main.py": main_py(1), "d/old.txt": b"old"},
        {"main.py": BAD_MAIN, "d/old.txt": b"new", "d/add.txt": b"add", "n/m/in.txt": b"in"},
        config={"trial_deadline_s": 60},
        end="old",
        reports=("1", "2"),
        reason="rolled back: 3 boots",
    )


def _trusted() -> Scenario:
    """As few, but good; and the confirm needs TLS, an anchor and what the journal says of it."""
    few = _few()
    return Scenario(
        "trusted",
        "the same, confirmed; on trial the agent's own HTTPS is tried",
        few.old | {"main.py": own_https_main_py(1), "ca.der": signing.anchor(1)},
        few.package | {"main.py": own_https_main_py(2)},
        config=few.config,
    )


def _shadows() -> Scenario:
    """A package that brings modules of the names that recovery imports; new code never settles."""
    broken = dict.fromkeys(("binascii.py", "json.py", "lib/micropython.py", "time.py"), b"1/0\n")
    return Scenario(
        "shadows",
        "broken modules of names that recovery imports; rolled back after soft resets without end",
        {"main.py": main_py(1), "lib/kept.txt": b"kept"},
        {"main.py": _RESTLESS_MAIN, "n/m/k/in.txt": b"deep"} | broken,
        config={"trial_deadline_s": 60},
        end="old",
        reports=("1", "2"),
        reason="rolled back: 3 boots",
        with_folders=False,
    )


def _nested() -> Scenario:
    """Folders in new folders, deletions in the root and below, replaced files, twins."""
    old: Tree = {
        "main.py": main_py(1),
        "a/b/kept.txt": b"kept",
        "a/b/replaced.txt": b"old",
        "a/gone.bin": bytes(900),
        "a/same.bin": b"same",
        "lib/twin.py": b"twin = 1\n",
        "ota.key1": signing.modulus(1),
        "top.txt": b"top",
        "x/y/z/replaced.bin": bytes(range(200)),
    }
    package: Tree = {
        "main.py": BAD_MAIN,
        "a/b/new.txt": b"new",
        "a/b/replaced.txt": b"new",
        "a/new/deep/file.txt": b"deep",
        "a/same.bin": b"same",
        "lib/twin.mpy": bytes([77, 6, 0, 31]) + b"twin",
        "n1/file.bin": bytes(300),
        "n1/n2/file.bin": bytes(5000),
        "n1/n2/n3/file.bin": b"3",
        "top2.txt": b"top2",
        "x/y/z/replaced.bin": bytes(700),
    }
    deleted = ("top.txt", "a/gone.bin", "lib/twin.py")
    return Scenario(
        "nested",
        "nested new folders, deletions, replaced files, twins; rolled back after 3 bad boots",
        old,
        signing.sign(package, 1, 7, deleted),
        config={"keys": ["/ota.key1"], "require_signature": True, "trial_deadline_s": 60},
        blocks=160,
        end="old",
        reports=("1", "2"),
        reason="rolled back: 3 boots",
        deleted=deleted,
    )


def _long() -> Scenario:
    """Everything that is told of is long: names, how many are deleted, the file id."""

    def name(folder: str, n: int) -> str:
        return f"{folder}/{chr(97 + n) * 210}{n}.txt"

    old: Tree = {"main.py": main_py(1), "ota.key1": signing.modulus(1)}
    old |= {name("gone", n): b"gone %d" % n for n in range(24)}
    old |= {name("kept", n): b"old %d" % n for n in range(4)}
    package: Tree = {"main.py": BAD_MAIN} | {name("kept", n): b"new %d" % n for n in range(4)}
    package |= {name("kept", n): b"added %d" % n for n in range(4, 7)}
    deleted = tuple(name("gone", n) for n in range(24))
    return Scenario(
        "long",
        "names of 200 letters, 24 deletions, a file id of 64; rolled back after 3 bad boots",
        old,
        signing.sign(package, 1, 7, deleted),
        config={"keys": ["/ota.key1"], "require_signature": True, "trial_deadline_s": 60},
        blocks=156,
        end="old",
        reports=("1", "2"),
        reason="rolled back: 3 boots",
        deleted=deleted,
        fuid="0123456789abcdef" * 4,
    )


def _parts() -> list[Scenario]:
    """What a node stages in three wakes, because it has a budget."""
    rng = random.Random(18)
    old: Tree = {
        "main.py": fetching_main_py(1),
        "d/same.bin": rng.randbytes(700),
        "d/old.bin": b"old",
        "ca.der": signing.anchor(1),
        "ota.key1": signing.modulus(1),
    }
    package: Tree = {
        "d/same.bin": old["d/same.bin"],
        "d/old.bin": rng.randbytes(900),
        "large.bin": rng.randbytes(6000),
        "n/m/new.txt": b"new",
        "main.py": fetching_main_py(2),
    }
    plain = Scenario(
        "parts",
        "a .tar that is staged in three wakes, and a large file over two of them",
        old,
        package,
        config={"budget": 12_000},
        blocks=152,
        wakes=3,
        after_cut=6,
        https=True,
    )
    # Two restart points are 11 KB apart at least.
    more = {f"large{n}.bin": rng.randbytes(7000) for n in range(2)}
    packed = dataclasses.replace(
        plain,
        name="points",
        what="the same, signed, as .tar.gz with restart points",
        package=signing.sign(more | package, 1, 7),
        kind="tar.gz",
        config={"budget": 13_000, "keys": ["/ota.key1"], "require_signature": True},
        floor=b"7",
        window=13,
    )
    return [plain, packed, _patches(plain, rng)]


def _patches(plain: Scenario, rng: random.Random) -> Scenario:
    """The first wake ends inside a file that comes whole, the second between two files."""
    text = {f"d/text{n}.py": sample._source(rng, f"text{n}", 2500) for n in range(3)}
    gone: Tree = {"d/gone.txt": b"gone"}
    newer = {
        name: content[:900] + b"\n# newer\n" + content[950:] for name, content in text.items()
    }
    first, second, third = newer
    package: Tree = {
        "d/same.bin": plain.old["d/same.bin"],
        first: newer[first],
        "d/large.bin": rng.randbytes(16_000),
        second: newer[second],
        "d/old.bin": rng.randbytes(12_000),
        "n/m/new.txt": b"new",
        third: newer[third],
        "main.py": fetching_main_py(2),
    }
    old = plain.old | text | gone
    return dataclasses.replace(
        plain,
        name="patches",
        what="a package with an index, of which patches and whole files come by ranges",
        old=old,
        package=signing.sign(package, 1, 7, tuple(gone)),
        kind="tar.gz",
        config={"budget": 16_000, "keys": ["/ota.key1"], "require_signature": True},
        blocks=180,
        deleted=tuple(gone),
        floor=b"7",
        window=13,
        release=old,
    )


def scenarios(
    scratch: Path, firmware: Path = flash.FIRMWARE, frozen: bool = False
) -> dict[str, Scenario]:
    """All scenarios by name, the smallest first. `scratch`: a folder for temporary files.

    `frozen`: those of a node that has the agent in its firmware, with other names; a package that
    brings modules of the agent is nothing for such a node.
    """
    v1, v2 = {"main.py": main_py(1)}, {"main.py": main_py(2)}
    old_40, package_40 = _forty()
    ballast = {"ballast.bin": random.Random(1).randbytes(4096 * 12)}
    # What boot.py needs, and some small modules: the others would only add data blocks.
    newer = {
        name: source + b"# newer\n"
        for name, source in _sources().items()
        if name in ("boot.py", "ota/__init__.py", "ota/recovery.py") or len(source) < 1500
    }

    def sources(package: Tree) -> Tree:
        """The sources that it replaces; the rest of the agent is compiled, which loads quicker."""
        names = {name.removesuffix(".mpy").removesuffix(".py") + ".py" for name in package}
        files = [(name, firmware / name) for name in sorted(names) if name.startswith("ota/")]
        return {name: path.read_bytes() for name, path in files if path.exists()}

    compiled = v2 | _compiled(scratch)
    few = dict(list(package_40.items())[:12])
    short = {"trial_deadline_s": 60}
    found = [
        Scenario("one", "one small file replaced", v1, v2),
        Scenario(
            "forty",
            "40 files: replaced, added, unchanged, new folders",
            old_40,
            package_40,
            blocks=188,
        ),
        Scenario("gzip", "12 files as .tar.gz", old_40, few, "tar.gz", blocks=188),
        Scenario(
            "agent",
            "the agent and boot.py, .py to .py",
            v1 | sources(newer),
            v2 | newer,
            blocks=140,
        ),
        Scenario(
            "compiled",
            "the agent and a module in the root, .py to .mpy, the stale sources retired",
            v1 | sources(compiled) | {"app.py": b"old = 1\n"},
            compiled,
            blocks=188,
        ),
        Scenario(
            "moved",
            "the agent's recovery moved to another name",
            v1 | sources(_moved()),
            _moved(),
        ),
        Scenario(
            "full",
            "flash nearly full",
            v1 | ballast,
            v2 | {"ballast2.bin": random.Random(2).randbytes(9000)},
            blocks=115,
        ),
        Scenario(
            "foreign",
            "a package with a boot.py of its own",
            v1,
            v2 | {"boot.py": b"greeting = 'hello'\n"},
        ),
        Scenario("confirmed", "report after confirm", v1, v2, config={"report": "confirmed"}),
        Scenario("stat", "the node also tells how it goes on", v1, v2, config={"stat": True}),
        Scenario(
            "boots",
            "rolled back after 3 bad boots; no folders are named in the archive",
            old_40,
            package_40 | {"main.py": BAD_MAIN},
            config=short,
            blocks=188,
            end="old",
            reports=("1", "2"),
            reason="rolled back: 3 boots",
            with_folders=False,
        ),
        Scenario(
            "wakes",
            "rolled back after too many wakes",
            v1,
            {"main.py": deaf_main_py(), "new/file.bin": b"new"},
            config=short | {"trial_wakes": 4},
            wakes=6,
            after_cut=8,
            end="old",
            reports=("1", "2"),
            reason="rolled back: 4 wakes",
        ),
        Scenario(
            "report",
            "a damaged package, refused and reported",
            v1,
            v2 | {"data.bin": bytes(5000)},
            "tar.gz",
            end="old",
            reports=("2",),
            reason="can not apply: bad archive",
            spoil=True,
        ),
        *_signed(),
        _few(),
        _trusted(),
        _shadows(),
        _nested(),
        _long(),
        *_parts(),
    ]
    every = (dataclasses.replace(s, firmware=firmware) for s in found)
    if frozen:
        every = (
            dataclasses.replace(s, name=s.name + FROZEN, frozen=True)
            for s in every
            if not any(name.startswith("ota/") for name in s.package)
        )
    return {s.name: s for s in every}
