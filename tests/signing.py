"""RSA-3072 keys for tests, the same ones every time, and what can be signed with their numbers."""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

SIZE = 384
E = 65537
#: DigestInfo of SHA-256 up to the digest, as RFC 8017 prints it.
SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
# With these seeds the generator's first number is a prime, so that none has to be searched.
_SEEDS = {1: (478, 1721), 2: (2533, 2846)}
_FORGER = (57, 166, 301, 491, 515, 526, 533, 726, 748, 758, 845, 968)


@dataclass(frozen=True)
class Key:
    """Only for tests: its primes come from seeds that everybody can read."""

    primes: tuple[int, ...]

    @functools.cached_property
    def n(self) -> int:
        """The modulus as a number."""
        return math.prod(self.primes)

    @property
    def modulus(self) -> bytes:
        """The public key as it lies on a node."""
        return self.n.to_bytes(SIZE, "big")

    @property
    def id(self) -> str:
        """As manifests name it."""
        return hashlib.sha256(self.modulus).hexdigest()[:16]

    def raw(self, block: bytes | int) -> bytes:
        """The RSA operation on any block: what only the owner of the key can do."""
        number = block if isinstance(block, int) else int.from_bytes(block, "big")
        result, product = 0, 1  # by the Chinese remainder theorem
        for p in self.primes:
            part = pow(number % p, pow(E, -1, p - 1), p)
            result += (part - result) * pow(product, -1, p) % p * product
            product *= p
        return result.to_bytes(SIZE, "big")

    def sign(self, message: bytes) -> bytes:
        """A signature as it should be, by plain arithmetic."""
        return self.raw(good_block(hashlib.sha256(message).digest()))

    @functools.cached_property
    def public(self) -> rsa.RSAPublicKey:
        """For other programs."""
        return rsa.RSAPublicNumbers(E, self.n).public_key()

    @functools.cached_property
    def private(self) -> rsa.RSAPrivateKey:
        """For other programs; a key of two primes only."""
        p, q = self.primes
        d = pow(E, -1, (p - 1) * (q - 1))
        crt = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
        numbers = rsa.RSAPublicNumbers(E, self.n)
        return rsa.RSAPrivateNumbers(p, q, d, *crt, numbers).private_key()

    def write(self, folder: Path) -> tuple[Path, Path]:
        """(PEM of the private key, public key as it lies on a node)."""
        pem, pub = folder / f"{self.id}.pem", folder / f"{self.id}.pub"
        pem.write_bytes(
            self.private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        pub.write_bytes(self.modulus)
        return pem, pub


def good_block(digest: bytes) -> bytes:
    """EMSA-PKCS1-v1_5."""
    end = b"\0" + SHA256_INFO + digest
    return b"\0\1" + b"\xff" * (SIZE - 2 - len(end)) + end


def _prime(seed: int, bits: int) -> int:
    """The prime of a seed, the top bits set."""
    n = random.Random(seed).getrandbits(bits) | 63 << bits - 6 | 1
    assert pow(2, n - 1, n) == 1
    return n


@functools.cache
def key(number: int = 1) -> Key:
    """An ordinary key, 1 or 2."""
    return Key(tuple(_prime(seed, 1536) for seed in _SEEDS[number]))


@functools.cache
def forger() -> Key:
    """A key of many small primes: insecure, but it signs a hundred blocks in no time.

    To whoever verifies it is a key like any other.
    """
    return Key(tuple(_prime(seed, 256) for seed in _FORGER))


def need(name: str) -> str:
    """A program. Without it the test is skipped; in CI, which has to have it, it fails."""
    found = shutil.which(name)
    if found:
        return found
    if os.environ.get("CI"):
        pytest.fail(f"{name} is not installed")
    pytest.skip(f"{name} is not installed")


def openssl() -> str:
    """OpenSSL's program."""
    return need("openssl")


def manifest(
    files: dict[str, bytes],
    signer: Key | None = None,
    *,
    sequence: int = 1,
    board: str | None = None,
    mpy: int | None = None,
    requires: int | None = None,
    deleted: tuple[str, ...] = (),
) -> bytes:
    """A manifest, written down without any code of the packager's."""
    lines = ["insigh-ota-manifest 1", f"key {signer.id if signer else 'none'}"]
    lines.append(f"sequence {sequence}")
    for name, value in (("board", board), ("mpy", mpy), ("requires", requires)):
        lines += [f"{name} {value}"] * (value is not None)
    for name, content in files.items():
        lines.append(f"file {hashlib.sha256(content).hexdigest()} {len(content)} {name}")
    lines += [f"delete {name}" for name in deleted]
    return signed("".join(line + "\n" for line in lines).encode(), signer)


def signed(text: bytes, signer: Key | None) -> bytes:
    """The text with its signature behind it."""
    signature = base64.b64encode(signer.sign(text)) if signer else b"none"
    return text + b"signature " + signature + b"\n"
