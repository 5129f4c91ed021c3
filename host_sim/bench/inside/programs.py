"""What programs flash: a file system that adds up the bytes, call by call and file by file."""

import os

import vfs

#: What files of the agent begin with; all others there are the package's.
_KNOWN = ("recovery", "manifest", "index", "mark", "journal", "j")


class Programs:
    """In the place of a mounted file system; `found`: {what: bytes programmed}."""

    def __init__(self, flash):
        self._flash = flash
        self._filesystem = vfs.VfsLfs2(flash)
        self.found = {}

    def mount(self, readonly, mkfs):
        """As a file system's."""
        self._filesystem.mount(readonly, mkfs)

    def umount(self):
        """As a file system's."""

    def open(self, path, mode):
        """A file, which is counted as well where it is written to."""
        what = _what(path)
        if mode[0] == "r" and "+" not in mode:
            return self.count(what, self._filesystem.open, path, mode)
        return _File(self, what, self.count(what, self._filesystem.open, path, mode))

    def count(self, what, method, *arguments):
        """Call it, and count what it programs."""
        before = self._flash.programmed
        try:
            return method(*arguments)
        finally:
            self.found[what] = self.found.get(what, 0) + self._flash.programmed - before

    def __getattr__(self, name):
        method = getattr(self._filesystem, name)
        return lambda *arguments: self.count(name, method, *arguments)


class _File:
    def __init__(self, programs, what, file):
        self._count = programs.count
        self._what = what
        self._file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __getattr__(self, name):
        method = getattr(self._file, name)
        return lambda *arguments: self._count(self._what, method, *arguments)


def watch(flash):
    """Mount such a file system in the place of what is mounted, and return it."""
    vfs.umount("/")
    programs = Programs(flash)
    vfs.mount(programs, "/")
    os.chdir("/")
    return programs


def _what(path):
    if not path.startswith("/.ota/"):
        return "tree"
    name = path[6:]
    if name == "~":
        return "state"  # what is written aside, and takes the old one's place
    if name.endswith("~"):
        return "copies"
    for known in _KNOWN:
        if name.startswith(known):
            return known if known != "j" else "journal"
    return "files"
