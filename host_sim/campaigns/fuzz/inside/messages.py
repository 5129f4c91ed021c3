# ruff: noqa: B904, UP031 - MicroPython, as on the node
"""Cases of messages and names, and reading them: payloads of the broker, names of members."""

from chance import character, mangle, overwrite, resize
from ota.request import BadRequest, Request, parse
from rules import Violation, is_utf8, vetted

_SAFE = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._"


def message_case(chance, corpus):
    """A message of the corpus with tokens of its language and blind bytes put into it."""
    data = bytearray(chance.pick(corpus["item"]))
    for _ in range(1 + chance.below(chance.pick((1, 2, 4)))):
        kind = chance.below(6)
        if kind < 4:
            _put_token(data, chance, corpus, kind < 3)
        elif kind == 4 and data:
            overwrite(data, chance, 0, len(data))
        else:
            resize(data, chance, corpus["token"])
    return data


def _put_token(data, chance, corpus, fitting):
    """A token put where one may stand, in place of another; or else anywhere."""
    start = chance.below(len(data) + 1)
    end = min(len(data), start + chance.pick((0, 0, 1, 3, 9)))
    if fitting:
        text = bytes(data)
        start = max(text.find(corpus["before"][0], start), text.find(corpus["before"][0])) + 1
        end = start
        while end < len(text) and text[end] not in corpus["behind"][0]:
            end += 1
    data[start:end] = chance.pick(corpus["token"])


def name_case(chance, corpus):
    """Hostile parts of names, strung together."""
    data = bytearray()
    for _ in range(1 + chance.below(6)):
        data += chance.pick(corpus["name"])
        if chance.below(3):
            data += b"/"
        if chance.one_in(4):
            data += character(chance)
    if chance.one_in(3):
        mangle(data, chance, corpus["name"])
    return data


# -- names and requests --------------------------------------------------------------------------


def read_name(data, chance):
    """What the reader and the agent make of a name."""
    if not is_utf8(data):
        return "not UTF-8"  # the reader's to refuse
    vetted(str(data, "utf-8"))
    return "read"


def read_request(data, chance):
    """What the agent makes of a payload."""
    try:
        request = parse(bytes(data))
    except BadRequest as error:
        if error.file_id and not _is_safe(error.file_id):
            raise Violation("file id %r" % error.file_id)
        raise
    if request is None:
        return "no request"
    if (
        type(request) is not Request
        or not _is_safe(request.file_id)
        or request.kind not in (".tar", ".tar.gz")
        or type(request.size) is not int
        or request.size < 1
    ):
        raise Violation("%r %r %r" % (request.file_id, request.kind, request.size))
    return "read"


def _is_safe(text):
    return type(text) is str and 0 < len(text) <= 64 and all(c in _SAFE for c in text)
