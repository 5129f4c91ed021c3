"""git, pointed at one repository."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from insigh_ota.package.errors import PackageError

#: What git tells its hooks of the repository that they run for. A folder says itself which it is.
_OF_A_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")
_OBJECTS = ("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES")


@dataclass(frozen=True)
class Repository:
    """A repository by a folder in it, or (`bare`) by its git directory alone."""

    folder: Path
    bare: bool = False
    inner: bool = False
    """A submodule: what a hook was told of new objects is not about it."""

    def run(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """A command of git, whatever its exit code. PackageError: there is no git here."""
        where = str(self.folder)
        # The git directory of a submodule names its work tree, which may be gone.
        place = ("--git-dir", where, "--work-tree", where) if self.bare else ()
        dropped = _OF_A_HOOK + _OBJECTS * self.inner
        environment = {k: v for k, v in os.environ.items() if k not in dropped}
        environment["GIT_OPTIONAL_LOCKS"] = "0"
        try:
            return subprocess.run(
                ["git", "-C", where, *place, *arguments],
                input=stdin,
                capture_output=True,
                check=False,
                env=environment,
            )
        except FileNotFoundError as error:
            raise PackageError(
                "git is not installed: --git needs it, and so do submodules, and tags"
            ) from error

    def ask(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """What a command prints. PackageError when it fails."""
        done = self.run(*arguments, stdin=stdin)
        if done.returncode:
            raise PackageError(f"git {arguments[0]} failed{why(done)}")
        return done.stdout

    def line(self, *arguments: str) -> str | None:
        """The line that a command prints; None when it fails."""
        done = self.run(*arguments)
        return None if done.returncode else os.fsdecode(done.stdout).removesuffix("\n")

    def commit(self, name: str) -> str:
        """The commit that a name stands for. PackageError when there is none."""
        done = self.run("rev-parse", "--verify", "--end-of-options", name + "^{commit}")
        if done.returncode:
            raise PackageError(
                f"{name} is no commit of a git project in {self.folder}{why(done)}: name a folder "
                "of the project (inspect: with --source), or fetch its tags: git fetch --tags"
            )
        return done.stdout.decode().strip()

    def tags(self, first: str, last: str) -> list[tuple[str, str]]:
        """(name, commit) of the releases from `first` on up to `last`: tags, the newest first.

        `first` itself is one of them. Tags that are on no path between the two do not count, and
        a commit with several tags comes once.
        """
        begin, end = self.commit(first), self.commit(last)
        if self.run("merge-base", "--is-ancestor", begin, end).returncode:
            raise PackageError(
                f"{first} is not before {last}: no release between them; for one release of "
                f"another branch write {first}..{first}"
            )
        names = self.ask(
            "for-each-ref",
            "--merged=" + end,
            "--contains=" + begin,
            "--sort=-version:refname",
            "--format=%(refname:strip=2)",
            "refs/tags",
        )
        found: dict[str, str] = {}
        for name in os.fsdecode(names).splitlines():
            found.setdefault(self.commit("refs/tags/" + name), name)
        found[begin] = first
        dates = {each: int(self.ask("log", "-1", "--format=%ct", each)) for each in found}
        newest = sorted(found, key=lambda each: -dates[each])
        return [(found[each], each) for each in newest]

    def has(self, commit: str) -> bool:
        """True when this commit, with its list of files, is here."""
        return self.run("cat-file", "-e", commit + "^{tree}").returncode == 0

    def git_folders(self) -> list[Path]:
        """Where git keeps its things: of this work tree, and of all its work trees."""
        own = self.line("rev-parse", "--absolute-git-dir")
        common = self.line("rev-parse", "--git-common-dir")
        found = [self.folder / each for each in (own, common) if each]
        return list(dict.fromkeys(each.resolve() for each in found))

    def contents(self, blobs: list[str]) -> list[bytes]:
        """Content of each blob, in order. PackageError when one is not here."""
        asked = "".join(blob + "\n" for blob in blobs).encode()
        stream = self.ask("cat-file", "--batch", stdin=asked) if blobs else b""
        found, at = [], 0
        for blob in blobs:
            head, _, _ = stream[at : at + 100].partition(b"\n")
            _, kind, *size = head.split()
            if kind != b"blob":
                raise PackageError(f"git does not have the content of {blob}: fetch it first")
            at += len(head) + 1
            found.append(stream[at : at + int(size[0])])
            at += int(size[0]) + 1
        return found


def why(done: subprocess.CompletedProcess[bytes]) -> str:
    """The first line of git's own words, in brackets; nothing when it said none."""
    lines = done.stderr.decode(errors="replace").split("\n")
    return f" ({lines[0]})" if lines[0] else ""
