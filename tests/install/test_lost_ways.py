"""Packages that try to cut off the way back: each is undone, down to the last byte."""

from __future__ import annotations

import zlib

import pytest

from host_sim import sample
from tests.conftest import MakeSite
from tests.secrecy import WatchedSite

BREAKS = b"raise ValueError('theirs')\n"
FAILS = {"main.py": b"1/0\n"}


def must_come_back(site: WatchedSite, package: sample.Tree) -> None:
    """The package is installed, fails its trial, and the old tree says so."""
    fuid = site.ask(sample.tar(package), "p.tar")
    run = site.run(timeout_s=20)
    assert "ota: install" in run.output, run.output
    assert "check: rolled_back\nreason: rolled back: 3 boots" in run.output, run.output
    assert site.flash_files() == site.files
    assert site.flash_folders() == site.folders
    report = site.reports()[-1]
    assert report == {"e": 2, "i": fuid, "m": "rolled back: 3 boots without confirm"}
    assert site.retained() is None
    assert "check: idle" in site.run().output


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("mpy", "lib"), [(False, False), (True, False), (True, True)], ids=["py", "mpy", "lib"]
)
@pytest.mark.parametrize(
    ("module", "content"),
    [
        ("recovery.py", b"import nowhere\n"),
        ("recovery.py", b"def boot():\n    pass\n"),
        ("recovery.py", b"import machine\nmachine.reset()\n"),
        ("__init__.py", BREAKS),
        ("errors.py", BREAKS),
    ],
    ids=["import", "nothing in it", "reset", "init", "errors"],
)
def test_an_agent_that_compiles_and_does_not_work(
    make_site: MakeSite, mpy: bool, lib: bool, module: str, content: bytes
):
    site = make_site(mpy=mpy, lib=lib)
    place = "lib/ota/" if lib else "ota/"
    # A main.py that needs the agent, which is what is broken here.
    must_come_back(site, {"main.py": b"import ota.recovery\n1/0\n", place + module: content})


@pytest.mark.few(3)
@pytest.mark.parametrize("folder", ["", "lib/"], ids=["root", "lib"])
@pytest.mark.parametrize("name", ["os", "machine", "micropython", "umqtt", "recovery", "ota"])
def test_modules_of_the_same_name_as_those_that_recovery_needs(
    make_site: MakeSite, name: str, folder: str
):
    site = make_site(lib=True)
    must_come_back(site, FAILS | {f"{folder}{name}.py": BREAKS})


def test_a_folder_that_hides_the_agent(make_site: MakeSite):
    """`/ota` without a module in it is found before `/lib/ota`."""
    site = make_site(lib=True)
    must_come_back(site, {"main.py": sample.main_py(2), "ota/notes.txt": b"harmless\n"})


REFUSED = {
    "does not compile": ("ota/agent.py", b"def (:\n", "SyntaxError"),
    "boot.py does not compile": ("boot.py", b"def (:\n", "SyntaxError"),
    "not UTF-8": ("ota/agent.py", b"# caf\xe9\n", "UnicodeError"),
    "boot.py not UTF-8": ("boot.py", b"# caf\xe9\nimport network\n", "UnicodeError"),
    "in /lib/ota": ("lib/ota/x.py", b"x = (\n", "SyntaxError"),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("row", REFUSED)
def test_source_on_the_boot_path_that_does_not_compile(make_site: MakeSite, row: str):
    """Refused before the commit, and not asked for again."""
    name, content, error = REFUSED[row]
    site = make_site()
    fuid = site.ask(sample.tar({"main.py": sample.main_py(2), name: content}), "p.tar")
    run = site.run(wakes=2)
    assert "reset" not in run.names()
    reason = f"can not apply: /{name} does not compile, {error}"
    assert f"check: failed\nreason: {reason}\n" in run.output, run.output
    assert "check: idle" in run.output
    assert site.reports() == [{"e": 2, "i": fuid, "m": reason}]
    assert site.retained() is None
    assert len(site.console.downloads) == 1
    assert site.flash_files() == site.files


def test_a_main_py_that_is_not_utf_8_is_rolled_back(make_site: MakeSite):
    must_come_back(make_site(), {"main.py": b"print('caf\xe9')\n1/0\n"})


def test_a_transaction_of_an_unknown_version_is_left_alone(make_site: MakeSite):
    """An older agent came back under a newer one's transaction: staging would destroy it.

    With a right check sum: what has none is a damaged state, and is rolled back.
    """
    text = b"[3, commit fa8884d2 of some other shape"
    site = make_site(
        extra={
            ".ota/state": b"\n%s %08x\n" % (text, zlib.crc32(text)),
            ".ota/journal": b"r 0 0 /main.py\n",
            ".ota/0": sample.main_py(3),
            ".ota/0~": sample.main_py(1),
            ".ota/attempts": b"fa8884d2 1",
        }
    )
    site.ask(sample.tar({"main.py": sample.main_py(2)}), "p.tar")
    run = site.run(wakes=2)
    reason = "check: later\nreason: a transaction waits for the next boot\n"
    assert run.output.count(reason) == 2, run.output
    assert run.ops == 0
    assert site.flash_files() == site.files
    assert site.console.downloads == []
    assert site.retained() is not None


@pytest.mark.slow
def test_a_cut_while_the_file_before_boot_py_moves(make_site: MakeSite):
    """littlefs then shows neither that file nor the next one, until something is written."""
    site = make_site(blocks=97, extra={"a.txt": b"old a" * 100})
    package = {"a.txt": b"new a" * 100, "main.py": sample.main_py(2)}
    fuid = site.console.add_package(sample.tar(package), "p.tar").fuid
    start = site.image.read_bytes()
    site.console.request(sample.DEVICE_ID, fuid)
    at_reset = site.run(stop=lambda event: event["event"] == "reset").ops
    for cut in range(at_reset - 16, at_reset + 1):
        site.image.write_bytes(start)
        site.console.request(sample.DEVICE_ID, fuid)
        site.run(cut=cut)
        site.run(wakes=2)
        new = {"/" + name: content for name, content in package.items()}
        assert site.flash_files() in (site.files, site.files | new), cut
        assert site.retained() is None, cut


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["boot.mpy", "main.mpy", "boot_user.mpy"])
def test_what_nothing_would_run_is_refused(make_site: MakeSite, name: str):
    """A compiled boot.py would retire the source, and MicroPython starts only that."""
    from host_sim.node.process import compile_mpy

    site = make_site()
    source, out = site.image.parent / "m.py", site.image.parent / "m.mpy"
    source.write_text("x = 1\n")
    compile_mpy(source, out, name)
    site.ask(sample.tar({name: out.read_bytes()}), "p.tar")
    assert "check: failed" in site.run().output
    assert site.reports()[0]["m"] == f"can not apply: nothing runs /{name}"
    assert site.flash_files() == site.files


def test_a_compiler_error_of_another_kind_is_a_refusal(make_site: MakeSite):
    for content in (b'x = "\\N{DASH}"\n', b"a" * 300 + b" = 1\n"):
        site = make_site()
        site.ask(sample.tar({"ota/x.py": content}), "p.tar")
        assert "check: failed" in site.run().output
        assert "/ota/x.py does not compile" in site.reports()[0]["m"]
        assert site.flash_files() == site.files


def test_an_application_may_have_a_module_called_recovery(make_site: MakeSite):
    """The agent's own copy of that name must be gone when main.py runs, on trial as well."""
    site = make_site(extra={"recovery.py": b"value = 'of the application'\n"})
    main = b"import recovery\nprint(recovery.value)\n" + sample.main_py(2)
    site.ask(sample.tar({"main.py": main}), "p.tar")
    run = site.run()
    assert "of the application" in run.output
    assert "check: confirmed" in run.output


def test_a_boot_py_that_calls_recovery_again_counts_no_boot_twice(make_site: MakeSite):
    site = make_site()
    boot = b"import ota\nimport ota.recovery\nota.recovery.boot()\nprint(ota.status()['boots'])\n"
    site.ask(sample.tar({"boot.py": boot, "main.py": sample.main_py(2)}), "p.tar")
    run = site.run()
    assert "1\nversion 2 runs" in run.output
    assert "check: confirmed" in run.output
