# Stands in for the module vfs: VfsLfs2, which this interpreter lacks, over a real littlefs on the
# host. What it answers, and which errors it raises, is littlefs's own; this only carries it.

import io
import sys

from _host import ask, fetch, take
from micropython import const

try:
    from vfs import mount, umount
except ImportError:  # before 1.23
    from os import mount, umount  # noqa: F401

# operations.py has the same numbers.
_NEW, _OPERATIONS, _FORMAT, _MOUNT = const(16), const(17), const(18), const(19)
_OPEN, _CLOSE, _SYNC, _READ, _WRITE = const(20), const(21), const(22), const(23), const(24)
_SEEK, _STAT, _STATVFS, _LIST = const(25), const(26), const(27), const(28)
_MKDIR, _REMOVE, _RENAME, _LINE = const(29), const(30), const(31), const(32)

_ENOTDIR, _EINVAL = const(20), const(22)
_CACHE = const(128)
_FOLDER = const(0x4000)
_FILE = const(0x8000)


class Ram:
    """A flash of so many blocks on the host, blank."""

    def __init__(self, blocks):
        self.number = ask(_NEW, blocks)[0]

    @property
    def operations(self):
        """How many programs and erases it has seen."""
        return ask(_OPERATIONS, self.number)[0]


class VfsLfs2:
    def __init__(self, flash, **_):
        self._flash = flash.number
        self._here = "/"
        ask(_MOUNT, self._flash)

    @staticmethod
    def mkfs(flash):
        ask(_FORMAT, flash.number)

    def mount(self, readonly, mkfs):
        pass

    def umount(self):
        pass

    def _ask(self, operation, path, b=0):
        return ask(operation, self._flash, b, self._whole(path).encode())

    def _whole(self, path):
        return path if path[:1] == "/" else self._here + path

    def open(self, path, mode):
        handle = ask(_OPEN, self._flash, 0, (mode + "\0" + self._whole(path)).encode())[0]
        return _File(handle, "b" not in mode)

    def stat(self, path):
        found = self._ask(_STAT, path)[0]
        kind = _FOLDER if found & 1 else _FILE
        return kind, 0, 0, 0, 0, 0, found >> 1, 0, 0, 0

    def statvfs(self, _):
        blocks, used = [int(n) for n in fetch(_STATVFS, self._flash).split()]
        return 4096, 4096, blocks, blocks - used, blocks - used, 0, 0, 0, 0, 255

    def ilistdir(self, path):
        found = fetch(_LIST, self._flash, 0, self._whole(path).encode())
        for entry in found.decode().split("\0")[:-1]:
            kind, size, name = entry.split(" ", 2)
            yield name, int(kind), 0, int(size)

    def mkdir(self, path):
        self._ask(_MKDIR, path)

    def remove(self, path):
        self._ask(_REMOVE, path)

    rmdir = remove

    def rename(self, a, b):
        names = self._whole(a) + "\0" + self._whole(b)
        ask(_RENAME, self._flash, 0, names.encode())

    def chdir(self, path):
        parts = []
        for part in self._whole(path).split("/"):
            if part == "..":
                parts[-1:] = ()
            elif part not in ("", "."):
                parts.append(part)
        path = "/" + "/".join(parts)
        if parts:
            if self.stat(path)[0] != _FOLDER:
                raise OSError(_ENOTDIR)
            path += "/"
        self._here = path

    def getcwd(self):
        return self._here[:-1] or "/"


class _File(io.IOBase):
    def __init__(self, handle, text):
        self._handle = handle
        self._text = text

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __iter__(self):
        return self

    def __next__(self):
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def _open(self):
        if self._handle is None:
            raise OSError(_EINVAL)
        return self._handle

    def _told(self, data):
        return data.decode() if self._text else data

    def readinto(self, buffer, n=-1):
        size = ask(_READ, self._open(), len(buffer) if n < 0 else n)[1]
        take(buffer, size)
        return size

    def read(self, n=-1):
        if self._text and n >= 0:
            raise NotImplementedError  # it would have to count characters
        return self._told(fetch(_READ, self._open(), n))

    def readline(self, n=-1):
        return self._told(fetch(_LINE, self._open(), n))

    def write(self, data, n=-1):
        if isinstance(data, str):
            data = data.encode()
        if n >= 0:
            data = memoryview(data)[:n]
        return ask(_WRITE, self._open(), 0, data)[0]

    def seek(self, offset, whence=0):
        return ask(_SEEK, self._open(), offset, bytes((whence,)))[0]

    def tell(self):
        return self.seek(0, 1)

    def flush(self):
        ask(_SYNC, self._open())

    def close(self):
        handle, self._handle = self._handle, None
        if handle is not None:
            ask(_CLOSE, handle)

    def ioctl(self, request, _):
        if request == 4:  # close
            self.close()
        elif request == 1:  # flush
            self.flush()
        elif request == 11:  # in which pieces code is read
            return _CACHE
        return 0


sys.modules["vfs"] = sys.modules[__name__]
