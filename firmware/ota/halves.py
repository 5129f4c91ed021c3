"""A check in two halves, between which the application publishes, and hears messages itself."""

from .errors import Transient


def begin(agent):
    """What Agent.begin() says. Returns the control channel, for check(). Raises Transient."""
    agent.approach()
    control, client = agent.control, agent.client
    control.trip_ms = control.begin()
    if client:
        # The application gets its client back, and shows handle() what comes meanwhile.
        control.close()
        # Not that of an adapter, which is shown them by the application.
        if not (client.cb or hasattr(client.sock, "readable")):
            client.set_callback(agent.handle)
        agent.pending = bool(control.pending()) or agent.pending
    agent.control = None
    return control


def finish(control, patient):
    """What Control.connect() does after begin(), which was some time ago. Returns the same."""
    before = getattr(control, "socket", None)  # that of an application's client
    if before:
        control.open()
        if control.socket is not before:
            return control.connect(patient)  # nothing is subscribed to there yet
    try:
        control.call(control.listen, 0)
    except Transient:
        # Dropped meanwhile: the application was silent for longer than the keep-alive, say, and
        # will be in the next wake, too.
        control.close()
        return control.connect(patient)
    if control.late_ms > 0:
        # It lay there while the application worked: a guess would make each later contact a long
        # one, or one that does not wait at all.
        control.late_ms = -1
    return control.settle(patient, control.trip_ms)


def handle(agent, topic, payload, echo):
    """What Agent.handle() says. echo: bytes of the last report, or None."""
    from .dial import topic_of

    if topic != topic_of(agent.config):
        return False
    if payload and payload != echo:
        from .request import read

        # Never back to False: what comes next may be the echo of a report.
        if any(read(payload)):
            agent.pending = True
    return True
