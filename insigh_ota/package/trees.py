"""A project as `links` walks it: a folder on disk, or a commit."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from insigh_ota.package.errors import PackageError
from insigh_ota.package.git import Repository
from insigh_ota.package.links import FILE, FOLDER, LINK, OTHER, SUBMODULE, MissingError

_KINDS = {"100644": FILE, "100755": FILE, "120000": LINK, "160000": SUBMODULE, "040000": FOLDER}


def project_of(folder: Path) -> Path:
    """The root of the repository that a folder belongs to, or the folder itself."""
    folder = folder.resolve()
    return next((each for each in (folder, *folder.parents) if (each / ".git").exists()), folder)


class FolderTree:
    """A folder on disk. Links that git keeps as text (core.symlinks=false) are links as well."""

    def __init__(self, root: Path) -> None:
        self.title = str(root)
        self._root = root
        self._recorded: dict[str, str] = {}  # place of a submodule: its commit
        self._as_text: dict[str, str] = {}  # place of a link that git has: its target
        self._text_only: set[str] = set()  # roots of repositories with core.symlinks=false
        self._entered: dict[str, str] = {}
        if (root / ".git").exists():
            self._read_index("")

    def kind(self, place: str) -> str | None:
        try:
            mode = (self._root / place).lstat().st_mode
        except (OSError, ValueError):  # the text of a link may be anything
            return SUBMODULE if place in self._recorded and place not in self._entered else None
        if stat.S_ISLNK(mode) or (stat.S_ISREG(mode) and self._is_text(place)):
            return LINK
        if stat.S_ISDIR(mode):
            open_now = place in self._entered or place not in self._recorded
            return FOLDER if open_now else SUBMODULE
        return FILE if stat.S_ISREG(mode) else OTHER

    def names(self, place: str) -> Iterable[str]:
        try:
            found = set(os.listdir(self._root / place))  # noqa: PTH208 (names as they are)
        except OSError as error:
            raise PackageError(f"{place or '.'} can not be read: {error.strerror}") from error
        below = place + "/" if place else ""
        for each in self._recorded:
            folder, _, name = each.rpartition("/")
            if each.startswith(below) and folder == place:
                found.add(name)
        return found

    def target(self, place: str) -> str:
        path = self._root / place
        return str(path.readlink()) if path.is_symlink() else os.fsdecode(path.read_bytes())

    def inside(self, target: str) -> str | None:
        try:
            found = Path(target).relative_to(self._root).as_posix()
        except ValueError:
            return None
        return "" if found == "." else found

    def enter(self, place: str) -> None:
        folder, recorded = self._root / place, self._recorded[place]
        there = set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208
        if not there - {".git"}:
            parent = _innermost(self._entered, place)
            inside = f" -C {parent}" if parent else ""
            # git takes one that has its commit, but no files, for checked out.
            force = "--force " if there else ""
            inner = place[len(parent) :].lstrip("/")
            command = f"git{inside} submodule update --init {force}{inner}"
            raise MissingError(_not_checked_out(place, command, self.title))
        self._entered[place] = "submodule"
        if ".git" not in there:
            self._entered[place] = "submodule, not from git"
            return
        now = Repository(folder, inner=True).line(
            "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"
        )
        if now:
            moved = not recorded.startswith(now.removesuffix("-dirty"))
            known = f", recorded is {recorded[:7]}" if moved else ""
            self._entered[place] = f"submodule at {now}{known}"
        self._read_index(place)

    def origin(self, place: str) -> str:
        return self._entered.get(_innermost(self._entered, place), "")

    def _is_text(self, place: str) -> bool:
        if place not in self._as_text:
            return False
        content = os.fsdecode((self._root / place).read_bytes())
        return content == self._as_text[place] or any(
            not root or place.startswith(root + "/") for root in self._text_only
        )

    def _read_index(self, top: str) -> None:
        """Note the links and submodules that the repository at `top` knows."""
        folder = self._root / top
        repository = Repository(folder, inner=bool(top))
        try:
            rows = repository.ask("ls-files", "--stage", "-z").split(b"\0")[:-1]
        except PackageError:
            if (folder / ".gitmodules").exists():
                raise
            return  # no submodules: what git thinks of this folder does not matter
        below, links = top + "/" if top else "", {}
        for row in rows:
            head, _, name = row.partition(b"\t")
            mode, oid, _ = head.decode().split()
            if mode == "160000":
                self._recorded[below + os.fsdecode(name)] = oid
            elif mode == "120000":
                links[below + os.fsdecode(name)] = oid
        plain = {place: oid for place, oid in links.items() if not self._is_link(place)}
        targets = map(os.fsdecode, repository.contents(list(plain.values())))
        self._as_text.update(zip(plain, targets, strict=True))
        if plain and repository.line("config", "--type=bool", "core.symlinks") == "false":
            self._text_only.add(top)

    def _is_link(self, place: str) -> bool:
        return (self._root / place).is_symlink()


@dataclass(frozen=True)
class Entry:
    """A file of a commit, and who has its content."""

    kind: str
    mode: str
    oid: str
    repository: Repository


@dataclass
class _Mounted:
    """A repository whose files are part of a tree, from a place on."""

    place: str
    work: Path | None
    git_folders: list[Path]


class CommitTree:
    """The files of a commit, with those of the submodules' commits that it records."""

    def __init__(self, top: Repository, work: Path | None, name: str) -> None:
        self.title = str(work or top.folder)
        self.name = name
        self.entries: dict[str, Entry] = {}
        self._children: dict[str, list[str]] = {"": []}
        self._targets: dict[str, str] = {}
        self._entered: dict[str, str] = {}
        self._top = top
        self._mounted = [_Mounted("", work, top.git_folders())]
        self._read(top, top.commit(name), "")

    def kind(self, place: str) -> str | None:
        if place in self._children:
            return FOLDER
        return self.entries[place].kind if place in self.entries else None

    def names(self, place: str) -> Iterable[str]:
        return self._children[place]

    def target(self, place: str) -> str:
        return self._targets[place]

    def inside(self, target: str) -> str | None:
        return None  # a path of one machine means nothing in a commit

    def origin(self, place: str) -> str:
        return self._entered.get(_innermost(self._entered, place), "")

    def enter(self, place: str) -> None:
        commit = self.entries[place].oid
        parent = max(
            (m for m in self._mounted if not m.place or place.startswith(m.place + "/")),
            key=lambda m: len(m.place),
        )
        here = place[len(parent.place) :].lstrip("/")
        work = parent.work / here if parent.work else None
        found = []
        if work and (work / ".git").exists():
            found.append(Repository(work, inner=True))
        # Under which name git keeps one may have changed since; a commit is the same anywhere.
        for folder in parent.git_folders:
            kept = _git_folders(folder / "modules")
            found += [Repository(each, bare=True, inner=True) for each in kept]
        repository = next((each for each in found if each.has(commit)), None)
        if repository is None:
            raise MissingError(self._what_to_run(place, commit))
        work = work if work and (work / ".git").exists() else None
        self._mounted.append(_Mounted(place, work, repository.git_folders()))
        self._entered[place] = f"submodule at {commit[:7]}"
        self._read(repository, commit, place)

    def _read(self, repository: Repository, commit: str, place: str) -> None:
        """Take up all files of a commit, from a place on."""
        below, links = place + "/" if place else "", {}
        self._children[place] = []
        rows = repository.ask("ls-tree", "-r", "-t", "-z", "--full-tree", commit).split(b"\0")
        for row in rows[:-1]:
            head, _, raw = row.partition(b"\t")
            mode, _, oid = head.decode().split()
            path = below + os.fsdecode(raw)
            folder, _, name = path.rpartition("/")
            self._children[folder].append(name)
            kind = _KINDS.get(mode, OTHER)
            if kind == FOLDER:
                self._children[path] = []
                continue
            self.entries[path] = Entry(kind, mode, oid, repository)
            if kind == LINK:
                links[path] = oid
        targets = map(os.fsdecode, repository.contents(list(links.values())))
        self._targets.update(zip(links, targets, strict=True))

    def _what_to_run(self, place: str, commit: str) -> str:
        work = self._mounted[0].work
        if work is None:
            return (
                f"submodule {place} is not in the bare repository {self.title}: package a clone "
                f"of it, after git submodule update --init {place}"
            )
        if (work / place / ".git").exists():
            return (
                f"submodule {place} does not have the commit {commit[:7]} of {self.name}: "
                f"git submodule update --init {place}, or git -C {place} fetch origin {commit} "
                f"(in {self.title})"
            )
        around = [each for each in self._entered if place.startswith(each + "/")]
        outermost = min(around, key=len, default="")
        words = f"--recursive {outermost}" if outermost else place
        command = f"git submodule update --init {words}"
        line = _not_checked_out(place, command, self.title)
        recorded = self._top.line("ls-files", "--stage", "--", f":/{outermost or place}")
        if not (recorded or "").startswith("160000"):
            line += f", with {self.name} checked out"
        return line


def _not_checked_out(place: str, command: str, title: str) -> str:
    return f"submodule {place} is not checked out: {command} (in {title})"


def _git_folders(folder: Path) -> list[Path]:
    """All git directories below a folder, but not those in one of them."""
    if (folder / "HEAD").exists() and (folder / "objects").is_dir():
        return [folder]
    inner = sorted(folder.iterdir()) if folder.is_dir() else []
    return [found for each in inner for found in _git_folders(each)]


def _innermost(entered: dict[str, str], place: str) -> str:
    """The submodule that a place is in; empty when it is in none."""
    found = [each for each in entered if place == each or place.startswith(each + "/")]
    return max(found, key=len, default="")
