"""What becomes of a request that ends in an error, and of a contact that does.

Link, memory, flash, or the agent itself.
"""

import os
import time

from micropython import const

from ..errors import OtaError, Refused, Transient, name_of

_STATE = const("/.ota/state")
_OUT_OF_MEMORY = const("can not apply: out of memory")
_REASON = const("can not download")
_DAMAGED = const("can not apply: bad archive")


def outcome_of(agent, error):
    """What Agent.check() returns for an exception. Resets the node where only a boot helps."""
    wrong = None
    if isinstance(error, Transient):
        outcome = agent.later(error)
    elif isinstance(error, MemoryError):
        outcome = _out_of_memory(agent)
    elif isinstance(error, OSError):  # the network's have become Transient
        outcome = agent.later("flash failed, " + name_of(error))
        try:
            from .transaction import reset_after_flash_error
        except OSError:
            return outcome  # flash does not even give the code; nothing may be written now
        reset_after_flash_error(agent)
    else:
        # Nobody expects it; a node that leaves its application for the REPL can not be repaired.
        wrong = name_of(error)
        outcome = agent.later("failed, " + wrong)
    try:
        os.stat(_STATE)
    except OSError:
        return outcome
    try:
        _on_trial(agent, wrong)
    except Exception as error:
        print("ota: not counted,", name_of(error))
        if wrong:
            agent.reset()  # then it is boot.py that counts
    return outcome


def _on_trial(agent, wrong):
    """Count a wake of a trial that did not get through.

    wrong: str, of an agent that fails by itself: it could not be updated again.
    """
    if wrong:
        from .proof import end_trial

        end_trial(agent, wrong)
    from .transaction import count_failed_wake

    count_failed_wake()
    # The trial's own timer may have been taken, and its watchdog is fed by this agent.
    deadline_ms = agent.config["trial_deadline_s"] * 1000
    if 0 < deadline_ms < time.ticks_diff(time.ticks_ms(), agent.born):
        agent.reset()


def _out_of_memory(agent):
    request = agent.control and agent.control.request
    outcome = agent.later("out of memory")
    try:
        from ..recovery import exists, load

        if agent.control and exists("/.ota/report"):
            # What is owed: without the code above there may be room for it.
            from .opening import settle

            ended = settle(agent)[0]
            outcome = ended if ended in ("failed", "rolled_back") else outcome
        # Not a request that has ended: it has been told. As report.done(), without its module.
        elif request and (load("done") or "").rstrip("!") != request.file_id:
            # An attempt as well: the platform has to hear of it in the end.
            if _count(agent, request):
                from .ending import fail

                outcome = fail(agent, request.file_id, _OUT_OF_MEMORY)
    except (MemoryError, OSError, Transient) as error:
        print("ota: not counted,", name_of(error))
    return outcome


def end_attempt(agent, request, error, counted, last):
    """What becomes of a request that is not installed. Returns what Agent.check() says.

    error: why; counted, last: whether the attempt is counted on flash, and the last one. None
    where the request does not stand any more: there is nobody to tell.
    """
    flash_works = keep = True
    if type(error) is OtaError:
        from .transaction import clear_up, discard

        agent.progress("notice", "the request was withdrawn")
        discard(agent.feed)
        if agent.stat:
            agent.stat.end(3, request.file_id)
        # Heard again after that: the broker takes longer than any patience, as a node that stays
        # finds out. Then it counts, or the package would be fetched for ever.
        before = getattr(agent, "gone", None)
        agent.gone = request.file_id
        if agent.control.pending() or before != request.file_id:
            clear_up()
        return None
    if isinstance(error, Refused):
        reason = str(error)
        # Not what anybody has packed, perhaps, but two ends that do not fit: from its beginning,
        # once.
        resumed = agent.resumed and (reason.startswith(_DAMAGED) or reason.startswith("manifest"))
        keep = not resumed and "announced" not in reason
        if not last and (resumed or reason.startswith(_REASON)):
            # What a server says, or what stands before it, may pass: a page that tells of repairs,
            # an account that is locked for a minute. Once more in another wake, and it is true.
            from .attempt import was_told

            last = was_told(reason)
        else:
            last = True
    elif isinstance(error, Transient):
        reason = str(error)
        if last:
            from .attempt import staged

            last = not staged(request)
    elif isinstance(error, MemoryError):
        reason = _OUT_OF_MEMORY
        if error.args and type(error.args[0]) is int:  # inflate.py's
            reason = "can not apply: no memory for a window of %d bytes" % error.args[0]
        last = last if counted else _count(agent, request)
        if not last:
            from .attempt import was_told

            was_told("")  # the next one has no look at an index, and begins anew where one was
            from ..recovery import done, exists

            if exists("/.ota/index"):
                done(os.remove, "/.ota/mark")
    elif isinstance(error, OSError):
        flash_works = False
        reason = "can not apply: flash failed, " + name_of(error)
        if error.args[0] in (28, 36):  # littlefs calls a full folder a name that is too long
            from ..package.vetting import enough_for

            if not enough_for(0):  # what staging keeps in reserve is not free
                reason = "not enough space: flash is full"
                last = True
    else:
        # Nobody expects it, so nobody may be left without an answer for it.
        reason = "can not apply: " + name_of(error)
    if not flash_works and counted and not last:
        # On a fresh mount flash may work again; the attempts limit how often.
        agent.later(reason)
        agent.reset()
    if last or not flash_works:
        from .ending import fail
        from .transaction import read_mark

        # How far it came tells apart a link that is too slow and one that is dead.
        mark = read_mark()
        slow = isinstance(error, Transient) or "interrupted" in reason
        if mark and keep and (slow or reason.startswith(_REASON)):
            reason += ", %d of %d bytes were staged" % (mark[0], request.size)
        return fail(agent, request.file_id, reason, flash_works)
    from .attempt import note
    from .transaction import discard

    note(request)
    discard(agent.feed, request if keep else None)
    return agent.later(reason)


def _count(agent, request):
    """Count an attempt for which there was no memory before it was counted. True: the last one."""
    from .attempt import count_attempt

    stat, agent.stat = agent.stat, None  # nothing begins
    try:
        return count_attempt(agent, request)
    except Refused:
        return True
    finally:
        agent.stat = stat


def without_boot_py(agent):
    """End a trial that no boot will ever count, and reset: new code has removed our boot.py."""
    import __main__

    if not hasattr(__main__, "_trial"):
        import micropython

        from .. import recovery

        state = recovery.read_state()
        # "back" when the power has failed in the middle of this: nobody else would go on with it.
        if state and state[1] in ("trial", "back"):
            micropython.kbd_intr(-1)  # no key may stop it half way
            try:
                recovery.roll_back(state[3] or "rolled back: boot.py did not run")
                agent.reset()
            finally:
                micropython.kbd_intr(3)
