"""The end of a request, told to the platform: clear the request, then publish the report."""

import json

from micropython import const

_LONGEST_TEXT = const(160)


def finish(control, event, file_id, text, progress, kept=True):
    """Clear the retained request if it still is the one of file_id, then report.

    Each is acknowledged by the broker before the next step. event: 1 applied, 2 failed; text: str
    for people, or None; kept: whether the report is on flash. If not it goes first, because a cut
    after the clear would lose it. Raises Transient.
    """
    if control.link:
        # The operator may have asked for another package meanwhile: that request must stay.
        control.fence()
    else:
        control.connect()
    pending = control.pending()
    if not kept:
        _report(control, event, file_id, text, progress)
    if pending and pending.file_id == file_id:
        # Not after it: a newer one may come with the acknowledgement.
        control.request = control.bad = None
        control.ask("publish", control.topic, b"", True, 1)
        progress("clear", file_id)
    if kept:
        _report(control, event, file_id, text, progress)


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
