"""Flash that fails, once or for a while: the old tree or the new one, never between."""

from __future__ import annotations

import pytest

from host_sim import sample
from host_sim.sample import DEVICE_ID
from tests.conftest import MakeSite
from tests.secrecy import WatchedSite

OLD = {
    "main.py": sample.main_py(1),
    "lib/b.py": b"B = 1\n",
    "notes.txt": b"old notes " * 14,
    "table.bin": b"c" * 200,
}
NEW = {
    "main.py": sample.main_py(2),
    "lib/b.py": b"B = 2\n",
    "lib/sub/e.py": b"E = 1\n",
    "notes.txt": b"new notes " * 14,
    "table.bin": b"d" * 200,
}


def updatable(make_site: MakeSite) -> tuple[WatchedSite, str, bytes]:
    """A node, the file id of a package for it, and its image before anything happened."""
    site = make_site(OLD, blocks=113, config={"mqtt": {"grace_ms": 2}})
    fuid = site.console.add_package(sample.tar(NEW), "p.tar").fuid
    return site, fuid, site.image.read_bytes()


def settled(site: WatchedSite, before: int) -> int | None:
    """How it ended: 1, 2, or None while it has not: one whole tree, its report, no leftovers."""
    files, folders = site.flash_files(), site.flash_folders()
    events = {report["e"] for report in site.reports()[before:]}
    if site.retained() is not None or "/.ota" in folders or len(events) != 1:
        return None
    # A report may come twice when it could not be struck off: who removes doubles sees one.
    end = events.pop()
    if end == 1:
        assert files == site.files | {"/" + name: content for name, content in NEW.items()}
        assert set(folders) == {*site.folders, "/lib/sub"}
    else:
        assert files == site.files
        assert folders == site.folders
    return end


@pytest.mark.few(1)
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_one_error_at_sampled_operations(make_site: MakeSite, error: str):
    """With the real console; `powercut --errors` takes every operation. No request is lost."""
    site, fuid, start = updatable(make_site)
    site.console.request(DEVICE_ID, fuid)
    run = site.run()
    assert run.output.count("check: confirmed") == 1
    assert settled(site, 0) == 1
    for operation in range(1, run.ops + 1, 5):
        site.image.write_bytes(start)
        before = len(site.reports())
        site.console.request(DEVICE_ID, fuid)
        output, end = f"[{error} at {operation}]\n", None
        for wake in range(4):
            run = site.run(fail=(operation, error)) if not wake else site.run(cause="deepsleep")
            output += run.output
            # boot.py may say that it could not count a boot; from check() nothing escapes.
            assert "main.py" not in output and run.exit_code == 0, output
            # Nothing is written between an error and the reset: littlefs would get it wrong.
            assert run.nor_violations == 0, output
            end = settled(site, before)
            if end:
                break
        assert end == 1, output


@pytest.mark.few(1)
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize(
    "part", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 5))]
)
def test_errors_that_last_a_while(make_site: MakeSite, error: str, part: int):
    """From some operation on flash takes nothing any more, until the node is powered up again."""
    site, fuid, start = updatable(make_site)
    site.console.request(DEVICE_ID, fuid)
    ops = site.run().ops
    before = len(site.reports())
    site.image.write_bytes(start)
    site.console.request(DEVICE_ID, fuid)
    run = site.run(fail=(1 + part * ops // 5 + part, error), persistent=True)
    assert run.events[-2]["event"] == "sleep", run.output  # neither stuck nor in a reset loop
    output = run.output
    for _ in range(3):
        run = site.run()
        output += "[flash works again]\n" + run.output
    assert settled(site, before), output


def test_a_trial_boot_that_can_not_be_counted_has_its_deadline(make_site: MakeSite):
    """New code that ends at the REPL would stay there for ever, on a node without a person."""
    site, _, _ = updatable(make_site)
    fuid = site.ask(sample.tar({"main.py": b"print('at the REPL')\n"}), "p.tar")
    image = site.image.read_bytes()
    trial_begins = site.run(stop=lambda event: event.get("cause") == "hard").ops
    site.image.write_bytes(image)
    site.console.request(DEVICE_ID, fuid)
    run = site.run(fail=(trial_begins + 1, "EIO"), timeout_s=20)
    assert "check: rolled_back" in run.output, run.events


FULL = 96  # blocks


def fill(make_site: MakeSite, left: int) -> WatchedSite:
    """A node with so many blocks free."""
    ask = "import os\nprint(os.statvfs('/')[3])\n"
    free = int(make_site(blocks=FULL).node.exec(ask).output)
    ballast = {"ballast.bin": bytes(4088 * (free - left) - 200)}
    site = make_site(blocks=FULL, extra=ballast)
    assert int(site.node.exec(ask).output) == left
    return site


BRIM = """
import os
for size in (4096, 64, 1):
    for n in range(200):
        try:
            with open("/ballast%d.%d" % (size, n), "wb") as file:
                file.write(bytes(size))
        except OSError:
            break
try:
    os.mkdir("/d")
except OSError as error:
    print(error.args[0])
"""


@pytest.mark.slow
def test_a_flash_on_which_nothing_can_be_written(make_site: MakeSite):
    """Not even the outcome: then the request must be answered without."""
    site = make_site(blocks=FULL)
    assert site.node.exec(BRIM).output == "28\n"
    site.files, site.folders = site.flash_files(), site.flash_folders()
    site.ask(sample.tar({"x.bin": b"x"}), "p.tar")
    run = site.run()
    # It resets before it reports, as after any error of flash, but not for ever.
    assert "ota: failed not enough space" in run.output, run.output
    assert 1 <= run.names().count("reset") <= 4
    assert [report["e"] for report in site.reports()] == [2]
    assert site.retained() is None
    assert "check: idle" in site.run().output
    assert site.flash_files() == site.files
    # The folder itself stays until flash has room: removing it could be littlefs's last write.
    assert [f for f in site.flash_folders() if f != "/.ota"] == site.folders


@pytest.mark.few(1)
@pytest.mark.parametrize("left", [0, 1, 2, 5])
def test_a_full_flash(make_site: MakeSite, left: int):
    """The platform hears of it, though not even the outcome may fit on flash."""
    site = fill(make_site, left)
    site.ask(sample.tar({"x.bin": bytes(3000)}), "p.tar")  # 10240 bytes as an archive
    run = site.run()
    assert run.exit_code == 0
    assert "Traceback" not in run.output
    assert "check: failed\nreason: not enough space" in run.output, run.output
    (report,) = site.reports()
    assert report["e"] == 2
    assert report["m"].startswith("not enough space")
    assert site.retained() is None
    if left < 3:
        assert site.console.downloads == []
    assert "check: idle" in site.run().output
    assert site.flash_files() == site.files
    # The folder itself stays until flash has room: removing it could be littlefs's last write.
    assert [f for f in site.flash_folders() if f != "/.ota"] == site.folders


# New code under which opening a file fails once.
FAILS_ONCE = """
import builtins
import os

def failing(path, *mode, open=open):
    if path == "PATH":
        try:
            os.stat("/once")
        except OSError:
            open("/once", "w").close()
            raise OSError(ERRNO)
    return open(path, *mode)

builtins.open = failing
"""


@pytest.mark.few(2)
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("errno", ["5", "-24577"])
@pytest.mark.parametrize("path", ["/ca.der", "/boot.py"])
def test_a_read_that_fails_in_the_rehearsal(make_site: MakeSite, path: str, errno: str, tls: bool):
    """It says nothing of the new version, which is kept."""
    site = make_site(tls=tls)
    code = FAILS_ONCE.replace("PATH", path).replace("ERRNO", errno)
    fuid = site.ask(sample.tar_gz({"main.py": code.encode() + sample.main_py(2)}))
    run = site.run(wakes=2)
    assert "check: confirmed" in run.output, run.output
    assert "/once" in site.flash_files()
    assert [(r["e"], r["i"]) for r in site.reports()] == [(1, fuid)]
