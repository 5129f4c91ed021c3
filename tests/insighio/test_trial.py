"""A version whose adapter can not bring the next update is not kept."""

from __future__ import annotations

import pytest

from tests.conftest import MakeSite
from tests.insighio.fleet import ADAPTER, field_node, package

FOLDER = "ota_insighio/"

# How a module is broken: what is there, what comes in its place.
NO_MORE = {
    "modem_file: begins": ("modem_file.py", "self._at = 0\n", "self._at = nothing\n"),
    "modem_file: get": (
        "modem_file.py",
        "channel.modem.uart.write(url)",
        "channel.wire.write(url)",
    ),
    "modem_file: read": ("modem_file.py", "got = 0\n", "got = nothing\n"),
    "modem_file: import": ("modem_file.py", "import time\n", "import nothing_there\n"),
    "arrive": ("arrive.py", "import os\n", "import nothing_there\n"),
    "upload": ("upload.py", "import os\n", "import nothing_there\n"),
    "open": ("__init__.py", "from .modem_file import ModemFile", "from .modem_file import File"),
}


def broken(name: str, old: str, new: str) -> dict[str, bytes]:
    source = (ADAPTER / FOLDER / name).read_text()
    assert source.count(old) >= 1
    return {FOLDER + name: source.replace(old, new, 1).encode()}


@pytest.mark.few(3)
@pytest.mark.parametrize("how", NO_MORE)
def test_a_version_that_gets_no_package_comes_back(make_site: MakeSite, how: str) -> None:
    site = field_node(make_site, True)
    _, archive = package(site, broken(*NO_MORE[how]))
    fuid = site.ask(archive)
    run = site.run(timeout_s=60)
    assert [(each["e"], each["i"]) for each in site.reports()] == [(1, fuid), (2, fuid)], (
        run.output
    )
    assert site.reports()[1]["m"].startswith("rolled back: can not update again, ")
    assert site.flash_files() == site.files | {"/ota_applied_flag": b"done"}


def test_on_wi_fi_the_modules_for_later_are_tried_too(make_site: MakeSite) -> None:
    site = field_node(make_site)
    site.ask(package(site, broken(*NO_MORE["arrive"]))[1])
    run = site.run(timeout_s=60)
    assert [each["e"] for each in site.reports()] == [1, 2], run.output
