"""What goes wrong on flash besides the power: obstacles, a full flash, a flipped bit.

A mishap is a piece of MicroPython that changes files. The node's own application runs it (while
the package is staged, or as the new code on trial), or it runs between two boots, in a snapshot of
the node at a phase of the update.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from host_sim.campaigns.powercut.ends import FOLDER, OWN, Node, is_own
from host_sim.errors import SimError

#: Stages of a cycle by what the flash says, in their order.
STAGES = ("staging", "commit", "trial", "back", "closed")
#: A phase: its stage, and how far into that stage, as a share of its operations.
PHASES = {
    "staging": ("staging", 0.6),
    "staged": ("staging", 1.0),
    "commit": ("commit", 0.0),
    "mid": ("commit", 0.5),
    "trial": ("trial", 0.0),
    "trial2": ("trial", 0.6),
    "back": ("back", 0.0),
    "midback": ("back", 0.35),
    "owed": ("closed", 0.0),
}
#: Here no application runs, so nothing changes but what flash loses in /.ota by itself.
ALONE = ("mid", "back", "midback")
#: In a snapshot that was not made by its phase, but by a cut.
NOW = "now"
#: Run by the application: at its hook for the first file, for the last one, at the commit; by the
#: new code in each of its boots, which then crashes.
BY_CODE = ("at-first", "at-last", "at-commit", "on-trial")

OBSTACLES = ("folder", "file", "gone", "away", "made")
FILLINGS = ("full", "brim")
DAMAGES = ("bit", "half", "empty", "gone", "folder")

_INTERIOR = "/left by the application.txt"
#: How many bits are flipped, in each phase, of a file that is too large for all of them.
_SAMPLED_BITS = 24
#: A small file that is not longer stands twice.
_SHORT = 63
_SAMPLED_FILES = ("/.ota/recovery", "/.ota/reserve")
#: How many of the obstacles are also made by code, in each of its phases.
_BY_CODE_SAMPLE = 40

_HELPERS = """\
import os
def wipe(p):
    try:
        for e in list(os.ilistdir(p)):
            wipe(p + "/" + e[0])
        os.rmdir(p)
    except OSError:
        try:
            os.remove(p)
        except OSError:
            pass
def make(p):
    q = ""
    for part in p.split("/")[1:]:
        q += "/" + part
        try:
            os.mkdir(q)
        except OSError:
            pass
def put(p, data):
    try:
        with open(p, "wb") as f:
            f.write(data)
    except OSError:
        pass
"""
_FILL = """\
def fill(size, name):
    n = 0
    while n < 400:
        p = name % n
        try:
            os.stat(p)
        except OSError:
            try:
                with open(p, "wb") as f:
                    f.write(b"x" * size)
            except OSError:
                try:
                    os.remove(p)
                except OSError:
                    pass
                return
        n += 1
make("/log")
fill(16384, "/log/a%d")
fill(4096, "/log/b%d")
"""
_BRIM = """\
fill(100, "/log/c%d")
fill(1, "/log/d%d")
fill(100, "/log_e%d")
fill(1, "/log_f%d")
"""
#: Changes nothing, but writes.
TOUCH = 'with open("/.touch", "w") as f: pass\nimport os; os.remove("/.touch")\n'
#: Makes room again once a case has been judged.
CLEAR = (
    _HELPERS
    + """\
for e in list(os.ilistdir("/")):
    if e[0].startswith("log"):
        wipe("/" + e[0])
"""
)


@dataclass(frozen=True)
class Mishap:
    """`kind` at `path` in a phase. `number`: the bit, of the kind that flips one."""

    phase: str
    kind: str
    path: str = ""
    number: int = 0

    def __str__(self) -> str:
        parts = [f"@{self.phase}", self.kind]
        if self.path:
            parts.append(self.path.replace("/", ":"))
        if self.kind == "bit":
            parts.append(str(self.number))
        return ",".join(parts)

    @classmethod
    def parse(cls, text: str) -> Mishap:
        """The opposite of `str`."""
        phase, kind, *rest = [*text[1:].split(","), "", ""][: max(2, text.count(",") + 1)]
        right = (
            phase in (*PHASES, *BY_CODE, NOW)
            and kind in {*OBSTACLES, *FILLINGS, *DAMAGES}
            and len(rest) == (0 if kind in FILLINGS else 2 if kind == "bit" else 1)
            and (kind != "bit" or rest[1].isdecimal())
        )
        if not right:
            raise SimError(f"{text!r} is no mishap: write @PHASE,KIND[,:PATH[,BIT]]")
        path = rest[0].replace(":", "/") if rest else ""
        return cls(phase, kind, path, int(rest[1]) if kind == "bit" else 0)

    @property
    def by_code(self) -> bool:
        """Whether the application does it itself."""
        return self.phase in BY_CODE

    @property
    def fills(self) -> bool:
        """Whether it fills flash, with files whose names begin with /log."""
        return self.kind in FILLINGS

    @property
    def inside(self) -> bool:
        """Whether it is in /.ota, where what is gone can be gone for good."""
        return is_own(self.path)

    def code(self) -> str:
        """The MicroPython that does it; to be run again and again without harm."""
        path = self.path
        if self.fills:
            return _HELPERS + _FILL + (_BRIM if self.kind == "brim" else "")
        if self.kind == "bit":
            at, mask = self.number >> 3, 1 << (self.number & 7)
            return (
                f"{_HELPERS}with open({path!r}, 'rb') as f: data = bytearray(f.read())\n"
                f"data[{at}] ^= {mask}\nput({path!r}, data)\n"
            )
        if self.kind in ("half", "empty"):
            keep = "len(data) // 2" if self.kind == "half" else "0"
            return (
                f"{_HELPERS}with open({path!r}, 'rb') as f: data = f.read()\n"
                f"put({path!r}, data[:{keep}])\n"
            )
        parent = path[: path.rfind("/")]
        body = {
            "folder": f"if not isdir(p):\n    wipe(p)\nmake(p)\nput(p + {_INTERIOR!r}, b'mine')\n",
            "file": "if isdir(p):\n    wipe(p)\nput(p, b'in the way')\n",
            "gone": "wipe(p)\n",
            "away": "try:\n    os.rename(p, p + '.away')\nexcept OSError:\n    pass\n",
            "made": f"make({parent!r})\nput(p, b'made meanwhile')\n",
        }[self.kind]
        is_folder = (
            "def isdir(p):\n    try:\n        return os.stat(p)[0] & 0x4000\n"
            "    except OSError:\n        return False\n"
        )
        return f"{_HELPERS}{is_folder}p = {path!r}\n{body}"


def parents(path: str) -> Iterator[str]:
    """The folders above a path, innermost first, without the root."""
    while path.count("/") > 1:
        path = path[: path.rfind("/")]
        yield path


def _vital(path: str) -> bool:
    """What a node can not speak without. What kills itself is nobody's to mend."""
    return path in ("/main.py", "/ota.json", "/ota", "/lib") or path.startswith("/ota/")


def obstacles(phase: str, stage: str, tree: Node, paths: Iterable[str]) -> Iterator[Mishap]:
    """Every obstacle at a path of the package (of `paths`, and their folders), and in /.ota.

    `tree`: what is on flash when it is made. `stage`: what of.
    """
    every = {*paths}
    for path in paths:
        every.update(parents(path))
    for path in sorted(every):
        if path in ("/boot.py", "/ota", "/lib") or (
            _vital(path) and (stage not in ("trial", "back") or phase == "midback")
        ):
            continue
        there = tree.get(path)
        if path.startswith("/ota/") and there == FOLDER:
            continue  # as /ota: in it are modules that no package brings, and nobody has a copy of
        kinds = ("made", "folder") if there is None else ("gone", "away")
        if any(isinstance(tree.get(folder), bytes) for folder in parents(path)):
            continue
        for kind in (*kinds, "file" if there == FOLDER else "folder" if there else ""):
            if kind:
                yield Mishap(phase, kind, path)
    if phase in BY_CODE or stage in ("staging", "closed"):
        return
    for path in sorted(tree):
        if is_own(path) and path != OWN and path not in small_files(tree):
            for kind in ("gone", "folder" if tree[path] != FOLDER else "file"):
                yield Mishap(phase, kind, path)


def silences(mishap: Mishap, tree: Node, old: dict[str, bytes]) -> bool:
    """Whether it takes the only copy of what the old application can not speak without."""
    if not mishap.inside:
        return False
    lost = [c for p, c in tree.items() if (p + "/").startswith(mishap.path + "/")]
    return any(_vital(p) and tree.get(p) != c and c in lost for p, c in old.items())


def unknowable(stage: str, mishap: Mishap, tree: Node, signed: bool) -> bool:
    """Whether a staged member vanishes in the middle of an install, of a file copied aside before.

    Its old copy is there already, as after its move, and where no check sum is in the journal
    nothing tells the one from the other. Or whether a kept file does, which a roll back has tried
    to bring back: then it may have come back.
    """
    kept = mishap.path.endswith("~")
    if stage == "back":
        return kept and mishap.path[:-1] + "!" in tree
    if stage == "commit" and kept:
        # It may be a file that the application has removed before the commit; a deletion never has
        # a check sum.
        return not signed or _is_deletion(mishap.path[len(OWN) + 1 : -1], tree)
    return stage == "commit" and mishap.kind == "gone" and mishap.path + "~" in tree and not signed


def _is_deletion(place: str, tree: Node) -> bool:
    journal = tree.get(OWN + "/journal")
    return isinstance(journal, bytes) and b"\nd %s " % place.encode() in journal


def fillings(phase: str) -> Iterator[Mishap]:
    """Flash filled to the last block, and to the last byte."""
    for kind in FILLINGS:
        yield Mishap(phase, kind)


def small_files(tree: Node) -> list[str]:
    """The files of the bookkeeping in /.ota: no members, and nothing that these replaced."""
    return [
        path
        for path, content in tree.items()
        if isinstance(content, bytes)
        and path.startswith(OWN + "/")
        and path.count("/") == 2
        and not re.fullmatch(r"/\d+[~!]?", path[len(OWN) :])
    ]


def is_doubled(path: str, tree: Node) -> bool:
    """Whether this file's content has to be there twice: then no flipped bit may cost anything."""
    content = tree.get(path)
    if not isinstance(content, bytes):
        return False
    if path in (OWN + "/state", OWN + "/report", OWN + "/attempts"):
        half = len(content) // 2
        return len(content) <= _SHORT or content[:half] == content[half:]
    return [tree.get(OWN + name) for name in ("/journal", "/journal2")] == [content] * 2


def damages(phase: str, tree: Node) -> Iterator[Mishap]:
    """Every bit of each small file in /.ota, and what else can befall one."""
    for path in small_files(tree):
        content = tree[path]
        assert isinstance(content, bytes)
        numbers: Iterable[int] = range(8 * len(content))
        if path.startswith(_SAMPLED_FILES):
            numbers = random.Random(phase).sample(numbers, min(_SAMPLED_BITS, len(numbers)))
        for number in sorted(numbers):
            yield Mishap(phase, "bit", path, number)
        for kind in DAMAGES[1:]:
            yield Mishap(phase, kind, path)


def by_code(phase: str, stage: str, tree: Node, paths: list[str]) -> list[Mishap]:
    """A seeded sample of the obstacles, made by code."""
    found = [m for m in obstacles(phase, stage, tree, paths) if not m.inside]
    return random.Random(phase).sample(found, min(_BY_CODE_SAMPLE, len(found)))
