"""How a request ends: commit and install, or a reason; clear, report, reset. And what is owed."""

from .errors import Transient


def settle(agent):
    """Confirm a trial and deliver an owed report, before anything new is begun."""
    from . import recovery

    outcome = "idle"
    if not recovery.exists("/.ota"):
        return outcome
    outcome = _deliver(agent, recovery) or outcome
    # A node that reaches its control channel, and can report there, can be mended from there.
    if recovery.confirm():
        agent.progress("confirm", "")
        _deliver(agent, recovery)
        outcome = "confirmed"
    if recovery.in_transaction():
        return "open"
    recovery.discard(agent.feed)
    if not agent.control.request:
        recovery.forget("attempts")
    return outcome


def _deliver(agent, recovery):
    """Send the owed report, if there is one. Returns what check() says of a bad end, or None."""
    owed = recovery.load("report")
    if owed:
        _send(agent, owed)
        recovery.forget("report")
        if owed.startswith("2 "):
            agent.reason = owed.split(" ", 2)[2]
            return "rolled_back" if agent.reason.startswith("rolled back") else "failed"


def install(agent, request, staged, sequence):
    """Commit, install, clear and report what is staged, and reset the node.

    staged: how much has changed; sequence: the package's, or None. Returns what Agent.check() says
    only if nothing was installed. Raises OSError.
    """
    from . import recovery

    config = agent.config
    if sequence is not None:
        recovery.save("verified", str(sequence))
    if not staged:
        # What runs is what this package holds.
        recovery.keep_sequence()
        # Nothing differs from what runs: no trial, and no reset.
        return "installed" if _end(agent, "1 " + request.file_id) else "later"
    # All that tells the end, now: after the install, flash has the new version's. A builtin module
    # as well: a file of its name comes before it at each import.
    import machine

    from . import report as _report  # noqa: F401
    from . import request as _request  # noqa: F401

    if config["mqtt"]["tls"]:
        from . import trust as _trust  # noqa: F401
    if not agent.control:
        agent.approach()
    try:
        recovery.commit(
            request.file_id,
            config["trial_boots"],
            config["trial_wakes"],
            config["trial_deadline_s"],
            config["report"],
        )
        agent.progress("commit", staged)
        recovery.install(agent.feed)
        recovery.forget("attempts")
        if not recovery.in_transaction():
            return _deliver(agent, recovery)  # rolled back: nothing has moved
        agent.progress("install", staged)
        owed = recovery.load("report")
        if owed:
            _send(agent, owed)
            recovery.forget("report")
    except Transient as error:
        agent.later(error)  # the report waits on flash
    finally:
        # Whatever happened, flash errors included: the modules in memory are no longer those on
        # flash, and only a boot can go on.
        if recovery.in_transaction():
            agent.leave()
            machine.reset()
    return "later"


def fail(agent, file_id, reason, flash_works=True):
    """Clear the request and report reason. Returns what Agent.check() says."""
    agent.reason = reason
    agent.progress("failed", reason)
    return "failed" if _end(agent, "2 %s %s" % (file_id, reason), flash_works) else "later"


def _end(agent, owed, flash_works=True):
    """Report the end of a request that leaves no transaction. True when it was delivered."""
    from . import recovery

    try:
        if flash_works:
            recovery.discard(agent.feed)
            # On flash before the clear: a cut between clear and report must not lose the end.
            recovery.save("report", owed)
            recovery.forget("attempts")
    except OSError:
        flash_works = False
    if not flash_works:
        # Nothing can be kept about this end. On a fresh mount it may, or may not even be needed:
        # the request still stands, and the attempt is counted.
        agent.reset_after_flash_error()
    try:
        _send(agent, owed, flash_works)
        if flash_works:
            recovery.forget("report")
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


def status():
    """{"state", "file_id", "boots", "undelivered"} for people and for the application.

    state: "idle", "staged", "commit", "trial" or "back"; boots: as the state counts them;
    undelivered: the waiting report, or None.
    """
    from . import recovery

    state = recovery.read_state()
    staged = recovery.exists("/.ota/journal")
    return {
        "state": state[0] if state else "staged" if staged else "idle",
        "file_id": state[1] if state else None,
        "boots": int(state[2]) if state else 0,
        "undelivered": recovery.load("report"),
    }
