"""What is said on the control channel: a request read, a report written.

SenML packs (RFC 8428) in JSON; docs/protocol.md has them all.
"""

import json

from micropython import const

from .errors import Refused

_PENDING = const(0)
_LONGEST_REPORT_TEXT = const(160)
_MOST_BRACKETS = const(64)


class Request:
    """A package waits. file_id: str; kind: ".tar" or ".tar.gz"; size: bytes of the archive."""

    def __init__(self, file_id, kind, size):
        self.file_id = file_id
        self.kind = kind
        self.size = size


class BadRequest(Refused):
    """A retained message that can not be acted on. file_id: str, "" where it could not be read."""

    def __init__(self, detail, file_id=""):
        super().__init__("bad request", detail)
        self.file_id = file_id


def parse(payload):
    """What a message on the ota topic asks for: a Request, or None when it is not a request.

    payload: bytes. Liberal in what is read (numbers as text, any order, unknown fields), strict in
    what is acted on: raises BadRequest for anything that is neither a sound request nor a message
    with another event.
    """
    if not payload:
        return None  # our own clear, or somebody else's
    if payload.count(b"[") + payload.count(b"{") > _MOST_BRACKETS:
        raise BadRequest("nested or long beyond any request")  # it could exhaust the memory
    try:
        pack = json.loads(payload)
    except (ValueError, RuntimeError):  # RuntimeError: nested deeper than the stack
        raise BadRequest("not JSON")
    if not isinstance(pack, list):
        raise BadRequest("not a SenML pack")
    found = {}
    base = ""
    for entry in pack:
        if not isinstance(entry, dict):
            raise BadRequest("not a SenML pack")
        base = entry.get("bn", base)
        name = entry.get("n", "")
        if name not in ("e", "i", "t", "s") and isinstance(base, str) and isinstance(name, str):
            name = base + name
        if name in ("e", "i", "t", "s"):
            if name in found:
                raise BadRequest(name + " stands twice")
            found[name] = entry.get("v", entry.get("vs"))
    file_id = found.get("i")
    if type(file_id) is int:
        file_id = str(file_id)
    if not _is_file_id(file_id):
        file_id = ""
    event = _whole(found.get("e"))
    if event is None:
        raise BadRequest("e is missing or not a number", file_id)
    if event != _PENDING:
        return None  # a report: our own, heard because we are subscribed
    if not file_id:
        raise BadRequest("i is missing or not a file id")
    if found.get("t") not in (".tar", ".tar.gz"):
        raise BadRequest("t is missing or neither .tar nor .tar.gz", file_id)
    size = _whole(found.get("s"))
    if not size or size < 0:
        raise BadRequest("s is missing or not a size", file_id)
    return Request(file_id, found["t"], size)


def asks(payload):
    """True when this message (bytes) asks for something, sensible or not."""
    try:
        return parse(payload) is not None
    except BadRequest:
        return True


def _is_file_id(text):
    # It goes into a URL, into /.ota/state between spaces and back into a report.
    if not isinstance(text, str) or not 0 < len(text) <= 64:
        return False
    for c in text:
        if not ("0" <= c <= "9" or "a" <= c <= "z" or "A" <= c <= "Z" or c in "-._"):
            return False
    return True


def _whole(value):
    """value as int when it is a whole number or the text of one, else None."""
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            return None
    if type(value) is float and value == value // 1:
        value = int(value)
    return value if type(value) is int else None


def report_payload(event, file_id, text=None):
    """A report as the platform's page prints it. event: 1 applied, 2 failed. Returns str."""
    payload = '[{"n":"e","v":%d},{"n":"i","vs":%s}' % (event, json.dumps(file_id))
    if text:
        payload += ',{"n":"m","vs":%s}' % json.dumps(text[:_LONGEST_REPORT_TEXT])
    return payload + "]"
