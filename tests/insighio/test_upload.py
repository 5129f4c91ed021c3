"""`POST /api/upload_ota` of the field's web server, through the agent's transaction."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from host_sim import sample
from host_sim.sample import DEVICE_ID, Tree
from tests import every, signing
from tests.conftest import MakeSite
from tests.package.signed.packages import package as signed_package
from tests.secrecy import WatchedSite

NODE = Path(__file__).parents[2] / "insighio/node"
#: As web_server.py of insighioNode does it, with what a browser would have sent in /body.bin.
MAIN = b"""\
import os
import sys
import machine
import ota

VERSION = 1
PATH = ("/ota_upload.tar",)
print("version", VERSION, "runs")


def upload():
    from ota_insighio import upload

    size = os.stat("/body.bin")[6]
    if not upload.has_enough_free_space(int(size)):
        return {"error": "not enough space"}, 500
    with open("/body.bin", "rb") as body, open("/ota_upload.tar", "wb") as f:
        while True:
            piece = body.read(512)
            if not piece:
                break
            f.write(piece)
    if not upload.do_apply(*PATH):
        return {"error": "failed to apply ota"}, 500
    import utils

    utils.writeToFlagFile("/ota_applied_flag", "done")
    return {"success": True}, 200


def check():
    agent = ota.Agent(ota.load_config())
    outcome = agent.check()
    print("check:", outcome, agent.reason)
    return outcome


if check() == "idle" and "ota_applied_flag" not in os.listdir("/"):
    answer = upload()
    print("answer:", *answer)
    if answer[1] == 200:
        machine.reset()
machine.deepsleep(60000)
"""
#: As the adapter's, as far as an upload needs it.
ADAPTER = b"""\
import ota

UPLOADED = "/ota_upload.tar"


def configuration():
    return ota.load_config()
"""
DEVICE_INFO = b"""\
fed = 0


def wdt_reset():
    global fed
    fed += 1
"""
UTILS = b"""\
def writeToFlagFile(path, text):
    with open(path, "w") as file:
        file.write(text)
"""
BROUGHT: Tree = {
    "main.py": sample.main_py(2),
    "utils.py": UTILS + b"# version 2\n",
    "lib/new.bin": random.Random(7).randbytes(9000),
}
FLAG = {"/ota_applied_flag": b"done"}
BUILDERS = {
    "tar": sample.tar,
    "tar.gz": sample.tar_gz,
    "microfreezer": sample.microfreezer,
}


def node(make_site: MakeSite, body: bytes, extra: Tree | None = None, **options) -> WatchedSite:
    tree = {
        "main.py": MAIN,
        "utils.py": UTILS,
        "device_info.py": DEVICE_INFO,
        "ota_insighio/__init__.py": ADAPTER,
        "ota_insighio/upload.py": (NODE / "ota_insighio/upload.py").read_bytes(),
        "body.bin": body,
    }
    return make_site(tree | (extra or {}), **options)


def with_brought(site: WatchedSite, brought: Tree = BROUGHT) -> Tree:
    return site.files | FLAG | {"/" + name: content for name, content in brought.items()}


def nothing_was_said(site: WatchedSite) -> bool:
    return not site.console.messages(DEVICE_ID) and not site.console.downloads


@pytest.mark.check
@pytest.mark.parametrize("kind", BUILDERS)
def test_an_upload_is_installed(make_site: MakeSite, kind: str):
    """All of them are called .tar: the content decides."""
    site = node(make_site, BUILDERS[kind](BROUGHT))
    run = site.run()
    assert "answer: {'success': True} 200" in run.output, run.output
    assert "check: confirmed" in run.output
    assert site.flash_files() == with_brought(site)
    assert nothing_was_said(site)


GOOD = sample.tar_gz(BROUGHT)
KEYS = {"keys": ["/a.pub"], "require_signature": True}
PUB = {"a.pub": signing.key(1).modulus}


@pytest.mark.parametrize(
    ("body", "reason", "config"),
    [
        (GOOD[:3000], "can not apply: bad archive", {}),
        (b"<html>" * 300, "can not apply: bad archive", {}),
        (sample.tar({"ota.json": b"{}"}), "can not apply: protected path /ota.json", {}),
        (GOOD, "manifest: there is none, and this node requires it", KEYS),
        (signed_package(BROUGHT, 2), "manifest: unknown key", KEYS),
        (signed_package(BROUGHT, 1, sequence=4), "manifest: sequence 4 is older than 5", KEYS),
    ],
    ids=["truncated", "a page", "protected", "unsigned", "another key", "downgrade"],
)
def test_what_is_refused(make_site: MakeSite, body: bytes, reason: str, config: dict):
    """The web server says so, the node goes on, and nothing is left behind."""
    extra = PUB | {"ota.sequence": b"5"} if config else {}
    site = node(make_site, body, extra, config=config)
    run = site.run()
    assert "answer: {'error': 'failed to apply ota'} 500" in run.output, run.output
    assert reason in run.output
    assert "reset" not in run.names()
    assert site.flash_files() == site.files
    assert nothing_was_said(site)


def test_a_signed_upload_is_taken(make_site: MakeSite):
    site = node(make_site, signed_package(BROUGHT, 1, sequence=6), PUB, config=KEYS)
    run = site.run()
    assert "check: confirmed" in run.output, run.output
    assert site.flash_files() == with_brought(site) | {"/ota.sequence": b"6"}


def test_the_path_is_known(make_site: MakeSite):
    """As apply_ota.do_apply() has it, whose argument may be left out."""
    main = MAIN.replace(b'PATH = ("/ota_upload.tar",)', b"PATH = ()")
    site = node(make_site, GOOD, {"main.py": main})
    assert "check: confirmed" in site.run().output
    assert site.flash_files() == with_brought(site)


@pytest.mark.parametrize(("blocks", "fits"), [(190, False), (260, True)])
def test_file_and_staged_have_to_fit(make_site: MakeSite, blocks: int, fits: bool):
    body = sample.tar({"lib/big.bin": random.Random(1).randbytes(200_000)})
    site = node(make_site, body, blocks=blocks)
    # There is room for the upload alone.
    assert 4096 * blocks > 2 * len(body) + 80_000
    run = site.run()
    assert ("answer: {'success': True} 200" in run.output) == fits, run.output
    assert ("answer: {'error': 'not enough space'} 500" in run.output) != fits
    assert fits or site.flash_files() == site.files


def test_what_a_cut_has_left_makes_room(make_site: MakeSite):
    body = sample.tar({"lib/big.bin": random.Random(1).randbytes(200_000)})
    site = node(make_site, body, {"ota_upload.tar": bytes(200_000)}, blocks=260)
    run = site.run()
    assert "answer: {'success': True} 200" in run.output, run.output
    assert "/ota_upload.tar" not in site.flash_files()


@pytest.mark.parametrize(
    ("code", "text"),
    [(b"{'device_id': 5}", "bad configuration"), (b"{}['cfg']", "KeyError")],
    ids=["config", "cfg"],
)
def test_a_broken_configuration_is_no_error_of_the_web_server(
    make_site: MakeSite, code: bytes, text: str
):
    broken = ADAPTER.replace(b"ota.load_config()", code)
    site = node(make_site, GOOD, {"ota_insighio/__init__.py": broken})
    run = site.run()
    assert f"ota: {text}" in run.output, run.output
    assert "answer: {'error': 'failed to apply ota'} 500" in run.output
    assert site.flash_files() == site.files


def test_during_a_trial_it_is_refused(make_site: MakeSite):
    second = MAIN.replace(b"VERSION = 1", b"VERSION = 2").replace(b'check() == "idle"', b"True")
    site = node(make_site, GOOD)
    site.ask(sample.tar({"main.py": second}), "p.tar")
    run = site.run()
    assert "a trial is open: this version has to be confirmed first" in run.output, run.output
    assert "answer: {'error': 'failed to apply ota'} 500" in run.output
    assert "/ota_upload.tar" not in site.flash_files()


def test_a_broken_version_comes_back(make_site: MakeSite):
    brought = BROUGHT | {"main.py": b"import nowhere\n"}
    site = node(make_site, sample.tar(brought), config={"trial_deadline_s": 60})
    run = site.run(timeout_s=30)
    text = "check: rolled_back rolled back: 3 boots without confirm"
    assert text in run.output, run.output
    assert site.flash_files() == site.files | FLAG
    assert nothing_was_said(site)


def test_a_waiting_request_is_done_afterwards(make_site: MakeSite):
    main = MAIN.replace(b'check() == "idle" and ', b"")
    site = node(make_site, GOOD, {"main.py": main}, config={"max_attempts": 1})
    third = {"main.py": sample.main_py(3)}
    fuid = site.ask(sample.tar(third), "p.tar")
    run = site.run()
    assert run.output.index("version 2 runs") < run.output.index("version 3 runs")
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert site.retained() is None
    assert site.flash_files() == with_brought(site, BROUGHT | third) | {
        "/main.py": sample.main_py(3)
    }


@pytest.mark.slow
def test_a_cut_at_each_operation(make_site: MakeSite):
    """The old tree or the new one, and the node can be asked again."""
    site = node(make_site, GOOD)
    pristine = site.image.read_bytes()
    total = site.run().ops
    new = with_brought(site)
    seen = set()
    for cut in every.sample(range(1, total + 1), 3):
        site.image.write_bytes(pristine)
        site.run(cut=cut)
        run = site.run()
        after = site.flash_files()
        if "version 2 runs" in run.output:
            # Before the flag was written, or before the upload was removed, perhaps.
            for name in (*FLAG, "/ota_upload.tar"):
                seen.add((name, after.pop(name, b"gone")[:4]))
            assert after | FLAG == new, (cut, run.output)
        else:
            assert after == new, (cut, run.output)
    assert nothing_was_said(site)


#: Neither after a power up nor with the RTC's memory to count in: then the agent does not reset.
STAYS = b"""
import gc
import machine

if machine.reset_cause() == machine.PWRON_RESET:
    machine.RTC().memory(b"mine")
    machine.reset()
from ota_insighio import upload

print("taken:", upload.do_apply())
gc.collect()
machine.deepsleep(60000)
"""


@pytest.mark.parametrize(
    "step", [9, pytest.param(1, marks=pytest.mark.slow)], ids=["sample", "every"]
)
@pytest.mark.parametrize("body", [GOOD, sample.tar(BROUGHT)[:5000]], ids=["good", "broken"])
def test_where_flash_fails_nothing_more_is_written(make_site: MakeSite, body: bytes, step: int):
    """Not even the upload is removed: the next check does it."""
    site = node(make_site, b"", {"main.py": STAYS, "ota_upload.tar": body})
    pristine = site.image.read_bytes()
    total = site.run().ops
    assert "/ota_upload.tar" not in site.flash_files()
    for operation in sorted({*range(1, total + 1, step), *range(total - 7, total + 1)}):
        site.image.write_bytes(pristine)
        run = site.run(fail=(operation, 5))
        assert run.output.count("taken:") == 1, run.output
        assert run.ops == operation, run.output
