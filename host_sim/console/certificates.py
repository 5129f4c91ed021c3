"""A certificate authority for every console, and leaves with every fault a leaf can have."""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from host_sim import files
from host_sim.errors import SimError

if TYPE_CHECKING:
    import trustme

KINDS = ("good", "wrong-ca", "wrong-host", "expired", "future")
GOOD_FOR = ("localhost", "127.0.0.1", "::1", "*.localhost")


@dataclass(frozen=True)
class Authority:
    """The CA's certificate in both forms a node may want, and a key file for each server."""

    pem: Path
    der: Path
    https: Path
    """Private key and chain of the package server."""
    mqtt: Path
    """Private key and chain of the broker."""


def create(directory: Path, https_kind: str, mqtt_kind: str) -> Authority:
    """Make the leaves and, where the directory has none, the CA; write them to the directory.

    The CA stays over a new start: nodes that trust it go on as before.
    """
    # Imported here: it takes longer than all the rest, and other commands do without.
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import load_pem_x509_certificate

    authority = Authority(
        pem=directory / "ca.pem",
        der=directory / "ca.der",
        https=directory / "https.pem",
        mqtt=directory / "mqtt.pem",
    )
    ca = _authority(authority.pem, directory / "ca-key.pem")
    pem = ca.cert_pem.bytes()
    files.write(authority.der, load_pem_x509_certificate(pem).public_bytes(Encoding.DER))
    _write_leaf(authority.https, ca, https_kind)
    _write_leaf(authority.mqtt, ca, mqtt_kind)
    return authority


def _authority(pem: Path, key: Path) -> trustme.CA:
    import trustme

    with contextlib.suppress(OSError, ValueError):  # none yet, or half of one, of which no use is
        return trustme.CA.from_pem(pem.read_bytes(), key.read_bytes())
    ca = trustme.CA(organization_name="simulated platform")
    # The key first: without the certificate that belongs to it, both are made anew.
    pem.unlink(missing_ok=True)
    files.write(key, ca.private_key_pem.bytes(), mode=0o600)
    files.write(pem, ca.cert_pem.bytes())
    return ca


def server_context(key_and_chain: Path) -> ssl.SSLContext:
    """TLS for a server, with ordinary settings."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(key_and_chain)
    return context


def _write_leaf(path: Path, ca: object, kind: str) -> None:
    import trustme

    assert isinstance(ca, trustme.CA)
    if kind not in KINDS:
        raise SimError(f"certificate {kind!r}: must be one of {', '.join(KINDS)}")
    signer = trustme.CA(organization_name="somebody else") if kind == "wrong-ca" else ca
    names = ("example.org",) if kind == "wrong-host" else GOOD_FOR
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    begin, end = now - timedelta(days=30), now + timedelta(days=365)
    if kind == "expired":
        end = now - timedelta(days=1)
    elif kind == "future":
        begin = now + timedelta(days=30)
    leaf = signer.issue_cert(*names, not_before=begin, not_after=end)
    files.write(path, leaf.private_key_and_cert_chain_pem.bytes(), mode=0o600)
