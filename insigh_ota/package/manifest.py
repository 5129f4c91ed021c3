"""The manifest as text: written from what a package holds, and read back strictly."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field

from insigh_ota.package import paths
from insigh_ota.package.errors import PackageError

LONGEST = 512 * 1024
_MOST = 2**31 - 1
_FORMAT = "insigh-ota-manifest 1"
_SIGNATURE = "signature "


@dataclass
class Manifest:
    """What docs/signing.md says; `files` are (path, size, SHA-256 in hex) in archive order."""

    key: str = "none"
    sequence: int = 0
    board: str | None = None
    mpy: int | None = None
    requires: int | None = None
    files: list[tuple[str, int, str]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    signature: bytes | None = None

    def signed_part(self) -> bytes:
        """Every byte that the signature is over."""
        lines = [_FORMAT, f"key {self.key}", f"sequence {self.sequence}"]
        for name in ("board", "mpy", "requires"):
            value = getattr(self, name)
            lines += [f"{name} {value}"] * (value is not None)
        lines += [f"file {digest} {size} {path}" for path, size, digest in self.files]
        lines += [f"delete {path}" for path in self.deleted]
        return "".join(line + "\n" for line in lines).encode()

    def encode(self) -> bytes:
        """The whole member."""
        signature = base64.b64encode(self.signature) if self.signature else b"none"
        return self.signed_part() + _SIGNATURE.encode() + signature + b"\n"

    def add(self, path: str, content: bytes) -> None:
        """Append a file."""
        self.files.append((path, len(content), hashlib.sha256(content).hexdigest()))

    def check(self) -> None:
        """Raise PackageError for what no node would take."""
        for name in ("sequence", "mpy", "requires"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= _MOST:
                raise PackageError(f"{name} {value} is not from 0 to {_MOST}")
        if any(not 0 <= size <= _MOST for _, size, _ in self.files):
            raise PackageError(f"a file's size is not from 0 to {_MOST}")
        if self.requires is not None and self.requires > self.sequence:
            raise PackageError(
                f"requires {self.requires}, but this is sequence {self.sequence}: no node could "
                "take it"
            )
        if self.board is not None:
            board = self.board.encode()
            if not 0 < len(board) <= 128 or any(c < 32 or c == 127 for c in board):
                raise PackageError(f"board {self.board!r} is not 1 to 128 bytes of plain text")
        for path in [row[0] for row in self.files] + self.deleted:
            paths.check(path)
        content = self.encode()
        if len(content) > LONGEST:
            raise PackageError(
                f"a manifest of {len(content)} bytes, nodes take {LONGEST}: make several packages"
            )
        for line in content.splitlines()[:-1]:
            if len(line) > paths.LONGEST_LINE:
                path = line.decode().split(" ", 3)[-1]
                most = paths.LONGEST_LINE - (len(line) - len(path.encode()))
                raise PackageError(f"{path} is longer than {most} bytes: shorten it")


def parse(content: bytes) -> Manifest:
    """A manifest read back. Raises PackageError unless it is spelled in the one way there is."""
    manifest = Manifest()
    try:
        *lines, end = content.decode().split("\n")
        if end or not lines:
            raise ValueError
        for line in lines:
            name, _, value = line.partition(" ")
            if name in ("sequence", "mpy", "requires"):
                setattr(manifest, name, int(value))
            elif name == "key":
                manifest.key = value if value == "none" else _hex(value, 8)
            elif name == "board":
                manifest.board = value
            elif name == "file":
                digest, size, path = value.split(" ", 2)
                manifest.files.append((path, int(size), _hex(digest, 32)))
            elif name == "delete":
                manifest.deleted.append(value)
            elif name == "signature" and value != "none":
                manifest.signature = base64.b64decode(value, validate=True)
        if manifest.signature is not None and len(manifest.signature) != 384:
            raise ValueError
        if (manifest.signature is None) != (manifest.key == "none"):
            raise ValueError
    except (ValueError, binascii.Error) as error:
        raise PackageError("the manifest is malformed") from error
    # Whatever this reader overlooked, order above all, comes out otherwise.
    if manifest.encode() != content:
        raise PackageError("the manifest is malformed")
    manifest.check()
    return manifest


def _hex(text: str, size: int) -> str:
    """Hex digits as this module writes them; ValueError when they are not `size` bytes."""
    value = bytes.fromhex(text)
    if len(value) != size:
        raise ValueError
    return value.hex()
