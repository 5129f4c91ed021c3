"""What a message on the ota topic asks for: SenML (RFC 8428) in JSON, as docs/protocol.md says.

And what the application says about that.
"""

import json
from collections import namedtuple

from micropython import const

from .errors import Refused, name_of

_PENDING = const(0)
_MOST_BRACKETS = const(64)
_RETAINED = const(1)  # in the first byte of a PUBLISH
_LONGEST_SKIP = const(1 << 20)
_ECONNRESET = const(104)
_ETIMEDOUT = const(110)


# file_id: str; kind: ".tar" or ".tar.gz"; size: bytes of the archive. A tuple, which does not hold
# on to this module.
Request = namedtuple("Request", ("file_id", "kind", "size"))


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
    if payload.rstrip()[-1] != 93:  # ]: releases before 1.26 take text that ends too early
        raise BadRequest("not JSON")
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


def read(payload, skipped=0):
    """(Request or None, BadRequest or None) of a message. skipped: bytes it was too long by."""
    try:
        if skipped:
            raise BadRequest("longer than any request")
        return parse(payload), None
    except BadRequest as error:
        return None, error


def note(control, payload, skipped, late_ms):
    """Note in a Control what a message asks for.

    skipped: bytes it was too long by; late_ms: how late it came, as Control.late_ms has it.
    """
    # Not what is published just now, which is late for no reason of the broker's.
    if control.link.kind & _RETAINED:
        control.late_ms = late_ms
    control.request = control.bad = None
    if payload or skipped:  # else our own clear, or somebody else's
        control.request, control.bad = read(payload, skipped)
    if not payload or control.pending():  # else somebody's report, which tells nothing
        control.sure = True


def skip(link, n):
    """Read past the n bytes of a text that is too long to be given out, of a Link. Returns b""."""
    if n > _LONGEST_SKIP:
        raise OSError(_ETIMEDOUT)  # not worth the radio: as good as a dead broker
    view = memoryview(bytearray(256))
    left = n
    while left:
        got = link.wire.receive(view[:left])
        if not got:
            raise OSError(_ECONNRESET)
        left -= got
    link.skipped += n
    return b""


def ask_policy(agent, request):
    """True when the application wants to wait. Raises Refused when it does not want at all."""
    agent.allowed = 0  # of the request before
    if not agent.policy:
        return False
    try:
        answer = agent.policy(request)
        if answer in ("go", "later"):
            return answer == "later"
        if type(answer) is not tuple:
            raise ValueError
        what, value = answer[0], answer[1]
        if what == "go" and type(value) is int and value >= 0:
            agent.allowed = value  # bytes, in this wake
            return False
        if what != "refuse":
            raise ValueError
        detail = str(value)
    except Exception as error:
        # Nobody can tell what it meant: waiting loses nothing.
        print("ota: the policy hook failed,", name_of(error))
        return True
    raise Refused("refused", detail)


def _is_file_id(text):
    # It goes into a URL, into /.ota/state between spaces and back into a report.
    if not isinstance(text, str) or not 0 < len(text) <= 64:
        return False
    # In bytes: a node keeps each character that it has looked at alone.
    for byte in text.encode():
        if not (48 <= byte <= 57 or 97 <= byte | 32 <= 122 or byte in b"-._"):
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
