"""What servers and links do wrong: nothing is installed, and each has a reason of its own."""

from __future__ import annotations

import random
import re
import zlib

import pytest

from host_sim import sample
from host_sim.console.faults import Faults, in_turn
from tests.conftest import MakeSite
from tests.secrecy import WatchedSite

PACKAGE = {"main.py": sample.main_py(2), "data.bin": random.Random(1).randbytes(20_000)}


def check_nothing_installed(site: WatchedSite, but: set[str] = frozenset()) -> None:
    files = site.flash_files()
    assert {name: files[name] for name in files if name not in but} == site.files
    assert but <= files.keys()
    assert set(site.flash_folders()) - {"/.ota" for _ in but} == set(site.folders)


def one_failure(site: WatchedSite, **options) -> str:
    """Run a wake that must end in one report of a permanent failure; returns its reason."""
    run = site.run(**options)
    assert "check: failed" in run.output, run.output
    assert site.retained() is None
    (report,) = site.reports()
    assert report["e"] == 2
    check_nothing_installed(site)
    return report["m"]


def two_failures(site: WatchedSite) -> str:
    """What may pass: it ends the request when the second wake meets it again, and not before."""
    run = site.run()
    assert "check: later" in run.output, run.output
    later = re.search("reason: (.*)", run.output)
    assert later
    assert site.reports() == []
    assert site.retained() is not None
    check_nothing_installed(site, {"/.ota/attempts"})
    reason = one_failure(site, cause="deepsleep")
    assert later[1] == reason
    return reason


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


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "can not download: 401 id or key refused"),
        (403, "can not download: 403 not this node's channel"),
        (404, "can not download: 404 no such package"),
        (410, "can not download: 410 from the server"),
    ],
)
def test_a_refusal_of_the_server_is_final_when_it_comes_again(
    make_site: MakeSite, status: int, reason: str
):
    site = make_site()
    site.ask(sample.tar_gz(PACKAGE))
    site.console.faults.status = status
    assert two_failures(site) == reason
    assert len(site.console.downloads) == 2


PASSES = {
    "401": Faults(status=401),
    "403": Faults(status=403),
    "404": Faults(status=404),
    "204": Faults(status=204),
    "a redirect to plain HTTP": Faults(redirect_to="http://localhost/repairs.html"),
    "a page of another length": Faults(wrong_length=100),
    "a longer page": Faults(no_length=True, extra_beyond_length=b"</html>"),
    "a refusal in the middle": in_turn(Faults(cut_at=[9000]), Faults(status=403)),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("name", PASSES)
def test_a_refusal_that_passes_does_no_harm(make_site: MakeSite, name: str):
    """An account that is locked for a minute, a page that tells of repairs."""
    site = make_site()
    # Of a .tar the first answer is all of it.
    fuid = site.ask(sample.tar(PACKAGE), "p.tar")
    faults = PASSES[name]
    site.console.faults = faults if faults.times else in_turn(faults)
    run = site.run(wakes=2)
    assert run.output.count("check: later\nreason: can not download: ") == 1, run.output
    assert "version 2 runs" in run.output
    assert [(r["e"], r["i"]) for r in site.reports()] == [(1, fuid)]
    assert not [name for name in site.flash_files() if name.startswith("/.ota")]


def test_refusals_that_differ_are_given_up_after_all_attempts(make_site: MakeSite):
    site = make_site()
    site.ask(sample.tar_gz(PACKAGE))
    site.console.faults = in_turn(*(Faults(status=n) for n in (404, 403, 404, 403, 404)))
    assert given_up(site) == "can not download: 404 no such package"


def test_a_lost_link_between_two_equal_refusals_changes_nothing(make_site: MakeSite):
    site = make_site()
    site.ask(sample.tar_gz(PACKAGE))
    site.console.faults = in_turn(*(Faults(status=n) for n in (404, 503, 404)))
    run = site.run(wakes=3)
    assert run.output.count("check: later") == 2, run.output
    assert run.output.count("check: failed") == 1
    assert [r["m"] for r in site.reports()] == ["can not download: 404 no such package"]


def test_a_refusal_says_nothing_of_the_next_package(make_site: MakeSite):
    site = make_site()
    site.ask(sample.tar_gz(PACKAGE))
    site.console.faults = in_turn(Faults(status=404, times=2))
    assert "check: later" in site.run().output
    fuid = site.ask(sample.tar_gz(PACKAGE | {"more": b"1"}))
    run = site.run(cause="deepsleep", wakes=2)
    assert "check: later" in run.output
    assert "version 2 runs" in run.output
    assert [(r["e"], r["i"]) for r in site.reports()] == [(1, fuid)]


def test_a_single_attempt_is_the_last_one(make_site: MakeSite):
    site = make_site(config={"max_attempts": 1})
    site.ask(sample.tar_gz(PACKAGE))
    site.console.faults.status = 404
    assert one_failure(site) == "can not download: 404 no such package"


def test_the_attempts_file_of_an_older_agent(make_site: MakeSite):
    """Two fields: how often, but not why."""
    text = b"fa8884d2 3"
    attempts = b"\n%s %08x\n" % (text, zlib.crc32(text))
    for again in (False, True):
        site = make_site(extra={".ota/attempts": attempts})
        fuid = site.console.add_package(sample.tar_gz(PACKAGE), "p.tar.gz", fuid="fa8884d2").fuid
        site.console.request(site.config["device_id"], fuid)
        site.console.faults = in_turn(Faults(status=404, times=2 if again else 1))
        run = site.run(wakes=2)
        assert "check: later\nreason: can not download: 404" in run.output, run.output
        assert [r["e"] for r in site.reports()] == [2 if again else 1]


@pytest.mark.few(1)
@pytest.mark.parametrize("torn", ["none", "half"])
def test_power_cuts_around_what_is_noted(make_site: MakeSite, torn: str):
    """At each write of the first refusal: the next two refusals at the most end it, never none."""
    site = make_site()
    data = sample.tar_gz(PACKAGE)
    pristine = site.image.read_bytes()
    site.console.faults.status = 404
    site.ask(data)
    total = site.run().ops
    assert total > 4
    for cut in range(1, total + 1):
        site.image.write_bytes(pristine)
        told = len(site.reports())
        fuid = site.ask(data)
        run = site.run(cut=cut, torn=torn)
        assert run.exit_code == 3
        assert len(site.reports()) == told
        run = site.run(wakes=2)
        assert run.output.count("check: failed") == 1, (cut, run.output)
        assert [(r["e"], r["i"]) for r in site.reports()[told:]] == [(2, fuid)]
        assert site.retained() is None


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
    assert two_failures(site) == "can not download: 404 no such package"


@pytest.mark.few(1)
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


@pytest.mark.few(1)
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


@pytest.mark.few(1)
@pytest.mark.parametrize("anchor", [None, b"no certificate", b"-----BEGIN CERTIFICATE-----\nAA"])
def test_without_a_trust_anchor_nothing_is_asked(make_site: MakeSite, anchor: bytes | None):
    site = make_site(config={"ca": "/other.der"}, extra={"other.der": anchor} if anchor else {})
    site.ask(sample.tar_gz(PACKAGE))
    state = "is not a certificate" if anchor else "is missing"
    assert given_up(site) == f"can not download: trust anchor /other.der {state}"
    assert site.console.tls_failures == []


@pytest.mark.few(1)
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


@pytest.mark.few(1)
@pytest.mark.parametrize("ca", ["ca.der", "//ca.der", "/./ca.der"])
def test_other_spellings_of_the_trust_anchors_path(make_site: MakeSite, ca: str):
    site = make_site(config={"ca": ca})
    site.ask(sample.tar({"main.py": sample.main_py(2), "ca.der": b"mine"}), "p.tar")
    assert one_failure(site) == "can not apply: protected path /ca.der"


def test_a_trust_anchor_as_pem(make_site: MakeSite):
    site = make_site(config={"ca": "/ca.pem"})
    site.ask(sample.tar_gz(PACKAGE))
    assert "version 2 runs" in site.run().output


@pytest.mark.few(1)
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
    assert reason in two_failures(site)


@pytest.mark.few(1)
@pytest.mark.parametrize("build", [sample.tar, sample.tar_gz], ids=["tar", "tar.gz"])
def test_a_longer_body_without_a_stated_length(make_site: MakeSite, build):
    site = make_site()
    site.ask(build(PACKAGE), "p.tar")
    site.console.faults.no_length = True
    site.console.faults.extra_beyond_length = b"x"
    assert two_failures(site) == "can not download: the body is longer than announced"


@pytest.mark.few(1)
@pytest.mark.parametrize("page", [b"<html>Back soon.</html>", b"\n<!doctype html>" + bytes(600)])
def test_a_page_without_a_length_is_met_twice(make_site: MakeSite, page: bytes):
    """Nothing says that it is the package. With a right length it is: see garbage below."""
    site = make_site()
    package = site.console.add_package(page, "p.tar")
    site.console.request(site.config["device_id"], package.fuid)
    site.console.faults.no_length = True
    reason = "can not download: neither tar nor a known compression"
    assert two_failures(site) == reason


@pytest.mark.few(1)
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


@pytest.mark.slow
def test_archives_shorter_and_longer_than_announced(make_site: MakeSite):
    """The platform's `s` disagrees with what it stores."""
    data = sample.tar_gz(PACKAGE)
    for size in (len(data) - 1, len(data) + 1):
        site = make_site()
        fuid = site.console.add_package(data, "p.tar.gz").fuid
        payload = '[{"n":"e","v":0},{"n":"i","vs":"%s"},{"n":"t","vs":".tar.gz"},{"n":"s","v":%d}]'
        site.console.request_raw(site.config["device_id"], (payload % (fuid, size)).encode())
        reason = f"can not download: {size} bytes announced, the server has {len(data)}"
        assert two_failures(site) == reason


@pytest.mark.few(1)
@pytest.mark.parametrize("mpy", [True, False], ids=["mpy", "py"])
def test_chunked_and_unstated_lengths_are_no_fault(make_site: MakeSite, mpy: bool):
    for fault in ("chunked", "no_length"):
        site = make_site(mpy=mpy)
        site.ask(sample.tar_gz(PACKAGE))
        setattr(site.console.faults, fault, True)
        assert "version 2 runs" in site.run().output


@pytest.mark.few(1)
@pytest.mark.parametrize("mpy", [True, False], ids=["mpy", "py"])
@pytest.mark.parametrize("at", [0, 2, 3, 400, 10_000, -6, -2])
def test_a_flipped_bit_in_a_compressed_package(make_site: MakeSite, at: int, mpy: bool):
    site = make_site(mpy=mpy)
    data = sample.tar_gz(PACKAGE)
    site.ask(data)
    site.console.faults.flip_at = at % len(data)
    assert one_failure(site).startswith("can not apply: ")


@pytest.mark.few(1)
@pytest.mark.parametrize("at", [0, 100, 150, 260])
def test_a_flipped_bit_in_a_tar_header(make_site: MakeSite, at: int):
    site = make_site()
    site.ask(sample.tar(PACKAGE), "p.tar")
    site.console.faults.flip_at = at
    assert one_failure(site).startswith("can not apply: bad archive")


@pytest.mark.few(1)
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


@pytest.mark.few(1)
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
    assert two_failures(site) == expected
    assert site.console.plain_requests == []

    site = make_site()
    site.ask(sample.tar_gz(PACKAGE))
    site.console.faults.redirect_to = "/mf-rproxy/packages/download?{query}"
    assert two_failures(site) == "can not download: redirected more than 3 times"
    assert len(site.console.downloads) == 8


@pytest.mark.slow
def test_a_server_that_falls_silent_ends_within_the_time_limit(make_site: MakeSite):
    site = make_site(config={"timeout_s": 1, "cycle_s": 4, "max_attempts": 1})
    site.ask(sample.tar(PACKAGE), "p.tar")
    site.console.faults.stall_at = 5
    assert one_failure(site, timeout_s=10).startswith("can not download: ")
    expected = [None, "bytes=5-", "bytes=10-", "bytes=15-"]
    # Taken up where it fell silent, each time for a few bytes, until the time for all was over.
    assert [d.range for d in site.console.downloads] == expected


@pytest.mark.few(2)
@pytest.mark.parametrize("rest", ["?{query}", ":0/?{query}", "#{query}", "&{query}", "/ {query}"])
def test_redirects_to_no_address_give_the_key_to_nobody(make_site: MakeSite, rest: str):
    """test_https.py has more of them; here output, report, log and flash are searched."""
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
    # The last one asks for all at once.
    assert [download.range for download in site.console.downloads] == ["bytes=0-17", None, None]
    assert "check: idle" in site.run().output
    check_nothing_installed(site)


LITTLE_MEMORY = b"""
import gc
import ota.agent, ota.cycle, ota.download, ota.https
import ota.package.inflate, ota.install.staging
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
