"""What a file of a package may be called, and the patterns that choose files."""

from __future__ import annotations

import fnmatch
from pathlib import PurePosixPath

from insigh_ota.package.errors import PackageError

#: The manifest's own name, the first member of a package.
MANIFEST = ".ota-manifest"
#: No node lets a package touch these.
PROTECTED = (".ota", "ota.json", "ota.sequence")
#: Longest line of a manifest but the signature's, in bytes, without the line feed.
LONGEST_LINE = 400
_LONGEST_PART = 255


def check(path: str) -> None:
    """Raise PackageError for what no node, or no manifest, takes. path: as in an archive."""
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") for part in parts):
        raise PackageError(f"{path!r} is no path of a package: write it like lib/a.py")
    try:
        raw = path.encode()
    except UnicodeEncodeError as error:
        raise PackageError(f"{path!r} is not UTF-8: rename the file") from error
    if any(c < 32 or c in (92, 127) for c in raw):
        raise PackageError(f"{path!r} has a character that no node takes: rename the file")
    if any(len(part.encode()) > _LONGEST_PART for part in parts):
        raise PackageError(f"{path}: a name of more than {_LONGEST_PART} bytes: shorten it")
    for protected in PROTECTED:
        if path == protected or path.startswith(protected + "/"):
            raise PackageError(
                f"{path} is the node's own, no package may touch it: --exclude {protected}"
            )
    if path == MANIFEST:
        raise PackageError(f"{path} is made by this tool: --exclude {MANIFEST}")


def matches(path: str, patterns: list[str]) -> bool:
    """True when one of the patterns fits the path, a folder above it, or the name of either.

    `*.py` is every source, `tests` a file or folder of that name, `lib/*` all below `lib`.
    """
    place = PurePosixPath(path)
    found = [place, *place.parents][:-1]
    names = [each.as_posix() for each in found] + [each.name for each in found]
    patterns = [pattern.rstrip("/") for pattern in patterns]
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def of_macos(path: str) -> bool:
    """True for what macOS puts beside files, and shows to nobody there; a node passes over it."""
    parts = path.split("/")
    return any(each.startswith("._") or each in (".DS_Store", "__MACOSX") for each in parts)


def twin(path: str) -> str | None:
    """The other form of a module, `x.mpy` for `x.py`; None for what is no module."""
    if path.endswith(".mpy"):
        return path.removesuffix(".mpy") + ".py"
    return path.removesuffix(".py") + ".mpy" if path.endswith(".py") else None
