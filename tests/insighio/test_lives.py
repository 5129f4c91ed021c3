"""Good updates stay: on nodes that connect seldom, after power cuts, where the broker is lost."""

from __future__ import annotations

import pytest

from tests.conftest import MakeSite
from tests.insighio.fleet import field_node, package
from tests.secrecy import WatchedSite

# Every hundredth wake is one that connects, as with _BATCH_UPLOAD_MESSAGE_BUFFER.
BATCH = b"""
import machine
from apps.demo_console import cfg
with open("/count") as file:
    count = int(file.read()) + 1
with open("/count", "w") as file:
    file.write(str(count))
if count % cfg.get("_BATCH_UPLOAD_MESSAGE_BUFFER"):
    machine.deepsleep(cfg.get("_DEEP_SLEEP_PERIOD_SEC") * 1000)
"""
# What the field's boot.py does, from the install on, for ten wakes.
WEAK = b"""
import machine, os
if "new.bin" in os.listdir("/lib"):
    try:
        with open("/weak") as file:
            days = int(file.read())
    except OSError:
        days = 0
    if days < 10:
        with open("/weak", "w") as file:
            file.write(str(days + 1))
        print("low voltage")
        machine.deepsleep(%d000)
"""
TWO_HOURS_S = 7200


def batch_node(make_site: MakeSite, **options) -> WatchedSite:
    settings = {"_DEEP_SLEEP_PERIOD_SEC": TWO_HOURS_S, "_BATCH_UPLOAD_MESSAGE_BUFFER": 100}
    extra = {"count": b"99"}
    site = field_node(
        make_site, settings=settings, before=BATCH, extra=extra, node={"rtc": True}, **options
    )
    _, archive = package(site)
    site.ask(archive)
    return site


def sleep_on(site: WatchedSite, wakes: int) -> str:
    """What the node prints in so many wakes; one run has a limit of a hundred boots."""
    output = ""
    for done in range(0, wakes, 50):
        cause = "deepsleep" if done else "power_on"
        output += site.run(cause=cause, wakes=min(50, wakes - done), timeout_s=100).output
    return output


@pytest.mark.slow
def test_a_batch_of_a_hundred(make_site: MakeSite) -> None:
    """Eight days from one upload to the next."""
    site = batch_node(make_site)
    output = sleep_on(site, 102)
    assert [report["e"] for report in site.reports()] == [1]
    assert "log: OTA: confirmed" in output


@pytest.mark.slow
def test_the_agent_s_default_would_not_do(make_site: MakeSite) -> None:
    """Seven days: the good version comes back. What /ota.json says is what counts."""
    site = batch_node(make_site, config={"trial_days": 7})
    sleep_on(site, 202)
    assert [report["e"] for report in site.reports()] == [1, 2]
    assert site.reports()[1]["m"] == "rolled back: 7 days without confirm"


@pytest.mark.parametrize("pause_s", [3600, 86400])
def test_a_weak_battery(make_site: MakeSite, pause_s: int) -> None:
    extra = {"boot_user.py": WEAK % pause_s}
    site = field_node(make_site, extra=extra, node={"rtc": True})
    _, archive = package(site)
    fuid = site.ask(archive)
    run = site.run(wakes=11, timeout_s=60)
    assert run.output.count("low voltage") == 10
    assert "log: OTA: confirmed" in run.output, run.output[-3000:]
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]


@pytest.mark.slow
@pytest.mark.parametrize("modem", [False, True], ids=["wifi", "modem"])
def test_power_cuts(make_site: MakeSite, modem: bool) -> None:
    """In the middle of staging, of the install and of what follows: one of the two versions."""
    site = field_node(make_site, modem)
    brought, archive = package(site)
    new = site.files | {f"/{name}": content for name, content in brought.items()}
    site.ask(archive)
    pristine = site.image.read_bytes()
    total = site.run(timeout_s=60).ops
    for cut in (total // 2, total - 20, total - 6):
        site.image.write_bytes(pristine)
        told = len(site.reports())
        fuid = site.ask(archive)
        run = site.run(cut=cut, torn="half", timeout_s=60)
        assert run.exit_code == 3
        run = site.run(wakes=2, timeout_s=60)
        assert run.exit_code == 0, run.output
        after = site.flash_files()
        assert new.items() <= after.items(), (cut, run.output[-3000:])
        # A modem's file that the node could not remove goes before the next download.
        left = {"/ota_applied_flag", f"/ufs/{fuid}.tar.gz"}
        assert after.keys() - new.keys() <= left, cut
        assert {(r["e"], r["i"]) for r in site.reports()[told:]} == {(1, fuid)}
        assert site.retained() is None


def test_a_broker_that_is_lost_during_the_download(make_site: MakeSite) -> None:
    """The modem says so; the node connects once more, and the package is not fetched again."""
    site = field_node(make_site, True, {"broker_lost_at": 3})
    _, archive = package(site)
    fuid = site.ask(archive)
    run = site.run(timeout_s=60)
    assert run.output.count("mqtt_connect") == 3, run.output[-3000:]  # the third is the trial's
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert len(site.console.downloads) == 1


def test_a_report_that_waits_for_the_confirm(make_site: MakeSite) -> None:
    site = field_node(make_site, config={"report": "confirmed"})
    _, archive = package(site)
    fuid = site.ask(archive)
    run = site.run(timeout_s=60)
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    first, _, trial = run.output.partition("version 2 runs")
    assert first.rstrip().endswith("disconnect")
    assert "log: OTA: confirmed" in trial


def test_what_the_field_has_connected_stays_connected(make_site: MakeSite) -> None:
    """A request that is refused resets nothing, and the client is as it was."""
    site = field_node(make_site)
    site.console.request_raw(site.config["device_id"], '[{"n":"e","v":0}]', retain=True)
    run = site.run(timeout_s=60)
    assert "still connected: True" in run.output
    assert run.output.count("disconnect") == 1
    assert [report["e"] for report in site.reports()] == [2]
