"""Flash in RAM that counts: what is programmed, and how often each block is erased."""

import os

import vfs

BLOCK = 4096


class Flash:
    """A block device for littlefs. `programmed`: bytes; `erased`: times, by block."""

    def __init__(self, blocks):
        self.blocks = blocks
        self.programmed = 0
        self.operations = 0
        self.reads = 0
        self.erased = [0] * blocks
        self._view = memoryview(bytearray(blocks * BLOCK))
        self._blank = b"\xff" * BLOCK

    def readblocks(self, block, buffer, offset=0):
        """What VfsLfs2 asks of a block device."""
        self.reads += 1
        start = block * BLOCK + offset
        buffer[:] = self._view[start : start + len(buffer)]

    def writeblocks(self, block, buffer, offset=0):
        """What VfsLfs2 asks of a block device."""
        start = block * BLOCK + offset
        self._view[start : start + len(buffer)] = buffer
        self.programmed += len(buffer)
        self.operations += 1

    def ioctl(self, operation, argument):
        """What VfsLfs2 asks of a block device."""
        if operation == 4:
            return self.blocks
        if operation == 5:
            return BLOCK
        if operation == 6:
            start = argument * BLOCK
            self._view[start : start + BLOCK] = self._blank
            self.erased[argument] += 1
            self.operations += 1
        return 0

    def counts(self):
        """[bytes programmed, erases] so far."""
        return [self.programmed, sum(self.erased)]


def mount_fresh(blocks):
    """A fresh littlefs at `/`, with the sizes that an ESP32 has. Returns its Flash."""
    flash = Flash(blocks)
    vfs.VfsLfs2.mkfs(flash)
    vfs.umount("/")
    mount(flash)
    return flash


def mount(flash):
    """Mount littlefs as a boot does."""
    vfs.mount(vfs.VfsLfs2(flash), "/")
    os.chdir("/")


def write(path, content):
    """Make a file in one write, and the folders above it."""
    at = path.find("/", 1)
    while at > 0:
        try:
            os.mkdir(path[:at])
        except OSError:
            pass
        at = path.find("/", at + 1)
    with open(path, "wb") as file:
        file.write(content)
