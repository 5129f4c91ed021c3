"""One attempt at a request: whether it may begin, and its count on flash.

/.ota/attempts holds `<file id> <count> <told> <best> <fetched> <end> <since> <size>`:
    count    attempts that have brought nothing new, this one with them
    told     CRC-32 of the reason for which one has ended, or -; of none: memory has ended it; with
             ~ before it: it may pass
    best     bytes of the package: how far it is staged; where nothing of it can stay, less than
             0: the most that one wake has brought
    fetched  bytes in all, over all wakes
    end      when there are no more, by the clock; since: the clock at the last attempt
    size     bytes of the package: under the same id the platform may have another one by now
"""

import gc
import os
import time
from binascii import crc32

from micropython import const

from .. import drop
from ..errors import Refused

_DAY_S = const(86400)
_HOUR_S = const(3600)
# A clock that has gone further between two attempts has been set.
_MONTH_S = const(30 * 86400)
# Where so much is free, this heap has not to grow.
_PLENTY = const(128 * 1024)
# What is loaded while TLS is open.
_LATER = const(
    (
        ("fetch", "https", "package.pax", "package.archive"),
        ("install.start", "install.again"),
        ("install.staging", "install.finish"),
        ("install.boot_file",),
    )
)


def check_space(agent, request):
    """Raise Refused when the announced size is more than flash can take."""
    from ..package.vetting import enough_for, free_blocks

    # What an earlier wake has staged has taken its part.
    if not _staged(request) and not enough_for(request.size):
        raise Refused(
            "not enough space",
            "%d bytes announced, %d blocks are free" % (request.size, free_blocks()),
        )
    agent.progress("space", free_blocks())
    del enough_for, free_blocks
    drop("package.vetting")


def _staged(request):
    """How many bytes of the package earlier wakes have staged."""
    try:
        os.stat("/.ota/mark")
    except OSError as error:
        if error.args[0] == 2:
            return 0  # for most; what reads it takes much memory
        raise
    from .transaction import kept

    return kept(request)


def check_way_back(agent):
    """Raise Refused when our boot.py did not run: nothing would finish or undo an install.

    It may be missing, somebody else's, or one that is frozen into the firmware, which wins.
    """
    import __main__

    if not hasattr(__main__, "_trial"):
        raise Refused("can not apply", "this agent's boot.py did not run, so there is no way back")
    # Of a frozen one nothing can be seen, but that no file has run after boot.py.
    if getattr(__main__, "__file__", "") == "boot.py":
        try:
            os.stat("/main.py")
        except OSError:
            return
        agent.progress("notice", "/main.py has not run: a frozen one comes before it")


def count_attempt(agent, request):
    """Count this attempt on flash before it begins; True when it is the last one.

    One that ends in a watchdog reset or a power cut is counted as well: such a package would
    otherwise be fetched for ever. One that has brought more of the package than all before is not.
    Raises Refused when there have been enough, of them, of bytes or of days.
    """
    from .transaction import discard, read_mark

    config = agent.config
    count, told, best, fetched, end, since = _before(request)
    # What another package left must not be taken for this one's: an old file above all.
    discard(agent.feed, count and request)
    mark = read_mark()
    if mark:
        fetched = max(fetched, mark[7])
        if mark[0] > best:
            count = 0
            if told[0] == "~":
                told = "-"  # it has passed
        best = mark[0]  # less where it was discarded since
    elif best > 0:
        best = 0  # it was discarded since
    count += 1
    most = config["max_attempts"]
    if count > most:
        raise Refused("can not apply", "interrupted %d times" % most)
    if fetched >= config["max_fetched"] * request.size:
        raise Refused("can not download", "not whole after %d bytes" % fetched)
    now = int(time.time())
    passed = now - since
    if not end:
        end = now + _DAY_S * config["max_days"]
    elif not 0 <= passed < _MONTH_S:
        # A clock that goes back has been forgotten, one that jumps has been set.
        end += passed - _HOUR_S
    if now > end:
        raise Refused("can not download", "not whole after %d days" % config["max_days"])
    agent.fetched = fetched
    # What looks at an index takes memory of its own: the way without it may be open still. Not
    # at once: a link that breaks early says nothing of memory.
    agent.whole = told == "00000000" or count == most > 1
    _save(request, count, told, best, fetched, end, now)
    if agent.stat:
        agent.stat.begin(request, count == most)
    return count == most


def staged(request):
    """Whether this attempt has brought something for the next one to go on with."""
    from .transaction import read_mark

    best = _before(request)[2]
    mark = read_mark()
    return bool(mark and mark[0] > max(best, 0))


def note(request):
    """Where nothing of the package can stay: keep what the mark of this wake tells."""
    from .transaction import read_mark

    mark = read_mark()
    if not mark or mark[0]:
        return
    count, told, best, fetched, end, since = _before(request)
    brought = mark[7] - fetched
    if brought > -best:
        # It may come whole in a wake that is longer still.
        best, count, told = -brought, 0, "-"
    _save(request, count, told, best, mark[7], end, since)


def _save(request, *fields):
    from .transaction import save

    save("attempts", " ".join([str(x) for x in (request.file_id,) + fields + (request.size,)]))


def _before(request):
    """[count, told, best, fetched, end, since] of the attempts before at a package."""
    from .transaction import load

    fields = (load("attempts") or "").split(" ")  # damaged: none
    # An older agent's are two or three, or all but the size.
    if fields[0] != request.file_id or fields[7:] not in ([], [str(request.size)]):
        return [0, "-", 0, 0, 0, 0]
    fields = fields[1:7] + ["0"] * (7 - len(fields))
    return [x if i == 1 else int(x) for i, x in enumerate(fields)]


def keep_names(agent, request):
    """Load code that is needed once TLS is open, and let go of it: its names stay in RAM for good.

    On a chip this heap grows while TLS is open, and the piece that it gets has to be given back
    for the next connection. One name in it would keep all of it.
    """
    if agent.open_stream or gc.mem_free() > _PLENTY:
        return
    drop("install", "recovery")  # what has counted the attempt
    for names in _LATER:
        for name in names:
            __import__(__name__.replace("install.attempt", name), None, None, (name,))
        drop("tarfile_lite", *names)
    if request.kind == ".tar.gz":
        from ..package import inflate as _inflate

        del _inflate
    if agent.config["keys"]:
        from ..package import signed as _signed

        del _signed
    drop("install", "package", "tarfile_lite")


def was_told(reason):
    """True when an attempt of the same package before has ended for this reason as well.

    If not, it is noted on flash for the next one, behind the count, as its CRC-32.
    """
    from .transaction import load, save

    mark = "%08x" % crc32(reason.encode())
    if reason.startswith("can not download"):
        mark = "~" + mark  # a server says it: two that are weeks apart are not the same one
    before = (load("attempts") or "").split(" ")
    if before[2:3] == [mark]:
        return True
    save("attempts", " ".join(before[:2] + [mark] + before[3:]))
    return False
