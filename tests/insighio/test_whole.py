"""The field's whole application around the adapter: boot.py, scenario, clients, modem driver."""

from __future__ import annotations

import random

import pytest

from host_sim import sample
from host_sim.modem import Modem
from tests.conftest import MakeSite
from tests.docs.test_examples import BROKER
from tests.insighio import stand_ins
from tests.insighio.fleet import ADAPTER, tree_of
from tests.secrecy import WatchedSite


def whole_node(
    make_site: MakeSite,
    network: str,
    modem: Modem | None = None,
    node: dict | None = None,
    **settings,
) -> WatchedSite:
    """The node as it is after the migration. settings: of the field's configuration."""
    files = stand_ins.tree(network, listen_ms=300, **settings)
    files["boot_user.py"] = files.pop("boot.py")
    files["apps/demo_console/field_ota.py"] = files["apps/demo_console/ota.py"]
    files |= tree_of(ADAPTER)
    if modem:
        node = {"uarts": {stand_ins.MODEM_UART: modem.port}}
    return make_site(files, node=node or {}, broker=BROKER)


BROUGHT = {"lib/new.bin": random.Random(1).randbytes(20_000)}


def ask(site: WatchedSite) -> str:
    return site.ask(sample.tar_gz(BROUGHT))


def check_brought(site: WatchedSite, fuid: str) -> None:
    assert [(report["e"], report["i"]) for report in site.reports()] == [(1, fuid)]
    assert site.retained() is None
    assert site.flash_files()["/lib/new.bin"] == BROUGHT["lib/new.bin"]


@pytest.mark.parametrize("network", ["wifi", "cellular"])
def test_an_update(make_site: MakeSite, network: str) -> None:
    with Modem(registration_s=10) as modem:
        site = whole_node(make_site, network, modem if network == "cellular" else None)
        fuid = ask(site)
        run = site.run(timeout_s=100)
        check_brought(site, fuid)
        assert "OTA: confirmed" in run.output
        assert "OTA: idle" in site.run(timeout_s=100).output
        assert modem.files == {}
        # The field sends its statistics once, by the flag.
        assert "/ota_applied_flag" not in site.flash_files()


def test_a_modem_that_takes_310_s_to_register(make_site: MakeSite) -> None:
    with Modem() as modem:
        limits = {
            "_MAX_CONNECTION_ATTEMPT_TIME_SEC": 600,
            "_MAX_ATTACHMENT_ATTEMPT_TIME_SEC": 600,
        }
        site = whole_node(make_site, "cellular", modem, **limits)
        fuid = ask(site)
        site.run(stop=lambda event: event["event"] == "reset", timeout_s=100)
        modem.power(False)
        modem.registration_s, modem.attach_s = 110, 200
        begin = modem.now
        run = site.run(timeout_s=100)
        assert modem.now - begin > 310_000
        check_brought(site, fuid)
        assert "OTA: confirmed" in run.output


@pytest.mark.slow
def test_a_batch_of_a_hundred(make_site: MakeSite) -> None:
    site = whole_node(make_site, "wifi", _BATCH_UPLOAD_MESSAGE_BUFFER=100)
    fuid = ask(site)
    output = site.run(wakes=90, timeout_s=100).output
    for _ in range(3):
        output += site.run(cause="deepsleep", wakes=90, timeout_s=100).output
    check_brought(site, fuid)
    assert "OTA: confirmed" in output


FAULTS = [
    ("AT+QFREAD", "truncate", 3),
    ("AT+QFREAD", "reset", 4),
    ("AT+QFREAD", "+CME ERROR: 3", 2),
    ("AT+QFREAD", "silence", 5),
    ("AT+QFOPEN", "silence", 1),
    ("AT+QFLST", "ERROR", 1),
    ("AT+QHTTPURL", "silence", 1),
    ("AT+QHTTPGET", "pdpdeact", 1),
    ("AT+QHTTPGET", "silence", 1),
    ("AT+QHTTPGET", 504, 1),
    ("AT+QHTTPREADFILE", "pdpdeact", 1),
    ("AT+QHTTPREADFILE", "reset", 1),
    ("AT+QMTSUB", "ERROR", 1),
    ("AT+QMTSUB", "silence", 2),
    ("AT+QMTPUB", "NO CARRIER", 2),
]


@pytest.mark.few(5)
@pytest.mark.parametrize(("command", "what", "first"), FAULTS)
def test_what_goes_wrong_once(
    make_site: MakeSite, command: str, what: str | int, first: int
) -> None:
    """In this wake, or in one of the next."""
    with Modem(registration_s=5) as modem:
        site = whole_node(make_site, "cellular", modem)
        fuid = ask(site)
        modem.fail(command, what, first=first)
        run = site.run(wakes=4, timeout_s=100)
        check_brought(site, fuid)
        assert "OTA: confirmed" in run.output
        assert modem.files == {}


def test_a_modem_that_subscribes_at_the_third_try(make_site: MakeSite) -> None:
    with Modem(registration_s=5) as modem:
        site = whole_node(make_site, "cellular", modem)
        fuid = ask(site)
        modem.fail("AT+QMTSUB", "again")
        begin = modem.now
        run = site.run(timeout_s=100)
        assert modem.now - begin > 30_000
        check_brought(site, fuid)
        assert "OTA: confirmed" in run.output


def test_a_node_that_resets_reads_on_from_the_modem_s_file(make_site: MakeSite) -> None:
    """The modem goes on meanwhile, with the file open: no byte comes over the air again."""
    with Modem(registration_s=5) as modem:
        site = whole_node(make_site, "cellular", modem)
        fuid = ask(site)
        site.run(cut=60, timeout_s=100)
        assert modem.heard[-1].startswith("AT+QFREAD")
        run = site.run(timeout_s=100)
        check_brought(site, fuid)
        assert "OTA: confirmed" in run.output
        assert sum(line.startswith("AT+QHTTPGET=") for line in modem.heard) == 1
        assert any(line.startswith("AT+QFOPEN?") for line in modem.heard)
        assert modem.files == {}
