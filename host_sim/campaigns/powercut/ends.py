"""The oracle for mishaps: which trees and reports are a right end, and which may run meanwhile.

As the judge it reads raw images and shares no code with the agent. What it knows beyond the two
trees is who changed what: a path of the package, or one beside it, and which old content is gone
for good.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from host_sim.campaigns.powercut.judge import Judge

FOLDER = "folder"
OWN = "/.ota"
#: Content of every file, FOLDER for every folder, by path.
Node = dict[str, bytes | str]

_NOT_WHOLE = b"rolled back, but not whole: "
_REASONS = (b"can not apply", b"not enough space", b"rolled back", b"refused")


def is_own(path: str) -> bool:
    """Whether it is the agent's: in /.ota, or that itself."""
    return path == OWN or path.startswith(OWN + "/")


def node_tree(files: dict[str, bytes], folders: set[str]) -> Node:
    """Both in one."""
    return {**files, **dict.fromkeys(folders, FOLDER)}


class Ends:
    """The right ends of one mishap.

    `base` and `author`: flash before and after it; `stage`: of the update at that moment; `path`:
    where the mishap is; `by_code`: it may happen again, or never; `loose`: it may also have
    happened by half; `fills`: files that begin with /log do not count; `inside`: it is in /.ota;
    `bit`: it is a single bit, of files that are there twice; then the reason of a roll back begins
    with `usual`, as without it ("": there is none; None: power fails as well).
    """

    def __init__(
        self,
        judge: Judge,
        base: Node,
        author: Node,
        *,
        stage: str,
        path: str,
        by_code: bool = False,
        loose: bool = False,
        fills: bool = False,
        inside: bool = False,
        bit: bool = False,
        usual: str | None = None,
    ) -> None:
        self._judge = judge
        self._old, self._new = (node_tree(*judge.tree(name)) for name in ("old", "new"))
        self._author = author
        self._base = base
        self._stage, self._path = stage, path
        self._by_code, self._loose, self._fills, self._inside = by_code, loose, fills, inside
        self._bit, self._usual = bit, usual
        self._changed = {p for p in {*base, *author} if base.get(p) != author.get(p)}
        self._touched = {
            p for p in {*self._old, *self._new} if self._old.get(p) != self._new.get(p)
        }

    def which(self, image: bytes) -> str:
        """ "old" or "new" when an application may run on this; else in words what is wrong."""
        tree = self.read(image)
        if isinstance(tree, str):
            return tree
        always = lambda _path: True  # noqa: E731
        old = self._differences(tree, self._old, always, self._loose or self._by_code)
        if not old:
            return "old"
        new = self._differences(tree, self._new, always, self._loose or self._by_code)
        return "new" if not new else "mixed tree" + _both(old, new)

    def read(self, image: bytes) -> Node | str:
        """The tree of an image; a text when it does not mount."""
        return self._judge.everything(image)

    def judge(self, image: bytes, reports: list[bytes], fuid: str) -> tuple[list[str], bool]:
        """(what is wrong with the end, whether it is an honest "not whole")."""
        tree = self.read(image)
        if isinstance(tree, str):
            return [tree], False
        if not reports:
            return ["no report"], False
        last = reports[-1]
        head = b'[{"n":"e","v":%%d},{"n":"i","vs":"%s"}' % fuid.encode()
        if last.startswith(head % 1):
            new = self._differences(tree, self._new, self._stays_in_new, self._loose)
            if self._stage == "back":
                return ["no report: of the roll back"], False
            label = "mixed tree with e:1"
            if all(
                path in self._changed and self._base.get(path) == self._new.get(path)
                for path in new
            ):
                label = "changed with e:1 after it had moved in"
            elif not self._differences(tree, self._old, self._stays_in_old, self._loose):
                label = "old tree with e:1"  # and no report of the roll back
            return [label + _both([], new)] if new else [], False
        if not last.startswith(head % 2):
            return [f"unexpected report: {last!r}"], False
        text = last.partition(b'{"n":"m","vs":"')[2]
        if text.startswith(_NOT_WHOLE):
            return [] if self._excused() else [f"not whole without need: {last!r}"], True
        if not text.startswith(_REASONS) or (self._bit and b"damaged" in text):
            return [f"unexpected reason: {last!r}"], False
        spoilt = self._usual == "" or not text.startswith((self._usual or "").encode())
        if self._bit and spoilt:
            return [f"a flipped bit costs a good update: {last!r}"], False
        lost = self._lost_of_application(tree)
        if lost:
            return ["the application lost what it made" + _both(lost, [])], False
        old = self._differences(tree, self._old, self._stays_in_old, self._loose)
        if not old:
            return [], False
        new = self._differences(tree, self._new, lambda _path: True, True)
        label = "mixed tree with e:2" if new else "new tree with e:2"
        return [label + _both(old, [])], False

    def _stays_in_old(self, path: str) -> bool:
        """Whether the old tree may end with what the mishap left here."""
        if path not in self._touched:
            return True
        # The old application's own, or nobody's: the install had not begun with it.
        early = self._stage in ("staging", "commit", "closed")
        return early and self._base.get(path) == self._old.get(path)

    def _stays_in_new(self, path: str) -> bool:
        return path not in self._touched or self._stage in ("trial", "closed")

    def _lost_of_application(self, found: Node) -> list[str]:
        """What the old application made before the install, where a package brings something."""
        if self._stage not in ("staging", "commit") or self._loose:
            return []
        made = [p for p in self._touched & self._changed if p not in self._base]
        return [p for p in made if self._author.get(p) and found.get(p) != self._author[p]]

    def _excused(self) -> bool:
        """Whether some of what the old tree needs is gone for good.

        Of what waits, or is kept, nobody can tell whether it is lost or has moved. All else in
        /.ota is there twice, or can be done without.
        """
        if self._inside:
            return re.match(OWN + r"/\d", self._path) is not None
        if self._stage == "trial" or self._fills:
            return False
        kept = {content for path, content in self._author.items() if is_own(path)}
        return any(
            isinstance(self._old.get(path), bytes)
            and self._author.get(path) != self._old[path]
            and self._old[path] not in kept
            for path in self._touched
        )

    def _differences(
        self, found: Node, wanted: Node, stays: Callable[[str], bool], loose: bool
    ) -> list[str]:
        wrong = []
        for path in {*found, *wanted, *self._author}:
            if is_own(path) or (self._fills and path.startswith("/log")):
                continue
            state = found.get(path)
            author = self._author.get(path)
            changed = path in self._changed
            if path not in self._old and path not in self._new:
                # Somebody's own: it stays, unless it is in an obstacle or was never written.
                in_the_way = (path + "/").startswith(self._path + "/")
                may_go = in_the_way or self._by_code or loose
                right = state == author or (changed and loose) or (state is None and may_go)
            else:
                right = (
                    state == wanted.get(path)
                    or (changed and stays(path) and (loose or state == author))
                    or (state == FOLDER and path not in wanted and self._holds_more(found, path))
                )
            if not right:
                wrong.append(path)
        return sorted(wrong)

    def _holds_more(self, found: Node, folder: str) -> bool:
        return any(
            path.startswith(folder + "/") and path not in self._old and path not in self._new
            for path in found
        )


def _both(old: list[str], new: list[str]) -> str:
    texts = [
        f"differs from {name} in {', '.join(map(_short, wrong[:4]))}"
        for name, wrong in (("old", old), ("new", new))
        if wrong
    ]
    return ": " + "; ".join(texts)


def _short(path: str) -> str:
    return path if len(path) < 60 else path[:40] + "…" + path[-12:]
