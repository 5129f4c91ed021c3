"""Downloads over links and servers that fail: the right bytes in the end, or a clean failure.

All places are tried by `make badlink`; here it is a sample of them.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator

import pytest

from host_sim import sample
from host_sim.campaigns.badlink.parts import run_part
from host_sim.campaigns.badlink.resume import CutOnce, CutStream, Downloader, archive, places
from host_sim.console.faults import Faults, in_turn
from host_sim.link import Link
from tests.conftest import MakeSite

KINDS = ("tar", "tar.gz")
CUT = 30_000


@pytest.fixture(scope="module")
def downloader() -> Iterator[Downloader]:
    """One that fetches a plain tar, in which nothing tells bytes that do not belong there."""
    with Downloader("tar", 60_000) as downloader:
        yield downloader


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_one_download_that_is_cut_everywhere(kind: str):
    with Downloader(kind, 20_000) as downloader:
        offsets = places(downloader.package.size)
        assert len(offsets) > 80
        assert downloader.cut_at(kind, offsets).wrong == ()


@pytest.mark.parametrize("kind", KINDS)
def test_one_cut_at_any_place(kind: str):
    part = CutOnce(kind)
    cases = part.cases()
    assert 1900 < len(cases) < 2200
    with part:
        result = run_part(part, random.Random(kind).sample(cases, 8))
    assert len(result.outcomes) == 8
    assert result.failures == []


def test_a_reset_at_any_place_of_the_tls_stream():
    """In records of 16 KB, as servers like them, such a cut costs up to a whole one."""
    with CutStream() as part:
        result = run_part(part, ["0", *random.Random(4).sample(part.cases(), 6)])
    assert len(result.outcomes) == 7
    assert result.failures == []
    assert result.outcomes[0].again == 0


def test_the_judge_of_downloads_can_say_no(downloader: Downloader):
    """The campaign's own judge sees wrong bytes and bytes that come twice."""
    downloader.console.faults = Faults(flip_at=25_000)
    assert downloader.fetch("flipped").wrong == ("other bytes than the package's",)
    downloader.console.faults = Faults(range_taken_as="")
    assert downloader.cut_at("no ranges", [CUT]).wrong == (f"{CUT} bytes fetched again",)
    downloader.console.faults = Faults(status=503)
    assert downloader.fetch("refused").wrong[0].startswith("Transient can not download: 503")


GOES_ON = {
    "ranges are not known": Faults(range_taken_as=""),
    "no length": Faults(no_length=True),
    "chunks": Faults(chunked=True),
    "a length that is too short": Faults(wrong_length=10),
    "bytes behind the end": Faults(extra_beyond_length=b"xx"),
    "in trouble, twice": Faults(status=503, times=2),
    "busy": Faults(status=429),
    "falls silent": Faults(stall_at=5),
    "no range this time": Faults(status=416),
    "cut at once, twice": Faults(truncate_at=0, times=2),
    "redirected to a host that does not answer": Faults(redirect_to="https://localhost:1/x"),
}


@pytest.mark.check
@pytest.mark.few(3)
@pytest.mark.parametrize("name", GOES_ON)
def test_the_right_bytes_after_all(downloader: Downloader, name: str):
    downloader.console.faults = in_turn(Faults(cut_at=[CUT]), GOES_ON[name])
    assert downloader.fetch(name, wait_s=2).wrong == ()


@pytest.mark.parametrize("place", ["https://localhost:{port}", ""], ids=["absolute", "relative"])
def test_redirected_while_resuming(downloader: Downloader, place: str):
    place = place.format(port=downloader.console.ports.https)
    where = place + "/mf-rproxy/packages/download?{query}"
    downloader.console.faults = in_turn(Faults(cut_at=[CUT]), Faults(redirect_to=where))
    before = len(downloader.console.downloads)
    assert downloader.fetch("redirected").wrong == ()
    ranges = [download.range for download in downloader.console.downloads[before:]]
    assert ranges == [None, f"bytes={CUT}-", f"bytes={CUT}-"]


NONSENSE = "Transient can not download: Content-Range makes no sense"
CHANGED = "Transient can not download: the server has changed the package meanwhile"
ENDS = {
    "begins later": (Faults(content_range="bytes {first:+1}-{last}/{size}"), NONSENSE, 2),
    "begins earlier": (Faults(content_range="bytes {first:-1}-{last}/{size}"), NONSENSE, 2),
    "ends early": (Faults(content_range="bytes {first}-{last:-1}/{size}"), NONSENSE, 2),
    "of another size": (Faults(content_range="bytes {first}-{last}/{size:+1}"), NONSENSE, 2),
    "of unknown size": (Faults(content_range="bytes {first}-{last}/*"), NONSENSE, 2),
    "other units": (Faults(content_range="blocks {first}-{last}/{size}"), NONSENSE, 2),
    "no Content-Range": (Faults(content_range=""), NONSENSE, 2),
    "a byte further, and says so": (Faults(range_shift=1), NONSENSE, 2),
    "a byte back, and says so": (Faults(range_shift=-1), NONSENSE, 2),
    "the beginning": (Faults(range_taken_as="bytes=0-999"), NONSENSE, 2),
    "another ETag, and a range": (Faults(etag='"other"'), CHANGED, 2),
    "another ETag, and all": (Faults(etag='"other"', range_taken_as=""), CHANGED, 2),
    "no ETag any more": (Faults(etag=""), CHANGED, 2),
    "a weak ETag now": (Faults(etag='W/"x"'), CHANGED, 2),
    "416 again and again": (
        Faults(status=416, times=9),
        "Transient can not download: 416 from the server",
        4,
    ),
    "cut at once, for ever": (
        Faults(truncate_at=0, times=9),
        "Transient can not download: the body ended early",
        4,
    ),
    "all again, and never up to there": (
        Faults(range_taken_as="", truncate_at=CUT - 1, times=9),
        "Transient can not download: the body ended early",
        4,
    ),
    "gone": (Faults(status=404), "Refused can not download: 404 no such package", 2),
    "plain HTTP": (
        Faults(redirect_to="http://localhost/?{query}"),
        "Refused can not download: redirected to something other than HTTPS",
        2,
    ),
    "all, but of another length": (
        Faults(range_taken_as="", wrong_length=70_000),
        "Refused can not download: 200 from the server",
        2,
    ),
}


@pytest.mark.few(4)
@pytest.mark.parametrize("name", ENDS)
def test_never_other_bytes(downloader: Downloader, name: str):
    """A plain tar would swallow them. After each of these the next wake begins anew."""
    faults, error, requests = ENDS[name]
    console = downloader.console
    console.faults = in_turn(Faults(cut_at=[CUT]), faults)
    before = len(console.downloads)
    assert downloader.fetch(name).wrong == (error,)
    assert len(console.downloads) - before == requests
    console.faults = Faults()
    assert downloader.fetch("anew").wrong == ()


@pytest.mark.few(2)
@pytest.mark.parametrize("etag", ["", 'W/"weak"', "bare", '"two words"', '"a"b"', '"', '"\x7f"'])
def test_without_a_strong_etag_nothing_is_resumed(downloader: Downloader, etag: str):
    console = downloader.console
    console.faults = in_turn(Faults(cut_at=[CUT], etag=etag))
    before = len(console.downloads)
    (error,) = downloader.fetch("cut").wrong
    assert error == "Transient can not download: the body ended early"
    assert [download.range for download in console.downloads[before:]] == [None]


def test_a_package_that_is_replaced_meanwhile():
    """By one of the same size, under the same id: first none of both, then the new one."""
    with Downloader("tar", 60_000) as old, contextlib.ExitStack() as stack:
        console, package = old.console, old.package
        content = bytearray(archive("tar", 60_000))
        content[40_000] ^= 1

        def replace() -> None:
            console.wait_for(lambda: len(console.downloads) >= 2)
            console.add_package(bytes(content), "package.tar", fuid=package.fuid)

        thread = threading.Thread(target=replace)
        thread.start()
        stack.callback(thread.join)
        console.faults = in_turn(Faults(cut_at=[CUT]), Faults(status=503, times=2))
        assert old.fetch("replaced").wrong == (CHANGED,)
        assert old.fetch("anew").wrong == ("other bytes than the package's",)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_node_whose_download_is_cut_many_times(make_site: MakeSite, kind: str):
    site = make_site()
    data = archive(kind)
    fuid = site.ask(data, f"p.{kind}")
    offsets = sorted(random.Random(kind).sample(places(len(data)), 20))
    site.console.faults.cut_at = list(offsets)
    run = site.run()
    assert "version 2 runs" in run.output, run.output
    assert [(r["e"], r["i"]) for r in site.reports()] == [(1, fuid)]
    asked = [download.range for download in site.console.downloads]
    head = ["bytes=0-17"] if kind == "tar.gz" else []
    assert asked == [*head, None, *(f"bytes={offset}-" for offset in offsets)]
    sent = sum(download.bytes_sent for download in site.console.downloads)
    assert sent == 18 * len(head) + len(data)
    assert site.flash_files()["/data/part_4.bin"] in data or kind == "tar.gz"


@pytest.mark.parametrize(
    ("cut", "told"), [(0, 0), (CUT, 1)], ids=["before the first byte", "on the way"]
)
def test_all_once_more_is_told_where_something_had_come(make_site: MakeSite, cut: int, told: int):
    """Who has nothing yet asks for everything, whatever the server knows: that costs nothing."""
    site = make_site()
    site.ask(archive("tar"), "p.tar")
    site.console.faults = in_turn(Faults(truncate_at=cut, times=1), Faults(range_taken_as=""))
    run = site.run()
    assert "version 2 runs" in run.output, run.output
    assert len(site.console.downloads) == 2
    assert run.output.count("ota: the server does not know Range") == told, run.output


@contextlib.contextmanager
def behind_a_link(site, profile: str) -> Iterator[Link]:
    """The site's node, flashed anew, with a link of this profile to the package server."""
    with Link("127.0.0.1", site.console.ports.https, profile) as link:
        site.configure(server=f"localhost:{link.port}")
        yield link


@pytest.mark.few(1)
@pytest.mark.parametrize("fault", ["cut=reset:50000", "cut=50000", "hold=both:50000"])
def test_a_node_whose_link_fails_once(make_site: MakeSite, fault: str):
    """It goes on in the same wake."""
    site = make_site(config={"timeout_s": 1})
    with behind_a_link(site, fault) as link:
        site.ask(archive("tar.gz", 100_000))
        assert "version 2 runs" in site.run().output
        assert len(link.connections) == 2
    head, first, second = site.console.downloads
    assert head.range == "bytes=0-17"
    assert first.range is None
    assert second.range is not None


def test_a_node_whose_package_changes_meanwhile(make_site: MakeSite):
    """Nothing of the old one is installed; the next wake has the new one."""
    site = make_site()
    old = archive("tar", 60_000)
    fuid = site.ask(old, "p.tar")
    new = old.replace(b"VERSION = 2", b"VERSION = 3")

    def replace() -> None:
        site.console.wait_for(lambda: len(site.console.downloads) >= 2)
        site.console.add_package(new, "p.tar", fuid=fuid)

    thread = threading.Thread(target=replace)
    thread.start()
    site.console.faults = in_turn(Faults(cut_at=[CUT]), Faults(status=503, times=2))
    run = site.run(wakes=2)
    thread.join()
    assert "reason: can not download: the server has changed the package meanwhile" in run.output
    assert "version 2 runs" not in run.output
    assert "version 3 runs" in run.output
    assert [(r["e"], r["i"]) for r in site.reports()] == [(1, fuid)]


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("fault", "reason", "connections"),
    [
        ("connect=refuse", "the host does not answer, OSError 111", 0),
        ("cut=each:0", "TLS failed, OSError -29312", 5),
        ("tls=alert", "TLS failed, OSError -30592", 5),
    ],
)
def test_a_server_that_is_down(make_site: MakeSite, fault: str, reason: str, connections: int):
    """Asked in five wakes, then given up, reported and cleared; never asked again."""
    site = make_site()
    with behind_a_link(site, fault) as link:
        fuid = site.ask(sample.tar_gz({"main.py": sample.main_py(2)}))
        run = site.run(wakes=4)
        assert run.output.count("check: later") == 4
        assert site.reports() == []
        assert site.retained() is not None
        assert "check: failed" in site.run(cause="deepsleep").output
        report = {"e": 2, "i": fuid, "m": f"can not download: {reason}"}
        assert site.reports() == [report]
        assert site.retained() is None
        assert len(link.connections) == connections
        link.profile = ""
        run = site.run(cause="deepsleep", wakes=3)
        assert run.output.count("check: idle") == 3
        assert len(link.connections) == connections
    assert site.console.downloads == []
    assert site.reports() == [report]
    assert site.flash_files() == site.files
