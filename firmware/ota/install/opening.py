"""What comes before a request: what the platform is owed, a trial, a request that has ended."""

import time

from micropython import const

_HOUR_MS = const(3600000)


def settle(agent):
    """Put back what was wiped, and deliver an owed report, before anything new is begun.

    Returns (what check() says of it, or "open" for a transaction that only a boot can end; None
    but for a trial that may be confirmed: then what trial.on_trial() says).
    """
    from . import transaction

    if agent.config["stat"] and not agent.reason:  # else memory has ended the update
        try:
            from ..stat import Stat

            agent.stat = Stat(agent)
        except Exception:
            pass  # an update does without it
    if not transaction.exists("/.ota"):
        return "idle", None
    from .trial import on_trial

    if transaction.exists("/.ota/request"):
        from .report import put_back

        put_back(agent.control)
    outcome = deliver(agent, transaction) or "idle"
    need = on_trial()
    if need is None:
        if transaction.in_transaction():
            outcome = "open"
        else:
            clear_up(agent, transaction)
            if agent.stat:
                agent.stat.gone()
    return outcome, need


def clear_up(agent, transaction):
    """Remove what no transaction needs. transaction: the module."""
    control = agent.control
    # Not at a silence that may be the broker's delay: a node that stays, and connects anew after
    # each attempt, would never come to its last one; and what was staged may be wanted still.
    if control and not control.request and not control.sure:
        attempts = transaction.load("attempts") or ""
        transaction.discard(agent.feed, (attempts.split(" ")[0], "", 0))
        return
    request = control and control.request
    transaction.discard(agent.feed, request)
    if not request:
        transaction.clear_up()


def deliver(agent, transaction):
    """Send what is owed. Returns what check() says of a bad end, or None."""
    outcome = None
    for name, owed in ("owed", transaction.load("owed")), ("report", transaction.owed()):
        if owed:
            if not transaction.of_application(owed):
                from .ending import send

                send(agent, owed)
            if owed.startswith("2 "):
                agent.reason = owed.split(" ", 2)[2]
                bad = agent.reason.startswith("rolled back")
                outcome = "rolled_back" if bad else "failed"
        if owed is not None:
            transaction.forget(name)
    return outcome


def go_on(agent, outcome, bad, request):
    """See to a request that has ended, and to a transaction that only a boot can end.

    outcome: what settle() says, or the trial's end; bad, request: what the control channel has
    heard. Returns the three as they are then; neither of the two where nothing else is to be done.
    """
    if outcome == "open":
        # Another version's, or boot.py could not finish it: staging would overwrite it.
        from .trouble import without_boot_py

        without_boot_py(agent)
        return agent.later("a transaction waits for the next boot"), None, None
    from .transaction import exists

    if exists("/.ota/done"):
        if _has_ended(agent, bad or request):
            return outcome, None, None
        if agent.control:
            bad, request = agent.control.bad, agent.control.request
    return outcome, bad, request


def _has_ended(agent, pending):
    """What kept.has_ended() says; the clear is tried once in a wake, or in an hour."""
    from .kept import has_ended

    now = time.ticks_ms()
    before = getattr(agent, "cleared_at", None)
    try_clear = before is None or time.ticks_diff(now, before) > _HOUR_MS
    if try_clear and agent.control:
        agent.cleared_at = now
    return has_ended(agent, pending, try_clear)
