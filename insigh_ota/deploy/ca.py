"""``ca``: the trust anchors that a node needs, onto the node."""

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
from rich.markup import escape

from insigh_ota.deploy import plan
from insigh_ota.deploy.deploy import probe
from insigh_ota.deploy.errors import DeployError
from insigh_ota.deploy.firmware import digest
from insigh_ota.deploy.remote import Board, Copy, Run

TIMEOUT_S = 15
# OpenSSL's numbers: the issuer of something was not to be had.
_NO_ISSUER = (20, 21)
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
        raise DeployError(f"--host {host}: write host or host:port")
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
        missing = _missing_issuer(host, port) if error.verify_code in _NO_ISSUER else None
        raise DeployError(
            missing
            or f"{host}: {error.verify_message}: no public root vouches for it; give its own with "
            "--file FILE (make: CA=)"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise DeployError(f"can not reach {host}:{port}: {reason}") from error


def _missing_issuer(host: str, port: int) -> str | None:
    """What to do about a server that sends its own certificate, and not who issued that.

    Nobody has verified what it sends, so none of that may become an anchor by itself.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            if hasattr(secure, "get_unverified_chain"):  # Python 3.13
                sent = len(secure.get_unverified_chain())
            else:
                sent = len(secure._sslobj.get_unverified_chain())
            leaf = x509.load_der_x509_certificate(secure.getpeercert(True))
    except OSError:
        return None
    if sent > 1 or leaf.issuer == leaf.subject:
        return None
    return (
        f"{host} sends its own certificate only, and no public root has issued that: let it send "
        f"its whole chain, or give the certificate of its issuer, {leaf.issuer.rfc4514_string()}, "
        f"with --file FILE (make: CA=){_where(leaf)}"
    )


def _where(certificate: Certificate) -> str:
    """Where its issuer's certificate is to be had, if it says so, as the end of a sentence."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
    except x509.ExtensionNotFound:
        return ""
    for entry in access.value:
        if entry.access_method == x509.AuthorityInformationAccessOID.CA_ISSUERS:
            return f" (it is at {entry.access_location.value})"
    return ""


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
        f"no public root issued what {path} ends with ({issuer}): give it with --file (make: CA=)"
    )


def of_file(path: Path) -> list[Certificate]:
    """What a node can trust of a PEM or DER file: one certificate, or of several all roots."""
    certificates = _load(path)
    roots = [each for each in certificates if each.issuer == each.subject]
    if roots:
        return roots
    if len(certificates) > 1:
        raise DeployError(
            f"{path} holds {len(certificates)} certificates and no root: --chain (make: CHAIN=) "
            "finds the "
            "public one, or give the one to trust alone"
        )
    if not _may_issue(certificates[0]):
        raise DeployError(
            f"{path} is a server's certificate that somebody else has issued, and Mbed TLS trusts "
            f"none of those: give its issuer's, {certificates[0].issuer.rfc4514_string()}"
        )
    return certificates


def _may_issue(certificate: Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


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


def install(board: Board, terminal: Console, anchors: list[Certificate]) -> dict:
    """Write one as DER, more as PEM, to where the node's configuration wants the first.

    Returns where, and which, for programs.
    """
    content = anchors[0].public_bytes(Encoding.DER)
    if len(anchors) > 1:
        content = b"".join(each.public_bytes(Encoding.PEM) for each in anchors)
    for each in anchors:
        kind = "root" if each.issuer == each.subject else "issuer"
        name, end = each.subject.rfc4514_string(), each.not_valid_after_utc
        terminal.print(f"{kind:<8} {escape(name)}, valid to {end:%Y-%m-%d}", highlight=False)
    found = probe(board)
    plan.check_flash(found)
    path, form = found.ca[0], "PEM" if len(anchors) > 1 else "DER"
    names = [each.subject.rfc4514_string() for each in anchors]
    told = {"path": path, "form": form, "anchors": names, "written": not found.has(path, content)}
    if not told["written"]:
        terminal.print(f"it was in {path} already")
        return told
    folder, _, file = path.rpartition("/")
    with tempfile.TemporaryDirectory(prefix="deploy-") as scratch:
        local = Path(scratch) / f"{file}~"
        local.write_bytes(content)
        moved = [(path, digest(content))]
        install = {"moved": moved, "stale": [], "keep_boot": False, "all": moved}
        prepare = {"folders": [folder] if folder else [], "remove": []}
        steps = [Run("prepare", prepare), Copy([local], folder), Run("install", install)]
        board.session(steps, reset=True)
    terminal.print(f"[green]written[/] to {path} as {form}, {len(content)} bytes, and verified")
    return told
