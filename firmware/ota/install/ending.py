"""How a request ends: commit and install, or a reason; clear, report, reset."""

from binascii import crc32

from ..errors import Transient


def install(agent, request, staged, sequence):
    """Commit, install, clear and report what is staged and prepared, and reset the node.

    staged: how much has changed; sequence: the package's, or None. Returns what Agent.check() says
    only if nothing was installed. Raises OSError.
    """
    import machine
    import micropython

    from .. import recovery
    from . import transaction

    if not staged:
        # What runs is what this package holds: no trial, and no reset.
        transaction.keep_sequence(sequence)
        return "installed" if _end(agent, "1 " + request.file_id) else "later"
    # No key may stop what follows, or leave the application running on half of it.
    micropython.kbd_intr(-1)
    try:
        transaction.commit()
        agent.progress("commit", staged)
        recovery.install(agent.feed)
        transaction.clear_up()
        if transaction.in_transaction():  # else rolled back: the next boot tells
            agent.progress("install", staged)
            owed = transaction.owed()
            if owed:
                send(agent, owed)
                transaction.forget("report")
            if agent.stat:
                agent.stat.close()
    except Transient as error:
        agent.later(error)  # the report waits on flash
    finally:
        # Whatever happened, flash errors included: the modules in memory are no longer those on
        # flash, and only a boot can go on. Also where leaving ends in what is no Exception, as
        # when the application's client stops a task: it would go on, perhaps on half of a tree.
        try:
            agent.leave()
        finally:
            machine.reset()


def fail(agent, file_id, reason, flash_works=True):
    """Clear the request and report reason. Returns what Agent.check() says."""
    agent.reason = reason
    agent.progress("failed", reason)
    return "failed" if _end(agent, "2 %s %s" % (file_id, reason), flash_works) else "later"


def _end(agent, owed, flash_works=True):
    """Report the end of a request that leaves no transaction. True when it was delivered."""
    from ..backoff import note, seen
    from . import transaction

    # The same refusal once more costs no flash: it is told first, and the request cleared after
    # it, so that a cut in between loses nothing.
    mark = crc32(owed).to_bytes(4, "little")
    known = owed[0] == "2" and not transaction.exists("/.ota") and seen(mark)
    keep = flash_works and not known
    try:
        if keep:
            transaction.discard(agent.feed)
            # On flash before the clear: a cut between clear and report must not lose the end.
            transaction.save("report", owed)
            transaction.clear_up()
    except OSError:
        keep = flash_works = False
    if not flash_works:
        # Nothing can be kept about this end. On a fresh mount it may, or may not even be needed:
        # the request still stands, and the attempt is counted.
        from .transaction import reset_after_flash_error

        reset_after_flash_error(agent)
    try:
        send(agent, owed, keep)
        if keep:
            transaction.forget("report")
        if owed[0] == "2":
            note(mark)
        return True
    except Transient as error:
        # It waits on flash, and goes out first at the next contact; where flash fails, the request
        # still stands.
        agent.later(error)
        return False


def send(agent, owed, kept=True):
    """Tell the platform what it is owed, `<1 or 2> <file id> …`. Raises Transient, OSError."""
    from .report import finish

    if not agent.control:
        agent.approach()
    agent.limits.renew()
    event, file_id, text = (owed + "  ").split(" ", 2)
    text = text.strip() or None
    finish(agent.control, int(event), file_id, text, agent.progress, kept)
    if agent.stat:
        agent.stat.end(int(event), file_id)
