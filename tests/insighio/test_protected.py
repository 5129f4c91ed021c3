"""The two files that make the field's firmware call the adapter: no package changes them."""

from __future__ import annotations

import json

import pytest

from host_sim import sample
from insigh_ota.package import insighio
from tests.conftest import MakeSite
from tests.insighio.fleet import field_node

SHIMS = [f"/{path}" for path in (insighio.OTA, insighio.APPLY)]
ASK = """
import json
from ota_insighio import configuration
print("protected", json.dumps(configuration()["protected"]))
"""


def protected(output: str) -> object:
    return json.loads(output.partition("protected ")[2])


def test_without_a_configuration_of_its_own(make_site: MakeSite) -> None:
    site = field_node(make_site)
    # The cfg of these tests has it of that file as well.
    without = """
import os
from apps.demo_console import cfg
field = cfg.get_protocol_config()
cfg.get_protocol_config = lambda: field
os.remove("/ota.json")
"""
    assert protected(site.node.exec(without + ASK).output) == SHIMS
    assert "/ota.json" not in site.flash_files()


@pytest.mark.parametrize(
    ("own", "all_of_them"),
    [
        ([], SHIMS),
        (["/calibration"], ["/calibration", *SHIMS]),
        ([SHIMS[1], "/calibration"], [SHIMS[1], "/calibration", SHIMS[0]]),
        ("/calibration", "/calibration"),  # no list: the agent says so
    ],
)
def test_with_a_list_of_the_owner_s(make_site: MakeSite, own: object, all_of_them: object) -> None:
    site = field_node(make_site, config={"protected": own})
    assert protected(site.node.exec(ASK).output) == all_of_them


@pytest.mark.parametrize("path", [*SHIMS, "/calibration"])
def test_a_package_that_brings_one_is_refused(make_site: MakeSite, path: str) -> None:
    site = field_node(make_site, config={"protected": ["/calibration"]})
    fuid = site.ask(sample.tar_gz({path[1:]: b"print('mine')\n", "lib/new.bin": b"new"}))
    run = site.run(timeout_s=60)
    assert f"can not apply: protected path {path}" in run.output, run.output
    assert site.reports() == [{"e": 2, "i": fuid, "m": "can not apply"}]
    assert site.flash_files() == site.files
