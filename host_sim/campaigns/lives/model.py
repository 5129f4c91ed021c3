"""What is right at each moment of a life. It shares no code with the agent.

It follows what it is shown: each boot that reaches the application, each report. From /.ota it
reads one thing, which docs/design.md promises: a transaction is open as long as `state` exists.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import dataclass, field

from host_sim.campaigns.lives import trees
from host_sim.campaigns.lives.life import Life
from host_sim.campaigns.lives.package import BAD, MISCHIEF, REFUSED, Package
from host_sim.campaigns.lives.trees import Tree

#: One thing that the application does to a file, and the path; with a second path for a rename.
Act = tuple[str, ...]
_AGENTS = ("/ota/", "/boot.py", "/main.py", "/ota.json", "/ota.key1", "/boot_user.py")
_STATE = "/.ota/state"


@dataclass
class Request:
    """One request and what became of it."""

    package: Package
    dropped: bool = False
    """Withdrawn, or replaced by another one."""
    installed: bool = False
    """Its package was seen in place."""
    kept: bool = False
    """It was still there when the transaction ended."""
    back: bool = False
    """The old tree was seen again after it."""
    lost: set[str] = field(default_factory=set)
    """Old files that the bad code has destroyed for good."""
    not_whole: bool = False
    boots: int = 0
    """Boots of its trial that neither a deep sleep nor a soft reset explains, at most."""
    deaf_boots: int = 0
    """Boots of its trial in which the control channel failed."""
    faults: int = 0
    """What may have spoilt an attempt."""
    in_the_way: bool = False
    """The application was at its paths, or its log fills the flash."""


class Model:
    """Watches one node; `wrong` is empty as long as nothing was."""

    def __init__(self, life: Life, files: dict[str, bytes], folders: list[str]) -> None:
        self.life = life
        self.wrong: list[str] = []
        self.requests: dict[str, Request] = {}
        self.ends: Counter[str] = Counter()
        self._olds = [trees.of_flash(files, folders)]
        self._trial: Request | None = None
        self._old: Tree = {}
        self._new: Tree = {}
        self._nows: list[Tree] = []

    # -- requests --------------------------------------------------------------------------------

    def ask(self, package: Package) -> None:
        """The platform wants this one."""
        self.requests[package.fuid] = Request(package)

    def drop(self, fuid: str) -> None:
        """The platform does not want it any more."""
        self.requests[fuid].dropped = True

    def spoil(self, fuid: str | None) -> None:
        """Something went wrong while this request stood."""
        if fuid in self.requests:
            self.requests[fuid].faults += 1

    def block(self, fuid: str | None) -> None:
        """The application is in the way of this request's package."""
        if fuid in self.requests:
            self.requests[fuid].in_the_way = True

    # -- the node --------------------------------------------------------------------------------

    @property
    def in_trial(self) -> Request | None:
        """The request whose package runs and is not trusted yet."""
        return self._trial

    def boots(self, cause: str, deaf: bool, files: dict[str, bytes], folders: list[str]) -> None:
        """A boot begins, with this on flash."""
        if _STATE not in files:
            return
        tree = trees.of_flash(files, folders)
        for request in [self._trial] if self._trial else self._waiting():
            if self._trial or any(trees.apply(old, request.package) == tree for old in self._olds):
                request.boots += cause not in ("deepsleep", "soft")
                request.deaf_boots += deaf

    def look(self, moment: str, files: dict[str, bytes], folders: list[str]) -> Tree:
        """The application runs, and this is on flash. Returns the tree."""
        tree = trees.of_flash(files, folders)
        is_open = _STATE in files
        if not self.wrong:
            fault = self._follow(tree, is_open)
            if fault:
                self.wrong.append(f"mixed tree {moment}: {fault}")
        for request in self._waiting():
            request.in_the_way |= trees.apply(tree, request.package) is None
            request.in_the_way |= trees.LOG in files
        return tree

    def _follow(self, tree: Tree, is_open: bool) -> str | None:
        """Which of the trees that may be there this is; or in what it differs."""
        if self._trial:
            if tree not in self._nows:
                # Confirmed, and in the same boot the next one was installed; or rolled back.
                if self._follow_install(tree, self._nows):
                    return None
                return self._follow_back(tree)
            self._nows = [tree]
            if not is_open:
                self._trial.kept = True
                self._olds, self._trial = [tree], None
            return None
        if tree in self._olds:
            self._olds = [tree]
            return None
        if self._follow_install(tree, self._olds):
            return self._follow(tree, is_open)
        for request in self.requests.values():
            if any(trees.apply(old, request.package) == tree for old in self._olds):
                return f"{request.package.fuid} once more, which has had its end"
        return trees.difference(tree, {f"old {n}": old for n, old in enumerate(self._olds)})

    def _waiting(self) -> list[Request]:
        return [r for r in self.requests.values() if not (r.kept or r.back or r is self._trial)]

    def _follow_install(self, tree: Tree, olds: list[Tree]) -> bool:
        """Whether this is what a package that waits makes of one of these trees."""
        for request in self._waiting():
            # The latest first: what the application did to a path of the package shows only then.
            for old in reversed(olds):
                new = trees.apply(old, request.package)
                if new == tree:
                    if self._trial:
                        self._trial.kept = True
                    request.installed = True
                    self._trial, self._old, self._new = request, old, new
                    self._nows = [tree]
                    return True
        return False

    def _follow_back(self, tree: Tree) -> str | None:
        request = self._trial
        backs = [trees.rolled_back(self._old, self._new, now) for now in self._nows]
        for back in backs:
            off = trees.touched(back, tree)
            if off <= request.lost:
                request.back, request.not_whole = True, bool(off)
                self._olds, self._trial = [tree], None
                return None
        rights = {"new": self._nows[-1], "old": backs[-1]}
        return f"{request.package.fuid}: " + trees.difference(tree, rights)

    def applied(self, fuid: str, files: dict[str, bytes], folders: list[str]) -> None:
        """The platform hears e:1 of it, and this is on flash: all of it has to be there."""
        request = self.requests.get(fuid)
        if request and request.package.manner not in MISCHIEF:
            tree = trees.of_flash(files, folders)
            if trees.apply(tree, request.package) != tree:
                self.wrong.append(f"e:1 of {fuid}, which is not in place")

    # -- what applications do --------------------------------------------------------------------

    def does(self, tree: Tree, acts: list[Act]) -> None:
        """The application is told to do this; power may fail at any of it."""
        steps = [tree]
        for act in acts:
            steps += _after(steps[-1], act)
        if self._trial:
            self._nows = steps
        else:
            self._olds = steps

    def mischief(self, tree: Tree, files: dict[str, bytes]) -> list[Act]:
        """What the bad code on trial does to files, now that it runs."""
        request = self._trial
        if not request or request.package.manner not in MISCHIEF:
            return []
        manner = request.package.manner
        chance = random.Random(f"{self.life.seed} {request.package.fuid}")
        if manner == "fills flash":
            return [("fill", trees.LOG)]
        if manner == "destroys what was kept":
            return self._destroy(request, files)
        ours = sorted(trees.touched(self._old, self._new))
        mine = [p for p in ours if p.startswith("/ota/") == (manner == "removes the agent")]
        mine = [p for p in mine if manner == "removes the agent" or not p.startswith(_AGENTS)]
        most = len(mine) if manner == "removes the agent" else 4
        acts: list[Act] = []
        for path in chance.sample(mine, min(len(mine), most)):
            for act in self._do_one(manner, path, tree, chance):
                tree = [tree, *_after(tree, act)][-1]
                acts.append(act)
        return acts

    def _do_one(self, manner: str, path: str, tree: Tree, chance: random.Random) -> list[Act]:
        """One piece of mischief at a path that the package has changed."""
        there, folder_is_there = trees.is_file(tree, path), trees.is_folder(tree, path)
        if manner in ("removes files", "removes the agent"):
            return [("remove", path)] if there else []
        if manner == "renames files":
            if there and path + ".moved" not in tree:
                return [("rename", path, path + ".moved")]
            return []
        up = path[: path.rfind("/")]
        if chance.random() < 0.3 and up:
            path, there, folder_is_there = up, False, trees.is_folder(tree, up)
        if there:  # a folder in the place of a file
            inside = chance.choice(([], [("write", path + "/inside.txt")]))
            return [("remove", path), ("mkdir", path), *inside]
        if folder_is_there:  # a file in the place of a folder, of which all will come back
            below = sorted(p for p in tree if p.startswith(path + "/"))
            if path in self._old and not self._comes_back(path):
                return []
            acts: list[Act] = [
                ("rmdir" if trees.is_folder(tree, p) else "remove", p) for p in reversed(below)
            ]
            return [*acts, ("rmdir", path), ("write", path)]
        if path not in tree and (not up or trees.is_folder(tree, up)):  # one that it has deleted
            return [("mkdir", path)]
        return []

    def _comes_back(self, folder: str) -> bool:
        """Whether the package changes each file in this folder of the old tree."""
        below = [p for p in self._old if p.startswith(folder + "/")]
        files = [p for p in below if trees.is_file(self._old, p)]
        folders = [folder, *(p for p in below if trees.is_folder(self._old, p))]
        ours = trees.touched(self._old, self._new)
        return all(p in ours for p in files) and all(
            any(p.startswith(f + "/") for p in files) for f in folders
        )

    def _destroy(self, request: Request, files: dict[str, bytes]) -> list[Act]:
        spared = {c for p, c in self._old.items() if p.startswith(_AGENTS)}
        acts: list[Act] = []
        for path, content in files.items():
            if path.startswith("/.ota/") and path.endswith("~") and content not in spared:
                acts.append(("remove", path))
                request.lost |= {p for p, old in self._old.items() if old == content}
        return acts

    def disturbance(self, fuid: str, tree: Tree, how: str, chance: random.Random) -> list[Act]:
        """What the trusted application does at a path of the package that is being staged."""
        request = self.requests[fuid]
        new = trees.apply(tree, request.package)
        if self._trial or new is None:
            return []
        # What it brings unchanged is compared while it comes, and then nobody's business any more.
        ours = trees.touched(tree, new)
        paths = [path for name in request.package.tree if (path := "/" + name) in ours]
        paths = [p for p in paths if not p.startswith(_AGENTS) and "/ota" not in p]
        folders = sorted(p for p in new if trees.is_folder(new, p) and p not in tree)
        chance.shuffle(paths)
        for path in folders if how in ("block", "new folder") else paths:
            up = path[: path.rfind("/")]
            if how in ("write", "remove") and not up:
                continue  # of a file in the root the copy was made before (docs/limits.md)
            there = trees.is_file(tree, path)
            free = path not in tree and (not up or trees.is_folder(tree, up))
            if how == "new folder" and free:
                # Not an empty one: that goes with the roll back, as if the package had brought it.
                return [("mkdir", path), ("write", path + "/by the application")]
            if how in ("block", "make") and free:
                return [("write", path)]
            if how == "folder" and (there or free):
                return [("remove", path)] * there + [("mkdir", path)]
            if how in ("remove", "write") and there:
                return [(how, path)]
        return []

    # -- the end ---------------------------------------------------------------------------------

    def judge(self, reports: list[bytes]) -> None:
        """All is over: each request has had its end, and no other."""
        heard: dict[str, list[tuple[int, str]]] = {}
        for payload in reports:
            pack = {e["n"]: e.get("v", e.get("vs")) for e in json.loads(payload)}
            end = (pack["e"], pack.get("m", ""))
            ends = heard.setdefault(pack["i"], [])
            if end not in ends:
                ends.append(end)
        for fuid in heard.keys() - self.requests.keys():
            self.wrong.append(f"report of {fuid}, which nobody asked for")
        for fuid, request in self.requests.items():
            events = tuple(e for e, _ in heard.get(fuid, []))
            reason = heard[fuid][-1][1] if events else ""
            name, fault = self._end(request, events, reason)
            self.ends[name] += 1
            if fault:
                told = f"{request.package.manner}, {events}, {reason!r}"
                self.wrong.append(f"{fault}: {fuid} ({told})")

    def _end(self, request: Request, events: tuple[int, ...], reason: str) -> tuple[str, str]:
        """The name of an end, and what is wrong with it."""
        manner = request.package.manner
        undone = reason.startswith("rolled back")
        if not events:
            if request.installed:
                return "none", "installed, but no end was heard"
            return "none", "" if request.dropped else "no end was heard"
        if events == (1,):
            if request.back:
                return "applied", "applied, but the old tree came back"
            if manner in (*BAD, *REFUSED):
                return "applied", "applied, though it is bad"
            return "applied", ""
        if events == (1, 2) and self.life.config["report"] == "confirmed":
            return "two ends", "e:1 before it was confirmed"
        if events not in ((2,), (1, 2)) or (events == (1, 2) and not undone):
            return "two ends", "more than one end"
        if not reason:
            return "refused", "no reason"
        if request.kept:
            return "refused", "e:2, but the new tree is kept"
        if request.installed and not undone:
            return "refused", "another reason, though it ran"
        if undone:
            return "rolled back", self._fault_of_undoing(request, reason)
        spoilt = request.in_the_way or request.faults >= self.life.config["max_attempts"]
        return "refused", "" if spoilt or manner != "good" else "a good package refused"

    def _fault_of_undoing(self, request: Request, reason: str) -> str:
        config = self.life.config
        if ("not whole" in reason) != request.not_whole:
            return "not whole, or so it says"
        limits = {"boots": config["trial_boots"], "wakes": config["trial_wakes"]}
        limit = re.search(r"(\d+) (boots|wakes) without", reason)
        if limit and int(limit[1]) != limits[limit[2]]:
            return "another limit than configured"
        if request.package.manner in REFUSED:
            return "damaged, but it ran"
        few = request.boots <= limits["boots"] and request.deaf_boots <= limits["wakes"]
        return "a good package rolled back" if few and request.package.manner == "good" else ""


def _after(tree: Tree, act: Act) -> list[Tree]:
    """The trees that an act passes through, the last one when it is done."""
    what, path, *more = act
    if path.startswith("/.ota/") or what == "fill" or path == trees.LOG:
        return []
    new = dict(tree)
    if what in ("remove", "rmdir"):
        new.pop(path, None)
    elif what == "mkdir":
        new[path] = None
    elif what == "rename":
        new[more[0]] = new.pop(path)
    else:
        return [{**tree, path: b""}, {**tree, path: b"by the application"}]
    return [new]


_CODE = {
    "remove": "os.remove(%r)",
    "rmdir": "os.rmdir(%r)",
    "mkdir": "os.mkdir(%r)",
    "rename": "os.rename(%r, %r)",
    "write": "with open(%r, 'w') as f: f.write('by the application')",
    "fill": "for size in (4096, 512, 64):\n  try:\n   while True:\n    with open(%r, 'ab') as f: "
    "f.write(bytes(size))\n  except OSError: pass",
}


def code(acts: list[Act]) -> str:
    """The acts as the node runs them; one that fails leaves the others alone."""
    return "".join(f"try:\n {_CODE[a[0]] % a[1:]}\nexcept OSError: pass\n" for a in acts)
