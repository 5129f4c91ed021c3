"""A package's /boot.py: whether it may take the place of ours. Only loaded for that."""

import os

from ..errors import Refused
from ..package.source import starts_itself, starts_recovery
from ..package.vetting import check_path
from .journal import found


def instead(staging, new, old):
    """Where the file goes that is staged at new: (path, what found() says of it).

    Today's packages bring a boot.py that knows nothing of recovery. It must not take its place at
    the front, so our boot.py stays and runs theirs last. The path is None where that is there
    already; then new is removed. Raises Refused.
    """
    if starts_recovery(new):
        return "/boot.py", old
    if starts_itself(new):
        raise Refused("can not apply", "/boot.py would start itself")
    path = "/boot_user.py"
    check_path(path, staging.protected)
    old = found(path)
    if old == "m":  # opening it would look like a flash that fails, wake after wake
        raise Refused("can not apply", "a file where a folder is: " + path)
    staging.journal.meet(path)
    if old and _is_same(path, new):
        os.remove(new)
        # Under this name, which may come once more.
        staging.unchanged(path)
        return None, old
    return path, old


def _is_same(path, new):
    if os.stat(path)[6] != os.stat(new)[6]:
        return False
    with open(path, "rb") as a, open(new, "rb") as b:
        while True:
            piece = b.read(256)
            if not piece:
                return True
            if a.read(256) != piece:
                return False
