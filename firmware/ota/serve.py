"""Nodes that never sleep: stay connected, act at once, come back at random times after a loss."""

import time

from micropython import const

from .errors import OtaError, Transient

_ETIMEDOUT = const(110)
_LISTEN_MS = const(1000)
_LONGEST_S = const(3600)
# Refusals in a row that make the pause longer.
_MOST_REFUSALS = const(10)


def serve(agent):
    """What Agent.serve() says."""
    if agent.client:
        raise OtaError("bad call", "serve() is for the agent's own client: call poll()")
    while True:
        step(agent, _LISTEN_MS)
        if not agent.control:
            time.sleep_ms(min(_LISTEN_MS, _left_ms(agent)))


def step(agent, wait_ms=0):
    """What Agent.poll() says; listens for wait_ms while there is nothing else to do."""
    agent.feed()
    if not hasattr(agent, "refusals"):
        # With an application's client the first step has to look. ticks_ms, or None.
        agent.retry_at = time.ticks_ms() if agent.client else None
        agent.settled_at = None  # when a connection is taken for one that lasts
        agent.refusals = 0  # in a row
    agent.patient = None  # this connection stays: what is retained is heard whenever it comes
    if agent.settled_at is not None and not _until_ms(agent.settled_at):
        agent.settled_at = None
        agent.refusals = 0
        agent.keep(False)
    if agent.retry_at is not None and not _left_ms(agent) and agent.refusals:
        # There is nothing to be tried again: what comes next is another request.
        agent.retry_at = None
        _begin_to_settle(agent)
    if agent.client:
        # The application hears messages itself, and shows them to handle().
        if _left_ms(agent) or not (agent.pending or agent.retry_at is not None):
            return None
        return _after(agent, agent.check())
    if not agent.control:
        return None if _left_ms(agent) else _after(agent, agent.contact())
    agent.limits.renew()
    try:
        listen(agent.control, wait_ms)
    except Transient as error:
        return _after(agent, agent.later(error))
    except MemoryError:
        return _after(agent, agent.later("out of memory"))
    if not agent.control.pending():
        if agent.retry_at is not None and not agent.refusals:
            # What has failed was withdrawn, and the connection may last from here on.
            agent.retry_at = None
            _begin_to_settle(agent)
        return None
    if _left_ms(agent):
        return None
    return _after(agent, agent.act())


def _left_ms(agent):
    """How long nothing may be tried, in ms."""
    return 0 if agent.retry_at is None else _until_ms(agent.retry_at)


def _until_ms(ticks):
    return max(0, time.ticks_diff(ticks, time.ticks_ms()))


def _after(agent, outcome):
    agent.retry_at = pause_ms = None
    if outcome == "idle" and agent.control:
        _begin_to_settle(agent)
    elif not agent.client:  # else check() has done it
        agent.settled_at = None
        agent.keep(outcome == "later")
    if outcome == "later":
        pause_ms = agent.retry_ms()
    if outcome not in ("failed", "idle"):
        agent.refusals = 0
    elif outcome == "failed":
        # Each end costs flash, so many requests that are refused are not answered one by one.
        agent.settled_at = None
        agent.refusals = min(agent.refusals + 1, _MOST_REFUSALS)
        pause_ms = min(agent.retry_ms() * agent.refusals, 1000 << agent.refusals)
        pause_ms = max(1000, pause_ms)
    if pause_ms is not None:
        agent.retry_at = time.ticks_add(time.ticks_ms(), pause_ms)
    if agent.control and not agent.control.link:
        agent.leave()
    return outcome


def _begin_to_settle(agent):
    # A broker that lets a whole fleet in only to drop it must meet pauses that grow, so the
    # failures before are forgotten when the connection has lasted.
    lasting_s = min(agent.config["retry_s"], _LONGEST_S)
    agent.settled_at = time.ticks_add(time.ticks_ms(), lasting_s * 1000)


def listen(control, wait_ms):
    """Hear what has come, or comes within wait_ms, and tell the broker that this node lives.

    Raises Transient, also when the broker has not answered the last ping.
    """
    while control.call(control.link.readable, wait_ms):
        wait_ms = 0
        control.call(control.hear)
    # A broker drops who is silent for one and a half times the keep-alive.
    now = time.ticks_ms()
    first = not hasattr(control, "ping_at")
    keepalive_ms = control.config["mqtt"]["keepalive"] * 1000
    if not keepalive_ms or (not first and time.ticks_diff(now, control.ping_at) < 0):
        return
    control.ping_at = time.ticks_add(now, keepalive_ms // 2)
    if first:
        return  # it has just spoken
    if control.pings > 0:
        control.call(_fail)
    control.pings += 1
    control.ask("ping")
    control.call(control.link.flush)


def _fail():
    raise OSError(_ETIMEDOUT)
