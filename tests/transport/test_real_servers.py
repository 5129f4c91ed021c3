"""A whole update from a real nginx, set up as platforms and their stores of files set it up."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from host_sim import sample
from tests.conftest import MakeSite
from tests.secrecy import WatchedSite
from tests.transport.nginx import DOWNLOAD, Nginx, running

PACKAGE = {"main.py": sample.main_py(2), "data.bin": random.Random(1).randbytes(20_000)}
Run = Callable[..., WatchedSite]


@pytest.fixture
def behind(make_site: MakeSite, tmp_path: Path) -> Iterator[Callable]:
    """A node whose packages come from an nginx with these rules; it has them in /store."""
    stack = []

    def make(rules: str, data: bytes, name: str = "p.tar.gz", **options) -> tuple:
        site = make_site(**options)
        folder = tmp_path / f"nginx{len(stack)}"
        server = running(folder, site.console.directory / "https.pem", rules)
        nginx: Nginx = server.__enter__()
        stack.append(server)
        (nginx.www / "store").mkdir()
        (nginx.www / "store" / name).write_bytes(data)
        site.configure(server=f"localhost:{nginx.port}")
        site.ask(data, name)
        return site, nginx

    yield make
    for server in reversed(stack):
        server.__exit__(None, None, None)


def check_updated(site: WatchedSite, wakes: int = 1) -> str:
    run = site.run(wakes=wakes)
    assert "version 2 runs" in run.output, run.output
    assert [report["e"] for report in site.reports()] == [1]
    assert site.console.downloads == []  # the simulated console's own server was not asked
    return run.output


def query(length: int) -> str:
    """What a store puts behind a presigned address."""
    text = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F20261126%2Fs3%2Faws4_request"
    text += "&X-Amz-Expires=300&response-content-disposition=attachment%3B%20filename%3Dp.tar.gz"
    return (text + "&X-Amz-Security-Token=" + "IQoJb3JpZ2lu" * 400)[:length]


REDIRECTS = {
    "presigned, 1.7 KB": "https://localhost:{port}/store/p.tar.gz?" + query(1700),
    "presigned, 4 KB": "https://localhost:{port}/store/p.tar.gz?" + query(4040),
    "a path": "/store/p.tar.gz",
    "relative": "../../store/p.tar.gz?a=b",
    "without a scheme": "//localhost:{port}/store/p.tar.gz",
    "an address": "https://127.0.0.1:{port}/store/p.tar.gz",
    "an address of IPv6": "https://[::1]:{port}/store/p.tar.gz",
    "in capitals": "HTTPS://LOCALHOST:{port}/store/p.tar.gz",
}


@pytest.mark.few(2)
@pytest.mark.parametrize("name", REDIRECTS)
def test_redirected_to_a_store(behind, name: str):
    rules = f'location = {DOWNLOAD} {{ return 302 "{REDIRECTS[name]}"; }}'
    site, nginx = behind(rules, sample.tar_gz(PACKAGE))
    check_updated(site)
    asked = [line[:2] for line in nginx.log(4)]
    # Its first bytes, and all of it.
    assert asked == [
        [status, path]
        for place in ("206", "200")
        for status, path in (("302", DOWNLOAD), (place, "/store/p.tar.gz"))
    ]


def test_the_host_header_picks_the_server(behind):
    """The name with its port, the address in brackets: each is what that server is called."""
    rules = f"""
        if ($http_host !~ "^(localhost|\\[::1\\]):{{port}}$") {{ return 400; }}
        location = {DOWNLOAD} {{ return 302 "https://[::1]:{{port}}/store/p.tar.gz"; }}"""
    site, _ = behind(rules, sample.tar_gz(PACKAGE))
    check_updated(site)


def test_a_server_that_has_only_an_address_of_ipv6(behind):
    site, nginx = behind(f"rewrite {DOWNLOAD} /store/p.tar.gz;", sample.tar_gz(PACKAGE))
    site.configure(server=f"[::1]:{nginx.port}")
    check_updated(site)


@pytest.mark.slow
def test_cut_off_and_resumed_by_its_own_entity_tag(behind):
    """Each connection brings 9,000 bytes, and then hardly any: below `min_rate`."""
    rules = f"""
        location = {DOWNLOAD} {{ rewrite ^ /store/p.tar.gz; }}
        location /store/ {{ limit_rate_after 9000; limit_rate 10; }}"""
    site, nginx = behind(rules, sample.tar_gz(PACKAGE), config={"timeout_s": 1})
    check_updated(site)
    head, (status, *_), *others = nginx.log(4)
    assert (head[0], head[2]) == ("206", "bytes=0-17")
    assert status == "200"
    assert len(others) >= 2
    assert all(line[0] == "206" and line[2].startswith("bytes=") for line in others), others


def test_a_stored_archive_that_is_labelled_gzip(behind):
    """As by AddEncoding or an object's metadata: the length tells that it is the stored file."""
    for label in ("gzip", "x-gzip"):
        rules = f"""
        location = {DOWNLOAD} {{ rewrite ^ /store/p.tar.gz; }}
        location /store/ {{ add_header Content-Encoding {label}; }}"""
        site, nginx = behind(rules, sample.tar_gz(PACKAGE))
        check_updated(site)
        assert [line[3] for line in nginx.log(2)] == [label] * 2


def test_a_file_that_nginx_finds_compressed_beside_it(behind):
    """gzip_static always: the announced size is the .tar's, and something else would come."""
    data = sample.tar(PACKAGE)
    rules = f"location = {DOWNLOAD} {{ rewrite ^ /store/p.tar; gzip_static always; }}"
    rules += "location /store/ { gzip_static always; }"
    site, nginx = behind(rules, data, "p.tar", config={"max_attempts": 2})
    (nginx.www / "store/p.tar.gz").write_bytes(gzip.compress(data))
    run = site.run(wakes=2)
    assert run.output.count("check: later") == 1
    reason = "can not download: Content-Encoding, and not the announced length"
    assert [report["m"] for report in site.reports()] == [reason], run.output
    assert [line[3] for line in nginx.log(2)] == ["gzip", "gzip"]
    assert site.flash_files() == site.files


def test_nothing_is_compressed_on_the_way(behind):
    """A server that compresses whatever it may is told not to."""
    rules = f"""
        gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;
        location = {DOWNLOAD} {{ rewrite ^ /store/p.tar; }}
        location /store/ {{ }}
        # What a server does that takes a missing header for "anything".
        if ($http_accept_encoding != identity) {{ return 406; }}"""
    site, _ = behind(rules, sample.tar({"main.py": sample.main_py(2)}), "p.tar")
    check_updated(site)


PAGE = "<html><head><title>Back soon</title></head><body>Repairs.</body></html>"
PASSING = {
    "403": "return 403;",
    "404": "return 404;",
    "401": "return 401;",
    "503": "return 503;",
    "a page": f'return 200 "{PAGE}";',
    "sent to a page": 'return 302 "http://localhost:{port}/repairs.html";',
    "sent in a circle": f'return 302 "{DOWNLOAD}";',
}


@pytest.mark.few(2)
@pytest.mark.parametrize("name", PASSING)
def test_repairs_that_pass(behind, name: str):
    """The first wake meets them; the second one has the package."""
    rules = f"""
        location = {DOWNLOAD} {{
            if (-f $document_root/repairs) {{ {PASSING[name]} }}
            rewrite ^ /store/p.tar.gz;
        }}"""
    site, nginx = behind(rules, sample.tar_gz(PACKAGE))
    nginx.flag("repairs")
    run = site.run()
    assert "check: later\nreason: can not download: " in run.output, run.output
    assert site.reports() == []
    nginx.flag("repairs", on=False)
    check_updated(site)


@pytest.mark.few(2)
@pytest.mark.parametrize("name", [name for name in PASSING if name != "503"])
def test_refusals_that_stay(behind, name: str):
    """Final in the second wake, and said once."""
    rules = f"location = {DOWNLOAD} {{ {PASSING[name]} }}"
    site, _ = behind(rules, sample.tar_gz(PACKAGE))
    run = site.run(wakes=3)
    assert run.output.count("check: later") == 1, run.output
    assert run.output.count("check: failed") == 1
    assert run.output.count("check: idle") == 1
    (report,) = site.reports()
    assert report["m"].startswith("can not download: ")
    assert site.retained() is None
    assert site.flash_files() == site.files
