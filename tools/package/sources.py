"""Where files come from: a folder as it is, or what changed between two commits of a project."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tools.package import paths
from tools.package.errors import PackageError

#: Never part of a node, wherever they turn up.
_LITTER = ["__pycache__", "*.pyc", ".git"]
_REGULAR = ("100644", "100755")


@dataclass
class Selection:
    """What a package is to bring, by path, and the paths that are to go."""

    files: dict[str, bytes] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    of_macos: int = 0
    """How many files of macOS have been left out."""


def from_folder(folder: Path, exclude: list[str]) -> Selection:
    """All files below a folder."""
    if not folder.is_dir():
        raise PackageError(f"{folder} is no folder")
    selection = Selection()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if paths.matches(name, _LITTER + exclude):
            continue
        if paths.of_macos(name):
            selection.of_macos += not path.is_dir()
            continue
        if path.is_symlink():
            raise PackageError(f"{path} is a link, packages hold files only: --exclude {name}")
        if path.is_file():
            paths.check(name)
            selection.files[name] = path.read_bytes()
        elif not path.is_dir():
            raise PackageError(f"{path} is neither file nor folder: --exclude {name}")
    return selection


def from_git(project: Path, span: str, exclude: list[str]) -> Selection:
    """What changed below a folder of a git project from `A` to `B`, span being `A..B`.

    Changed and new files are brought, removed ones deleted, renamed ones both.
    """
    old, dots, new = span.partition("..")
    if not dots or not old or new.startswith("."):
        raise PackageError(f"{span!r} is no span of commits: write A..B, such as v1.0..v1.1")
    if not project.is_dir():
        raise PackageError(f"{project} is no folder")
    commits = [_commit(project, each) for each in (old, new or "HEAD")]
    raw = _git(
        project, "diff", "--raw", "-z", "--no-renames", "--no-abbrev", "--relative", *commits, "--"
    )
    selection, blobs = Selection(), {}
    fields = raw.split(b"\0")[:-1]
    for row, name in zip(fields[::2], fields[1::2], strict=True):
        _, mode, _, blob, kind = row.decode().split()
        path = name.decode(errors="surrogateescape")
        if paths.matches(path, _LITTER + exclude):
            continue
        if paths.of_macos(path):
            selection.of_macos += 1
            continue
        paths.check(path)
        if kind == "D":
            selection.deleted.add(path)
        elif mode not in _REGULAR:
            raise PackageError(f"{path} is a link or submodule: --exclude {path}")
        else:
            blobs[path] = blob
    selection.files = dict(zip(blobs, _contents(project, list(blobs.values())), strict=True))
    return selection


def _commit(project: Path, name: str) -> str:
    done = _run(project, "rev-parse", "--verify", "--end-of-options", name + "^{commit}")
    if done.returncode:
        raise PackageError(f"{name} is no commit of a git project in {project}{_why(done)}")
    return done.stdout.decode().strip()


def _contents(project: Path, blobs: list[str]) -> list[bytes]:
    """Content of each blob, in order."""
    stream = _git(project, "cat-file", "--batch", stdin="".join(b + "\n" for b in blobs).encode())
    found, at = [], 0
    for blob in blobs:
        head, _, _ = stream[at : at + 100].partition(b"\n")
        _, kind, size = head.split()
        if kind != b"blob":
            raise PackageError(f"git does not have the content of {blob}: fetch it first")
        at += len(head) + 1
        found.append(stream[at : at + int(size)])
        at += int(size) + 1
    return found


def _git(project: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    done = _run(project, *arguments, stdin=stdin)
    if done.returncode:
        raise PackageError(f"git {arguments[0]} failed{_why(done)}")
    return done.stdout


def _run(project: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = ["git", "-C", str(project), *arguments]
    try:
        return subprocess.run(command, input=stdin, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise PackageError("git is not installed: --git needs it") from error


def _why(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").split("\n")
    return f" ({lines[0]})" if lines[0] else ""
