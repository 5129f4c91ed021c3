"""A package that the application has: how it ends, beside the platform and at each power cut."""

from __future__ import annotations

import json
from zlib import crc32

import pytest

from host_sim import sample
from tests import every
from tests.agent.card import (
    BROUGHT,
    GOOD,
    SLEEP,
    card,
    main_py,
    nothing_was_said,
    small_file,
    with_brought,
)
from tests.conftest import MakeSite


def test_it_waits_until_a_trial_is_over(make_site: MakeSite):
    brought = {"main.py": main_py("install()\ncheck()\ninstall()"), "data.txt": b"2\n"}
    site = card(make_site, GOOD)
    site.ask(sample.tar(brought), "p.tar")
    run = site.run()
    text = "install: later a trial is open: this version has to be confirmed first"
    assert text in run.output, run.output
    confirmed = run.output.index("check: confirmed")
    assert run.output.index(text) < confirmed < run.output.index("version 2 runs")
    assert site.flash_files() == with_brought(site)


def test_a_request_that_waits_is_done_afterwards(make_site: MakeSite):
    """And the tries of the other package are not counted as its own."""
    orders = "install()\ncheck()"
    site = card(make_site, GOOD[:4000], orders, config={"max_attempts": 1})
    fuid = site.ask(sample.tar({"main.py": sample.main_py(3)}), "p.tar")
    run = site.run()
    assert "install: failed" in run.output
    assert "version 3 runs" in run.output, run.output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]

    site = card(make_site, GOOD, orders, config={"max_attempts": 1})
    third = {"main.py": sample.main_py(3)}
    fuid = site.ask(sample.tar(third), "p.tar")
    run = site.run()
    assert run.output.count("runs") == 3, run.output
    assert "version 3 runs" in run.output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert site.retained() is None
    assert site.flash_files() == with_brought(site, BROUGHT | third)


def test_attempts_of_a_request_are_kept(make_site: MakeSite):
    count = small_file("fa8884d2 3")
    site = card(make_site, GOOD[:4000], "install()", extra={".ota/attempts": count})
    assert "install: failed" in site.run().output
    assert site.flash_files() == site.files


OWED = {".ota/report": small_file("2 fa8884d2 can not apply: out of memory")}
SAID = {"e": 2, "i": "fa8884d2", "m": "can not apply: out of memory"}
#: Once, before the platform is asked.
ONCE = """
if "tried" in os.listdir("/"):
    check()
else:
    open("tried", "w").close()
    install()
"""


@pytest.mark.parametrize("bad", [False, True], ids=["good", "rolled back"])
def test_what_is_owed_is_not_lost(make_site: MakeSite, bad: bool):
    """The platform hears the end of an earlier request, whatever becomes of this package."""
    brought = BROUGHT | ({"main.py": b"def (:\n"} if bad else {})
    config = {"trial_deadline_s": 60}
    site = card(make_site, sample.tar(brought), ONCE, extra=OWED, config=config)
    run = site.run(timeout_s=30)
    assert site.reports() == [SAID], run.output
    assert ("check: rolled_back rolled back: 3 boots" in run.output) == bad
    assert not {"/.ota/report", "/.ota/owed"} & set(site.flash_files())


def test_what_waits_aside_is_seen(make_site: MakeSite):
    """While the package waits for its boot, and after its roll back as well."""
    orders = "install(reset=False)\nprint('waits:', ota.status()['undelivered'])"
    site = card(make_site, GOOD, orders, extra=OWED)
    text = "waits: 2 fa8884d2 can not apply: out of memory\n"
    run = site.run()
    assert text in run.output, run.output

    orders = "print('waits:', ota.status()['undelivered'])"
    aside = {
        ".ota/owed": OWED[".ota/report"],
        ".ota/report": small_file("2 (local) rolled back: 3 boots without confirm"),
    }
    site = card(make_site, GOOD, orders, extra=aside)
    assert text in site.run().output
    aside[".ota/owed"] = b"\ndamaged 12345678\n"
    site = card(make_site, GOOD, orders, extra=aside)
    assert "waits: 2 (local) rolled back" in site.run().output


def test_a_damaged_one_does_not_stay(make_site: MakeSite):
    site = card(make_site, GOOD, "check()", extra={".ota/owed": b"\ndamaged 12345678\n"})
    assert "check: idle" in site.run().output
    assert not any("/.ota" in name for name in site.flash_files())
    assert nothing_was_said(site)


@pytest.mark.slow
def test_what_is_owed_survives_a_cut_at_each_operation(make_site: MakeSite):
    brought = BROUGHT | {"main.py": b"def (:\n"}
    config = {"trial_deadline_s": 60}
    site = card(make_site, sample.tar(brought), ONCE, extra=OWED, config=config)
    pristine = site.image.read_bytes()
    for cut in every.sample(range(1, site.run(timeout_s=30).ops + 1), 3):
        site.image.write_bytes(pristine)
        told = len(site.reports())
        site.run(cut=cut, timeout_s=30)
        run = site.run(wakes=2, timeout_s=30)
        reports = site.reports()[told:]
        # It may come twice, when the power fails before it is forgotten.
        assert reports in ([SAID], [SAID, SAID]), (cut, run.output)
        assert not any("/.ota" in name for name in site.flash_files()), cut


def test_a_version_that_fails_comes_back_and_nobody_is_told(make_site: MakeSite):
    """But the application is."""
    brought = BROUGHT | {"main.py": b"def (:\n"}
    site = card(make_site, sample.tar(brought), config={"trial_deadline_s": 60})
    run = site.run(timeout_s=30)
    text = "check: rolled_back rolled back: 3 boots without confirm"
    assert text in run.output, run.output
    assert site.flash_files() == site.files
    assert site.flash_folders() == site.folders
    assert nothing_was_said(site)


def test_an_application_without_its_channel_may_confirm(make_site: MakeSite):
    """And nothing waits for the platform then."""
    code = (
        b"import ota\nprint(ota.status()['file_id'], ota.confirm(), ota.status()['undelivered'])\n"
    )
    site = card(make_site, sample.tar({"main.py": code + SLEEP}))
    run = site.run()
    assert "(local) True None" in run.output, run.output
    assert not any("/.ota" in name for name in site.flash_files())


def test_a_report_that_flash_has_damaged_is_not_made_up(make_site: MakeSite):
    """What is made again from a journal of such a package is not for the platform either."""
    head = [2, "(local)", 3, 24, 7, 900, 0, 0, 0, None]
    text = json.dumps(head).encode() + b"\n="
    journal = text + crc32(text).to_bytes(4, "little")
    extra = {".ota/report": b"\ndamaged 12345678\n", ".ota/journal": journal}
    site = card(make_site, GOOD, "check()", extra=extra)
    run = site.run()
    text = "check: rolled_back rolled back: the report was damaged on flash"
    assert text in run.output, run.output
    assert nothing_was_said(site)
    assert not any("/.ota" in name for name in site.flash_files())


@pytest.mark.slow
@pytest.mark.parametrize("report", ["installed", "confirmed"])
@pytest.mark.parametrize("bad", [False, True], ids=["good", "bad"])
def test_a_cut_at_each_operation(make_site: MakeSite, bad: bool, report: str):
    """The old tree or the new one, in the end, and the platform is told nothing."""
    brought = BROUGHT | ({"main.py": b"def (:\n"} if bad else {})
    config = {"trial_deadline_s": 60, "report": report}
    site = card(make_site, sample.tar(brought), config=config)
    pristine = site.image.read_bytes()
    total = site.run(timeout_s=30).ops
    new = with_brought(site, brought)
    ends = set()
    for cut in every.sample(range(1, total + 1), 3):
        site.image.write_bytes(pristine)
        site.run(cut=cut, timeout_s=30)
        between = {n: c for n, c in site.flash_files().items() if not n.startswith("/.ota")}
        run = site.run(timeout_s=30)
        after = site.flash_files()
        assert after in (site.files, new), (cut, run.output)
        assert bad or after == new, (cut, run.output)
        ends.add((between == site.files, "rolled_back" in run.output))
    assert len(ends) > 1
    assert nothing_was_said(site)
