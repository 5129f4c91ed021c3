"""Signatures: those of other programs verify, and nothing that only looks like one does.

The forgeries are the classes of Wycheproof's RSA PKCS#1 v1.5 tests, made anew: blocks that differ
from the only right one, signed with the private key all the same.
"""

from __future__ import annotations

import functools
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from host_sim.node.node import run_code
from tests import signing
from tests.mutants import Mutant
from tests.signing import SIZE, good_block, openssl

MESSAGE = b"insigh-ota-manifest 1\n"
DIGEST = hashlib.sha256(MESSAGE).digest()
MODULE = "ota/package/signature.py"
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)

VERIFY = """
from ota.package.signature import verify

with open({file!r}, "rb") as file:
    modulus = file.read(384)
    while True:
        digest = file.read(32)
        if not digest:
            break
        size = file.read(2)
        accepted = verify(modulus, digest, file.read(size[0] << 8 | size[1]))
        print(int(accepted), end="")
"""

FLIPS = """
from ota.package.signature import verify

with open({file!r}, "rb") as file:
    modulus, digest, good = file.read(384), file.read(32), file.read(386)[2:]
accepted = int(verify(modulus, digest, good))
for bit in range(len(good) * 8):
    flipped = bytearray(good)
    flipped[bit >> 3] ^= 1 << (bit & 7)
    accepted += verify(modulus, digest, bytes(flipped))
print(bit + 1, accepted)
"""

Vectors = dict[str, bytes]


def write(file: Path, vectors: list[bytes], digest: bytes = DIGEST, modulus: bytes = b"") -> Path:
    """The vectors as the device's scripts read them."""
    parts = [modulus or signing.forger().modulus]
    parts += [digest + len(s).to_bytes(2, "big") + s for s in vectors]
    file.write_bytes(b"".join(parts))
    return file


def accepted(firmware: Path, vectors: Vectors, tmp_path: Path, **options: bytes) -> set[str]:
    """Names of those that the device takes for signatures."""
    file = write(tmp_path / "vectors", list(vectors.values()), **options)
    result = run_code(VERIFY.format(file=str(file)), path=[firmware], heap="64K")
    answers = result.output.strip()
    assert len(answers) == len(vectors), result.output
    assert set(answers) <= {"0", "1"}
    return {name for name, answer in zip(vectors, answers, strict=True) if answer == "1"}


def pss_block() -> int:
    """What signing with PSS applies the private key to."""
    signature = signing.key().private.sign(MESSAGE, PSS, hashes.SHA256())
    return pow(int.from_bytes(signature, "big"), signing.E, signing.key().n)


@functools.cache
def numbers() -> Vectors:
    """Signatures that are odd as numbers or as byte strings."""
    key = signing.forger()
    good = key.sign(MESSAGE)
    s = int.from_bytes(good, "big")
    found = {
        f"s = {name}": number.to_bytes(SIZE, "big")
        for name, number in {
            "0": 0,
            "1": 1,
            "2": 2,
            "n - 2": key.n - 2,
            "n - 1": key.n - 1,
            "n": key.n,
            "n + 1": key.n + 1,
            "all ones": (1 << 3072) - 1,
            "n - s": key.n - s,
            "the inverse": pow(s, -1, key.n),
            "the block itself": int.from_bytes(good_block(DIGEST), "big"),
        }.items()
    }
    found |= {
        "empty": b"",
        "one byte": b"\2",
        "RSA-2048's length": good[:256],
        "one byte short at the end": good[:-1],
        "one byte short at the begin": good[1:],
        "a zero before it": b"\0" + good,
        "a zero behind it": good + b"\0",
        "twice": good + good,
        "reversed": good[::-1],
        "another message": key.sign(MESSAGE + b"\n"),
        "another key": signing.key().sign(MESSAGE),
        "hashed twice": key.sign(DIGEST),
        "PSS": key.raw(pss_block()),
    }
    return found


def padded(info: bytes, pad: int | None = None) -> bytes:
    """A block that ends in info, with as much padding as there is room for, or pad bytes."""
    pad = SIZE - 3 - len(info) if pad is None else pad
    return b"\0\1" + b"\xff" * pad + b"\0" + info


OIDS = {
    "MD5": "2a864886f70d0205",
    "SHA-1": "2b0e03021a",
    "SHA-224": "608648016503040204",
    "SHA-384": "608648016503040202",
    "SHA-512": "608648016503040203",
    "SHA-512/256": "608648016503040206",
    "SHA3-256": "608648016503040208",
    "SHA-256 with RSA": "2a864886f70d01010b",
    "one arc more": "60864801650304020101",
    "one arc less": "6086480165030402",
    "a leading 0x80": "80608648016503040201",
}
SHA256_OID = bytes.fromhex("608648016503040201")


def der(tag: int, content: bytes) -> bytes:
    """One value, its length in the short form."""
    return bytes([tag, len(content)]) + content


def long_form(tag: int, content: bytes, octets: int) -> bytes:
    """One value, its length in the long form: BER, not DER."""
    return bytes([tag, 0x80 + octets]) + len(content).to_bytes(octets, "big") + content


def endless(tag: int, content: bytes) -> bytes:
    """One value of indefinite length."""
    return bytes([tag | 0x20, 0x80]) + content + b"\0\0"


def info(oid: bytes = SHA256_OID, parameters: bytes = b"\5\0", digest: bytes = DIGEST) -> bytes:
    """A DigestInfo of any parts."""
    return der(0x30, der(0x30, der(6, oid) + parameters) + der(4, digest))


def digest_infos() -> Iterator[tuple[str, bytes]]:
    """What is not the DigestInfo of this digest."""
    yield "missing NULL", info(parameters=b"")
    yield "digest without DigestInfo", DIGEST
    yield "no digest", info(digest=b"")
    yield "digest cut short", info(digest=DIGEST[:-1])
    yield "digest and one byte", info(digest=DIGEST + b"\0")
    yield "zero and digest", info(digest=b"\0" + DIGEST)
    yield "another digest", info(digest=bytes(32))
    yield "last bit differs", info(digest=DIGEST[:-1] + bytes([DIGEST[-1] ^ 1]))
    for name, oid in OIDS.items():
        yield f"{name}, this digest", info(bytes.fromhex(oid))
    for name in ("md5", "sha1", "sha224", "sha384", "sha512", "sha3_256"):
        label = name.upper().replace("SHA", "SHA-").replace("SHA-3_", "SHA3-")
        yield (
            f"{label} and its digest",
            info(bytes.fromhex(OIDS[label]), digest=hashlib.new(name, MESSAGE).digest()),
        )
    yield "NULL of one byte", info(parameters=b"\5\1\0")
    yield "NULL twice", info(parameters=b"\5\0\5\0")
    yield "NULL with a long length", info(parameters=b"\5\x81\0")
    yield "empty UTF8String for NULL", info(parameters=b"\x0c\0")
    yield "empty SEQUENCE for NULL", info(parameters=b"\x30\0")
    yield "BOOLEAN for NULL", info(parameters=b"\1\1\0")
    yield "NULL and garbage", info(parameters=b"\5\0\4\4abcd")
    algorithm = der(0x30, der(6, SHA256_OID) + b"\5\0")
    octets = der(4, DIGEST)
    yield "trailing garbage in the SEQUENCE", der(0x30, algorithm + octets + b"\4\4abcd")
    yield "trailing NULL in the SEQUENCE", der(0x30, algorithm + octets + b"\5\0")
    yield "parts swapped", der(0x30, octets + algorithm)
    yield "only the algorithm", der(0x30, algorithm)
    yield "SET for SEQUENCE", der(0x31, algorithm + octets)
    yield "BIT STRING for OCTET STRING", der(0x30, algorithm + der(3, DIGEST))
    yield "constructed OCTET STRING", der(0x30, algorithm + der(0x24, octets))
    yield "wrapped once more", der(0x30, info())
    for n in (1, 2, 4, 8):
        yield f"outer length in {n} octets", long_form(0x30, algorithm + octets, n)
        yield (
            f"OCTET STRING's length in {n} octets",
            der(0x30, algorithm + long_form(4, DIGEST, n)),
        )
        inner = long_form(0x30, der(6, SHA256_OID) + b"\5\0", n)
        yield f"algorithm's length in {n} octets", der(0x30, inner + octets)
        inner = der(0x30, long_form(6, SHA256_OID, n) + b"\5\0")
        yield f"OID's length in {n} octets", der(0x30, inner + octets)
    yield "indefinite outer length", endless(0x30, algorithm + octets)
    yield "indefinite OCTET STRING", der(0x30, algorithm + endless(4, octets))
    yield "outer length too small", b"\x30\x30" + info()[2:]
    yield "outer length too large", b"\x30\x32" + info()[2:]
    yield "outer length overflows", bytes.fromhex("308500000000 31") + info()[2:]
    yield "digest's length too large", info()[:-33] + b"\x21" + DIGEST
    yield "digest's length zero", info()[:-33] + b"\0" + DIGEST


def blocks() -> Iterator[tuple[str, bytes]]:
    """Blocks of 384 bytes that are not the right one."""
    good = info()
    for name, wrong in digest_infos():
        yield name, padded(wrong)
    # Bleichenbacher 2006: what stands behind the digest is where a forger has his freedom.
    for pad in (0, 1, 8, 100, SIZE - 3 - len(good) - 1):
        block = padded(good, pad)
        room = SIZE - len(block)
        yield f"{pad} bytes of padding, garbage behind", block + b"\xa5" * room
        yield f"{pad} bytes of padding, zeros behind", block + bytes(room)
    hidden = SIZE - 3 - len(good) - 8 - 4
    garbage = der(0x30, der(6, SHA256_OID) + b"\5\0")
    garbage = b"\x30\x82" + (hidden + 53).to_bytes(2, "big") + garbage + der(4, DIGEST)
    yield "garbage inside the DigestInfo", (padded(garbage, 8) + b"\xa5" * SIZE)[:SIZE]
    parameters = SIZE - 3 - len(good) - 8 - 6
    null = b"\5\x82" + parameters.to_bytes(2, "big") + b"\xa5" * parameters
    algorithm = der(6, SHA256_OID) + null
    algorithm = b"\x30\x82" + len(algorithm).to_bytes(2, "big") + algorithm
    outer = algorithm + der(4, DIGEST)
    outer = b"\x30\x82" + len(outer).to_bytes(2, "big") + outer
    yield "garbage inside NULL", padded(outer)
    whole = padded(good)
    assert whole == good_block(DIGEST)
    yield "zeros instead of padding", b"\0\1" + bytes(SIZE - 2 - len(good)) + good
    yield "short padding, zeros before it", bytes(10) + padded(good, SIZE - 13 - len(good))
    yield "no padding at all", bytes(SIZE - len(good)) + good
    yield "no separator", b"\0\1" + b"\xff" * (SIZE - 2 - len(good)) + good
    yield "two separators", whole[: -len(good) - 2] + b"\0\0" + good
    yield "separator is 1", whole[: -len(good) - 1] + b"\1" + good
    for name, at in {"first": 2, "middle": 150, "last": SIZE - len(good) - 2}.items():
        for value in (0, 0x7F, 0xFE):
            yield (
                f"{name} byte of the padding is {value:#x}",
                whole[:at] + bytes([value]) + whole[at + 1 :],
            )
    for kind in (0, 2, 3, 0xFF):
        yield f"block type {kind}", whole[:1] + bytes([kind]) + whole[2:]
    yield "first byte 1", b"\1" + whole[1:]
    yield "shifted left", whole[1:] + b"\0"
    yield "shifted right", b"\0" + whole[:-1]
    yield "all zero but one", bytes(SIZE - 1) + b"\3"


@functools.cache
def forged() -> Vectors:
    """Each of `blocks`, signed."""
    key = signing.forger()
    found: Vectors = {}
    for name, block in blocks():
        assert len(block) == SIZE, name
        assert block != good_block(DIGEST), name
        assert name not in found
        found[name] = key.raw(block)
        opened = pow(int.from_bytes(found[name], "big"), signing.E, key.n)
        assert opened.to_bytes(SIZE, "big") == block
    return found


def leading_zero() -> tuple[bytes, bytes]:
    """(digest, signature) of a message whose signature begins with a zero byte."""
    digest = hashlib.sha256(b"%d" % 143).digest()
    signature = signing.forger().raw(good_block(digest))
    assert not signature[0]
    return digest, signature


def test_forgeries_are_refused(agent: Path, tmp_path: Path):
    vectors = numbers() | forged()
    assert len(vectors) > 120
    good = {"good": signing.forger().sign(MESSAGE)}
    assert accepted(agent, good | vectors | {"again": good["good"]}, tmp_path) == {"good", "again"}


def test_cryptography_refuses_the_same(tmp_path: Path):
    """The vectors are what they say: the library that most programs use takes none of them."""
    public = signing.forger().public
    public.verify(signing.forger().sign(MESSAGE), MESSAGE, padding.PKCS1v15(), hashes.SHA256())
    for name, signature in (numbers() | forged()).items():
        with pytest.raises(InvalidSignature):
            public.verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())
            pytest.fail(name)


def test_a_leading_zero_belongs_to_the_signature(compiled: Path, tmp_path: Path):
    digest, signature = leading_zero()
    vectors = {"whole": signature, "stripped": signature[1:], "moved": signature[1:] + b"\0"}
    assert accepted(compiled, vectors, tmp_path, digest=digest) == {"whole"}


def test_a_signature_plus_the_modulus_is_refused(compiled: Path, tmp_path: Path):
    """It is the same number to the arithmetic, and still fits in 384 bytes."""
    key = signing.forger()
    for n in range(1000):
        digest = hashlib.sha256(b"%d" % n).digest()
        s = int.from_bytes(key.raw(good_block(digest)), "big")
        if s + key.n < 1 << 3072:
            break
    vectors = {"s": s.to_bytes(SIZE, "big"), "s + n": (s + key.n).to_bytes(SIZE, "big")}
    assert accepted(compiled, vectors, tmp_path, digest=digest) == {"s"}


def test_what_is_no_key_verifies_nothing(compiled: Path, tmp_path: Path):
    key = signing.forger()
    good = {"good": key.sign(MESSAGE), "two": (2).to_bytes(SIZE, "big")}
    flipped = bytes([key.modulus[0] ^ 0x80]) + key.modulus[1:]
    for modulus in (flipped, key.modulus[:-1] + bytes([key.modulus[-1] ^ 1]), bytes(SIZE)):
        assert accepted(compiled, good, tmp_path, modulus=modulus) == set()


@pytest.mark.slow
def test_every_flipped_bit_is_refused(compiled: Path, tmp_path: Path):
    """All 3072 of them, none left out."""
    file = write(tmp_path / "vector", [signing.forger().sign(MESSAGE)])
    result = run_code(FLIPS.format(file=str(file)), path=[compiled], heap="64K")
    assert result.output.split() == ["3072", "1"]


def test_signatures_of_other_programs_verify(agent: Path, tmp_path: Path):
    key = signing.key()
    by_library = key.private.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256())
    vectors = {"cryptography": by_library, "arithmetic": key.sign(MESSAGE)}
    pem, _ = key.write(tmp_path)
    vectors["openssl"] = subprocess.run(
        [openssl(), "dgst", "-sha256", "-sign", pem],
        input=MESSAGE,
        capture_output=True,
        check=True,
    ).stdout
    assert accepted(agent, vectors, tmp_path, modulus=key.modulus) == set(vectors)
    assert len(set(vectors.values())) == 1  # there is only one


def test_openssl_verifies_ours(tmp_path: Path):
    public = signing.key().public
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "pub.pem").write_bytes(pem)
    command = [openssl(), "dgst", "-sha256", "-verify", "pub.pem", "-signature", "signature"]
    for message, code in ((MESSAGE, 0), (MESSAGE + b"x", 1)):
        (tmp_path / "signature").write_bytes(signing.key().sign(message))
        done = subprocess.run(
            command, cwd=tmp_path, input=MESSAGE, capture_output=True, check=False
        )
        assert done.returncode == code


STRICT = 'return pow(s, _EXPONENT, n) == int.from_bytes(block, "big")'
OPENED = "opened = pow(s, _EXPONENT, n).to_bytes(384, 'big')\n    "
WITHOUT_NULL = "bytes([0x30, 0x2f, 0x30, 0x0b]) + _DIGEST_INFO[4:15] + b'\\x04\\x20'"
LENIENT = {
    "the digest only": (STRICT, OPENED + "return opened.endswith(digest)"),
    "the DigestInfo anywhere": (STRICT, OPENED + "return _DIGEST_INFO + digest in opened"),
    "without its NULL": (STRICT, OPENED + f"return opened.endswith({WITHOUT_NULL} + digest)"),
    "padding passed over": (
        STRICT,
        OPENED + "return opened[2:].lstrip(b'\\xff') == b'\\x00' + _DIGEST_INFO + digest",
    ),
    "any length": ("len(signature) != _SIZE or ", ""),
}


@pytest.mark.parametrize("name", LENIENT)
def test_a_lenient_verifier_is_seen(name: str, tmp_path: Path):
    """The vectors can fail, each kind of them."""
    firmware = Mutant(name, name, "", ((MODULE, *LENIENT[name]),)).plant(tmp_path)
    assert accepted(firmware, numbers() | forged(), tmp_path)
