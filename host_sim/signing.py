"""Signed packages, made by hand: no code of the packager or of the agent. And an anchor."""

from __future__ import annotations

import base64
import datetime
import hashlib
import random

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from host_sim.sample import Tree

MANIFEST = ".ota-manifest"
_E = 65537
_BITS = 1536
_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
# The first number that each of these seeds gives is a prime, so that none has to be searched.
_KEYS = {1: (478, 1721), 2: (2533, 2846)}


def _primes(key: int) -> list[int]:
    return [random.Random(seed).getrandbits(_BITS) | 63 << _BITS - 6 | 1 for seed in _KEYS[key]]


def modulus(key: int) -> bytes:
    """A public key, 1 or 2, as it lies on a node. Its private half is everybody's."""
    p, q = _primes(key)
    return (p * q).to_bytes(384, "big")


def sign(package: Tree, key: int, sequence: int, deleted: tuple[str, ...] = ()) -> Tree:
    """The package with its manifest in front."""
    key_id = hashlib.sha256(modulus(key)).hexdigest()[:16]
    lines = ["insigh-ota-manifest 1", f"key {key_id}", f"sequence {sequence}"]
    for name, content in package.items():
        lines.append(f"file {hashlib.sha256(content).hexdigest()} {len(content)} {name}")
    lines += [f"delete {name}" for name in deleted]
    text = "".join(line + "\n" for line in lines).encode()
    p, q = _primes(key)
    end = b"\0" + _INFO + hashlib.sha256(text).digest()
    block = b"\0\1" + b"\xff" * (384 - 2 - len(end)) + end
    number = pow(int.from_bytes(block, "big"), pow(_E, -1, (p - 1) * (q - 1)), p * q)
    signature = base64.b64encode(number.to_bytes(384, "big"))
    return {MANIFEST: text + b"signature " + signature + b"\n"} | package


def anchor(key: int) -> bytes:
    """A certificate (DER) that signs itself with that key; the same bytes in every run."""
    p, q = _primes(key)
    d = pow(_E, -1, (p - 1) * (q - 1))
    private = rsa.RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(_E, p * q)
    ).private_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "anchor")])
    certificate = (
        x509.CertificateBuilder(name, name, private.public_key(), key)
        .not_valid_before(datetime.datetime(2000, 1, 1))
        .not_valid_after(datetime.datetime(2100, 1, 1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.DER)
