"""Where files come from: a folder as it is, a commit of a project, or what changed between two."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from insigh_ota.package import paths
from insigh_ota.package.errors import PackageError
from insigh_ota.package.git import Repository
from insigh_ota.package.links import Harvest, find, walk
from insigh_ota.package.trees import CommitTree, Entry, FolderTree, project_of


@dataclass
class Selection:
    """What a package is to bring, by path, and the paths that are to go."""

    files: dict[str, bytes] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    of_macos: int = 0
    """How many files of macOS have been left out."""
    taken: list[str] = field(default_factory=list)
    """What stands behind links and submodules, a line each."""


def from_folder(folder: Path, exclude: list[str]) -> Selection:
    """All files below a folder. Links are followed inside of the project that it belongs to.

    Raises PackageError for links and submodules that can not be followed.
    """
    if not folder.is_dir():
        raise PackageError(f"{folder} is no folder")
    root = project_of(folder)
    place = folder.resolve().relative_to(root).as_posix()
    harvest = walk(FolderTree(root), "" if place == "." else place, exclude)
    _check_names(harvest.files, harvest.files)
    selection = Selection(of_macos=len(harvest.of_macos))
    for name, place in harvest.files.items():
        selection.files[name] = (root / place).read_bytes()
    selection.taken = [f"{name} <- {origin}" for name, origin in harvest.taken.items()]
    return selection


def from_git(folder: Path, span: str, exclude: list[str]) -> Selection:
    """What changed below a folder of a git project from `A` to `B`, span being `A..B`.

    Changed and new files are brought, removed ones deleted, renamed ones both. A span that is one
    revision stands for all its files. Links are followed inside of the project, and submodules
    to the commit that each revision records.

    Raises PackageError for links and submodules of B that can not be followed; a link of A that
    leads nowhere is taken as not there.
    """
    old, dots, new = span.partition("..")
    if not old or new.startswith("."):
        raise PackageError(f"{span!r} is no span of commits: write A..B, such as v1.0..v1.1")
    top, work, place = _project(folder, old)
    trees = [CommitTree(top, work, each) for each in ((old, new or "HEAD") if dots else (old,))]
    places = [find(tree, place) for tree in trees]
    if places[-1] is None and places[0] is None:
        raise PackageError(f"{folder} is no folder in {' or '.join(tree.name for tree in trees)}")
    before = Harvest()
    if dots and places[0] is not None:
        before = walk(trees[0], places[0], exclude, passing=True)
    now = Harvest() if places[-1] is None else walk(trees[-1], places[-1], exclude)
    was, files = _entries(trees[0], before.files), _entries(trees[-1], now.files)
    changed = {name: entry for name, entry in files.items() if _differs(was.get(name), entry)}
    selection = Selection(deleted=set(was) - set(files))
    _check_names(changed, files)
    for name in selection.deleted:
        paths.check(name)
    selection.files = _contents(changed)
    of_macos = [_entries(trees[0], before.of_macos), _entries(trees[-1], now.of_macos)]
    for name in of_macos[0] | of_macos[1]:
        selection.of_macos += _differs(of_macos[0].get(name), of_macos[1].get(name))
    for name, origin in now.taken.items():
        if any(each == name or each.startswith(name + "/") for each in changed):
            past = before.taken.get(name, origin)
            selection.taken.append(f"{name} <- {origin}" + (past != origin) * f", was {past}")
    selection.taken += [f"taken as not there in {old}: {line}" for line in before.lost]
    return selection


def from_release(folder: Path, name: str, exclude: list[str]) -> Selection:
    """All files below a folder at an earlier commit; nothing where there was no such folder.

    A link that leads nowhere is taken as not there, as for the A of A..B.
    """
    top, work, place = _project(folder, name)
    tree = CommitTree(top, work, name)
    found = find(tree, place)
    if found is None:
        return Selection()
    harvest = walk(tree, found, exclude, passing=True)
    lost = [f"taken as not there: {line}" for line in harvest.lost]
    return Selection(_contents(_entries(tree, harvest.files)), taken=lost)


def tags(folder: Path, first: str, last: str) -> list[tuple[str, str]]:
    """(name, commit) of the releases of the folder's project from one on; see Repository.tags."""
    return _project(folder, first)[0].tags(first, last)


def commit(folder: Path, name: str) -> str:
    """The commit of the folder's project that a name stands for."""
    return _project(folder, name)[0].commit(name)


def _project(folder: Path, name: str) -> tuple[Repository, Path | None, str]:
    """The repository that a folder belongs to, its work tree if any, and the folder's place.

    The folder itself may be gone from the work tree, or never have been there.
    """
    there = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
    rest = folder.absolute().relative_to(there.absolute())
    repository = Repository(there)
    top = repository.line("rev-parse", "--show-toplevel")
    if top:
        base, work = Path(top), Path(top)
    else:
        git = repository.line("rev-parse", "--absolute-git-dir")
        if git is None:
            repository.commit(name)  # which tells why
            raise PackageError(f"{folder} is in no git project")
        base, work = Path(git), None
    place = (there.resolve() / rest).relative_to(base.resolve()).as_posix()
    return repository, work, "" if place == "." else place


def _entries(tree: CommitTree, files: dict[str, str]) -> dict[str, Entry]:
    return {name: tree.entries[place] for name, place in files.items()}


def _differs(old: Entry | None, new: Entry | None) -> bool:
    return old is None or new is None or (old.mode, old.oid) != (new.mode, new.oid)


def _contents(files: dict[str, Entry]) -> dict[str, bytes]:
    """Content of each file, asked of each repository at once."""
    found: dict[str, bytes] = {}
    for repository in dict.fromkeys(entry.repository for entry in files.values()):
        names = [name for name, entry in files.items() if entry.repository == repository]
        contents = repository.contents([files[name].oid for name in names])
        found.update(zip(names, contents, strict=True))
    return found


def _check_names(brought: Iterable[str], everything: Iterable[str]) -> None:
    """Raise PackageError for names that no node takes, or that not every computer tells apart."""
    spelled: dict[str, set[str]] = {}
    for name in everything:
        for at in [i for i, c in enumerate(name) if c == "/"] + [len(name)]:
            spelled.setdefault(_folded(name[:at]), set()).add(name[:at])
    for name in brought:
        paths.check(name)
        for at in [i for i, c in enumerate(name) if c == "/"] + [len(name)]:
            others = spelled[_folded(name[:at])] - {name[:at]}
            if others:
                raise PackageError(
                    f"{name[:at]} and {min(others)} are one name where upper and lower case are "
                    "the same: --exclude one of them"
                )


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
