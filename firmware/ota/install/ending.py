"""How a request ends: commit and install, or a reason; clear, report, reset. And what is owed."""

import time
from binascii import crc32

from micropython import const

from .. import drop
from ..errors import OtaError, Transient

# Pauses between the tries to connect before the commit, in s.
_PAUSES_S = const((1, 4, 0))


def settle(agent):
    """Put back what was wiped, and deliver an owed report, before anything new is begun.

    Returns (what check() says of it, or "open" for a transaction that only a boot can end; None
    but for a trial that may be confirmed: then what transaction.on_trial() says).
    """
    from . import transaction

    if not transaction.exists("/.ota"):
        return "idle", None
    if transaction.exists("/.ota/request"):
        from .report import put_back

        put_back(agent.control)
    outcome = _deliver(agent, transaction) or "idle"
    need = transaction.on_trial()
    if need is None:
        if transaction.in_transaction():
            outcome = "open"
        else:
            _clear_up(agent, transaction)
    return outcome, need


def end_trial(agent, wrong):
    """Confirm the trial, or reset the node to roll back for the reason wrong (str).

    Returns "confirmed"; "later" when there was no trial to give up. Raises Transient when it can
    not be told yet whether new trust anchors are right.
    """
    from . import transaction

    if not (wrong or agent.open_stream):
        from .rehearsal import try_anchors

        wrong = try_anchors(agent.config, agent.limits)
        del try_anchors
        drop("install.rehearsal", "trust", "package", "https")
    if wrong:
        if transaction.give_up("rolled back: can not update again, " + wrong):
            agent.progress("failed", wrong)
            agent.reset()
        return "later"
    if transaction.confirm(agent.watchdog is not None):
        agent.progress("confirm", "")
        _deliver(agent, transaction)
    _clear_up(agent, transaction)
    return "confirmed"


def _clear_up(agent, transaction):
    transaction.discard(agent.feed)
    control = agent.control
    # Not at a silence that may be the broker's delay: a node that stays, and connects anew after
    # each attempt, would never come to its last one.
    if not control or (control.sure and not control.request):
        transaction.forget("attempts")


def _deliver(agent, transaction):
    """Send what is owed. Returns what check() says of a bad end, or None."""
    outcome = None
    for name, owed in ("owed", transaction.load("owed")), ("report", transaction.owed()):
        if owed:
            if not transaction.of_application(owed):
                _send(agent, owed)
            if owed.startswith("2 "):
                agent.reason = owed.split(" ", 2)[2]
                bad = agent.reason.startswith("rolled back")
                outcome = "rolled_back" if bad else "failed"
        if owed is not None:
            transaction.forget(name)
    return outcome


def prepare(agent, request, staged):
    """Do all that comes before the commit; the last of it is to see that request still stands.

    staged: how much has changed. Raises OtaError itself when not; Refused, Transient, OSError.
    """
    from . import report, transaction

    if staged:
        # All that tells the end, now: after the install, flash has the new version's. A builtin
        # module as well: a file of its name comes before it at each import.
        import machine  # noqa: F401
        import micropython  # noqa: F401

        from .. import recovery as _recovery  # noqa: F401
        from .. import request as _request  # noqa: F401

        if agent.config["mqtt"]["tls"]:
            from .. import trust as _trust  # noqa: F401
        transaction.prepare()
    limits = agent.limits
    if not agent.control:
        agent.approach()
        # The same time as before: who replaces a request again and again must not keep it awake.
        agent.limits = agent.control.limits = limits
    # What nobody can ask about is not installed: it may have been withdrawn.
    for pause_s in _PAUSES_S:
        try:
            report.stand_before(agent.control)
            break
        except Transient:
            if agent.client or not pause_s:
                raise
            agent.feed()
            time.sleep(pause_s)
    # A request that came in the middle of the first contact has shown nothing of how late a
    # retained one comes; this look has.
    agent.learned = agent.control.kept
    agent.keep()
    drop("backoff")
    if agent.control.request != request:
        raise OtaError("withdrawn")


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
        transaction.forget("attempts")
        if transaction.in_transaction():  # else rolled back: the next boot tells
            agent.progress("install", staged)
            owed = transaction.owed()
            if owed:
                _send(agent, owed)
                transaction.forget("report")
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
            transaction.forget("attempts")
    except OSError:
        keep = flash_works = False
    if not flash_works:
        # Nothing can be kept about this end. On a fresh mount it may, or may not even be needed:
        # the request still stands, and the attempt is counted.
        from .transaction import reset_after_flash_error

        reset_after_flash_error(agent)
    try:
        _send(agent, owed, keep)
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


def _send(agent, owed, kept=True):
    from .report import finish

    if not agent.control:
        agent.approach()
    agent.limits.renew()
    event, file_id, text = (owed + "  ").split(" ", 2)
    text = text.strip() or None
    finish(agent.control, int(event), file_id, text, agent.progress, kept)
