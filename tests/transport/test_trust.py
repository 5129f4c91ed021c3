"""Trust anchors: several, of each form, roots and others, and a root that changes over the air."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from host_sim import sample
from host_sim.console import certificates
from host_sim.link import Profile
from host_sim.node.agent_code import compile_agent
from host_sim.node.node import run_code
from tests import signing
from tests.channel.test_control_channel import CONNACK, fake_broker
from tests.conftest import MakeSite
from tests.package.signed.packages import package
from tests.secrecy import WatchedSite
from tests.transport.test_https import FETCH, HELLO, OK, Server

ROOT = Path(__file__).parents[2]
READ = "200 5 b'hello'"
UNKNOWN = "Transient can not download: certificate is not signed by the trust anchor"


def der(pem: trustme.Blob) -> bytes:
    """The first certificate of a PEM."""
    return x509.load_pem_x509_certificate(pem.bytes()).public_bytes(Encoding.DER)


def self_signed(*, ca: bool) -> bytes:
    """Key and certificate of a server that nobody else vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1))
    builder = builder.not_valid_after(now + timedelta(days=9))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    builder = builder.add_extension(names, critical=False)
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    own = builder.sign(key, hashes.SHA256())
    form = PrivateFormat.PKCS8
    return key.private_bytes(Encoding.PEM, form, NoEncryption()) + own.public_bytes(Encoding.PEM)


class Pki:
    """Two roots, and under the first an intermediate, with a server's certificate of each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        root, other = trustme.CA(organization_name="a"), trustme.CA(organization_name="b")
        middle = root.create_child_ca()
        leaf = middle.issue_cert("localhost")
        self.chain = leaf.private_key_pem.bytes() + b"".join(
            blob.bytes() for blob in leaf.cert_chain_pems
        )
        self.incomplete = leaf.private_key_pem.bytes() + leaf.cert_chain_pems[0].bytes()
        self.alone = self_signed(ca=True)
        self.no_ca = self_signed(ca=False)
        self.pem = {"root": root.cert_pem.bytes(), "other": other.cert_pem.bytes()}
        for name, blob in (
            ("root", root.cert_pem),
            ("other", other.cert_pem),
            ("middle", middle.cert_pem),
            ("leaf", leaf.cert_chain_pems[0]),
        ):
            self.write(name, der(blob))
        for name, content in (("alone", self.alone), ("no_ca", self.no_ca)):
            own = x509.load_pem_x509_certificates(content)[0]
            self.write(name, own.public_bytes(Encoding.DER))
        self.write("both.pem", self.pem["other"] + b"a remark\n" + self.pem["root"])
        self.write("others.pem", self.pem["other"] * 2)
        self.write("half.pem", self.pem["root"] + self.pem["other"][:200])
        self.write("garbage", b"garbage")

    def write(self, name: str, content: bytes) -> None:
        """A file of the folder."""
        (self.folder / name).write_bytes(content)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def servers(pki: Pki) -> Iterator[dict[str, Server]]:
    """A whole chain, one without its intermediate, and two certificates that signed themselves."""
    from host_sim.console.certificates import server_context

    running = {}
    for name, content in (
        ("whole", pki.chain),
        ("incomplete", pki.incomplete),
        ("alone", pki.alone),
        ("no_ca", pki.no_ca),
    ):
        pki.write(name + ".key", content)
        running[name] = Server(server_context(pki.folder / (name + ".key")))
    yield running
    for server in running.values():
        server.stop()


@pytest.mark.parametrize(
    ("server", "ca", "expected"),
    [
        ("whole", "root", READ),
        ("whole", "other", UNKNOWN),
        # Wherever in the list, or in the file, the right one stands.
        ("whole", ["root", "other"], READ),
        ("whole", ["other", "root"], READ),
        ("whole", ["other", "other"], UNKNOWN),
        ("whole", "both.pem", READ),
        ("whole", "others.pem", UNKNOWN),
        ("whole", ["other", "both.pem"], READ),
        # What is missing or damaged trusts nobody, and keeps no other from being trusted.
        ("whole", ["none", "root"], READ),
        ("whole", ["root", "none"], READ),
        ("whole", ["garbage", "root"], READ),
        ("whole", "half.pem", READ),
        ("whole", ["none", "other"], UNKNOWN),
        ("whole", ["none", "garbage"], "Transient can not download: trust anchor garbage is not"),
        ("whole", ["none", "none2"], "Transient can not download: trust anchor none2 is missing"),
        # An intermediate is as good as a root, above all where the server forgets to send it.
        ("whole", "middle", READ),
        ("incomplete", "middle", READ),
        ("incomplete", "root", UNKNOWN),
        ("incomplete", ["root", "middle"], READ),
        # Mbed TLS never trusts what somebody else has issued for a server, even if it is this one.
        ("whole", "leaf", UNKNOWN),
        # What signed itself can be pinned, a root in name or not.
        ("alone", "alone", READ),
        ("no_ca", "no_ca", READ),
        ("alone", "no_ca", UNKNOWN),
        ("alone", "root", UNKNOWN),
    ],
)
def test_anchors(
    agent: Path, pki: Pki, servers: dict[str, Server], server: str, ca: str | list, expected: str
):
    servers[server].answers[:] = [OK + HELLO]
    url = f"https://localhost:{servers[server].port}/p"
    script = f"import os; os.chdir({str(pki.folder)!r})\n" + FETCH % json.dumps([url, ca])
    result = run_code(script, path=[agent], timeout_s=100)
    assert result.output.strip().startswith(expected), result.output
    assert len(servers[server].heard) == (expected == READ)


def test_who_writes_nothing_sends_no_key_in_clear(make_site: MakeSite):
    """A plain broker gets the begin of a TLS handshake from a node without `tls` in its file."""
    site = make_site(tls=True)
    del site.config["mqtt"]["tls"]
    with fake_broker(CONNACK * 3, close=False) as (port, heard):
        site.configure(mqtt={"port": port})
        run = site.run()
    assert "reason: can not connect: server does not speak TLS" in run.output
    assert heard and all(data[:1] == b"\x16" for data in heard)


# -- a root that changes ------------------------------------------------------------------------

KEYS = {"keys": ["/a.pub"], "require_signature": True}
LIST = ["/ca.der", "/next.der"]


def signed_site(make_site: MakeSite, **options) -> WatchedSite:
    """A node that takes what key 1 has signed."""
    config = KEYS | options.pop("config", {})
    return make_site(extra={"a.pub": signing.key(1).modulus}, config=config, **options)


def take(site: WatchedSite, number: int, tree: dict[str, bytes], **options) -> str:
    """Request a signed package, and let the node do what it does. Returns what it printed."""
    tree = {"main.py": sample.main_py(number)} | tree
    site.ask(package(tree, sequence=number, **options), "p.tar")
    return site.run(wakes=6).output


@pytest.mark.few(1)
@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
@pytest.mark.parametrize("ca", ["/ca.der", LIST], ids=["one file", "a list"])
def test_a_root_is_changed_over_the_air(make_site: MakeSite, ca: str | list, tls: bool):
    """Both during the change, as one file or two; then the new one alone."""
    site = signed_site(make_site, config={"ca": ca}, tls=tls)
    old, new = site.console.ca_pem.read_bytes(), site.console.next_authority()
    if ca == LIST:
        both = {"next.der": new.der.read_bytes()}
    else:
        both = {"ca.der": old + new.pem.read_bytes()}
    alone = {"ca.der": new.der.read_bytes()}
    assert "check: confirmed" in take(site, 2, both)
    # The old one still counts: there is no moment in which all has to change at once.
    assert "check: confirmed" in take(site, 3, {})
    site.console.change_certificates(new)
    assert "check: confirmed" in take(site, 4, {})
    assert "check: confirmed" in take(site, 5, alone)
    assert site.flash_files()["/ca.der"] == new.der.read_bytes()
    assert [report["e"] for report in site.reports()] == [1] * 4


@pytest.mark.few(1)
@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
@pytest.mark.parametrize("what", ["too early", "garbage"])
def test_a_wrong_root_is_rolled_back(make_site: MakeSite, what: str, tls: bool):
    """With TLS the channel shows it; without, the download's server is asked before a confirm."""
    config = {"ca": LIST, "trial_wakes": 2, "report": "confirmed"}
    site = signed_site(make_site, config=config, tls=tls)
    new = site.console.next_authority()
    channel = "rolled back: 2 wakes without confirm"
    unknown = "certificate is not signed by the trust anchor"
    tree, reason = {"ca.der": new.der.read_bytes()}, unknown
    if what == "garbage":
        # The old one goes on working, so that only a look at each of them shows it.
        tree = {"next.der": b"no certificate"}
        reason = "no trust: trust anchor /next.der is not a certificate"
    expected = "rolled back: can not update again, " + reason
    if tls and what != "garbage":
        expected = channel
    assert "check: rolled_back" in take(site, 2, tree)
    assert site.reports()[-1]["m"].startswith(expected[:80])
    assert site.flash_files() == site.files
    assert "check: confirmed" in take(site, 2, {})


def test_no_journal_no_touched_root(make_site: MakeSite):
    """What is lost of one copy must not end a good version."""
    site = make_site()
    loses = b"import os\ntry:\n    os.remove('/.ota/journal')\nexcept OSError:\n    pass\n"
    site.ask(sample.tar({"main.py": loses + sample.main_py(2)}), "p.tar")
    run = site.run(wakes=3)
    assert "check: confirmed" in run.output, run.output
    assert [report["e"] for report in site.reports()] == [1]


#: An update on trial that has touched the trust anchor, as its journal has it.
TOUCHED = """
import os
from binascii import crc32
from ota.install.anchors import try_anchors
from ota.wire import Limits

text = b'[2, "x", 3, 24, 7, 900, true, 0, [0, 0], null]\\nr 0 0 - /anchor.der\\n='
os.mkdir("/.ota")
with open("/.ota/journal", "wb") as file:
    file.write(text + crc32(text).to_bytes(4, "little"))
config = {"ca": "/anchor.der", "server": %r}
print("wrong:", try_anchors(config, Limits(3000, 9000)))
"""


@pytest.mark.few(1)
@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("address", ["localhost", "::1"])
def test_each_form_of_a_server_is_asked(
    make_site: MakeSite, tmp_path: Path, address: str, right: bool
):
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    authority, other = (certificates.create(folder, "good", "good") for folder in folders)
    anchor = (authority if right else other).der.read_bytes()
    server = Server(certificates.server_context(authority.https), *[address] * (address == "::1"))
    try:
        site = make_site(extra={"anchor.der": anchor})
        host = f"[{address}]" if ":" in address else address
        output = site.node.exec(TOUCHED % f"{host}:{server.port}").output
    finally:
        server.stop()
    wrong = "None" if right else "certificate is not signed by the trust anchor"
    assert output.strip() == f"wrong: {wrong}"


@pytest.mark.parametrize("name", ["ca.der", "next.der"])
def test_no_package_deletes_a_root(make_site: MakeSite, name: str):
    """Whoever signs it: another may take its place, and a trial then shows whether it does."""
    site = signed_site(make_site, config={"ca": LIST}, tls=True)
    output = take(site, 2, {"lib/a.py": b"a = 1"}, deleted=(name,))
    assert f"reason: can not apply: protected path /{name}" in output
    assert site.flash_files() == site.files


def test_a_new_root_waits_for_the_server_that_shows_it(make_site: MakeSite):
    """A server that is away says nothing of the root: neither kept for it, nor undone at once."""
    site = signed_site(make_site, https_link="rtt=0ms")
    old, new = site.console.ca_pem.read_bytes(), site.console.next_authority()
    site.ask(package({"ca.der": old + new.pem.read_bytes()}), "p.tar")
    site.run(stop=lambda event: event["event"] == "reset")
    site.https_link.profile = Profile(connect="refuse")
    for _ in range(2):
        run = site.run()
        assert "check: later" in run.output, run.output
        assert "/.ota/state" in site.flash_files()
    site.https_link.profile = Profile()
    assert "check: confirmed" in site.run().output


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["ca.der", "next.der", "next.der/x"])
def test_who_has_no_key_changes_no_root(make_site: MakeSite, name: str):
    site = make_site(config={"ca": LIST, **KEYS, "require_signature": False})
    tree = {"main.py": sample.main_py(2), name: b"mine"}
    for content in (sample.tar(tree), package(tree, None)):
        site.ask(content, "p.tar")
        run = site.run()
        path = "/" + name.removesuffix("/x")
        assert f"reason: can not apply: protected path {path}" in run.output
        assert site.flash_files() == site.files


@pytest.mark.slow
def test_power_cuts_while_a_root_changes(make_site: MakeSite):
    """Old or new, and either way a node that trusts its platform."""
    site = signed_site(make_site, tls=True)
    new = site.console.next_authority()
    both = site.console.ca_pem.read_bytes() + new.pem.read_bytes()
    start = site.image.read_bytes()
    fuid = site.ask(package({"main.py": sample.main_py(2), "ca.der": both}), "p.tar")
    ops = site.run().ops
    assert ops > 20
    old, after = site.files, site.files | {"/main.py": sample.main_py(2), "/ca.der": both}
    after["/ota.sequence"] = b"1"
    for cut in range(1, ops + 1, max(1, ops // 16)):
        site.image.write_bytes(start)
        site.console.request(site.config["device_id"], fuid)
        site.run(cut=cut)
        files = site.flash_files()
        assert files["/ca.der"] in (old["/ca.der"], both)
        run = site.run(wakes=3)
        assert "can not connect" not in run.output, (cut, run.output)
        assert site.flash_files() == after, cut
        assert site.retained() is None


# -- a node of before, which spoke plain MQTT because nothing was written ------------------------


def of_before(folder: Path) -> bytes:
    """The compiled config.py of an agent for which no `tls` meant plain MQTT."""
    source = (ROOT / "firmware/ota/config.py").read_text()
    for new, old in (
        ('("tls", True, 0, 0)', '("tls", False, 0, 0)'),
        ("8883, 1, 65535", "1883, 1, 65535"),
    ):
        assert source.count(new) == 1
        source = source.replace(new, old)
    (folder / "config.py").write_text(source)
    compile_agent(folder / "config.py", folder / "config.mpy", "ota/config.py")
    return (folder / "config.mpy").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("written", [False, True], ids=["nothing written", "false written"])
def test_an_agent_of_before_is_updated(make_site: MakeSite, tmp_path: Path, written: bool):
    """Never the key in clear because nothing is written; what can not connect is rolled back."""
    old = of_before(tmp_path)
    site = make_site(extra={"ota/config.mpy": old}, config={"trial_wakes": 2})
    if not written:
        del site.config["mqtt"]["tls"]
    site.configure()
    compile_agent(ROOT / "firmware/ota/config.py", tmp_path / "new.mpy", "ota/config.py")
    new = (tmp_path / "new.mpy").read_bytes()
    site.ask(sample.tar({"main.py": sample.main_py(2), "ota/config.mpy": new}), "p.tar")
    run = site.run(wakes=4)
    if written:
        assert "check: confirmed" in run.output
        assert site.flash_files()["/ota/config.mpy"] == new
        return
    assert run.output.count("reason: can not connect: ") == 2  # in words of the broker's choice
    assert "check: rolled_back" in run.output
    assert site.flash_files() == site.files
    assert site.reports()[-1]["m"] == "rolled back: 2 wakes without confirm"
