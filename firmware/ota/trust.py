"""Whom TLS believes: the trust anchors, and what is wrong with a server that none has signed."""

from micropython import const

from .errors import Transient, name_of

_BEGIN = const(b"-----BEGIN CERTIFICATE-----")
# ENOENT, ENOTDIR, EISDIR.
_NOT_THERE = const((2, 20, 21))


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
