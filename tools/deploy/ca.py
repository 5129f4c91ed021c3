"""``ca``: the one trust anchor that a node needs, onto the node."""

from __future__ import annotations

import socket
import ssl
import tempfile
import warnings
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from rich.console import Console

from tools.deploy import plan
from tools.deploy.deploy import probe
from tools.deploy.errors import DeployError
from tools.deploy.firmware import digest
from tools.deploy.remote import Board, Copy, Run

TIMEOUT_S = 15
Certificate = x509.Certificate


def bundle(path: Path | None = None) -> list[Certificate]:
    """The roots that Mozilla trusts, as certifi carries them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few old roots are not quite as they should be
        return x509.load_pem_x509_certificates(Path(path or certifi.where()).read_bytes())


def of_host(host: str, roots: Path | None = None) -> Certificate:
    """The root that vouches for `host` (or host:port), which really verifies with it alone."""
    name, _, port = host.partition(":")
    if port and not port.isdecimal():
        raise DeployError(f"HOST={host}: write host or host:port")
    context = ssl.create_default_context(cafile=str(roots or certifi.where()))
    chain = _verified_chain(name, int(port or 443), context)
    root = x509.load_der_x509_certificate(chain[-1])
    alone = ssl.create_default_context(cadata=chain[-1])
    alone.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _verified_chain(name, int(port or 443), alone)
    return root


def _verified_chain(host: str, port: int, context: ssl.SSLContext) -> list[bytes]:
    """DER of what was verified, leaf first."""
    try:
        with (
            socket.create_connection((host, port), TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            if hasattr(secure, "get_verified_chain"):  # Python 3.13
                return list(secure.get_verified_chain())
            return [
                ssl.PEM_cert_to_DER_cert(certificate.public_bytes())
                for certificate in secure._sslobj.get_verified_chain()
            ]
    except ssl.SSLCertVerificationError as error:
        raise DeployError(
            f"{host}: {error.verify_message}: no public root vouches for it; give its own with "
            "CA=file"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise DeployError(f"can not reach {host}:{port}: {reason}") from error


def of_chain(path: Path, roots: Path | None = None) -> Certificate:
    """The public root that issued the last certificate of a chain file."""
    chain = _load(path)
    for certificate in reversed(chain):
        for root in bundle(roots):
            if certificate.issuer != root.subject:
                continue
            try:
                certificate.verify_directly_issued_by(root)
                return root
            except (ValueError, TypeError, InvalidSignature):
                continue
    issuer = chain[-1].issuer.rfc4514_string()
    raise DeployError(
        f"no public root issued what {path} ends with ({issuer}): give it as CA=file"
    )


def of_file(path: Path) -> Certificate:
    """The certificate in a PEM or DER file; of several the one that signed itself."""
    certificates = _load(path)
    if len(certificates) == 1:
        return certificates[0]
    own = [c for c in certificates if c.issuer == c.subject]
    if len(own) != 1:
        raise DeployError(f"{path} holds {len(certificates)} certificates: one root is needed")
    return own[0]


def _load(path: Path) -> list[Certificate]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DeployError(f"{path} can not be read: {error.strerror}") from error
    try:
        if b"-----BEGIN" in content:
            return x509.load_pem_x509_certificates(content)
        return [x509.load_der_x509_certificate(content)]
    except ValueError as error:
        raise DeployError(f"{path} holds no certificate, neither PEM nor DER") from error


def install(board: Board, terminal: Console, root: Certificate) -> None:
    """Write the root as DER to where the node's configuration wants it."""
    content = root.public_bytes(Encoding.DER)
    name = root.subject.rfc4514_string()
    terminal.print(
        f"root     {name}, valid to {root.not_valid_after_utc:%Y-%m-%d}", highlight=False
    )
    found = probe(board)
    plan.check_flash(found)
    if found.has(found.ca, content):
        terminal.print(f"it was in {found.ca} already")
        return
    folder, _, file = found.ca.rpartition("/")
    with tempfile.TemporaryDirectory(prefix="deploy-") as scratch:
        local = Path(scratch) / f"{file}~"
        local.write_bytes(content)
        moved = [(found.ca, digest(content))]
        install = {"moved": moved, "stale": [], "keep_boot": False, "all": moved}
        prepare = {"folders": [folder] if folder else [], "remove": []}
        steps = [Run("prepare", prepare), Copy([local], folder), Run("install", install)]
        board.session(steps, reset=True)
    terminal.print(f"[green]written[/] to {found.ca} as DER, {len(content)} bytes, and verified")
