"""What a broker keeps though it has ended; loaded only where /.ota/done says so (report.py)."""

from ..errors import Transient
from .report import KEPT, anew, done, mark_of, retain
from .transaction import forget, load, save


def has_ended(agent, pending, try_clear):
    """True when pending (Request, BadRequest or None) has ended, and the broker keeps it.

    try_clear: whether to try once more to clear it. An end whose request is gone, or replaced by
    another one, is forgotten; then agent.control.pending() tells what is to be done. Raises
    Transient, OSError.
    """
    control = agent.control
    mark = done()
    if mark is None:
        return False
    if control and not pending:
        anew(control)
        pending = control.pending()
    if mark_of(pending) != mark:
        if control or pending:
            forget("done")
        return False
    if not control:
        return True
    if try_clear and load("done") == mark:
        cleared = False
        try:
            # Not acknowledged: to wait for a broker that says nothing would cost timeout_s.
            cleared = retain(control, b"", mark, 0)
        except Transient:
            # The broker's answer, or the link's. A later wake tries again with a client of ours;
            # an application needs its connection for more than that.
            if agent.client:
                save("done", mark + "!")
        if cleared:
            forget("done")
            agent.progress("clear", mark)
        else:
            agent.progress("notice", KEPT)
    if mark_of(control.pending()) == mark:
        control.request = control.bad = None
    return True
