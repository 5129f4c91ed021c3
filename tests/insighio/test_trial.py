"""A version whose adapter can not bring the next update is not kept."""

from __future__ import annotations

import pytest

from tests.conftest import MakeSite
from tests.insighio.fleet import ADAPTER, FIELD, field_node, package, tree_of
from tests.secrecy import WatchedSite

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


def test_too_little_memory_is_nothing_wrong_with_it(make_site: MakeSite) -> None:
    site = field_node(make_site, True)
    new = "raise MemoryError\n" + " " * 8 + "self._at = 0\n"
    fuid = site.ask(package(site, broken("modem_file.py", "self._at = 0\n", new))[1])
    run = site.run(timeout_s=60)
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}], run.output
    assert "log: OTA: confirmed" in run.output


def test_on_wi_fi_the_modules_for_later_are_tried_too(make_site: MakeSite) -> None:
    site = field_node(make_site)
    site.ask(package(site, broken(*NO_MORE["arrive"]))[1])
    run = site.run(timeout_s=60)
    assert [each["e"] for each in site.reports()] == [1, 2], run.output


# The adapter itself

CFG = "apps/demo_console/cfg.py"
FIELD_OTA = {
    "apps/demo_console/field_ota.py": b"""
def checkAndApply(client):
    print("field: looks")

hasEnoughFreeSpace = None
"""
}
CLIENTS = "apps/demo_console/transfer_protocol.py"


def came_back(site: WatchedSite, fuid: str, why: str) -> bool:
    """Whether the platform knows, and version 1 is there."""
    reports = [(each["e"], each["i"]) for each in site.reports()]
    assert reports == [(1, fuid), (2, fuid)], reports
    assert site.reports()[1]["m"].startswith(why)
    return site.flash_files() == site.files | {"/ota_applied_flag": b"done"}


def test_an_adapter_that_does_not_load_comes_back(make_site: MakeSite) -> None:
    """Three boots, and not weeks of the field's updater."""
    site = field_node(make_site, extra=FIELD_OTA)
    init = (ADAPTER / "ota_insighio/__init__.py").read_bytes()
    _, archive = package(site, {"ota_insighio/__init__.py": b"import nothing_there\n" + init})
    fuid = site.ask(archive)
    run = site.run(timeout_s=60)
    assert run.output.count("OTA: the adapter does not load, ImportError") == 3
    assert came_back(site, fuid, "rolled back: 3 boots without confirm")
    assert "field:" not in run.output


def test_without_a_trial_the_field_s_updater_helps(make_site: MakeSite) -> None:
    """Nor where our boot.py has not run: nobody would count the resets."""
    extra = {"ota_insighio/__init__.py": b"import nothing_there\n"} | FIELD_OTA
    site = field_node(make_site, extra=extra)
    state = "import os\nos.mkdir('/.ota')\nopen('/.ota/state', 'w').close()\n"
    for before in "", state:
        code = "from apps.demo_console import ota\nprint(ota.checkAndApply)\n"
        run = site.node.exec(before + code)
        assert "function checkAndApply" in run.output, run.output


def test_no_memory_for_the_adapter_is_nothing_wrong_with_it(make_site: MakeSite) -> None:
    site = field_node(make_site)
    init = b"raise MemoryError\n" + (ADAPTER / "ota_insighio/__init__.py").read_bytes()
    site.ask(package(site)[1])
    code = f"""
with open("/ota_insighio/__init__.py", "w") as file:
    file.write({init!r})
from apps.demo_console import ota
print(ota.checkAndApply(object()), ota.hasEnoughFreeSpace(1))
"""
    assert site.node.exec(code).output.splitlines()[-1] == "None False"
    assert site.reports() == [] and site.retained()


NO_CHANNEL = {
    "configuration": (b"get_protocol_config", b"get_protocol"),
    "client": (b"self.client", b"self.theirs"),
}


def without(old: bytes, new: bytes, setting: bytes = b"{}") -> dict[str, bytes]:
    """The field's part in which a release has another name for something."""
    tree = tree_of(FIELD)
    tree[CFG] = tree[CFG].replace(b"SETTINGS = {}", b"SETTINGS = " + setting)
    for each in CFG, CLIENTS:
        tree[each] = tree[each].replace(old, new)
    return {each: tree[each] for each in (CFG, CLIENTS)}


@pytest.mark.parametrize("how", NO_CHANNEL)
def test_a_release_that_the_adapter_does_not_know_comes_back(
    make_site: MakeSite, how: str
) -> None:
    site = field_node(make_site, config={"trial_wakes": 2})
    fuid = site.ask(package(site, without(*NO_CHANNEL[how]))[1])
    run = site.run(wakes=6, timeout_s=60)
    assert "version 2 runs" in run.output
    assert came_back(site, fuid, "rolled back: 2 wakes without confirm"), run.output


def test_coap_is_nothing_wrong_with_a_version(make_site: MakeSite) -> None:
    """The owner has chosen it in the middle of a trial, and MQTT again a few wakes later."""
    site = field_node(make_site, config={"trial_wakes": 2})
    site.ask(package(site, without(*NO_CHANNEL["configuration"], b'{"protocol": "coap"}'))[1])
    run = site.run(wakes=8, timeout_s=60)
    assert [each["e"] for each in site.reports()] == [1], run.output
    assert run.output.count("version 2 runs") >= 4


def test_a_version_that_can_not_use_its_configuration_comes_back(make_site: MakeSite) -> None:
    """It could hear commands, but would take no package any more."""
    site = field_node(make_site, config={"trial_wakes": 2})
    init = (ADAPTER / "ota_insighio/__init__.py").read_bytes()
    old = b"config = json.load(file)"
    assert init.count(old) == 1
    init = init.replace(old, b"raise ValueError")
    fuid = site.ask(package(site, {"ota_insighio/__init__.py": init})[1])
    run = site.run(wakes=6, timeout_s=60)
    assert came_back(site, fuid, "rolled back: 2 wakes without confirm"), run.output
