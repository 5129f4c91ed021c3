"""How a contact begins: what the node knows already, its limits, and its connection.

An idle node has this in RAM for as long as it connects, before it loads what it does then.
"""

import os
import socket
import sys

from micropython import const

from . import drop
from .errors import Transient, name_of
from .wire import Limits

_REASON = const("can not connect")
_IPPROTO_TCP = const(6)
_TCP_NODELAY = const(1)


def approach(agent):
    """Make the limits of a contact. Returns its connection, and what look() says.

    The connection is the application's client, or a Link to the broker; None in the middle of an
    update, which knows when to connect. Raises Transient.
    """
    config = agent.config
    seen = look(config)
    wait_s, watchdog_s = config["timeout_s"], config["watchdog_s"]
    if watchdog_s:
        # No wait may come near what the watchdog takes for a crash.
        wait_s = min(wait_s, watchdog_s / 2)
        if not agent.watchdog:
            import machine

            agent.watchdog = machine.WDT(timeout=watchdog_s * 1000)
    agent.limits = Limits(int(wait_s * 1000), config["cycle_s"] * 1000, agent.feed)
    if agent.client or "ota.cycle" in sys.modules:
        return agent.client, seen
    return linked(config, agent.limits), seen


def look(config):
    """(topic, whether something is open on flash: a trial, a report, litter; whether a trial is,
    known).

    topic: as topic_of() has it; known: what backoff.known() says of the broker, None where nothing
    is to be learned.
    """
    busy = trial = False
    try:
        os.stat("/.ota")
        busy = True
        os.stat("/.ota/state")
        trial = True
    except OSError:
        pass
    known = None
    if config["mqtt"]["grace_ms"] < 0:
        # Now: where a report follows an install, flash has the new version's module by then.
        from .backoff import known

        known = known()
        drop("backoff")
    return topic_of(config), busy, trial, known


def topic_of(config):
    """The ota topic of the node, as bytes."""
    topic = "channels/%s/messages/%s/ota" % (config["control_channel"], config["device_id"])
    return topic.encode()


def linked(config, limits):
    """A Link that is connected to the broker. Raises Transient."""
    from .link import Link

    mqtt = config["mqtt"]
    context = None
    if mqtt["tls"]:
        from .trust import trust

        context = trust(config["ca"], _REASON)
    link = Link(limits)
    dial(link.wire, _REASON, mqtt["host"], mqtt["port"], context)
    return link


def dial(wire, reason, host, port, context=None):
    """Connect a Wire to host:port; with context (ssl.SSLContext) verify chain and host name.

    Raises Transient with this reason; nothing has been sent then.
    """
    # Two waits in a row must not be one to the watchdog.
    wire.limits.step()
    # The host is not quoted: a redirect may have named it, and put anything there.
    detail = "the host's name is not known"
    try:
        # The one wait that only the port can end.
        places = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    except OSError:
        places = ()
    try:
        for family, kind, protocol, _, address in places:  # some ports give an empty list
            wire.limits.step()
            wait_ms = wire.limits.next_ms()
            if not wait_ms:
                detail = "the time for all of it is over"
                break
            try:
                wire.sock = sock = socket.socket(family, kind, protocol)
                sock.settimeout(wait_ms / 1000)
                try:
                    # Small writes are gathered already; without this an acknowledgement of ours
                    # would hold back the next message until the peer's delayed one.
                    sock.setsockopt(_IPPROTO_TCP, _TCP_NODELAY, 1)
                except (OSError, ValueError):
                    pass  # not every port has it
                sock.connect(address)
                detail = None
                break
            except OSError as error:
                detail = "the host does not answer, " + name_of(error)
                if not wire.sock:
                    detail = "no socket, " + name_of(error)
                wire.close()
        if detail:
            raise Transient(reason, detail)
        wire.adopt(sock)
        if context:
            wire.patient = True
            try:
                wire.stream = context.wrap_socket(wire, server_hostname=host)
            except (OSError, ValueError) as error:
                from .trust import verdict

                raise Transient(reason, verdict(error))
            wire.patient = False
    except BaseException:
        wire.close()
        raise
