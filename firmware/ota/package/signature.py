"""RSA-3072 signatures: PKCS#1 v1.5 with SHA-256 (RFC 8017, 8.2.2), exponent 65537."""

import hashlib
from binascii import hexlify

from micropython import const

_SIZE = const(384)
_EXPONENT = const(65537)
# What stands before the digest: the DigestInfo of SHA-256, NULL included.
_DIGEST_INFO = const(
    b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"
)
_PADDING = const(330)  # what is left for it of 384 bytes


def is_key(modulus):
    """True for what may be a public key: 384 bytes, big endian, top bit set, odd."""
    return len(modulus) == _SIZE and modulus[0] > 127 and modulus[-1] & 1 == 1


def key_id(modulus):
    """The name of a public key in manifests, bytes of 16 hex digits."""
    return hexlify(hashlib.sha256(modulus).digest()[:8])


def verify(modulus, digest, signature):
    """True when signature is the key's for this SHA-256 digest; all three are bytes.

    The whole block is built again and compared. Whoever takes it apart instead has to refuse each
    way to hide something in it, one by one.
    """
    if not is_key(modulus) or len(signature) != _SIZE or len(digest) != 32:
        return False
    n = int.from_bytes(modulus, "big")
    s = int.from_bytes(signature, "big")
    if not 1 < s < n - 1:
        return False
    block = b"\x00\x01" + b"\xff" * _PADDING + b"\x00" + _DIGEST_INFO + digest
    return pow(s, _EXPONENT, n) == int.from_bytes(block, "big")
