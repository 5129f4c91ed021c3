"""littlefs for interpreters that have none: littlefs-python, over flash that can lose its power.

An answer is a number and some bytes; LittleFSError has the number of littlefs's own errors.
"""

from __future__ import annotations

import random
from typing import Any

from littlefs import LittleFS, UserContext, lfs

from host_sim.node.flash import GEOMETRY
from host_sim.node.flash_rules import BLOCK, ERASE, PROGRAM, Operation, cut_state

Answer = tuple[int, bytes]

#: As a node's, but for fewer and larger reads.
_NODE = GEOMETRY | {"read_size": GEOMETRY["cache_size"]}
#: What tests mount is only to be quick.
_TEST = GEOMETRY | {"read_size": 512, "cache_size": 512}
_EIO = -5
_PIECE = 256
_FOLDER, _FILE = 0x4000, 0x8000


class Flash(UserContext):
    """Flash in RAM, with a littlefs on it once it is mounted.

    `cut`: the operation, counted from 1, at which power fails; `torn` says what is left of it
    (:data:`host_sim.node.flash_rules.IN_PLACE_KINDS`). `dead`: it has failed.
    """

    def __init__(self, content: bytes | None = None, blocks: int = 64) -> None:
        super().__init__(buffer=bytearray(content or b"\xff" * (blocks * BLOCK)))
        self._geometry = _NODE if content else _TEST
        self.operations = 0
        self.cut = 0
        self.torn = "none"
        self.dead = False
        self._system: LittleFS | None = None
        self._files: dict[int, Any] = {}

    # -- what littlefs asks of a chip -------------------------------------------------------------

    def read(self, cfg: Any, block: int, off: int, size: int) -> bytearray:
        """Some bytes of a block."""
        start = block * BLOCK + off
        return self.buffer[start : start + size]

    def prog(self, cfg: Any, block: int, off: int, data: bytes) -> int:
        """Program: bits are cleared, never set."""
        return self._operate(Operation(PROGRAM, block * BLOCK + off, len(data), bytes(data)))

    def erase(self, cfg: Any, block: int) -> int:
        """Set all bits of a block."""
        return self._operate(Operation(ERASE, block * BLOCK, BLOCK))

    def _operate(self, operation: Operation) -> int:
        if self.dead:
            return _EIO
        self.operations += 1
        self.dead = self.operations == self.cut
        kind = self.torn if self.dead else "done"
        cut_state(self.buffer, operation, [], kind, random.Random(self.operations))
        return _EIO if self.dead else 0

    # -- what an instance asks of littlefs --------------------------------------------------------

    def format(self) -> Answer:
        """Make it blank."""
        self._new().format()
        return 0, b""

    def mount(self) -> Answer:
        """Mount it anew, as at power-up: what is not on flash by now is lost."""
        self._files = {}
        self._system = self._new()
        self._system.mount()
        return 0, b""

    def _new(self) -> LittleFS:
        blocks = len(self.buffer) // BLOCK
        return LittleFS(self, mount=False, block_count=blocks, **self._geometry)

    @property
    def _fs(self) -> Any:
        assert self._system
        return self._system.fs

    def open(self, name: str, mode: str) -> Answer:
        """A handle."""
        handle = max(self._files, default=0) + 1
        self._files[handle] = lfs.file_open(self._fs, name, mode.replace("t", ""))
        return handle, b""

    def close(self, handle: int) -> Answer:
        """Close a handle; what was written is on flash then."""
        lfs.file_close(self._fs, self._files.pop(handle))
        return 0, b""

    def flush(self, handle: int) -> Answer:
        """As close(), and it stays open."""
        lfs.file_sync(self._fs, self._files[handle])
        return 0, b""

    def read_file(self, handle: int, size: int) -> Answer:
        """At most `size` bytes; all that is left when it is below 0."""
        file = self._files[handle]
        if size < 0:
            size = lfs.file_size(self._fs, file) - lfs.file_tell(self._fs, file)
        data = bytes(lfs.file_read(self._fs, file, size)) if size else b""
        return len(data), data

    def read_line(self, handle: int, limit: int) -> Answer:
        """Up to the end of a line, and at most `limit` bytes where that is not below 0."""
        file = self._files[handle]
        start = lfs.file_tell(self._fs, file)
        line = b""
        while b"\n" not in line and (piece := bytes(lfs.file_read(self._fs, file, _PIECE))):
            line += piece
        line = line[: line.find(b"\n") + 1 or len(line)]
        if limit >= 0:
            line = line[:limit]
        lfs.file_seek(self._fs, file, start + len(line), 0)
        return len(line), line

    def write_file(self, handle: int, data: bytes) -> Answer:
        """How many bytes were written."""
        return lfs.file_write(self._fs, self._files[handle], data), b""

    def seek(self, handle: int, offset: int, whence: int) -> Answer:
        """The new place."""
        return lfs.file_seek(self._fs, self._files[handle], offset, whence), b""

    def stat(self, name: str) -> Answer:
        """The size of a file, times two; 1 for a folder."""
        found = lfs.stat(self._fs, name)
        return (1 if found.type == found.TYPE_DIR else found.size * 2), b""

    def statvfs(self) -> Answer:
        """Blocks: all, and in use."""
        used = lfs.fs_size(self._fs)
        return 0, f"{len(self.buffer) // BLOCK} {used}".encode()

    def list(self, name: str) -> Answer:
        """What is in a folder."""
        folder = lfs.dir_open(self._fs, name)
        found = b""
        try:
            while entry := lfs.dir_read(self._fs, folder):
                if entry.name not in (".", ".."):
                    kind = _FOLDER if entry.type == entry.TYPE_DIR else _FILE
                    found += f"{kind} {entry.size} {entry.name}\0".encode()
        finally:
            lfs.dir_close(self._fs, folder)
        return 0, found

    def mkdir(self, name: str) -> Answer:
        """Make a folder."""
        return lfs.mkdir(self._fs, name), b""

    def remove(self, name: str) -> Answer:
        """Remove a file, or an empty folder."""
        return lfs.remove(self._fs, name), b""

    def rename(self, old: str, new: str) -> Answer:
        """Rename a file or a folder, over what is there."""
        return lfs.rename(self._fs, old, new), b""
