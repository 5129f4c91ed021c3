"""Whom TLS believes: one trust anchor, and what is wrong with a server that it did not sign."""

from micropython import const

from .errors import Transient, name_of

_BEGIN = const(b"-----BEGIN CERTIFICATE-----")


def trust(ca, reason):
    """An ssl.SSLContext that accepts only chains to the certificate in the file ca (DER or PEM).

    Raises Transient with this reason when there is no such file or it holds no certificate.
    """
    import ssl

    try:
        with open(ca, "rb") as file:
            anchor = file.read()
    except OSError:
        raise Transient(reason, "trust anchor %s is missing" % ca)
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    except OSError as error:  # TLS has memory of its own, which may be used up
        raise Transient(reason, "no TLS, " + name_of(error))
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        if _BEGIN in anchor:
            import binascii

            # Not every build reads PEM.
            if anchor.count(_BEGIN) > 1:
                raise Transient(reason, "trust anchor %s holds more than one certificate" % ca)
            anchor = anchor.split(_BEGIN)[1].split(b"-----END")[0]
            anchor = binascii.a2b_base64(anchor)
        context.load_verify_locations(cadata=anchor)
    except (ValueError, OSError):
        raise Transient(reason, "trust anchor %s is not a certificate" % ca)
    return context


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
