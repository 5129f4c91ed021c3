"""littlefs in RAM as `/`, for tests of what moves files. Import everything else before."""

import os
import sys

import vfs

try:
    from _flash import Ram as _Ram  # an interpreter without littlefs: the host has one for it
except ImportError:

    class _Ram:
        def __init__(self, blocks):
            self._data = bytearray(blocks * 4096)
            self._blocks = blocks
            self.operations = 0
            self.fail = None  # called with the number of the operation that is about to begin

        def readblocks(self, block, buffer, offset=0):
            start = block * 4096 + offset
            buffer[:] = memoryview(self._data)[start : start + len(buffer)]

        def writeblocks(self, block, buffer, offset=0):
            self._operate()
            start = block * 4096 + offset
            self._data[start : start + len(buffer)] = buffer

        def ioctl(self, operation, argument):
            if operation == 4:
                return self._blocks
            if operation == 5:
                return 4096
            if operation == 6:
                self._operate()
                start = argument * 4096
                self._data[start : start + 4096] = b"\xff" * 4096
            return 0

        def _operate(self):
            self.operations += 1
            if self.fail:
                self.fail(self.operations)


def mount(blocks=64, again=()):
    """Put a fresh littlefs at `/` and return its block device.

    again: names of modules that are dropped and loaded once more: it has their files as well.
    """
    files = {}
    for name in again:
        __import__(name)
        path = sys.modules[name].__file__
        with open(path, "rb") as file:
            files[path] = file.read()
    device = _Ram(blocks)
    vfs.VfsLfs2.mkfs(device)
    vfs.umount("/")
    vfs.mount(vfs.VfsLfs2(device), "/")
    os.chdir("/")
    for path in files:
        write(path, files[path])
    return device


def write(path, content):
    """Make a file, and the folders above it."""
    parts = path.split("/")[1:-1]
    folder = ""
    for part in parts:
        folder += "/" + part
        try:
            os.mkdir(folder)
        except OSError:
            pass
    with open(path, "wb") as file:
        file.write(content)


def tree(folder="/", skip="/.ota"):
    """{path: bytes, or None for a folder} of everything below folder but skip."""
    found = {}
    for name, kind, *_ in os.ilistdir(folder):
        path = (folder if folder != "/" else "") + "/" + name
        if path == skip:
            continue
        if kind & 0x4000:
            found[path] = None
            found.update(tree(path, skip))
        else:
            with open(path, "rb") as file:
                found[path] = file.read()
    return found
