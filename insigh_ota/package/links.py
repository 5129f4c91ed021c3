"""The files below a folder of a project, with its symbolic links and submodules followed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from insigh_ota.package import paths
from insigh_ota.package.errors import PackageError

FILE, FOLDER, LINK, SUBMODULE, OTHER = "file", "folder", "link", "submodule", "other"
#: Never part of a node, wherever they turn up.
LITTER = ["__pycache__", "*.pyc", ".git"]
#: As many as Linux follows for one name.
_MOST_LINKS = 40


class Tree(Protocol):
    """A project: a folder on disk or a commit. Places are paths from its root, which is ``""``."""

    title: str
    """The project, for messages."""

    def kind(self, place: str) -> str | None:
        """FILE, FOLDER, LINK, SUBMODULE or OTHER; None for nothing."""

    def names(self, place: str) -> Iterable[str]:
        """What stands in a folder."""

    def target(self, place: str) -> str:
        """Where a link leads, as it is written."""

    def inside(self, target: str) -> str | None:
        """The place of an absolute path; None when it is not in the project."""

    def enter(self, place: str) -> None:
        """Make a submodule's files known. MissingError when they are not on this machine."""

    def origin(self, place: str) -> str:
        """The submodule that a place is in, in words; empty when it is in none."""


class LinkError(PackageError):
    """A link that can not be followed."""


class MissingError(PackageError):
    """A submodule whose files are not on this machine."""


@dataclass
class Harvest:
    """What `walk` finds. Names are paths in the package."""

    files: dict[str, str] = field(default_factory=dict)
    """The place of each file."""
    taken: dict[str, str] = field(default_factory=dict)
    """Where each link, and each submodule, has led, in words."""
    of_macos: dict[str, str] = field(default_factory=dict)
    """The place of each file of macOS; they are left out."""
    lost: list[str] = field(default_factory=list)
    """What is wrong with the links that were passed over."""

    def forget(self, name: str) -> None:
        """Drop a name, and all below it."""
        for kept in (self.files, self.taken, self.of_macos):
            for each in [n for n in kept if n == name or n.startswith(name + "/")]:
                del kept[each]


def find(tree: Tree, place: str) -> str | None:
    """The folder that is meant by a place, when there are links on the way; None for no folder."""
    try:
        end = _resolve(tree, place)
    except LinkError:
        return None
    return end if tree.kind(end) == FOLDER else None


def walk(tree: Tree, place: str, exclude: list[str], *, passing: bool = False) -> Harvest:
    """All files below a folder; place: as `find` gives it.

    passing: a link that leads nowhere is passed over. PackageError for links and submodules that
    can not be followed, and for what is neither file nor folder.
    """
    harvest = Harvest()
    _Walker(tree, LITTER + exclude, harvest, passing).folder("", place, ())
    return harvest


@dataclass
class _Walker:
    tree: Tree
    left_out: list[str]
    harvest: Harvest
    passing: bool

    def folder(self, name: str, place: str, above: tuple[str, ...]) -> None:
        """A folder; above: the places of those that are open."""
        if place in above:
            raise LinkError(f"it leads back to {place or 'the root of the project'}: a loop")
        for each in sorted(self.tree.names(place)):
            inner = _join(name, each)
            if not paths.matches(inner, self.left_out):
                self._one(inner, _join(place, each), (*above, place))

    def _one(self, name: str, place: str, above: tuple[str, ...]) -> None:
        harvest, kind = self.harvest, self.tree.kind(place)
        if paths.of_macos(name):
            if kind == FOLDER:
                self.folder(name, place, above)
            else:
                harvest.of_macos[name] = place
            return
        if kind not in (LINK, SUBMODULE):
            self._take(name, place, kind, above)
            return
        try:
            end = _resolve(self.tree, place)
            origin = self.tree.origin(end)
            harvest.taken[name] = f"{end or '.'}{origin and f' ({origin})'}"
            self._take(name, end, self.tree.kind(end), above)
        except MissingError as error:
            raise PackageError(f"{name}: {error}") from error
        except LinkError as error:
            shown = f" -> {self.tree.target(place)}" if kind == LINK else ""
            line = f"{name} ({place}{shown}): {error}"
            if not self.passing:
                raise PackageError(f"{line}: --exclude {name}") from error
            harvest.forget(name)
            harvest.lost.append(line)

    def _take(self, name: str, place: str, kind: str | None, above: tuple[str, ...]) -> None:
        if kind == FOLDER:
            self.folder(name, place, above)
        elif kind == FILE:
            self.harvest.files[name] = place
        else:
            raise PackageError(f"{name} is neither file nor folder: --exclude {name}")


def _resolve(tree: Tree, place: str) -> str:
    """The place that is meant, without a link on the way to it or at its end.

    Raises LinkError for a link that leads nowhere, out of the project, or round in a circle.
    """
    todo, at, followed = _parts(place), [], 0
    while todo:
        part = todo.pop()
        if part == "..":
            if not at:
                raise LinkError(f"it leads out of the project {tree.title}")
            at.pop()
            continue
        at.append(part)
        here = "/".join(at)
        kind = tree.kind(here)
        if kind == SUBMODULE:
            tree.enter(here)
        elif kind == LINK:
            followed += 1
            if followed > _MOST_LINKS:
                raise LinkError("a loop of links")
            target = tree.target(here)
            at.pop()
            if target.startswith("/"):
                found = tree.inside(target)
                if found is None:
                    raise LinkError(f"it leads out of the project {tree.title}")
                at, target = [], found or "."
            if not target:
                raise LinkError("a broken link")
            todo += _parts(target)
        elif kind is None or (todo and kind != FOLDER):
            raise LinkError("a broken link")
    return "/".join(at)


def _parts(path: str) -> list[str]:
    """The steps of a path, the last first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
