"""RSA-3072 keys: made, read, and signed with, by this process or by a program that guards them."""

from __future__ import annotations

import getpass
import hashlib
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from host_sim import files
from insigh_ota.package.errors import PackageError

SIZE = 384
_EXPONENT = 65537


@dataclass(frozen=True)
class Signer:
    """Whose signature it will be, and how it is made."""

    modulus: bytes
    sign: Callable[[bytes], bytes]

    def signature(self, message: bytes) -> bytes:
        """The signature, after a look whether it is one. Raises PackageError."""
        made = self.sign(message)
        if not verifies(self.modulus, message, made):
            raise PackageError("what the sign command gave does not verify with the public key")
        return made


def key_id(modulus: bytes) -> str:
    """How manifests name a key."""
    return hashlib.sha256(modulus).hexdigest()[:16]


def verifies(modulus: bytes, message: bytes, signature: bytes) -> bool:
    """True when the signature is the key's."""
    public = rsa.RSAPublicNumbers(_EXPONENT, int.from_bytes(modulus, "big")).public_key()
    try:
        public.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def generate(stem: Path) -> str:
    """Make `stem`.pem, secret, `stem`.pub for nodes and `stem`.pub.pem; returns the key's id."""
    if not stem.name or stem.name == "..":
        raise PackageError(f"{stem} is no name for a key: write one, such as release")
    private, raw, public = (
        stem.with_name(stem.name + end) for end in (".pem", ".pub", ".pub.pem")
    )
    for path in (private, raw, public):
        if path.exists() or path.is_symlink():
            raise PackageError(f"{path} exists, and keys are never overwritten: choose a new name")
    key = rsa.generate_private_key(_EXPONENT, SIZE * 8)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    modulus = _modulus(key.public_key(), private)
    shown = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    made: list[Path] = []
    try:
        for path, content, mode in (
            (private, pem, 0o600),
            (raw, modulus, None),
            (public, shown, None),
        ):
            files.write(path, content, mode=mode, new=True)
            made.append(path)
    except BaseException:
        for path in made:  # a part of a key is none, and would be in the way of the next try
            path.unlink(missing_ok=True)
        raise
    return key_id(modulus)


def public(path: Path) -> bytes:
    """The modulus in a `.pub` or a PEM of a public key."""
    content = _read(path)
    if len(content) == SIZE and content[0] & 0x80 and content[-1] & 1:
        return content
    try:
        key = serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PackageError(f"{path} is no public key of RSA-3072, raw or PEM") from error
    return _modulus(key, path)


def from_pem(path: Path) -> Signer:
    """Sign with the private key in a PEM file; asks for its passphrase if it has one."""
    content = _read(path)
    try:
        try:
            key = serialization.load_pem_private_key(content, None)
        except TypeError:
            key = serialization.load_pem_private_key(
                content, getpass.getpass(f"passphrase of {path}: ").encode()
            )
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PackageError(f"{path} is no private key, or the passphrase is wrong") from error
    modulus = _modulus(key.public_key(), path)
    return Signer(modulus, lambda text: key.sign(text, padding.PKCS1v15(), hashes.SHA256()))


def from_command(command: str, public_key: Path) -> Signer:
    """Sign by a program that reads the bytes from stdin and writes the raw signature to stdout."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise PackageError(f"--sign-command {command!r}: {error}") from error

    def sign(message: bytes) -> bytes:
        try:
            done = subprocess.run(words, input=message, stdout=subprocess.PIPE, check=False)
        except (OSError, IndexError) as error:
            raise PackageError(f"the sign command does not start: {command!r}") from error
        if done.returncode:
            raise PackageError(f"the sign command ended with exit code {done.returncode}")
        if len(done.stdout) != SIZE:
            raise PackageError(
                f"the sign command gave {len(done.stdout)} bytes, a raw RSA-3072 signature has "
                f"{SIZE}"
            )
        return done.stdout

    return Signer(public(public_key), sign)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PackageError(f"{path} can not be read: {error.strerror}") from error


def _modulus(key: object, path: Path) -> bytes:
    if not isinstance(key, rsa.RSAPublicKey):
        raise PackageError(f"{path} is no RSA key: nodes know RSA-3072 only, make one with keygen")
    numbers = key.public_numbers()
    if key.key_size != SIZE * 8 or numbers.e != _EXPONENT:
        raise PackageError(
            f"{path} is RSA-{key.key_size} with exponent {numbers.e}: nodes know RSA-3072 with "
            f"{_EXPONENT} only, make one with keygen"
        )
    return numbers.n.to_bytes(SIZE, "big")
