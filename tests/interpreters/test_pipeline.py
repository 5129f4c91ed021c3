"""From the request to the end of a trial in each release: real littlefs, broker and server."""

from __future__ import annotations

import random

import pytest

from host_sim import sample
from host_sim.releases.interpreters import Release
from host_sim.releases.node import Interpreter, ReleaseNode
from host_sim.sample import Tree, main_py
from tests.conftest import MakeSite
from tests.secrecy import WatchedSite

OLD = {
    "main.py": main_py(1),
    "lib/driver.py": b"SPEED = 1\n" * 300,
    "lib/same.py": b"same = 1\n" * 300,
    "data/ä.bin": bytes(range(256)) * 5,
}
NEW = {
    "main.py": main_py(2),
    "lib/driver.py": b"SPEED = 2\n" * 300,
    "lib/same.py": b"same = 1\n" * 300,
    "new/deep/er/x.py": b"x = 1\n",
    "new/empty": b"",
}
BROKEN = {"main.py": b"print('version 3 runs')\nraise ValueError\n", "lib/three.py": b"3"}
LATER = {"main.py": main_py(4), "lib/driver.py": b"SPEED = 4\n"}
LOCAL = """
_trial = False  # what boot.py leaves: here it does not run
import ota
agent = ota.Agent(ota.load_config())
with open("/package", "rb") as file:
    print("local:", agent.install(file, SIZE, False), agent.reason)
"""


@pytest.fixture
def site(make_site: MakeSite, interpreter: Interpreter, form: str) -> WatchedSite:
    """A node of this release, with TLS, at a console of its own."""
    site = make_site(OLD, mpy=form == "mpy", tls=True)
    site.node = ReleaseNode(site.image, interpreter)
    return site


def tree_with(site: WatchedSite, *packages: Tree) -> Tree:
    """What has to be on flash after these packages."""
    tree = dict(site.files)
    for package in packages:
        tree |= {"/" + name: content for name, content in package.items()}
    return tree


@pytest.mark.parametrize(
    "form",
    ["mpy", pytest.param("py", marks=pytest.mark.slow)],
    ids=["compiled", "source"],
    indirect=True,
)
def test_from_request_to_the_end(site: WatchedSite):
    """Idle, refused, confirmed, rolled back, and a package that the application brings."""
    idle = site.run()
    assert "check: idle" in idle.output, idle.output
    assert idle.ops == 0
    ends = [(2, site.ask(sample.tar({"../main.py": main_py(2)}), "package.tar"))]
    run = site.run()
    assert "check: failed" in run.output, run.output
    assert site.flash_files() == site.files

    ends.append((1, site.ask(sample.tar_gz(NEW))))
    run = site.run()
    assert run.names() == ["boot", "reset", "boot", "sleep"]
    assert "version 2 runs" in run.output
    assert "check: confirmed" in run.output, run.output
    assert site.flash_files() == tree_with(site, NEW)

    fuid = site.ask(sample.tar(BROKEN), "package.tar")
    run = site.run()
    assert "version 3 runs" in run.output
    assert str(run.error).startswith("ValueError"), run.output
    assert site.flash_files() != tree_with(site, NEW)
    for _ in range(4):
        run = site.run()
        if "check: rolled_back" in run.output:
            break
    assert "version 2 runs" in run.output, run.output
    assert site.flash_files() == tree_with(site, NEW)
    ends += [(1, fuid), (2, fuid)]
    assert [(report["e"], report["i"]) for report in site.reports()] == ends
    assert site.reports()[-1]["m"].startswith("rolled back: ")
    assert site.retained() is None

    package = sample.tar_gz(LATER)
    code = LOCAL.replace("SIZE", str(len(package)))
    put = f"with open('/package', 'wb') as file:\n    file.write({package!r})\n"
    run = site.run(code=put + code)
    assert "local: committed None" in run.output, run.output
    run = site.run()
    assert "version 4 runs" in run.output
    assert "check: confirmed" in run.output, run.output
    assert site.flash_files() == tree_with(site, NEW, LATER, {"package": package})
    assert len(site.reports()) == len(ends)


def test_power_cuts(site: WatchedSite, release: Release):
    """Cut anywhere, torn anyhow: then it is done after the next boots, and reported once."""
    begin = site.image.read_bytes()
    fuid = site.console.add_package(sample.tar_gz(NEW), "package.tar.gz").fuid
    chance = random.Random(release.name)
    for first in (1, 60):
        site.image.write_bytes(begin)
        reports = len(site.reports())
        site.console.request(sample.DEVICE_ID, fuid)
        torn = chance.choice(("none", "half", "bits", "done"))
        cut = first + chance.randrange(60)
        run = site.run(cut=cut, torn=torn)
        assert run.names()[-1] == "power_cut", (cut, torn)
        for _ in range(3):
            output = site.run().output
            if "check: idle" in output:
                break
        assert site.flash_files() == tree_with(site, NEW), (cut, torn)
        ends = [report["e"] for report in site.reports()[reports:]]
        assert set(ends) == {1}, (cut, torn, ends)
