"""What servers and links do wrong: nothing is installed, and each has a reason of its own."""

from __future__ import annotations

import random

import pytest

from host_sim import sample
from tests.conftest import MakeSite
from tests.secrecy import WatchedSite

PACKAGE = {"main.py": sample.main_py(2), "data.bin": random.Random(1).randbytes(20_000)}


def check_nothing_installed(site: WatchedSite) -> None:
    assert site.flash_files() == site.files
    assert site.flash_folders() == site.folders


def one_failure(site: WatchedSite, **options) -> str:
    """Run a wake that must end in one report of a permanent failure; returns its reason."""
    run = site.run(**options)
    assert "check: failed" in run.output, run.output
    assert site.retained() is None
    (report,) = site.reports()
    assert report["e"] == 2
    check_nothing_installed(site)
    return report["m"]


def given_up(site: WatchedSite) -> str:
    """Run until the node gives up on a transient failure; returns its reason.

    All wakes but the last leave the request where it is and report nothing.
    """
    run = site.run(wakes=5)
    assert run.output.count("check: later") == 4, run.output
    assert run.output.count("check: failed") == 1
    assert site.retained() is None
    (report,) = site.reports()
    assert report["e"] == 2
    check_nothing_installed(site)
    assert "check: idle" in site.run().output  # and there is no sixth try
    return report["m"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "can not download: 401 id or key refused"),
        (403, "can not download: 403 not this node's channel"),
        (404, "can not download: 404 no such package"),
        (410, "can not download: 410 from the server"),
    ],
)
def test_a_refusal_of_the_server_is_final(make_site: MakeSite, status: int, reason: str):
    site = make_site()
    site.ask(sample.tar_gz(PACKAGE))
    site.console.faults.status = status
    assert one_failure(site) == reason
    assert len(site.console.downloads) == 1


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"device_key": "wrong-key"}, 401),
        ({"control_channel": "wrong-channel"}, 403),
    ],
)
def test_real_refusals_of_ids(make_site: MakeSite, change: dict, status: int):
    """The server's own checks, asked directly: its answers are those that nodes are told of."""
    import ssl
    import urllib.error
    import urllib.request

    site = make_site()
    fuid = site.ask(sample.tar_gz(PACKAGE))
    config = site.config | change
    url = (
        f"https://{config['server']}/mf-rproxy/packages/download?fuid={fuid}"
        f"&did={config['device_id']}&dk={config['device_key']}&cid={config['control_channel']}"
    )
    context = ssl.create_default_context(cafile=str(site.console.ca_pem))
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url, context=context)
    assert caught.value.code == status


def test_a_package_that_is_gone(make_site: MakeSite):
    site = make_site()
    payload = b'[{"n":"e","v":0},{"n":"i","vs":"00000000"},{"n":"t","vs":".tar"},{"n":"s","v":99}]'
    site.console.request_raw(site.config["device_id"], payload)
    assert one_failure(site) == "can not download: 404 no such package"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_is_asked_again_in_later_wakes(make_site: MakeSite, status: int):
    site = make_site()
    site.ask(sample.tar_gz(PACKAGE))
    site.console.faults.status = status
    assert given_up(site) == f"can not download: {status} from the server"
    assert len(site.console.downloads) == 5


def test_a_server_that_recovers(make_site: MakeSite):
    site = make_site()
    site.ask(sample.tar_gz(PACKAGE))
    site.console.faults.status = 503
    site.console.faults.times = 3
    run = site.run(wakes=5)
    assert run.output.count("check: later") == 3
    assert "version 2 runs" in run.output
    assert [r["e"] for r in site.reports()] == [1]
    assert not [name for name in site.flash_files() if name.startswith("/.ota")]


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        ("wrong-ca", "certificate is not signed by the trust anchor"),
        ("wrong-host", "certificate is for another host"),
        ("expired", "certificate has expired"),
        ("future", "certificate is not valid yet, or this node's clock is not set"),
    ],
)
def test_a_server_that_is_not_ours(make_site: MakeSite, certificate: str, reason: str):
    """Transient on purpose: a captive portal must not be able to cancel an update for good."""
    site = make_site(certificate=certificate)
    site.ask(sample.tar_gz(PACKAGE))
    assert given_up(site) == "can not download: " + reason
    assert site.console.downloads == []


def test_plain_http_is_never_spoken(make_site: MakeSite):
    site = make_site(https_plain=True)
    site.ask(sample.tar_gz(PACKAGE))
    assert given_up(site) == "can not download: server does not speak TLS"
    assert site.console.downloads == []
    assert site.console.plain_requests == []


@pytest.mark.parametrize("anchor", [None, b"no certificate", b"-----BEGIN CERTIFICATE-----\nAA"])
def test_without_a_trust_anchor_nothing_is_asked(make_site: MakeSite, anchor: bytes | None):
    site = make_site(config={"ca": "/other.der"}, extra={"other.der": anchor} if anchor else {})
    site.ask(sample.tar_gz(PACKAGE))
    state = "is not a certificate" if anchor else "is missing"
    assert given_up(site) == f"can not download: trust anchor /other.der {state}"
    assert site.console.tls_failures == []


def test_two_trust_anchors_in_one_file_are_no_anchor(make_site: MakeSite):
    """Which one was meant? A bundle would be a wider trust than anybody asked for."""
    site = make_site(config={"ca": "/two.pem", "max_attempts": 1})
    (site.image.parent / "root" / "two.pem").write_bytes(site.files["/ca.pem"] * 2)
    site.configure()
    site.ask(sample.tar_gz(PACKAGE))
    expected = "can not download: trust anchor /two.pem holds more than one certificate"
    assert one_failure(site) == expected
    assert site.console.tls_failures == []


@pytest.mark.parametrize("ca", ["/ca.der", "/certs/x.der"])
def test_no_package_touches_the_trust_anchor(make_site: MakeSite, ca: str):
    """Wherever it is configured to be; and nothing can be put in the place of its folder."""
    for name in (ca, "." + ca, ca + "/x"):
        site = make_site(config={"ca": ca})
        (site.image.parent / "root" / "certs").mkdir()
        (site.image.parent / "root" / "certs" / "x.der").write_bytes(site.files["/ca.der"])
        site.configure()
        site.ask(sample.tar({"main.py": sample.main_py(2), name: b"mine"}), "p.tar")
        assert one_failure(site) == f"can not apply: protected path {ca}"


@pytest.mark.parametrize("ca", ["ca.der", "//ca.der", "/./ca.der"])
def test_other_spellings_of_the_trust_anchors_path(make_site: MakeSite, ca: str):
    site = make_site(config={"ca": ca})
    site.ask(sample.tar({"main.py": sample.main_py(2), "ca.der": b"mine"}), "p.tar")
    assert one_failure(site) == "can not apply: protected path /ca.der"


def test_a_trust_anchor_as_pem(make_site: MakeSite):
    site = make_site(config={"ca": "/ca.pem"})
    site.ask(sample.tar_gz(PACKAGE))
    assert "version 2 runs" in site.run().output


@pytest.mark.parametrize("build", [sample.tar, sample.tar_gz], ids=["tar", "tar.gz"])
@pytest.mark.parametrize(
    ("fault", "value", "reason"),
    [
        ("extra", b"x" * 10, "bytes announced, the server has"),
        ("wrong_length", 100, "bytes announced, the server has 100"),
        ("wrong_length", 10**6, "bytes announced, the server has 1000000"),
    ],
)
def test_a_body_of_another_length_than_announced(
    make_site: MakeSite, build, fault: str, value, reason: str
):
    site = make_site()
    site.ask(build(PACKAGE), "p.tar")
    setattr(site.console.faults, fault, value)
    assert reason in one_failure(site)


@pytest.mark.parametrize("build", [sample.tar, sample.tar_gz], ids=["tar", "tar.gz"])
def test_a_longer_body_without_a_stated_length(make_site: MakeSite, build):
    site = make_site()
    site.ask(build(PACKAGE), "p.tar")
    site.console.faults.no_length = True
    site.console.faults.extra_beyond_length = b"x"
    assert one_failure(site) == "can not download: the body is longer than announced"


@pytest.mark.parametrize("build", [sample.tar, sample.tar_gz], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("at", [0, 1, 700, 15_000, -1])
@pytest.mark.parametrize("stated", [True, False], ids=["length", "no length"])
def test_a_body_that_ends_early(make_site: MakeSite, build, at: int, stated: bool):
    site = make_site(config={"max_attempts": 1})
    data = build(PACKAGE)
    site.ask(data, "p.tar")
    site.console.faults.no_length = not stated
    site.console.faults.truncate_at = at % len(data)
    site.console.faults.etag = ""  # nothing to go on by
    assert one_failure(site).startswith("can not download: the body ")


def test_archives_shorter_and_longer_than_announced(make_site: MakeSite):
    """The platform's `s` disagrees with what it stores."""
    data = sample.tar_gz(PACKAGE)
    for size in (len(data) - 1, len(data) + 1):
        site = make_site()
        fuid = site.console.add_package(data, "p.tar.gz").fuid
        payload = '[{"n":"e","v":0},{"n":"i","vs":"%s"},{"n":"t","vs":".tar.gz"},{"n":"s","v":%d}]'
        site.console.request_raw(site.config["device_id"], (payload % (fuid, size)).encode())
        reason = f"can not download: {size} bytes announced, the server has {len(data)}"
        assert one_failure(site) == reason


@pytest.mark.parametrize("mpy", [True, False], ids=["mpy", "py"])
def test_chunked_and_unstated_lengths_are_no_fault(make_site: MakeSite, mpy: bool):
    for fault in ("chunked", "no_length"):
        site = make_site(mpy=mpy)
        site.ask(sample.tar_gz(PACKAGE))
        setattr(site.console.faults, fault, True)
        assert "version 2 runs" in site.run().output


@pytest.mark.parametrize("mpy", [True, False], ids=["mpy", "py"])
@pytest.mark.parametrize("at", [0, 2, 3, 400, 10_000, -6, -2])
def test_a_flipped_bit_in_a_compressed_package(make_site: MakeSite, at: int, mpy: bool):
    site = make_site(mpy=mpy)
    data = sample.tar_gz(PACKAGE)
    site.ask(data)
    site.console.faults.flip_at = at % len(data)
    assert one_failure(site).startswith("can not apply: ")


@pytest.mark.parametrize("at", [0, 100, 150, 260])
def test_a_flipped_bit_in_a_tar_header(make_site: MakeSite, at: int):
    site = make_site()
    site.ask(sample.tar(PACKAGE), "p.tar")
    site.console.faults.flip_at = at
    assert one_failure(site).startswith("can not apply: bad archive")


@pytest.mark.parametrize("mpy", [True, False], ids=["mpy", "py"])
def test_garbage_and_an_empty_archive(make_site: MakeSite, mpy: bool):
    rows = (
        (random.Random(2).randbytes(5000), "neither tar nor a known compression"),
        (bytes(10240), "it is empty"),
        (b"x", "neither tar nor a known compression"),
    )
    for data, reason in rows:
        site = make_site(mpy=mpy)
        site.ask(data, "p.tar")
        assert one_failure(site) == f"can not apply: bad archive, {reason}"


@pytest.mark.parametrize("mpy", [True, False], ids=["mpy", "py"])
def test_redirects_are_followed_over_https_only(make_site: MakeSite, mpy: bool):
    site = make_site(mpy=mpy)
    site.ask(sample.tar_gz(PACKAGE))
    place = f"localhost:{site.console.ports.https}/mf-rproxy/packages/download?{{query}}"
    site.console.faults.redirect_to = "https://" + place
    site.console.faults.times = 2
    assert "version 2 runs" in site.run().output

    site = make_site()
    site.ask(sample.tar_gz(PACKAGE))
    site.console.faults.redirect_to = "http://" + place
    expected = "can not download: redirected to something other than HTTPS"
    assert one_failure(site) == expected
    assert site.console.plain_requests == []

    site = make_site()
    site.ask(sample.tar_gz(PACKAGE))
    site.console.faults.redirect_to = "/mf-rproxy/packages/download?{query}"
    assert one_failure(site) == "can not download: redirected more than 3 times"
    assert len(site.console.downloads) == 4


def test_a_server_that_falls_silent_ends_within_the_time_limit(make_site: MakeSite):
    site = make_site(config={"timeout_s": 1, "cycle_s": 4, "max_attempts": 1})
    site.ask(sample.tar_gz(PACKAGE))
    site.console.faults.stall_at = 5
    assert one_failure(site, timeout_s=10).startswith("can not download: ")
    expected = [None, "bytes=5-", "bytes=10-", "bytes=15-"]
    # Taken up where it fell silent, each time for a few bytes, until the time for all was over.
    assert [d.range for d in site.console.downloads] == expected


@pytest.mark.parametrize("rest", ["?{query}", ":0/?{query}", "#{query}", "&{query}", "/ {query}"])
def test_redirects_to_no_address_give_the_key_to_nobody(make_site: MakeSite, rest: str):
    """tests/test_https.py has more of them; here output, report, log and flash are searched."""
    site = make_site(config={"max_attempts": 1})
    site.ask(sample.tar_gz(PACKAGE))
    site.console.faults.redirect_to = "https://no.such.host.invalid" + rest
    reason = one_failure(site)
    assert reason in (
        "can not download: the host's name is not known",
        "can not download: redirected to an unusable address",
        "can not download: redirected to nowhere",
    )


def test_attempts_that_a_watchdog_ends_are_counted(make_site: MakeSite):
    """The agent is never told of them, and has to give up all the same."""
    main = b"import machine\nmachine.WDT(timeout=1000)\n" + sample.main_py(1)
    site = make_site({"main.py": main}, config={"max_attempts": 2})
    fuid = site.ask(sample.tar_gz(PACKAGE))
    site.console.faults.stall_at = 9000
    run = site.run(timeout_s=30)
    assert run.names().count("wdt") == 2
    reason = "can not apply: interrupted 2 times"
    assert f"check: failed\nreason: {reason}\n" in run.output, run.output
    assert site.reports() == [{"e": 2, "i": fuid, "m": reason}]
    assert site.retained() is None
    assert len(site.console.downloads) == 2
    assert "check: idle" in site.run().output
    check_nothing_installed(site)


LITTLE_MEMORY = b"""
import gc
import ota.agent, ota.cycle, ota.download, ota.https, ota.inflate, ota.staging
gc.collect()
hold = []
while gc.mem_free() > 48_000:
    hold.append(bytearray(1000))
"""


def test_a_window_that_does_not_fit_in_memory(make_site: MakeSite):
    """Another wake may find more of it; so it is reported only when there have been enough."""
    main = LITTLE_MEMORY + sample.main_py(1)
    site = make_site({"main.py": main}, heap="160K", config={"max_attempts": 3})
    fuid = site.ask(sample.tar_gz(PACKAGE))
    run = site.run(wakes=3)
    reason = "can not apply: no memory for a window of 32768 bytes"
    assert run.output.count(f"check: later\nreason: {reason}\n") == 2, run.output
    assert run.output.count(f"check: failed\nreason: {reason}\n") == 1, run.output
    assert site.reports() == [{"e": 2, "i": fuid, "m": reason}]
    assert site.retained() is None
    assert "check: idle" in site.run().output
    check_nothing_installed(site)
