"""What comes between staging and the commit: copies, and a last look at the request."""

import gc
import time
from binascii import crc32

from micropython import const

from .. import drop
from ..errors import OtaError, Refused, Transient

_DIR = const("/.ota")
_JOURNAL = const("/.ota/journal")
# What the code that tells the end takes, and what it takes to do so.
_LITTLE = const(16 * 1024)
# Pauses between the tries to connect before the commit, in s.
_PAUSES_S = const((1, 4, 0))


def prepare(agent, request, staged):
    """Do all that comes before the commit; the last of it is to see that request still stands.

    staged: how much has changed. Raises OtaError itself when not; Refused, Transient, OSError.
    """
    if staged:
        write_copies()
        # It comes once more below: to connect takes memory of the chip's own, which this heap must
        # not have taken.
        drop("recovery")
    control, limits = agent.control, agent.limits
    if not control:
        agent.approach()
        control = agent.control
        # The same time as before: who replaces a request again and again must not keep it awake.
        agent.limits = control.limits = limits
        # What nobody can ask about is not installed: it may have been withdrawn.
        for pause_s in _PAUSES_S:
            try:
                control.connect(True)
                break
            except Transient:
                if not pause_s:
                    raise
                agent.feed()
                time.sleep(pause_s)
    if staged:
        if gc.mem_free() < _LITTLE:
            # Only a connection that is lost meanwhile needs these. Without them the report goes
            # out at the next contact.
            drop("dial", "trust")
        _load(agent)
    if agent.client:
        from .report import stand_before

        stand_before(control)
    # A request that came in the middle of the first contact has shown nothing of how late a
    # retained one comes; this look has.
    agent.learned = control.learned
    agent.keep()
    if control.request != request:
        raise OtaError("withdrawn")


def _load(agent):
    """Load all that tells the end: after the install, flash has the new version's.

    A builtin module as well: a file of its name comes before it at each import.
    """
    import machine  # noqa: F401
    import micropython  # noqa: F401

    from .. import enter as _enter  # noqa: F401
    from .. import recovery as _recovery  # noqa: F401
    from .. import request as _request  # noqa: F401
    from . import ending as _ending  # noqa: F401
    from . import report as _report  # noqa: F401

    if agent.client:
        from .. import dial as _dial  # noqa: F401
        from .. import halves as _halves  # noqa: F401 - what its callback asks for


def write_copies():
    """Make everything ready that a commit needs, so that it is one write.

    The journal and all that it names are complete and closed. Raises Refused when something that
    waits to be committed is not there any more.
    """
    from .. import recovery

    gone = None
    for kind, place, _, _, path in recovery.lines(_JOURNAL):  # to its end, which closes it
        if kind in "amr" and not recovery.exists(place):
            gone = path
    if gone:
        raise Refused("can not apply", "changed on flash, " + gone)
    # The package may break the one that is installed. An agent in the firmware needs no copy.
    source = "/" + recovery.__file__.lstrip("/")
    if recovery.exists(source):
        _copy_recovery(source)
    _copy_journal()


def _copy_recovery(source):
    buffer = bytearray(512)
    total = 0
    with open(source, "rb") as file, open(_DIR + source[source.rfind("/") :], "wb") as copy:
        while True:
            n = file.readinto(buffer)
            if not n:
                break
            piece = memoryview(buffer)[:n]
            total = crc32(piece, total)
            copy.write(piece)
        # Its own CRC-32 at the end, by which boot.py knows that flash has not changed it. Source
        # must stay source, so the four bytes are a comment, and a number makes them readable.
        number = 0
        while True:
            end = b"\n#%d " % number
            sum_ = crc32(end, total).to_bytes(4, "little")
            if min(sum_) > 32 and max(sum_) < 127:
                break
            number += 1
        copy.write(end + sum_)


def _copy_journal():
    """For when flash loses a bit of the first one. What is unchanged needs no line in it."""
    total = 0
    with open(_JOURNAL, "rb") as file, open(_JOURNAL + "2", "wb") as copy:
        for line in file:
            end = line[0] == 61
            if end or line[0] != 117:  # =, u
                total = crc32(b"=" if end else line, total)
                copy.write(b"=" + total.to_bytes(4, "little") if end else line)
            if end:
                break
