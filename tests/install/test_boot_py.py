"""A package's own boot.py that would run something before recovery: it never does."""

from __future__ import annotations

import pytest

from host_sim import sample
from tests.conftest import MakeSite
from tests.install.test_lost_ways import must_come_back
from tests.package.hostile.raw import FIRMWARE

OURS = (FIRMWARE / "boot.py").read_bytes()
LINES = OURS.splitlines(keepends=True)
(LAST,) = [n for n, line in enumerate(LINES) if line.strip() == b"recovery.boot()"]
LAST_LINE, BEFORE, AFTER = LINES[LAST], b"".join(LINES[:LAST]), b"".join(LINES[LAST + 1 :])
INDENT = LAST_LINE[: LAST_LINE.index(b"r")]

EVIL = b"import machine; machine.reset()"
FIRST = b"import sys\n"
STARTS = BEFORE[: BEFORE.index(b"try:\n")]
#: Ours, but that it runs nothing behind it.
ALONE = BEFORE + LAST_LINE + AFTER.replace(b"/boot_user.py", b"/boot_other.py")
#: What is done while a transaction is open.
OPEN = BEFORE.index(b"\nif _trial:\n") + 12
assert OURS.count(FIRST) == 1
GIVES_BACK = b"sys.path[:] = _path\n"
assert OURS.count(b"\n" + GIVES_BACK) == 1

#: Each resets the node for ever if it comes before recovery, and three times behind it.
FOREIGN = {
    "carriage return": b"# x\r" + EVIL + b"\n" + OURS,
    "carriage returns at all ends": (EVIL + b"\n" + OURS).replace(b"\n", b"\r"),
    "carriage return and line feed": b"# x\r\n" + EVIL + b"\r\n" + OURS,
    "before our first line": EVIL + b"\n" + OURS,
    "behind a semicolon": OURS.replace(FIRST, b"import sys; " + EVIL + b"\n"),
    "other indentation": BEFORE + INDENT + b"if 0:\n    " + LAST_LINE + AFTER + EVIL + b"\n",
    "only a comment of ours": b"# recovery.boot()\n" + EVIL + b"\n",
    "in a string": b'"""\n' + OURS + b'"""\n' + EVIL + b"\n",
    "a line in a string": OURS.replace(FIRST, b'"""\n' + FIRST + b'"""\n' + EVIL + b"\n"),
    "nested functions": b"def f():\n def g():\n  " + EVIL + b"\n g()\nf()\n" + OURS,
    "nested deeply": b"x = " + b"(" * 3000 + b")" * 3000 + b"\n" + EVIL + b"\n" + OURS,
    "a prefix of ours": STARTS + EVIL + b"\n",
    "a prefix of ours without a line end": STARTS + EVIL,
    "the same code, not ASCII": b"# caf\xc3\xa9\n" + OURS + b"\n" + EVIL + b"\n",
    "the same code with a tab": b"#\tx\n" + OURS + b"\n" + EVIL + b"\n",
    "the same code with a form feed": b"# x\x0c\n" + OURS + b"\n" + EVIL + b"\n",
    "the same code with NUL": b"# x\0\n" + OURS + b"\n" + EVIL + b"\n",
    "the same code with the end of a DOS file": b"# x\x1a\n" + OURS + b"\n" + EVIL + b"\n",
    # In front it would work on each boot of a trial, and on none after the confirm: main.py would
    # find no module then, for ever. Behind ours it is the other way round.
    "the way to the application, on trial only": OURS.replace(GIVES_BACK, b"    " + GIVES_BACK),
}


@pytest.mark.few(3)
@pytest.mark.parametrize("way", FOREIGN)
def test_what_is_not_our_code_to_the_letter_runs_behind_recovery(make_site: MakeSite, way: str):
    """As /boot_user.py; what it does is counted, and undone."""
    site = make_site()
    assert FOREIGN[way] != OURS
    must_come_back(site, {"boot.py": FOREIGN[way]})


#: As much in the way of recovery, but where our code is behind recovery, this part of it is idle.
IDLE = {
    "carriage return, indented": OURS[:OPEN] + b"    # x\r    " + EVIL + b"\n" + OURS[OPEN:],
    "behind our last line": BEFORE + LAST_LINE[:-1] + b"; " + EVIL + b"\n" + AFTER,
}


@pytest.mark.parametrize("way", IDLE)
def test_what_stands_where_recovery_is_started_never_runs_behind_it(make_site: MakeSite, way: str):
    site = make_site()
    fuid = site.ask(sample.tar({"boot.py": IDLE[way]}), "p.tar")
    run = site.run(timeout_s=20)
    assert "check: confirmed" in run.output, run.output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert site.flash_files() == site.files | {"/boot_user.py": IDLE[way]}


#: Which neither this node nor the next boot can compile.
BROKEN = {
    "end of a DOS file in the code": b"import sys\n\x1a\n" + OURS,
    "form feed in front": b"\x0c" + EVIL + b"\n" + OURS,
    "NUL in the code": b"\0" + OURS,
    "comment behind a backslash": OURS.replace(FIRST, b"import \\\n# x\nsys\n"),
    "cut at the last line": BEFORE + LAST_LINE[:-1],
}


@pytest.mark.few(2)
@pytest.mark.parametrize("way", BROKEN)
def test_what_does_not_compile_is_refused(make_site: MakeSite, way: str):
    site = make_site()
    fuid = site.ask(sample.tar({"boot.py": BROKEN[way], "main.py": sample.main_py(2)}), "p.tar")
    run = site.run()
    assert "check: failed" in run.output, run.output
    (report,) = site.reports()
    assert report["i"] == fuid and "/boot.py does not compile" in report["m"]
    assert site.flash_files() == site.files


def test_one_that_is_too_large_for_a_boot_is_refused(make_site: MakeSite):
    """Whether it is ours or not; one of just that size is taken."""
    large = OURS + b"#" * (16 * 1024 - len(OURS) - 1) + b"\n"
    for foreign in (b"", b"x = 1\n"):
        site = make_site()
        too_large = foreign + large + b"\n"
        site.ask(sample.tar({"boot.py": too_large, "main.py": sample.main_py(2)}), "p.tar")
        assert "check: failed" in site.run().output
        assert site.reports()[0]["m"] == "can not apply: /boot.py is too large"
        assert site.flash_files() == site.files
    site.ask(sample.tar({"boot.py": large, "main.py": sample.main_py(2)}), "p.tar")
    assert "check: confirmed" in site.run().output
    assert site.flash_files()["/boot.py"] == large


OURS_STILL = {
    "other comments": b"# It's another.\n" + OURS.replace(b"\n    # ", b"\n   \n    # or "),
    "no comments": b"".join(line for line in OURS.splitlines(True) if line.strip()[:1] != b"#"),
    "other code behind": ALONE,
}


@pytest.mark.few(1)
@pytest.mark.parametrize("way", OURS_STILL)
def test_one_with_our_code_replaces_ours(make_site: MakeSite, way: str):
    site = make_site()
    site.ask(sample.tar({"boot.py": OURS_STILL[way], "main.py": sample.main_py(2)}), "p.tar")
    run = site.run()
    assert "check: confirmed" in run.output, run.output
    files = site.flash_files()
    assert files["/boot.py"] == OURS_STILL[way]
    assert "/boot_user.py" not in files


@pytest.mark.few(1)
@pytest.mark.parametrize("line", [b'"""', b"'''", b"x = 1 + \\"])
def test_a_live_one_with_strings_over_lines_is_never_replaced(make_site: MakeSite, line: bytes):
    """In those a line with # in front is no comment."""
    code = {b'"""': b'"""\n"""\n', b"'''": b"'''\n'''\n"}.get(line, line + b"\n  1\n")
    site = make_site(extra={"boot.py": code + OURS})
    new = b"# other\n" + code + ALONE
    site.ask(sample.tar({"boot.py": new, "main.py": sample.main_py(2)}), "p.tar")
    assert "check: confirmed" in site.run().output
    files = site.flash_files()
    assert (files["/boot.py"], files["/boot_user.py"]) == (code + OURS, new)


def test_a_boot_py_where_there_is_none(make_site: MakeSite):
    """Nothing to compare it with: it takes no place at the front."""
    site = make_site(extra={"main.py": b"import os\nos.remove('/boot.py')\n" + sample.main_py(1)})
    site.ask(sample.tar({"boot.py": OURS, "x.txt": b"x"}), "p.tar")
    run = site.run(stop=lambda event: event["event"] == "reset")
    assert "ota: install" in run.output, run.output
    files = site.flash_files()
    assert files["/boot_user.py"] == OURS
    assert "/boot.py" not in files


def test_one_of_another_release_runs_behind_ours_and_not_behind_itself(make_site: MakeSite):
    """A whole tree of a later release, whose boot.py differs: the rest of it has to be had."""
    site = make_site()
    later = OURS.replace(FIRST, FIRST + b"_release = 2\n")
    site.ask(sample.tar({"boot.py": later, "main.py": sample.main_py(2)}), "p.tar")
    run = site.run()
    assert "check: confirmed" in run.output, run.output
    assert "Traceback" not in run.output, run.output
    assert site.flash_files()["/boot_user.py"] == later


def test_one_of_an_earlier_release_would_run_itself(make_site: MakeSite):
    """That went well on trial, and left a node at the REPL for ever after the confirm."""
    site = make_site()
    earlier = OURS.replace(FIRST, FIRST + b"_release = 0\n")
    earlier = earlier.replace(b"_own and execfile", b"execfile")
    assert earlier.count(b"        execfile(") == 1
    fuid = site.ask(sample.tar({"boot.py": earlier, "main.py": sample.main_py(2)}), "p.tar")
    run = site.run(wakes=2)
    assert "version 1 runs" in run.output, run.output
    reason = "can not apply: /boot.py would start itself"
    assert site.reports() == [{"e": 2, "i": fuid, "m": reason}]
    assert site.flash_files() == site.files


def test_a_folder_where_another_boot_py_would_go_is_no_failure_of_flash(make_site: MakeSite):
    """Refused at once: an error of flash would have been tried in each of max_attempts wakes."""
    site = make_site(extra={"boot_user.py/x.txt": b"x"})
    for theirs in (b"print('theirs')\n", b""):
        fuid = site.ask(sample.tar({"boot.py": theirs, "main.py": sample.main_py(2)}), "p.tar")
        downloads = len(site.console.downloads)
        site.run()
        reason = "can not apply: a file where a folder is: /boot_user.py"
        assert site.reports()[-1] == {"e": 2, "i": fuid, "m": reason}
        assert len(site.console.downloads) == downloads + 1
        assert site.flash_files() == site.files
