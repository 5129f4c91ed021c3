"""`open_stream`: what an integrator's transport may look like, and what its server may say."""

from __future__ import annotations

import random

import pytest

from host_sim import sample
from host_sim.console.faults import Faults, in_turn
from tests.conftest import MakeSite
from tests.secrecy import WatchedSite

PACKAGE = {"main.py": sample.main_py(2), "data.bin": random.Random(1).randbytes(20_000)}
# The frozen requests, on a plain test server: it knows no verified TLS.
MAIN = """
import machine
import ota
import requests

calls = []

class TwoArguments:
    def __init__(self, raw):
        self.raw = raw
    def readinto(self, buffer, n):
        calls.append(n)
        return self.raw.readinto(buffer, n)

class OneArgument:
    # As BodyStream of MicroPython 1.29's requests.
    def __init__(self, raw):
        self.raw = raw
    def readinto(self, *arguments):
        if len(arguments) != 1:
            calls.append("wrong")
            raise TypeError("function takes 2 positional arguments but 3 were given")
        calls.append(len(arguments[0]))
        return self.raw.readinto(arguments[0])

class OnlyRead:
    # As the releases between had it.
    def __init__(self, raw):
        self.raw = raw
    def read(self, n=-1):
        calls.append(n)
        return self.raw.read(n)

class ReadsTooMuch(OnlyRead):
    def read(self, n=-1):
        return self.raw.read(n + 1)

class Raises(TwoArguments):
    def readinto(self, buffer, n):
        raise TypeError("its own mistake")

class Nothing(OnlyRead):
    def read(self, n=-1):
        return None

def open_stream(url):
    response = requests.get(url.replace("https://", "http://"))
    response.raw = KIND(response.raw)
    return response

agent = ota.Agent(ota.load_config(), open_stream=open_stream)
print("check:", agent.check())
if agent.reason:
    print("reason:", agent.reason)
print("calls:", calls.count("wrong"), len(calls))
machine.deepsleep(1000)
"""


def at_plain_server(make_site: MakeSite, kind: str, **options) -> WatchedSite:
    main = MAIN.replace("KIND", kind)
    # What runs after the update looks at the reads no more.
    site = make_site({"main.py": main.encode()}, https_plain=True, **options)
    site.plain_on_purpose = True
    return site


@pytest.mark.few(3)
@pytest.mark.parametrize("build", [sample.tar, sample.tar_gz], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("kind", ["TwoArguments", "OneArgument", "OnlyRead"])
def test_each_shape_of_a_body(make_site: MakeSite, kind: str, build):
    site = at_plain_server(make_site, kind)
    site.ask(build(PACKAGE), "p.tar")
    run = site.run()
    assert "version 2 runs" in run.output, run.output
    assert [report["e"] for report in site.reports()] == [1]
    assert site.flash_files()["/data.bin"] == PACKAGE["data.bin"]


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", ["TwoArguments", "OneArgument", "OnlyRead"])
def test_the_shape_is_found_out_once(make_site: MakeSite, kind: str):
    """By the first read of a response, not by each."""
    site = at_plain_server(make_site, kind)
    data = bytearray(sample.tar_gz(PACKAGE))
    data[-6] ^= 1  # so that it is no update, and the node comes to tell of its reads
    site.ask(bytes(data))
    output = site.run().output
    assert "check: failed\nreason: can not apply: bad archive" in output
    wrong, reads = output.partition("calls: ")[2].split()[:2]
    assert wrong == ("1" if kind == "OneArgument" else "0")
    assert int(reads) > 10


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", ["ReadsTooMuch", "Raises", "Nothing"])
def test_a_body_that_does_not_behave(make_site: MakeSite, kind: str):
    """Its own errors are a lost connection; it can not put bytes where none are wanted."""
    site = at_plain_server(make_site, kind)
    site.ask(sample.tar(PACKAGE), "p.tar")
    output = site.run().output
    assert "check: later\nreason: can not download: the body stopped, " in output, output
    assert site.flash_files().items() >= site.files.items()


@pytest.mark.slow
def test_the_statuses_of_a_transport_are_those_of_the_built_in_one(make_site: MakeSite):
    """5xx ends an attempt; 404 the request, the second time; and both may pass."""
    site = at_plain_server(make_site, "OneArgument")
    for first, later, ends in (
        ([503, 500, 503, 429], 4, 1),
        ([404], 1, 1),
        ([404, 503], 2, 1),
        ([404, 404], 1, 2),
        ([503] * 5, 4, 2),
    ):
        site.configure()
        before = len(site.reports())
        site.ask(sample.tar_gz(PACKAGE))
        site.console.faults = in_turn(*(Faults(status=status) for status in first))
        run = site.run(wakes=5)
        assert run.output.count("check: later") == later, (first, run.output)
        assert [report["e"] for report in site.reports()[before:]] == [ends], first
        assert site.retained() is None


def test_a_page_through_a_transport_passes(make_site: MakeSite):
    """requests tells no length: only the content says that it is no package."""
    site = at_plain_server(make_site, "OneArgument")
    page = site.console.add_package(b"<html>Back soon.</html>" * 40, "p.tar")
    site.console.request(site.config["device_id"], page.fuid)
    run = site.run()
    reason = "can not download: neither tar nor a known compression"
    assert f"check: later\nreason: {reason}\n" in run.output, run.output
    assert site.reports() == []
    site.console.add_package(sample.tar(PACKAGE), "p.tar", fuid=page.fuid)
    size = len(sample.tar(PACKAGE))
    payload = site.console.request_payload(page.fuid)
    assert f'"v":{size}' in payload.replace(" ", "")
    site.console.request(site.config["device_id"], page.fuid)
    assert "version 2 runs" in site.run(cause="deepsleep").output
    assert [report["e"] for report in site.reports()] == [1]
