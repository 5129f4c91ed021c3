"""Where what is staged waits in /.ota, and which folders the old tree does not have.

What a rename costs littlefs grows with what is in the folder that the entry leaves: it reads the
folder's log several times over. So a folder that the old tree does not have is staged as such and
moves at once, with all that is in it. Of the rest the first ones wait in /.ota itself, and then in
folders of eight, as long as there is flash for more of these; what a member replaces comes beside
it.
"""

import os

from micropython import const

from .errors import Refused

_DIR = const("/.ota")
_GROUP = const(8)
_BLOCKS_A_GROUP = const(32)


class Places:
    """The places of one package.

    space: Space; journal: Journal. `number` counts the places that are taken; `tree` is that of
    the folder that missing() and make() were last asked about. Raises Refused, OSError.
    """

    def __init__(self, space, journal):
        self.number = 0
        self.tree = ""
        self._space = space
        self._journal = journal
        self._most_groups = space.free // _BLOCKS_A_GROUP + 1
        # What missing() was last asked, and its answer.
        self._folder = ""
        self._missing = 0
        # The outermost missing folder whose place is `tree`, and the last one made in there.
        self._top = self._made = ""

    def next(self):
        """The next free place, `<n>` or `<folder>/<n>`."""
        if self.number < _GROUP:
            return str(self.number)
        return "%d/%d" % (self._group(), self.number)

    def make_group(self):
        """Make the folder of the next free place."""
        if self.number >= _GROUP:
            path = "%s/%d" % (_DIR, self._group())
            if not found(path):
                self._make(path)

    def missing(self, folder):
        """How many of folder ("" for the root) and the folders above it the old tree has not."""
        if folder == self._folder:
            return self._missing
        if self._top and (folder + "/").startswith(self._top + "/"):
            missing = folder.count("/") - self._top.count("/") + 1
        else:
            missing = 0
            path = folder
            while path:
                kind = found(path)
                if kind == "m":
                    break
                if kind:
                    raise _in_the_way(path)
                missing += 1
                top = path
                path = path[: path.rfind("/")]
            try:
                # Neither exists. No rename reaches what is mounted (a card), nor does boot.py.
                os.rename(_DIR + "/~", path + "/~")
            except OSError as error:
                if error.args[0] == 1:  # EPERM
                    raise _not_ours(path)
            if missing:
                self._begin_tree(top)
        self._folder, self._missing = folder, missing
        return missing

    def make(self, folder):
        """Make folder, of which missing() has just said that it is missing, where it waits."""
        if (self._made + "/").startswith(folder + "/"):
            return
        end = len(self._top)
        while end > 0:
            end = folder.find("/", end + 1)
            path = folder if end < 0 else folder[:end]
            # Most of those that have been made are above the last one.
            if (self._made + "/").startswith(path + "/"):
                continue
            staged = self.inside(path)
            known = self._journal.may_know(path, "m") or self._journal.may_know(path, "f")
            kind = known and found(staged)
            if kind == "f":
                raise _in_the_way(path)
            if not kind:
                if found(path):
                    # Below a folder that does not exist: a card is mounted there.
                    raise _not_ours(path)
                self._make(staged)
                self._journal.mark(path, "m")
        self._made = folder

    def inside(self, path):
        """Where a path waits that is in the tree."""
        return _DIR + "/" + self.tree + path[len(self._top) :]

    def _group(self):
        # Numbers that no member in /.ota itself has.
        return _GROUP + (self.number // _GROUP - 1) % self._most_groups

    def _make(self, path):
        self._space.folder()
        os.mkdir(path)

    def _begin_tree(self, top):
        self._top = self._made = top
        place = self._journal.knows(top, "t")
        if not place:
            if self._journal.knows(top, "f"):
                raise _in_the_way(top)
            place = self.next()
            self.make_group()
            self.number += 1
            self._make(_DIR + "/" + place)
            self._space.promise_entry(top, 0)
            self._journal.mark(top, "m")
            self._journal.mark(top, "t")
            self._journal.line("m", place, 1, top)
        self.tree = place


def found(path):
    """What is at path: "f" for a file, "m" for a folder, None for nothing."""
    try:
        return "m" if os.stat(path)[0] & 0x4000 else "f"
    except OSError:
        return None


def _not_ours(path):
    return Refused("can not apply", "another filesystem: " + path)


def _in_the_way(path):
    return Refused("can not apply", "a folder where a file is: " + path)
