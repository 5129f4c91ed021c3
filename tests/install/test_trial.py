"""New code that does not prove itself is undone; new code that does is not."""

from __future__ import annotations

import pytest

from host_sim import sample
from tests.conftest import MakeSite
from tests.secrecy import WatchedSite

SLEEP = "import machine\nmachine.deepsleep(1000)\n"
BAD = {
    "syntax error": "def (:\n",
    "import error": "import nowhere\n",
    "memory error": "x = bytearray(1 << 30)\n",
    "broken configuration": "import ota\nota.Agent({'device_id': 5})\n",
    "back at the REPL": "print('done')\n",
    "reset loop": "import machine\nmachine.reset()\n",
    "endless loop with a watchdog": (
        "import machine\nw = machine.WDT(timeout=100)\nwhile True:\n    pass\n"
    ),
}


@pytest.mark.check
@pytest.mark.few(3)
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
    """A wake counts that has tried its channel and failed; days end one that never tries."""
    port = b"import ota\nc = ota.load_config()\nc['mqtt']['port'] = 1\nprint('busy')\n"
    main = port + b"print('check:', ota.Agent(c).check())\n" + SLEEP.encode()
    site = make_site()
    site.ask(sample.tar_gz({"main.py": main}))
    run = site.run(wakes=30)
    assert run.output.count("busy\nota: later ") == 24, run.output
    assert "check: rolled_back" in run.output
    assert site.reports()[1]["m"] == "rolled back: 24 wakes without confirm"
    assert site.flash_files() == site.files


def run_until(site: WatchedSite, text: str) -> str:
    """Let the node run, and cut its power when it has said that; returns all that it said."""
    heard = ""

    def hear(piece: str) -> None:
        nonlocal heard
        heard += piece
        if text in heard:
            site.node.cut_power()

    site.node.log = hear
    output = site.run().output
    site.node.log = None
    return output


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
    outputs = [run_until(site, "waits for the power to fail") for _ in range(2)]
    assert all("waits for the power to fail" in output for output in outputs)
    run = site.run()
    assert "check: confirmed" in run.output, run.output
    assert [r["e"] for r in site.reports()] == [1]


@pytest.mark.slow
def test_a_third_cut_is_one_too_many(make_site: MakeSite):
    site = make_site()
    site.ask(sample.tar_gz({"main.py": b"print('new')\nwhile True:\n    pass\n"}))
    outputs = [run_until(site, "new\n") for _ in range(3)]
    assert all("new" in output for output in outputs)
    assert "check: rolled_back" in site.run().output


def test_an_application_may_confirm_itself(make_site: MakeSite):
    site = make_site()
    code = "import ota\nprint(ota.status()['state'], ota.confirm(), ota.status()['state'])\n"
    site.ask(sample.tar_gz({"main.py": (code + SLEEP).encode()}))
    run = site.run(wakes=30)
    assert "trial True idle" in run.output
    assert run.output.count("idle False idle") == 29


RAISING_BOOT = {
    # Knows nothing of recovery: installed as /boot_user.py.
    "foreign": b"raise ValueError('theirs')\n",
    # Raises before it reaches recovery: could never be undone in the place of ours.
    "foreign, with recovery": b"raise ValueError('theirs')\nimport ota.recovery\n",
}


@pytest.mark.few(1)
@pytest.mark.parametrize("name", [*RAISING_BOOT, "ours, changed behind recovery"])
def test_a_boot_py_that_raises_is_rolled_back(make_site: MakeSite, name: str):
    """As on a board, main.py does not run after it; the trial deadline brings the node back."""
    site = make_site()
    ours = site.files["/boot.py"] + b"\nraise ValueError('theirs')\n"
    package = {"boot.py": RAISING_BOOT.get(name, ours), "main.py": sample.main_py(2)}
    fuid = site.ask(sample.tar_gz(package))
    run = site.run(timeout_s=30)
    assert run.output.count("ValueError: theirs") == 3
    assert "version 2 runs" not in run.output
    assert "check: rolled_back" in run.output
    assert site.flash_files() == site.files
    assert site.reports()[-1] == {
        "e": 2,
        "i": fuid,
        "m": "rolled back: 3 boots without confirm",
    }


def test_a_foreign_boot_py_runs_behind_ours(make_site: MakeSite):
    site = make_site()
    package = {"boot.py": b"greeting = 'from theirs'\n", "main.py": b"print(greeting)\n"}
    package["main.py"] += sample.main_py(2)
    site.ask(sample.tar_gz(package))
    run = site.run()
    assert "from theirs\nversion 2 runs" in run.output
    assert "check: confirmed" in run.output
    files = site.flash_files()
    assert files["/boot.py"] == site.files["/boot.py"]
    assert files["/boot_user.py"] == package["boot.py"]


def test_a_trusted_foreign_boot_py_that_raises_one_day_does_not_stop_the_node(make_site: MakeSite):
    site = make_site()
    boot = b"import os\nif 'broken' in os.listdir('/'):\n    raise ValueError('one day')\n"
    tail = b"open('/broken', 'w').close()\n"
    package = {"boot.py": boot, "main.py": tail + sample.main_py(2)}
    site.ask(sample.tar_gz(package))
    assert "check: confirmed" in site.run().output
    run = site.run()
    assert "ValueError: one day" in run.output
    assert "check: idle" in run.output


@pytest.mark.slow
def test_the_agent_and_boot_py_replace_themselves(make_site: MakeSite):
    """From sources to .mpy: the stale sources go, and come back if it is rolled back."""
    from host_sim.node.agent_code import compile_agent

    for good in (True, False):
        site = make_site(mpy=False)
        package = {"boot.py": site.files["/boot.py"] + b"\nnewer = True\n"}
        package["main.py"] = sample.main_py(2) if good else b"1/0\n"
        for name in [n for n in site.files if n.startswith("/ota/")]:
            source = site.image.parent / "m.py"
            source.write_bytes(site.files[name])
            out = source.with_suffix(".mpy")
            compile_agent(source, out, name[1:])
            package[name[1:-2] + "mpy"] = out.read_bytes()
        site.ask(sample.tar_gz(package))
        run = site.run(timeout_s=30)
        if good:
            assert "check: confirmed" in run.output, run.output
            stale = {n for n in site.files if n.startswith("/ota/")}
            expected = {n: c for n, c in site.files.items() if n not in stale}
            assert site.flash_files() == expected | {"/" + n: c for n, c in package.items()}
        else:
            assert "check: rolled_back" in run.output, run.output
            assert site.flash_files() == site.files


HOOK = """
import machine
import ota

def progress(step, value):
    print("step", step)
    if step == "%s" and ota.status()["state"] != "idle":
        raise %s("the application's own")

agent = ota.Agent(ota.load_config(), progress)
try:
    print("check:", agent.check())
except Exception as error:
    print("escaped", type(error).__name__, ota.confirm())
machine.deepsleep(60_000)
"""


@pytest.mark.few(3)
@pytest.mark.parametrize("good", [True, False], ids=["good package", "bad package"])
@pytest.mark.parametrize("error", ["ValueError", "MemoryError", "OSError"])
@pytest.mark.parametrize("step", ["commit", "install", "clear", "report"])
def test_a_progress_hook_that_raises_after_the_commit(
    make_site: MakeSite, step: str, error: str, good: bool
):
    """Only a boot can begin the trial, so there is one, whatever is raised."""
    site = make_site({"main.py": (HOOK % (step, error)).encode()})
    site.ask(sample.tar({"main.py": sample.main_py(2) if good else b"def (:"}), "p.tar")
    run = site.run(wakes=2, timeout_s=20)
    # Nothing of this boot runs after the install.
    assert "escaped" not in run.output
    assert run.names().index("reset") < run.names().index("sleep")
    if good:
        assert "version 2 runs\nota: confirm" in run.output, run.output
        assert site.flash_files() == site.files | {"/main.py": sample.main_py(2)}
        assert {r["e"] for r in site.reports()} == {1}
        assert site.retained() is None
    else:
        assert run.output.count("SyntaxError") == 3
        assert site.flash_files() == site.files
        assert site.reports()[-1]["m"] == "rolled back: 3 boots without confirm"


def test_the_same_foreign_boot_py_again_changes_nothing(make_site: MakeSite):
    """It stands as /boot_user.py, and is looked for there: no second trial, no second reset."""
    site = make_site()
    package = sample.tar({"boot.py": b"greeting = 'theirs'\n", "main.py": sample.main_py(2)})
    site.ask(package, "p.tar")
    assert "check: confirmed" in site.run().output
    files = site.flash_files()
    again = site.ask(package, "p.tar")
    run = site.run()
    assert "check: installed" in run.output, run.output
    assert "reset" not in run.names()
    assert site.flash_files() == files
    assert site.reports()[-1] == {"e": 1, "i": again, "m": None}
    assert site.retained() is None


def test_why_it_was_rolled_back_is_told_to_the_application_once(make_site: MakeSite):
    site = make_site()
    site.ask(sample.tar({"main.py": b"1/0\n"}), "p.tar")
    run = site.run(wakes=2)
    reason = "check: rolled_back\nreason: rolled back: 3 boots without confirm\n"
    assert run.output.count(reason) == 1
    assert run.output.endswith("version 1 runs\ncheck: idle\n")
