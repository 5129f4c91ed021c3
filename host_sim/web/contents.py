"""What `package inspect` tells of a package, as data for the page."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import Any

from insigh_ota.package import archive, delta, restarts
from insigh_ota.package.errors import PackageError
from insigh_ota.package.manifest import parse

#: Unpacked; the flash of a node has 16 MB at most.
MOST_UNPACKED = 64 << 20
#: So many files, and deletions, are listed; of more only the count is told.
LISTED = 1000
#: microfreezer writes so many bytes in front of a zlib stream (docs/protocol.md).
_FREEZER_HEADER = 8


def look(raw: bytes) -> dict[str, Any]:
    """Read a package whole and check what can be checked without a key.

    Raises PackageError for what no node would take, and for what unpacks to too much.
    """
    if not raw:
        raise PackageError("the file is empty")
    content, compression = _unpacked(raw)
    gzipped = compression == "gzip"
    found = archive.read(raw if gzipped else content)
    if not found.files and found.manifest is None:
        raise PackageError("there is no file in it")
    manifest = None if found.manifest is None else parse(found.manifest)
    points = restarts.find(raw) if gzipped else []
    told: dict[str, Any] = {
        "size": len(raw),
        "compression": compression,
        "window": 1 << found.window if found.window else None,
        "files": [[path, len(data)] for path, data in found.files[:LISTED]],
        "count": len(found.files),
        "unpacked": sum(len(data) for _, data in found.files),
        "points": len(points),
        "farthest": max(restarts.distances(points, raw)) if points else None,
        "manifest": None,
        "deleted": [],
        "patches": None,
    }
    if manifest is None:
        return told
    archive.check(found)
    names = ("key", "sequence", "board", "mpy", "requires")
    told["manifest"] = {name: getattr(manifest, name) for name in names}
    told["manifest"]["signed"] = manifest.signature is not None
    told["deleted"] = manifest.deleted[:LISTED]
    layout = delta.check(raw, found.manifest) if gzipped else None
    if layout is not None:
        told["patches"] = len(layout.patches())
    return told


def _unpacked(raw: bytes) -> tuple[bytes, str]:
    """The tar archive, and how it was wrapped. A little that unpacks to a lot ends early."""
    zipped = raw[:2] == b"\x1f\x8b"
    inner = raw[_FREEZER_HEADER:] if zipped else raw
    try:
        if _is_zlib(inner):
            content, compression = (
                zlib.decompressobj().decompress(inner, MOST_UNPACKED + 1),
                "zlib",
            )
        elif zipped:
            with gzip.open(io.BytesIO(raw)) as stream:
                content, compression = stream.read(MOST_UNPACKED + 1), "gzip"
        else:
            content, compression = raw, "none"
    except (OSError, EOFError, zlib.error) as error:
        raise PackageError(f"damaged {'gzip' if zipped else 'zlib'}: {error}") from error
    if len(content) > MOST_UNPACKED:
        raise PackageError(f"it unpacks to more than {MOST_UNPACKED >> 20} MB: no node has room")
    return content, compression


def _is_zlib(raw: bytes) -> bool:
    return len(raw) > 1 and raw[0] & 15 == 8 and int.from_bytes(raw[:2], "big") % 31 == 0
