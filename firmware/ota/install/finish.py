"""What staging does behind its last member, and with files that go; not in RAM before that."""

import os

from micropython import const

from ..errors import Refused
from ..package.vetting import check_path
from .journal import found

# An entry of a folder beside its name, with the content of a small file.
_ENTRY = const(160)
_RESERVE = const("/.ota/reserve")
_INLINE = const(128)
# Where so many are free at the end by our own count, it is not asked how many others have used.
_PLENTY = const(128)
# So many bytes of folders for each folder that is kept in reserve: less than half of what fits.
_BYTES_A_FOLDER = const(1024)


def finish(staging):
    """All members are staged and verified: close what the commit relies on."""
    space = staging.space
    journal = staging.journal
    # No byte of it may change from here on.
    journal.write(b"=")
    journal.write(journal.sum.to_bytes(4, "little"))
    journal.close()
    size = os.stat("/.ota/journal")[6]
    if size > _INLINE:
        space.file(size)  # its copy
    if staging.returns:
        # What a roll back may need to bring files back into folders, on a full flash. Folders in
        # a folder: each takes two blocks, of which nothing is programmed but a line.
        path = _RESERVE
        for _ in range(2 + staging.returns // _BYTES_A_FOLDER):
            space.folder()
            os.mkdir(path)
            path += "/r"
    # The reserve has to be there, whatever else has been written meanwhile.
    if space.free < _PLENTY:
        space.count()
    space.take(0)


def delete(staging, path):
    """Delete a file of the old tree with the install. Nothing when there is none."""
    check_path(path, staging.protected)
    if path == "/boot.py":
        raise Refused("can not apply", "nothing would start without " + path)
    kind = staging.journal.knows(path, "f")
    if kind == "d":
        return  # as the twin of a new file
    if kind:
        raise Refused("can not apply", "brought and deleted: " + path)
    kind = found(path)
    if kind == "m":
        raise Refused("can not apply", "a folder is not deleted: " + path)
    if kind:
        # Its folder exists. This sees to it that no card is mounted there.
        staging.places.missing(path[: path.rfind("/")])
        retire(staging, path)


def retire(staging, path):
    """Let the install move a file of the old tree aside."""
    places = staging.places
    staging.journal.mark(path, "f")
    place = places.next()
    slash = path.rfind("/")
    staging.returns += len(path.encode()) - slash + _ENTRY
    if slash:
        places.make_group()
    else:  # a file of the root is not moved (staging.py)
        staging.copy_aside(path, "/.ota/" + place + "~")
    staging.journal.line("d", place, 0, path)
    places.number += 1
    staging.staged += 1
