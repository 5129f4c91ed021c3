"""Whom TLS believes: the trust anchors, the platform's server, and what is wrong with others."""

from micropython import const

from .errors import Refused, Transient, name_of

_BEGIN = const(b"-----BEGIN CERTIFICATE-----")
# ENOENT, ENOTDIR, EISDIR.
_NOT_THERE = const((2, 20, 21))
_REASON = const("can not download")
_HOST_CHARACTERS = const(b"abcdefghijklmnopqrstuvwxyz0123456789._-")
_IPV6_CHARACTERS = const(b"abcdef0123456789:.")


def secured(config, limits):
    """A Wire to the configuration's server, which has proven its name. Raises as https.get().

    Made before anything else of a download is in RAM: TLS has memory of its own. On a chip it is
    what this heap has not taken, and a heap that grows takes all that is left in one piece.
    """
    from .dial import dial
    from .wire import Wire

    try:
        # A peer that drips is held to so many bytes in each wait.
        wire = Wire(limits, config["min_rate"] * limits.wait_ms // 1000)
        dial(wire, _REASON, *address(config["server"]), trust(config["ca"], _REASON))
        return wire
    except (Refused, Transient, MemoryError):
        raise
    except Exception as error:
        raise Transient(_REASON, name_of(error))


def address(text):
    """(host, port) of host[:port] or [IPv6 address][:port], str. Raises Refused."""
    end = text.rfind("]") + 1
    host, _, port = text[end:].partition(":")
    characters = _HOST_CHARACTERS
    if end:
        host = not host and text[0] == "[" and text[1 : end - 1]
        characters = _IPV6_CHARACTERS
    if (
        not host
        or not all(byte in characters for byte in host.lower().encode())
        or (port and not (port.isdigit() and 0 < int(port[:6]) < 65536))
    ):
        raise Refused(_REASON, "redirected to an unusable address")
    return host, int(port or 443)


def trust(ca, reason, every=False):
    """An ssl.SSLContext that accepts only chains to a certificate in the files ca.

    ca: a path, or a list of paths, each of a DER file or of a PEM file with one or more
    certificates. One that can be used is enough, because the others may not have come yet, or be
    on their way out; with every, each file that is there has to be right. Raises Transient with
    this reason, OSError when flash fails.
    """
    import ssl

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    except OSError as error:  # TLS has memory of its own, which may be used up
        raise Transient(reason, "no TLS, " + name_of(error))
    context.verify_mode = ssl.CERT_REQUIRED
    wrong = None
    some = False
    for path in [ca] if type(ca) is str else ca:
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            if error.args[0] not in _NOT_THERE:
                raise  # the chip's: a trial must not end for it
            wrong = "trust anchor %s is missing" % path
            continue
        try:
            for anchor in _certificates(content):
                # Each call adds one to those before it.
                context.load_verify_locations(cadata=anchor)
                some = True
        except (ValueError, OSError):
            wrong = "trust anchor %s is not a certificate" % path
            if every:
                break
    else:
        if some:
            return context
    raise Transient(reason, wrong)


def _certificates(content):
    """Each certificate of a file, as DER. Raises ValueError."""
    if _BEGIN not in content:
        yield content
        return
    import binascii

    # Not every build reads PEM.
    for text in content.split(_BEGIN)[1:]:
        yield binascii.a2b_base64(text.split(b"-----END")[0])


# What Mbed TLS says of a refused certificate, and what this library says. In its order of looking:
# a certificate can be wrong in several ways, and its signer matters most.
_VERDICTS = (
    ("not correctly signed", "certificate is not signed by the trust anchor"),
    ("does not match", "certificate is for another host"),
    ("has expired", "certificate has expired"),
    ("starts in the future", "certificate is not valid yet, or this node's clock is not set"),
)


def verdict(error):
    """What is wrong with the server, in words, from the exception of a failed handshake."""
    text = str(error)
    for theirs, ours in _VERDICTS:
        if theirs in text:
            return ours
    if isinstance(error, OSError) and error.args and error.args[0] == -29184:
        return "server does not speak TLS"
    return "TLS failed, " + name_of(error)
