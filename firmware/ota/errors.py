"""Why a cycle did not end in an install, and what becomes of the request.

The text of each error is a stable reason (`not enough space`, `can not download`, `can not
apply`, `bad request`, `rolled back`, …), then, after a colon, the detail. It is sent to the
platform as the report's `m` and printed for people, so it never quotes a URL, a header or a
foreign exception's text: any of them may hold the device key.
"""


class OtaError(Exception):
    """Base of all errors of this library; `str()` of it is `reason: detail`.

    By itself: the request is gone, or another one stands in its place.
    """

    def __init__(self, reason, detail=None):
        super().__init__("%s: %s" % (reason, detail) if detail else reason)


class ConfigError(OtaError):
    """`/ota.json` can not be used; the detail names the key to correct."""


class Refused(OtaError):
    """Trying again would end the same way: report `e:2` and clear the request at once."""


class Transient(OtaError):
    """The link, the broker or the server failed: the request stays for a later wake."""


def name_of(error):
    """Type and number of a foreign exception, never its text (it may quote the URL or the key)."""
    text = type(error).__name__
    if isinstance(error, OSError) and error.args and isinstance(error.args[0], int):
        text += " %d" % error.args[0]
    return text
