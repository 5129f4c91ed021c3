"""Packages on a flash that is almost full, from too little space to more than enough."""

import json
import os
import sys

import check
import ramflash
import vfs
from whole_agent import ota

recovery, transaction = ota.recovery, ota.install.transaction
free_blocks = ota.package.vetting.free_blocks
FILLER = "/filler.bin"


class _Machine:
    PWRON_RESET = 1
    DEEPSLEEP_RESET = 4
    SOFT_RESET = 5

    def reset_cause(self):
        return 1

    def reset(self):
        pass


class Member:
    """What a TarReader shows of one member; content: bytes, None for a folder."""

    def __init__(self, path, content):
        self.name = path
        self.is_folder = content is None
        self.size = len(content or b"")
        self._content = content
        self._at = 0

    def readinto(self, buffer, n):
        n = min(n, self.size - self._at)
        buffer[:n] = self._content[self._at : self._at + n]
        self._at += n
        return n


class Flash:
    """A node's flash with the files old, of which every free count can be had again.

    A folder with a file `brink` will split at its next entry.
    """

    def __init__(self, old, recovery_code, blocks):
        sys.modules["machine"] = _Machine()
        self._device = ramflash.mount(blocks)
        ramflash.write("/ota/recovery.py", recovery_code)
        # So that the commit leaves a copy of it, as on a node that runs from there.
        recovery.__file__ = "/ota/recovery.py"
        for path in old:
            if old[path] is None:
                os.mkdir(path)
            else:
                ramflash.write(path, old[path])
        for path in old:
            if path.endswith("/brink"):
                self._to_the_brink(path)
        ramflash.write(FILLER, b"")
        self._image = self.save()
        self.old = self.tree()
        self.most_free = really_free()

    def _to_the_brink(self, path):
        """Write into path's folder until the next time would split it, which takes two blocks."""
        image, free = self.save(), free_blocks()
        times = 0
        while free_blocks() == free:
            times += 1
            self._nudge(path, times)
        self.load(image)
        for n in range(1, times):
            self._nudge(path, n)
        if free_blocks() != free:
            raise ValueError("the folder has split early")

    def _nudge(self, path, n):
        # A folder with too little in it is packed anew, again and again, and never splits.
        ramflash.write(path if n % 30 else path + str(n), b"1" if n % 30 else bytes(100))

    def save(self):
        """Everything on flash, to be handed to load()."""
        return bytes(self._device._data)

    def load(self, image):
        """Put everything back, as after a power cut: mounted anew."""
        vfs.umount("/")
        self._device._data[:] = image
        vfs.mount(vfs.VfsLfs2(self._device), "/")

    def with_free(self, blocks):
        """The old files and so much filler that just so many blocks are free."""
        self.load(self._image)
        self.fill(blocks)

    def fill(self, blocks):
        """Make the filler as long as it takes to leave so many blocks free."""
        more = really_free() - blocks
        if more > 0:
            chunk = bytes(4096)
            with open(FILLER, "wb") as file:
                left = _capacity(more)
                while left > 0:
                    left -= file.write(chunk if left >= 4096 else chunk[:left])
        if really_free() != blocks:
            raise ValueError("%d blocks are free, not %d" % (really_free(), blocks))

    def tree(self):
        """What is outside /.ota, without the filler."""
        found = {}
        for path, is_folder in _walk("/"):
            if path == FILLER or (path + "/").startswith("/.ota/"):
                continue
            found[path] = None
            if not is_folder:
                with open(path, "rb") as file:
                    found[path] = file.read()
        return found


def _capacity(blocks):
    """Bytes of the longest littlefs file of so many blocks (they hold pointers as well)."""
    size = 0
    for n in range(blocks):
        pointers = 0
        if n:
            pointers = 1
            while not n & 1:
                n >>= 1
                pointers += 1
        size += 4096 - 4 * pointers
    return size


def really_free():
    """Free blocks. statvfs() counts the two blocks of a folder twice."""
    info = os.statvfs("/")
    # Counted so, a full flash is overfull, and the number wraps round below zero.
    free = info[3] - (1 << 32) if info[3] > info[2] else info[3]
    return free + 2 * sum(is_folder for _, is_folder in _walk("/"))


def _walk(folder):
    """(path, is a folder) of everything below folder."""
    for name, kind, *_ in os.ilistdir(folder):
        is_folder = bool(kind & 0x4000)
        yield folder + name, is_folder
        if is_folder:
            yield from _walk(folder + name + "/")


def stage(package):
    """Stage all members; raises what Staging raises. Returns it."""
    transaction.discard()
    if not ota.package.vetting.enough_for(1 + sum(len(content or b"") for _, content in package)):
        raise ota.errors.Refused("not enough space")
    transaction.save("attempts", "fa8884d2 1")
    # No deadline: there is no timer here.
    journal = ota.install.journal.Journal([2, "fa8884d2", 3, 24, 7, 0, True, 0, 0, None])
    staging = ota.install.staging.Staging(_silent, [], _silent, journal, bytearray(512))
    try:
        for path, content in package:
            staging.add(Member(path, content))
        ota.install.finish.finish(staging)
    finally:
        staging.journal.close()
    return staging


def expected(old, package):
    """The new tree: package is a list of (path, content), None for a folder."""
    tree = dict(old)
    for path, content in package:
        folder = path[: path.rfind("/")]
        while folder:
            tree.setdefault(folder, None)
            folder = folder[: folder.rfind("/")]
        tree[path] = content
        if content is not None:
            tree.pop(twin(path), None)
    return tree


def twin(path):
    return path[:-3] + "py" if path.endswith(".mpy") else path[:-2] + "mpy"


def boot():
    """What boot.py does while a transaction is open."""
    check.boot(recovery)


def _silent(*what):
    pass


def attempt(flash, package, new):
    """Stage package, and install it and both ways on. Returns "installed" or why it was refused.

    Raises what must never happen: OSError when flash is full, ValueError for a wrong tree.
    """
    free = really_free()
    try:
        stage(package)
    except ota.errors.Refused as error:
        transaction.discard()
        transaction.forget("attempts")
        if flash.tree() != flash.old or recovery.exists("/.ota") or really_free() != free:
            raise ValueError("not the old tree after a refusal")
        return str(error)
    finish(flash, new)
    return "installed"


_LARGE = 6


def sweep(flash, package, more):
    """Try package with few blocks free until it was installed `more` times, then with many.

    Below the border in large steps, at it with each number of blocks. Prints a line of JSON for
    each: blocks really free, free as told by statvfs(), what came of it.
    """
    new = expected(flash.old, package)
    free = installed = 0
    step = _LARGE
    while free <= flash.most_free:
        flash.with_free(free)
        told = free_blocks()
        try:
            outcome = attempt(flash, package, new)
        except (OSError, ValueError) as error:
            outcome = repr(error)
        print(json.dumps([free, told, outcome]))
        if step == _LARGE and outcome == "installed":
            free -= _LARGE - 1  # the border was passed: back to behind the last one refused
            step = 1
            continue
        installed = installed + 1 if outcome == "installed" else 0
        free += step if installed < more else 20


def left_over():
    """Whether anything is in /.ota; or that is there at all, though flash has room."""
    free, most = os.statvfs("/")[3], os.statvfs("/")[2]
    return recovery.exists("/.ota") and (0 < free <= most or os.listdir("/.ota"))


def finish(flash, new):
    """Commit, install, and both ends of the trial. Raises OSError, or ValueError for a tree."""
    ota.install.ready.write_copies()
    transaction.commit()
    recovery.install()
    transaction.forget("attempts")
    transaction.forget("report")
    if flash.tree() != new:
        raise ValueError("not the new tree")
    image = flash.save()
    flash.load(image)
    boot()
    ota.install.trial.confirm()
    if flash.tree() != new or left_over():
        raise ValueError("not the new tree after confirm")
    flash.load(image)
    boot()
    recovery.roll_back("rolled back: a test")
    # The agent's next check.
    transaction.discard()
    transaction.forget("report")
    if flash.tree() != flash.old or left_over():
        raise ValueError("not the old tree after the roll back")
