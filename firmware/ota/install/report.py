"""The end of a request, told to the platform: clear the request, then publish the report.

What a broker does with a clear that it does not allow: Mosquitto and EMQX acknowledge and drop it;
RabbitMQ, VerneMQ, mProxy and aedes close the connection; Moquette says nothing. So an
acknowledgement proves nothing. What proves it is the node's own empty message, which a broker
that takes it sends to all who are subscribed, this node too.

That message also says what it has wiped: another request that was heard before it, and after the
last fence, was retained for a moment and is not any more. It is put back.

    /.ota/done     which request has ended although the broker keeps it: see mark_of(); a ! after
                   it where another clear would cost an application its connection
    /.ota/request  a request that was, or may have been, wiped: its bytes, in hex
"""

import json
import time
from binascii import hexlify, unhexlify

from micropython import const

from ..errors import Transient
from .transaction import exists, forget, load, save

_LONGEST_TEXT = const(160)
# How long the node's own message may take to come back to it.
_WAIT_MS = const(1000)
# How often what a message has wiped is put back, and wipes another one: somebody may not stop.
_MOST_ROUNDS = const(4)
KEPT = const("the request could not be cleared")


def finish(control, event, file_id, text, progress, kept=True):
    """Clear the retained request if it still is the one of file_id, then report.

    Each is acknowledged by the broker before the next step. event: 1 applied, 2 failed; text: str
    for people, or None; kept: whether the report is on flash. If not it goes first, because a cut
    after the clear would lose it. A request that the broker keeps is remembered as done, and the
    report is sent all the same. Raises Transient, OSError.
    """
    stand_before(control)
    mark = file_id
    if text and text.startswith("bad request"):
        mark += " " + text
    if not kept:
        _report(control, event, file_id, text, progress)
    if mark_of(control.pending()) == mark and done() != mark:
        cleared = False
        try:
            cleared = retain(control, b"", mark)
        except Transient:
            pass  # it may be the broker's answer: the report must not wait for another clear
        if not cleared:
            try:
                anew(control)
            except Transient:
                # Then the next contact has to report first, or it would end here each time: only
                # the application can connect a client of its own.
                save("done", mark)
                raise
            if exists("/.ota/request"):
                put_back(control)
        if mark_of(control.pending()) == mark:
            # Before the report: a cut between the two costs a second report, and no download.
            save("done", mark)
            progress("notice", KEPT)
        else:
            progress("clear", file_id)
    if kept:
        if event == 1 and control.pending() and done() == mark:
            text = "installed, but " + KEPT
        _report(control, event, file_id, text, progress)


def done():
    """What mark_of() says of the request that has ended although the broker keeps it, or None."""
    text = load("done")
    return text and text.rstrip("!")


def stand_before(control):
    """Hear what is retained now, in a new connection where this one is none, broken, or too new.

    Otherwise a request that the broker is slow to send outlives its report, and is done again.
    """
    try:
        if control.link and control.sure:
            # The operator may have asked for another package meanwhile: that request must stay.
            control.fence()
            return
    except Transient:
        pass  # nobody has looked at it for a while
    anew(control)


def put_back(control):
    """Make retained again what a clear may have wiped, unless something else is retained by now.

    Raises Transient, OSError.
    """
    wiped = load("request")
    if wiped is None:
        return
    if not control.sure:
        anew(control)  # else it could take the place of a newer one that is still to come
    # Not for ever: a broker that lets this node retain nothing closes the connection each time.
    for _ in range(2):
        if not wiped or control.pending():
            break
        try:
            if retain(control, unhexlify(wiped), None):
                return
        except Transient:
            anew(control)
    forget("request")


def anew(control):
    """Hear from the beginning what is retained; only after the full patience is it nothing."""
    control.close()
    control.request = control.bad = None
    control.connect(True)


def mark_of(pending):
    """What tells a Request or BadRequest from all others, as str; None for None."""
    if isinstance(pending, Exception):
        return "%s %s" % (pending.file_id, pending)
    return pending and pending.file_id


def retain(control, payload, mark, qos=1, rounds=_MOST_ROUNDS):
    """Make payload (b"": nothing) what is retained, in the place of the request of mark (str).

    Whatever somebody else has published in the meantime wins; after `rounds` more messages that
    wipe one, it is left for the next contact. True when the broker has shown that it took payload.
    Raises Transient, OSError.
    """
    client, before = control.client, control.client.cb
    heard, wrong = [], []  # since payload was sent

    def listen(topic, other):
        skipped = control.link.skipped
        before(topic, other)
        if topic != control.topic or other == control.echo:
            return
        pending = control.pending()
        if skipped or (other and mark_of(pending) in (mark, None)):
            return  # it comes once more; or nobody can put it back; or it is somebody's report
        if other and other != payload and payload not in heard and heard[-1:] != [other]:
            # The power may fail before it is retained again.
            try:
                save("request", hexlify(other).decode())
            except OSError as error:  # not here, where it would be taken for the network's
                wrong.append(error)
        heard.append(other)

    control.request = control.bad = None
    client.set_callback(listen)
    try:
        control.ask("publish", control.topic, payload, True, qos)
        control.fence()
        # Some brokers answer a ping before they have passed on what came before it. Of a clear
        # that has failed before nothing is expected.
        end = time.ticks_add(time.ticks_ms(), qos * _WAIT_MS)
        while payload not in heard:
            left_ms = max(0, time.ticks_diff(end, time.ticks_ms()))
            if not control.call(control.link.readable, left_ms):
                break
            control.call(control.hear)
    finally:
        if control.client is client:
            client.set_callback(before)
        if wrong:
            raise wrong[0]
    if payload not in heard:
        return False
    # What it has taken the place of, if nothing came after it. Where an application's subscription
    # matches as well, each message may come twice; payload more often: somebody else said it, too.
    times = earlier = 0
    while heard and heard[-1] == payload:
        heard.pop()
        times += 1
    over = heard[-1] if heard and times else payload
    while heard and heard[-1] == over:
        heard.pop()
        earlier += 1
    if over == payload or times > earlier:
        forget("request")
    elif rounds:
        retain(control, over, None, 1, rounds - 1)
    return True


def _report(control, event, file_id, text, progress):
    payload = control.echo = report_payload(event, file_id, text).encode()
    control.ask("publish", control.topic, payload, False, 1)
    progress("report", payload.decode())


def report_payload(event, file_id, text=None):
    """A report as the platform's page prints it. event: 1 applied, 2 failed. Returns str."""
    payload = '[{"n":"e","v":%d},{"n":"i","vs":%s}' % (event, json.dumps(file_id))
    if text:
        payload += ',{"n":"m","vs":%s}' % json.dumps(text[:_LONGEST_TEXT])
    return payload + "]"
