"""Packages as bytes: the same bytes for the same content, whatever made them, and read back."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath

from insigh_ota.package import index, paths
from insigh_ota.package.errors import PackageError
from insigh_ota.package.manifest import Manifest, parse

#: log2 of the window that the node has to hold while it unpacks.
WINDOWS = range(9, 16)
#: The gzip header's extra field that tells it: length, name, length of what follows (little
#: endian), then one byte with the log2; with restart points a byte of flags behind it.
_FIELD, _FIELD_WITH_FLAGS = b"\5\0OW\1\0", b"\6\0OW\2\0"
_HAS_RESTARTS = 1
#: Where the stream begins behind a header with flags.
BEGIN = 18
#: Bytes behind the stream: check sum and length.
TRAILER = 8


@dataclass
class Package:
    """What was read: the manifest as bytes, files in order, and how it is wrapped."""

    manifest: bytes | None
    files: list[tuple[str, bytes]]
    compression: str
    window: int | None


def tar(manifest: Manifest, files: dict[str, bytes]) -> bytes:
    """A tar archive: the manifest, then folders and files in the manifest's order.

    ustar, which firmware of any age reads; a PAX header only before a name that does not fit.
    """
    return lay(manifest, files, {})[0]


def lay(
    manifest: Manifest, files: dict[str, bytes], before: dict[str, list[bytes]], index: bytes = b""
) -> tuple[bytes, dict[str, list[int]]]:
    """The same, with headers of any other kind in front of the members of these names.

    And where these begin, and behind them the member's own, by its name; of a folder with a slash
    behind it, of the index "". index: such a header behind the manifest. Folders come first:
    firmware that takes any header for a file's makes it.
    """
    out = io.BytesIO()
    made: set[PurePosixPath] = set()
    places: dict[str, list[int]] = {}
    for name, content in [(paths.MANIFEST, manifest.encode()), *files.items()]:
        for folder in reversed(PurePosixPath(name).parents[:-1]):
            if folder not in made:
                made.add(folder)
                places[f"{folder}/"] = [out.tell()]
                out.write(header(folder.as_posix(), None))
        places[name] = []
        for extra in before.get(name, ()):
            places[name].append(out.tell())
            out.write(extra)
        places[name].append(out.tell())
        out.write(header(name, content))
        out.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))
        if name == paths.MANIFEST:
            places[""] = [out.tell()]
            out.write(index)
    out.write(bytes(2 * tarfile.BLOCKSIZE))
    return out.getvalue(), places


def header(name: str, content: bytes | None) -> bytes:
    """The header of a file, or of a folder for None."""
    entry = tarfile.TarInfo(name)
    entry.mode = 0o644
    if content is None:
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    else:
        entry.size = len(content)
    try:
        return entry.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except ValueError:  # too long
        return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def compress(content: bytes, window: int) -> bytes:
    """gzip without name and time, with the window in an extra field of its header."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -window, 9)
    return wrap(deflate.compress(content) + deflate.flush(), content, window)


def wrap(
    stream: bytes, content: bytes, window: int, *, restarts: bool = False, front: int = 0
) -> bytes:
    """gzip's header and end around a deflate stream.

    front: where the index has ended, in bytes of the package; 0 without one.
    """
    # Flag 4: an extra field. 2: compressed best. 255: by nobody knows what system.
    header = b"\x1f\x8b\x08\4" + bytes(4) + b"\2\xff"
    if restarts:
        units = -(-front // index.FRONT)
        if units > index.MOST_FRONT:
            raise PackageError(
                f"manifest and index take {front} bytes, and a node looks at "
                f"{index.MOST_FRONT * index.FRONT} at most: use no --since, or fewer files "
                "(--exclude)"
            )
        header += _FIELD_WITH_FLAGS + bytes([window, _HAS_RESTARTS | units << 1])
    else:
        header += _FIELD + bytes([window])
    sums = zlib.crc32(content).to_bytes(4, "little") + len(content).to_bytes(4, "little")
    return header + stream + sums


def front(raw: bytes) -> int:
    """How many bytes of a package a node has to have for its index; 0 where it has none."""
    return (raw[17] >> 1) * index.FRONT if promises(raw)[1] else 0


def promises(raw: bytes) -> tuple[int | None, int]:
    """What our field in a gzip header says, if it is there.

    log2 of the window, and where the stream begins that restart points are promised in, 0 without.
    """
    if raw[:4] == b"\x1f\x8b\x08\4" and len(raw) > 17 and raw[16] in WINDOWS:
        if raw[10:16] == _FIELD:
            return raw[16], 0
        if raw[10:16] == _FIELD_WITH_FLAGS:
            return raw[16], BEGIN if raw[17] & _HAS_RESTARTS else 0
    return None, 0


def read(raw: bytes) -> Package:
    """A package taken apart. Raises PackageError for what is damaged, or no file or folder."""
    compression, window = "none", None
    if raw[:2] == b"\x1f\x8b":
        compression = "gzip"
        window, _ = promises(raw)
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise PackageError(f"damaged gzip: {error}") from error
    manifest, files, end = None, [], 0
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as archive:
            for number, member in enumerate(archive):
                end = archive.offset
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise PackageError(f"{member.name} is neither file nor folder")
                content = archive.extractfile(member).read()
                if len(content) != member.size:
                    raise PackageError("damaged tar: it ends early")
                if member.name == paths.MANIFEST and not number:
                    manifest = content
                else:
                    files.append((member.name, content))
    except (tarfile.TarError, UnicodeError) as error:
        raise PackageError(f"no tar archive, or a damaged one: {error}") from error
    if any(raw[end:]):
        raise PackageError("data behind the end of the archive")
    return Package(manifest, files, compression, window)


def check(package: Package) -> Manifest:
    """The manifest, when every file is the one that it lists, in its order.

    Whose signature it is, is not asked here.
    """
    if package.manifest is None:
        raise PackageError(f"the first member is not {paths.MANIFEST}: no manifest")
    manifest = parse(package.manifest)
    listed = iter(manifest.files)
    found = Manifest()
    for path, content in package.files:
        expected = next(listed, None)
        found.add(path, content)
        if expected is None:
            raise PackageError(f"{path} is not in the manifest")
        if expected != found.files[-1]:
            raise PackageError(
                f"{path} is not the file that the manifest lists there"
                if expected[0] == path
                else f"{path} comes where the manifest lists {expected[0]}"
            )
    missing = next(listed, None)
    if missing:
        raise PackageError(f"{missing[0]} is in the manifest, but not in the package")
    names = [row[0] for row in manifest.files] + manifest.deleted
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise PackageError(f"{twice} stands twice in the manifest")
    return manifest
