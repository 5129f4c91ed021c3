"""The releases that `--since` names: what nodes of them have, as their package brought it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from insigh_ota.package import archive, insighio, paths, sources, transform
from insigh_ota.package.delta import Release
from insigh_ota.package.errors import PackageError
from insigh_ota.package.sources import Selection


@dataclass
class Past:
    """How the trees of releases are found, and what is done to them, as to the new one.

    folder: of the project whose tags count; revision: what is packaged, None for what is on disk.
    """

    folder: Path
    revision: str | None = None
    exclude: list[str] = field(default_factory=list)
    minify: list[str] = field(default_factory=list)
    compiled: list[str] = field(default_factory=list)
    protect: bool = True
    told: list[str] = field(default_factory=list)
    """What was odd about them, a line each."""

    def releases(self, values: list[str]) -> list[Release]:
        """What the values name, in their order, each once. Raises PackageError."""
        found: list[Release] = []
        for value in dict.fromkeys(values):
            found += [release for release in self._named(value) if release not in found]
        return found

    def _named(self, value: str) -> list[Release]:
        path = Path(value)
        if value not in ("", "..") and path.is_dir():
            return [self._release(value, lambda: sources.from_folder(path, self.exclude))]
        if value and path.is_file():
            return [self._package(value)]
        first, dots, last = value.partition("..")
        if not first or not dots or first.endswith("/") or last.startswith((".", "/")):
            raise PackageError(
                f"--since {value}: neither a folder, nor a package, nor releases: write A.. or "
                "A..B, such as v1.0.."
            )
        packaged = self.revision or "HEAD"
        tags = sources.tags(self.folder, first, last or packaged)
        if self.revision and not last and len(tags) > 1:
            # What is packaged is no release of before.
            own = sources.commit(self.folder, packaged)
            tags = [tag for tag in tags if tag[1] != own]
        return [self._release(name, self._tree(commit)) for name, commit in tags]

    def _tree(self, commit: str) -> Callable[[], Selection]:
        return lambda: sources.from_release(self.folder, commit, self.exclude)

    def _release(self, name: str, read: Callable[[], Selection]) -> Release:
        try:
            selection = read()
            self.told += [f"{name}: {line}" for line in selection.taken if "<-" not in line]
            if self.protect:
                insighio.protect(selection)
            selection = transform.apply(selection, self.minify, self.compiled)
        except PackageError as error:
            raise PackageError(f"--since {name}: {error}") from error
        return Release(name, selection.files)

    def _package(self, name: str) -> Release:
        """What it holds has been minified and compiled already, or is not to be."""
        try:
            found = archive.read(Path(name).read_bytes())
            selection = Selection(
                {
                    path: content
                    for path, content in found.files
                    if not paths.matches(path, self.exclude) and not paths.of_macos(path)
                }
            )
            if self.protect:
                insighio.protect(selection)
        except OSError as error:
            raise PackageError(f"{name} can not be read: {error.strerror}") from error
        except PackageError as error:
            raise PackageError(
                f"--since {name}: {error}; --since takes releases (A..), a folder or a package"
            ) from error
        return Release(name, selection.files)


def gone(releases: list[Release], new: dict[str, bytes], *, protect: bool = True) -> set[str]:
    """What one of the releases has, and the new tree has not.

    A new x.mpy retires x.py by itself, and the other way round. With protect the adapter of the
    insighioNode firmware stays, and what it has put aside: nodes have it from their migration on.
    """
    found = {path for release in releases for path in release.files}
    found -= set(new) | {paths.twin(path) for path in new}
    return {path for path in found if not (protect and insighio.is_adapters(path))}
