"""Whether the version on trial is kept: when the next update would work as this one did.

A node that reaches its control channel, and reports there, can be repaired from there, if it can
be updated.
"""

import gc
import sys

from micropython import const

from .. import drop
from ..cycle import forget_staging

_ON_TRIAL = const(6144)


def decide(agent, needs):
    """End a trial, well if the next update would work. Returns what Agent.check() says.

    needs: (largest piece, all) in bytes that the last update took, or 0.
    """
    piece, need = needs or (0, 0)
    if not agent.client:
        agent.leave()
    wrong = _no_room(piece, need)
    if not wrong:
        from .rehearsal import rehearse

        wrong = rehearse(agent, piece)
        del rehearse
    forget_staging()
    return end_trial(agent, wrong)


def end_trial(agent, wrong):
    """Confirm the trial, or reset the node to roll back for the reason wrong (str).

    Returns "confirmed"; "later" when there was no trial to give up. Raises Transient when it can
    not be told yet whether new trust anchors are right.
    """
    if not (wrong or agent.open_stream):
        from .anchors import try_anchors

        wrong = try_anchors(agent.config, agent.limits)
        del try_anchors
        drop("install.anchors", "dial", "trust", "package", "recovery")
    from . import transaction, trial
    from .opening import clear_up, deliver

    if wrong:
        if trial.give_up("rolled back: can not update again, " + wrong):
            agent.progress("failed", wrong)
            agent.reset()
        return "later"
    if trial.confirm(agent.watchdog is not None):
        agent.progress("confirm", "")
        deliver(agent, transaction)
    clear_up(agent, transaction)
    return "confirmed"


def _no_room(piece, need):
    """Why RAM is too small for an update, as str; None where it is not.

    piece, need: bytes that the last one took in one piece, and in all.
    """
    gc.collect()
    # What a boot on trial has in RAM, and others have not: names, the deadline, twice as much
    # where words have 64 bits.
    free = gc.mem_free() + (_ON_TRIAL << (sys.maxsize > 1 << 31))
    if free < need:
        return "out of memory: %d bytes are free, %d needed" % (free, need)
    try:
        bytearray(piece)
    except MemoryError:
        return "out of memory: no piece of %d bytes" % piece
