"""New code that does not prove itself is undone; new code that does is not."""

from __future__ import annotations

import pytest

from host_sim import sample
from tests.conftest import MakeSite

SLEEP = "import machine\nmachine.deepsleep(1000)\n"
BAD = {
    "syntax error": "def (:\n",
    "import error": "import nowhere\n",
    "memory error": "x = bytearray(1 << 30)\n",
    "back at the REPL": "print('done')\n",
    "reset loop": "import machine\nmachine.reset()\n",
    "endless loop with a watchdog": (
        "import machine\nw = machine.WDT(timeout=100)\nwhile True:\n    pass\n"
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_code_that_does_not_reach_its_end_is_rolled_back(make_site: MakeSite, name: str):
    """Within three boots, whatever way it fails."""
    site = make_site(heap="200K", config={"trial_deadline_s": 60})
    fuid = site.ask(sample.tar_gz({"main.py": BAD[name].encode(), "new/added.py": b"x"}))
    run = site.run(wakes=1, timeout_s=30)
    assert run.output.count("version 1 runs") == 2, (run.output, run.events)
    assert "check: rolled_back" in run.output
    assert site.flash_files() == site.files
    assert site.flash_folders() == site.folders
    reports = site.reports()
    assert [r["e"] for r in reports] == [1, 2]
    assert reports[1] == {"e": 2, "i": fuid, "m": "rolled back: 3 boots without confirm"}
    assert site.retained() is None
    assert "check: idle" in site.run().output


def test_code_that_sleeps_but_never_connects_is_rolled_back_after_24_wakes(make_site: MakeSite):
    site = make_site()
    site.ask(sample.tar_gz({"main.py": b"print('busy')\n" + SLEEP.encode()}))
    run = site.run(wakes=30)
    assert run.output.count("busy") == 24
    assert "check: rolled_back" in run.output
    assert site.reports()[1]["m"] == "rolled back: 24 wakes without confirm"
    assert site.flash_files() == site.files


def test_a_good_update_survives_two_power_cuts_in_its_trial(make_site: MakeSite):
    site = make_site()
    # Twice it is cut off after boot.py has counted the boot, before it reaches its channel.
    waits = b"""
import os
for name in ("cut1", "cut2"):
    if name not in os.listdir("/"):
        open("/" + name, "w").close()
        print("waits for the power to fail")
        while True:
            pass
"""
    site.ask(sample.tar_gz({"main.py": waits + sample.main_py(2)}))
    outputs = [site.run(timeout_s=1.5).output for _ in range(2)]
    assert all("waits for the power to fail" in output for output in outputs)
    run = site.run()
    assert "check: confirmed" in run.output, run.output
    assert [r["e"] for r in site.reports()] == [1]


def test_a_third_cut_is_one_too_many(make_site: MakeSite):
    site = make_site()
    site.ask(sample.tar_gz({"main.py": b"print('new')\nwhile True:\n    pass\n"}))
    outputs = [site.run(timeout_s=1).output for _ in range(3)]
    assert all("new" in output for output in outputs)
    assert "check: rolled_back" in site.run().output


def test_an_application_may_confirm_itself(make_site: MakeSite):
    site = make_site()
    code = "import ota\nprint(ota.status()['state'], ota.confirm(), ota.status()['state'])\n"
    site.ask(sample.tar_gz({"main.py": (code + SLEEP).encode()}))
    run = site.run(wakes=30)
    assert "trial True idle" in run.output
    assert run.output.count("idle False idle") == 29


def test_a_foreign_boot_py_that_raises_does_not_stop_the_node(make_site: MakeSite):
    site = make_site()
    package = {"boot.py": b"raise ValueError('theirs')\n", "main.py": sample.main_py(2)}
    site.ask(sample.tar_gz(package))
    run = site.run()
    assert "ValueError: theirs" in run.output
    assert "check: confirmed" in run.output
    files = site.flash_files()
    assert files["/boot.py"] == site.files["/boot.py"]
    assert files["/boot_user.py"] == package["boot.py"]
