"""`make deploy` and its sisters, by real mpremote, on the virtual board."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import http.server
import json
import os
import pty
import re
import shlex
import signal
import ssl
import subprocess
import sys
import termios
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import (
    load_der_x509_certificate,
    load_pem_x509_certificate,
    load_pem_x509_certificates,
)
from rich.console import Console

from host_sim.board import Board
from host_sim.node import flash, romfs
from host_sim.node.node import Node
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID, DEVICE_KEY, Tree, write_tree
from insigh_ota.deploy import ca, dist, firmware, plan, provision, remote, status
from insigh_ota.deploy.__main__ import main
from insigh_ota.deploy.errors import DeployError
from tests.ports import mpremote
from tests.secrecy import holds_key

PROJECT = Path(__file__).parents[2]
PACKAGE = PROJECT / "package.json"
BLOCKS = 145
MAIN = b"import os\nprint('alive', open('/boot.py').read(3) != '')\n"
FOREIGN = b"print('foreign boot')\n"
IDS = {"device_id": DEVICE_ID, "device_key": DEVICE_KEY, "control_channel": CONTROL_CHANNEL}
CONFIG = json.dumps(IDS).encode()
#: Enough of the agent to be known as ours, for tests of what becomes of it.
FEW = ("__init__", "config", "errors", "recovery")


class Desk:
    """A person with a checkout, a provisioning file, and boards."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture) -> None:
        self.folder, self._capsys = folder, capsys
        self.provisioning: Path | None = folder / "provision.json"
        self.provisioning.write_bytes(CONFIG)
        self._boards: list[Board] = []

    def flash(self, tree: Tree | None, blocks: int = BLOCKS) -> Path:
        """The flash of a board that has these files; None: a new one."""
        number = len(list(self.folder.glob("*.img")))
        image = self.folder / f"{number}.img"
        if tree is not None:
            root = write_tree(tree, self.folder / f"tree{number}")
            flash.build(root, image, agent=False, blocks=blocks)
        return image

    @contextlib.contextmanager
    def board(self, image: Path, **options: object) -> Iterator[Board]:
        with Board(image, blocks=BLOCKS, **options) as board:
            yield board

    def type(self, command: str, port: str | None, *options: str, code: int = 0) -> str:
        """Run a command; returns what the person sees, never a traceback, never the key."""
        arguments = [command, *options]
        if port is not None:
            arguments += ["--port", port]
        if command == "deploy" and self.provisioning:
            arguments += ["--provision", str(self.provisioning)]
        assert main(arguments) == code
        out, err = self._capsys.readouterr()
        assert not holds_key(out + err)
        assert "Traceback" not in out + err
        if code:
            assert len(err.splitlines()) == 1, err
            assert err.startswith(f"{command}: ")
        return out + err


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture) -> Desk:
    return Desk(tmp_path, capsys)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small agent: what becomes of its files does not depend on how many they are."""
    monkeypatch.setattr(firmware, "modules", lambda: list(FEW))


def agent(source: bool = False, place: str = "/ota") -> Tree:
    return {f"{place}/{name}": content for name, content in firmware.agent(source).items()}


def relative(tree: Tree) -> Tree:
    return {name.lstrip("/"): content for name, content in tree.items()}


def expected(source: bool = False, place: str = "/ota", **more: bytes) -> Tree:
    """The whole flash after a deploy."""
    tree = agent(source, place) | {"/boot.py": firmware.boot(), "/ota.json": CONFIG}
    return tree | {f"/{name}.py": content for name, content in more.items()}


# Onto boards of all kinds


@pytest.mark.check
def test_a_new_board(desk: Desk) -> None:
    image = desk.flash(None)
    with desk.board(image) as board:
        seen = desk.type("deploy", board.port)
        assert re.search(r"board +.*MicroPython 1\.\d+\.\d+, \.mpy ABI 6", seen)
        assert "boot.py  ours, in place of the firmware's empty one" in seen
        assert "verified by SHA-256" in seen
        assert "no trust anchor in /ca.der" in seen
        assert flash.read_tree(image) == expected()
        assert "hard" in [event.get("cause") for event in board.events]
        operations = board.traffic.ops
        seen = desk.type("deploy", board.port)
        assert "all of it was there already" in seen
        seen = desk.type("status", board.port)
        assert f"agent    {firmware.version()} as .mpy in /ota, that of this checkout" in seen
        assert "boot.py  ours\n" in seen
        assert "config   console.insigh.io, MQTT console.insigh.io:8883 with TLS, no trust" in seen
        assert "in clear" not in seen
        assert "update   none open" in seen
        assert "report   none waits" in seen
    assert board.traffic.ops == operations  # not a byte was written again


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_sources_and_back(desk: Desk) -> None:
    """Neither form leaves its twin behind: x.py would shadow a newer x.mpy."""
    image = desk.flash({"main.py": MAIN} | relative(agent(source=True)))
    with desk.board(image) as board:
        desk.type("deploy", board.port)
        assert flash.read_tree(image) == expected(main=MAIN)
        desk.type("deploy", board.port, "--src")
        assert flash.read_tree(image) == expected(source=True, main=MAIN)


@pytest.mark.usefixtures("few")
def test_over_an_older_version(desk: Desk) -> None:
    older = {f"ota/{name}.mpy": b"old" for name in (*FEW, "gone")}
    older |= {"ota/config.py": b"stale", "ota/notes.txt": b"mine", "ota/agent.mpy~": b"litter"}
    older |= {"ota.json": b"{}", "main.py": MAIN, "boot.py": firmware.boot() + b"# older\n"}
    image = desk.flash(older)
    with desk.board(image) as board:
        seen = desk.type("deploy", board.port)
    assert "boot.py  ours" in seen
    assert flash.read_tree(image) == expected(main=MAIN) | {"/ota/notes.txt": b"mine"}


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_an_agent_that_mip_has_put_into_lib(desk: Desk) -> None:
    image = desk.flash(relative(agent(source=True, place="/lib/ota")))
    with desk.board(image) as board:
        assert "in /lib/ota, 4 files" in desk.type("deploy", board.port)
    assert flash.read_tree(image) == expected(place="/lib/ota")


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_a_board_that_runs_or_sleeps(desk: Desk) -> None:
    for main_py in (b"while True: pass", b"import machine\nmachine.deepsleep()"):
        image = desk.flash({"main.py": main_py})
        with desk.board(image) as board:
            desk.type("deploy", board.port)
        assert flash.read_tree(image) == expected(main=main_py)


# Space


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_space(desk: Desk) -> None:
    half = {"main.py": MAIN, "data": bytes(range(256)) * 16 * (BLOCKS // 2)}
    image = desk.flash(half)
    with desk.board(image) as board:
        desk.type("deploy", board.port)
    full = {"main.py": MAIN, "data": bytes(range(256)) * 16 * (BLOCKS - 12)}
    image = desk.flash(full)
    before = image.read_bytes()
    with desk.board(image) as board:
        seen = desk.type("deploy", board.port, code=2)
    assert re.search(r"not enough space: copying needs \d+ KB free, the board has \d+ KB", seen)
    assert image.read_bytes() == before


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_space_that_was_promised_is_enough(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the tightest flash that is not refused, it works."""
    for blocks in range(BLOCKS - 40, BLOCKS):
        image = desk.flash({"main.py": MAIN, "data": bytes(range(256)) * 16 * blocks})
        found = probe_of(image, desk)
        try:
            plan.make(found, firmware.agent(False), CONFIG)
        except DeployError:
            break
        tightest = image
    with desk.board(tightest) as board:
        desk.type("deploy", board.port)
    assert agent().items() <= flash.read_tree(tightest).items()


def probe_of(image: Path, desk: Desk) -> plan.Found:
    """What the probe would find, without asking."""
    tree, filesystem = flash.read_tree(image), flash._mounted(image)
    free = (BLOCKS - filesystem.used_block_count) * 4096
    files = {name: [len(data), firmware.digest(data)] for name, data in tree.items()}
    return plan.Found("m", [1], 6, False, 4096, free, "/ca.der", None, None, files)


@pytest.mark.slow
def test_a_full_flash_is_one_clear_line(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the sum wrong, the board itself would say it."""
    monkeypatch.setattr(plan, "check_space", lambda *_: None)
    data = bytes(range(256)) * 16 * (BLOCKS - 12)
    image = desk.flash({"main.py": MAIN, "boot.py": FOREIGN, "data": data})
    with desk.board(image) as board:
        seen = desk.type("deploy", board.port, "--boot", "keep", code=2)
    assert seen.endswith("the board's flash is full; what was there still runs\n")
    assert "alive True" in Node(image).run().output


# Whose boot.py


@pytest.mark.usefixtures("few")
def test_a_foreign_boot(desk: Desk) -> None:
    image = desk.flash({"boot.py": FOREIGN})
    with desk.board(image) as board:
        before = image.read_bytes()
        seen = desk.type("deploy", board.port, code=2)
        assert "/boot.py on the board is not ours: say --boot keep" in seen
        assert image.read_bytes() == before
        assert "boot.py  foreign" in desk.type("status", board.port)
        desk.type("deploy", board.port, "--boot", "keep")
        assert flash.read_tree(image) == expected(boot_user=FOREIGN)
        assert "foreign boot" in Node(image).run().output
        seen = desk.type("undeploy", board.port)
        assert "boot.py is what /boot_user.py was" in seen
    assert flash.read_tree(image) == {"/boot.py": FOREIGN}


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_a_foreign_boot_replaced(desk: Desk) -> None:
    image = desk.flash({"boot.py": FOREIGN})
    with desk.board(image) as board:
        desk.type("deploy", board.port, "--boot", "replace")
    assert flash.read_tree(image) == expected()


def found_with(**files: bytes) -> plan.Found:
    """A board on which these files are, `boot` for /boot.py."""
    import base64

    content = {f"/{name}.py": data for name, data in files.items()}
    sums = {name: [len(data), firmware.digest(data)] for name, data in content.items()}
    boot = base64.b64encode(files["boot"]).decode() if "boot" in files else None
    return plan.Found("m", [1], 6, False, 4096, 1 << 20, "/ca.der", None, boot, sums)


@pytest.mark.parametrize(
    ("boot", "kind"),
    [
        (None, "none"),
        (b"# a\n\n  # b\n", "stock"),
        (firmware.boot(), "ours"),
        (firmware.boot().replace(b"\n#", b"\n# other words\n#"), "ours"),
        (firmware.boot() + b"import network\n", "ours extended"),
        (firmware.boot().replace(b"_trial", b"_t"), "other version"),
        (FOREIGN, "foreign"),
        (b"import ota\nota.recovery.boot()\n", "foreign"),
    ],
)
def test_kinds_of_boot(boot: bytes | None, kind: str) -> None:
    found = found_with(boot=boot) if boot is not None else found_with()
    assert plan.boot_kind(found) == kind


@pytest.mark.parametrize(
    ("files", "how", "message"),
    [
        ({"boot": firmware.boot() + b"x = 1\n"}, None, "has lines of your own after ours"),
        ({"boot": firmware.boot() + b"x = 1\n"}, "keep", "move your own lines to /boot_user.py"),
        ({"boot": FOREIGN, "boot_user": b"x"}, "keep", "has a /boot_user.py already"),
    ],
)
def test_boots_that_nobody_may_lose(files: dict, how: str | None, message: str) -> None:
    with pytest.raises(DeployError, match=message):
        plan.make(found_with(**files), firmware.agent(False), CONFIG, how)


# What is refused


@pytest.mark.slow
def test_fat(desk: Desk) -> None:
    image = desk.flash(None)
    with desk.board(image, fat=True) as board:
        mpremote(board.port, "ls")
        before = image.read_bytes()
        seen = desk.type("deploy", board.port, code=2)
        assert "the board's flash is FAT" in seen
        assert "docs/deploying.md" in seen
        assert "FAT: deploy refuses it" in desk.type("status", board.port)
    assert image.read_bytes() == before


@pytest.mark.slow
def test_blocks_of_512_bytes(desk: Desk) -> None:
    """As boards with TinyUF2's or Arduino's partition table have it."""
    bdev = b"class bdev:\n    @staticmethod\n    def ioctl(op, _):\n        return 512\n"
    image = desk.flash({"main.py": MAIN, "flashbdev.py": bdev.replace(b"512", b"4096")})
    with desk.board(image) as board:
        assert "[yellow]" not in desk.type("deploy", board.port)
    image = desk.flash({"main.py": MAIN, "flashbdev.py": bdev})
    with desk.board(image) as board:
        before = image.read_bytes()
        for command in ("deploy", "ca"):
            more = ["--file", str(desk.folder / "root.pem")] if command == "ca" else []
            if more:
                Path(more[1]).write_bytes(trustme.CA().cert_pem.bytes())
            seen = desk.type(command, board.port, *more, code=2)
            assert "takes its flash in blocks of 512 bytes" in seen
        assert image.read_bytes() == before


@pytest.mark.slow
def test_littlefs_of_another_block_size() -> None:
    found = found_with(main=MAIN)
    plan.check_flash(found)
    found.block = 512
    with pytest.raises(DeployError, match="littlefs has blocks of 512 bytes"):
        plan.check_flash(found)


#: An application at the REPL of a board that has these modules in its firmware: what the board
#: says of itself is all that tells, so it says it.
HELP = b"""
def help(what):
    print("__main__          array             gc                 main\\n_boot  %s  ota/agent")
"""


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_a_boot_py_in_the_firmware(desk: Desk) -> None:
    """It wins over the one on flash: recovery never runs. Not when it is ours."""
    foreign = HELP % b"boot"
    image = desk.flash({"boot.py": b"# stock\n", "main.py": foreign})
    with desk.board(image) as board:
        mpremote(board.port, "reset")
        seen = desk.type("status", board.port)
        assert "boot.py  frozen into the firmware: it runs in place of the one on flash" in seen
        assert "main.py  frozen into the firmware: it runs in place of the one on flash" in seen
        before = image.read_bytes()
        for boot in ([], ["--boot", "replace"]):
            seen = desk.type("deploy", board.port, *boot, code=2)
            assert "a boot.py is frozen into the board's firmware" in seen
        assert image.read_bytes() == before
        seen = desk.type("deploy", board.port, "--boot", "keep")
        assert "boot.py  frozen into the firmware" in seen
        # On this board the one on flash has run meanwhile: so it is ours that runs.
        seen = desk.type("status", board.port)
        assert "boot.py  frozen" not in seen
        assert "main.py  frozen" in seen


@pytest.mark.slow
def test_builtin_modules_that_only_look_alike(desk: Desk) -> None:
    image = desk.flash(
        {"main.py": b"def help(what):\n    print('_boot  boot/x mainline x.main')\n"}
    )
    with desk.board(image) as board:
        mpremote(board.port, "reset")
        assert "frozen" not in desk.type("status", board.port)


@pytest.mark.slow
def test_another_abi(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = firmware._compiled
    older = functools.cache(lambda name: b"M\x05" + compiled(name)[2:])
    monkeypatch.setattr(firmware, "_compiled", older)
    image = desk.flash({"main.py": MAIN})
    with desk.board(image) as board:
        seen = desk.type("deploy", board.port, code=2)
    assert "the board loads .mpy of ABI 6, these have ABI 5" in seen
    assert "SRC=1" in seen
    assert flash.read_tree(image) == {"/main.py": MAIN}


def test_what_a_board_loads() -> None:
    bytecode, armv6m = {"a.mpy": b"M\x06\x00\x1f"}, {"a.mpy": b"M\x06\x10\x1f"}
    firmware.check_abi(bytecode, 0x2806)
    firmware.check_abi(armv6m, 4 << 10 | 6)
    firmware.check_abi({"a.py": b"x"}, 0)
    for files, board in ((bytecode, 0), (bytecode, 5), (armv6m, 10 << 10 | 6)):
        with pytest.raises(DeployError):
            firmware.check_abi(files, board)


def test_another_package_named_ota(desk: Desk) -> None:
    image = desk.flash({"lib/ota/update.py": b"x", "lib/ota/status.py": b"x"})
    with desk.board(image) as board:
        seen = desk.type("deploy", board.port, code=2)
    assert "/lib/ota is another package of that name (status)" in seen


def state_of(phase: str, boots: int = 1, version: int = 2) -> bytes:
    """/.ota/state of an update that is open (firmware/ota/recovery.py has the format)."""
    text = json.dumps([version, phase, boots, "", 0, 0, 0, 0]).encode()
    return b"\n%s %08x\n" % (text, zlib.crc32(text)) * 2


STATES = {phase: state_of(phase) for phase in plan.PHASES}
STATES |= {
    f"{phase} of the first version": f"1 {phase} fa8884d2 1 1 3 24 300 installed ".encode()
    for phase in plan.PHASES
}
STATES |= {
    "trial of another version": state_of("commit", version=3),
    "trial, half of it damaged": state_of("trial").replace(b"[2", b"\xff2", 1),
    "damaged": state_of("trial").replace(b"trial", b"\xffrial"),
    "empty": b"",
}


@pytest.mark.few(1)
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kind", STATES)
def test_in_the_middle_of_an_update(desk: Desk, kind: str) -> None:
    state = STATES[kind]
    image = desk.flash({"main.py": MAIN, ".ota/state": state})
    with desk.board(image) as board:
        seen = desk.type("deploy", board.port, code=2)
        if not kind.startswith("trial"):
            assert "in the middle of an update" in seen
            desk.type("undeploy", board.port, code=2)
            assert flash.read_tree(image) == {"/main.py": MAIN, "/.ota/state": state}
            return
        assert "--trial keep (make: TRIAL=keep)" in seen
        desk.type("deploy", board.port, "--trial", "keep")
    assert flash.read_tree(image) == expected(main=MAIN)


def test_who_the_node_is_has_to_be_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    file = desk.provisioning
    file.unlink()
    seen = desk.type("deploy", "/dev/null", code=2)
    assert seen == f"deploy: {file} can not be read: No such file or directory\n"
    monkeypatch.setattr(provision, "DEFAULT", file)
    monkeypatch.setattr(desk, "provisioning", None)
    image = desk.flash({"main.py": MAIN})
    with desk.board(image) as board:
        assert "insigh-ota provision" in desk.type("deploy", board.port, code=2)
    assert flash.read_tree(image) == {"/main.py": MAIN}
    file.write_text('{"device_id": "x", "devicekey": "y"}')
    seen = desk.type("deploy", "/dev/null", code=2)
    assert seen.endswith("provision.json: unknown key devicekey\n")


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_without_a_provisioning_file_a_node_stays_who_it_is(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provision, "DEFAULT", desk.folder / "none.json")
    monkeypatch.setattr(desk, "provisioning", None)
    image = desk.flash({"ota.json": CONFIG})
    with desk.board(image) as board:
        desk.type("deploy", board.port)
    assert flash.read_tree(image) == expected()


# Ports


def test_wrong_ports(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert desk.type("deploy", "", code=2).startswith(
        "deploy: which port? Say --port DEVICE (make: PORT=…)"
    )
    assert "/dev/ttyUSB99 is no port" in desk.type("deploy", "/dev/ttyUSB99", code=2)
    assert "is not a serial port" in desk.type("deploy", str(desk.provisioning), code=2)
    assert "/dev/null is not a serial port" in desk.type("status", "/dev/null", code=2)
    monkeypatch.chdir(desk.folder)
    assert "provision.json is not a serial port" in desk.type("status", "provision.json", code=2)
    ours, theirs = pty.openpty()  # a port that another program has
    fcntl.ioctl(theirs, termios.TIOCEXCL)
    fcntl.flock(theirs, fcntl.LOCK_EX)
    seen = desk.type("status", os.ttyname(theirs), code=2)
    assert "can not be opened: another program has it. End that one" in seen
    os.close(ours)
    os.close(theirs)
    monkeypatch.setattr(remote, "SILENCE_S", 1.5)
    ours, theirs = pty.openpty()  # a port with nobody behind it
    seen = desk.type("deploy", os.ttyname(theirs), code=2)
    assert "is it a MicroPython board? Press its reset button" in seen
    os.close(ours)
    os.close(theirs)


# Interrupted


def survivors(image: Path, boots: set[bytes]) -> Tree:
    """The files after a failure, from which the node must still boot."""
    tree = flash.read_tree(image)
    assert tree["/boot.py"] in boots
    assert tree["/main.py"] == MAIN
    run = Node(image).run()
    assert "alive True" in run.output
    assert run.exit_code == 0
    return tree


@pytest.mark.slow
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("when", [pytest.param("copying", marks=pytest.mark.slow), "renaming"])
def test_power_fails_while_deploying(desk: Desk, when: str) -> None:
    """At many operations: the board boots, and the same command again ends right."""
    before = {f"ota/{name}.py": b"old = 1\n" * 200 for name in (*FEW, "gone")}
    before |= {"main.py": MAIN, "boot.py": FOREIGN, "ota.json": b'{"old": 1}'}
    image = desk.flash(before)
    pristine = image.read_bytes()
    with desk.board(image) as board:
        desk.type("deploy", board.port, "--boot", "keep")
    after = expected(main=MAIN, boot_user=FOREIGN)
    assert flash.read_tree(image) == after
    total = board.traffic.ops
    seen: set[str] = set()
    cuts = {
        "copying": [2, total // 4, total // 2, total - 25],
        "renaming": [total - 14, total - 11, total - 9, total - 5, total - 2, total],
    }
    for cut in cuts[when]:
        image.write_bytes(pristine)
        with desk.board(image, cut=cut, torn="half") as board:
            desk.type("deploy", board.port, "--boot", "keep", code=2)
        assert board.exit_code == 3, cut
        seen |= set(survivors(image, {FOREIGN, firmware.boot()}))
        with desk.board(image) as board:
            desk.type("deploy", board.port, "--boot", "keep")
        assert flash.read_tree(image) == after, cut
    witnesses = {"copying": {"/ota/config.mpy~"}, "renaming": {"/ota/config.mpy", "/boot_user.py"}}
    assert witnesses[when] <= seen
    assert "/ota/config.py" in seen


@pytest.mark.slow
def test_killed_while_deploying(desk: Desk) -> None:
    image = desk.flash({"main.py": MAIN})
    with desk.board(image) as board:
        command = ["deploy", "--port", board.port, "--provision", str(desk.provisioning)]
        tool = subprocess.Popen(
            [sys.executable, "-m", "insigh_ota.deploy", *command],
            cwd=PROJECT,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        give_up = time.monotonic() + 120
        while "/ota/config.mpy~" not in dict(flash.listing(image)):
            assert time.monotonic() < give_up
            assert tool.poll() is None
            time.sleep(0.005)
        os.killpg(tool.pid, signal.SIGKILL)
        tool.wait()
        names = [name for name, _ in flash.listing(image) if name.startswith("/ota/")]
        assert all(name.endswith("~") for name in names if "." in name)  # the others are folders
        desk.type("deploy", board.port)
    assert flash.read_tree(image) == expected(main=MAIN)


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_a_copy_that_went_wrong(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives is not what was sent: nothing of the old agent is touched."""
    command = remote.Copy.command

    def noisy(copy: remote.Copy, scratch: Path) -> list[str]:
        copy.files[-1].write_bytes(b"noise" + copy.files[-1].read_bytes())
        return command(copy, scratch)

    monkeypatch.setattr(remote.Copy, "command", noisy)
    old = {"ota/config.mpy": b"old", "ota/recovery.mpy": b"old", "ota.json": b"{}"}
    image = desk.flash(old)
    with desk.board(image) as board:
        seen = desk.type("deploy", board.port, code=2)
    assert "/ota/recovery.mpy~ is not what was sent" in seen
    assert old.items() <= relative(flash.read_tree(image)).items()


# What is seen of the key


@pytest.mark.slow
def test_the_key_is_no_argument_of_any_process(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, few: None
) -> None:
    started: list[str] = []
    popen = subprocess.Popen

    def watched(command: list, *arguments: object, **options: object) -> subprocess.Popen:
        started.append(" ".join(map(str, command)))
        return popen(command, *arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", watched)
    image = desk.flash({"main.py": MAIN})
    with desk.board(image) as board:
        desk.type("deploy", board.port)
        desk.type("undeploy", board.port)
    assert len([line for line in started if "mpremote" in line]) >= 4
    assert not [line for line in started if holds_key(line)]


# Off again


@pytest.mark.usefixtures("few")
def test_undeploy(desk: Desk) -> None:
    """Nothing of ours stays, nothing of others goes."""
    others = {"main.py": MAIN, "lib/ota/update.py": b"x", "ota/notes.txt": b"mine"}
    ours = relative(expected()) | {"ca.der": b"x", ".ota/report": b"1 x", ".ota/0": b"x"}
    image = desk.flash(others | ours)
    with desk.board(image) as board:
        desk.type("undeploy", board.port)
        desk.type("undeploy", board.port)
    assert relative(flash.read_tree(image)) == others | {"ota/notes.txt": b"mine"}


@pytest.mark.slow
def test_undeploy_leaves_a_foreign_boot(desk: Desk) -> None:
    image = desk.flash({"boot.py": FOREIGN, "ota.json": CONFIG})
    with desk.board(image) as board:
        assert "it is not, or not only, ours" in desk.type("undeploy", board.port)
    assert flash.read_tree(image) == {"/boot.py": FOREIGN}


# Status


def test_status_of_a_trial(desk: Desk) -> None:
    head = b'[2, "fa8884d2", 3, 24, 7, 900, "installed", 0, 0, null]\n='
    tree = relative(expected(source=True)) | {
        ".ota/state": state_of("trial", boots=8),
        ".ota/journal": head + zlib.crc32(head).to_bytes(4, "little"),
        ".ota/report": b"\n1 fa8884d2 %08x\n" % zlib.crc32(b"1 fa8884d2"),
        "ota/config.mpy": b"x",
    }
    image = desk.flash(tree)
    with desk.board(image) as board:
        seen = desk.type("status", board.port, "--stay")
        events = list(board.events)
    # This boot is one more.
    assert "update   on trial: fa8884d2, boots counted: 2 of 3" in seen
    assert "report   waits to be delivered: e:1 fa8884d2" in seen
    assert "as .mpy and sources in /ota, not that of this checkout" in seen
    assert "reset" not in [event["event"] for event in events]


@pytest.mark.slow
def test_looking_does_not_press_the_reset_button(desk: Desk) -> None:
    """It begins anew by a soft reset, and its main.py runs."""
    main = b"import machine\nwith open('/ran', 'w') as file:\n"
    main += b"    file.write(str(machine.reset_cause()))\n"
    image = desk.flash({"main.py": main})
    with desk.board(image) as board:
        mpremote(board.port, "resume", "exec", "1")
        begun = len(board.events)
        seen = desk.type("status", board.port)
        assert "the node was interrupted for this and begins anew" in seen
        for _ in range(600):
            events = board.events[begun:]
            if [event["event"] for event in events].count("repl"):
                break
            time.sleep(0.1)
    resets = [event for event in events if event["event"] == "reset"]
    assert [event.get("soft") for event in resets] == [True]
    assert flash.read_tree(image)["/ran"] == b"5"  # SOFT_RESET


def test_boots_of_a_trial_and_how_many_it_has(desk: Desk, capsys: pytest.CaptureFixture) -> None:
    from insigh_ota.deploy.status import _update

    state = {"state": "trial", "file_id": "x", "boots": 1}
    assert _update(state) == "on trial: x, boots counted: 1"
    assert _update(state | {"boots_most": 3}) == "on trial: x, boots counted: 1 of 3"
    commit = state | {"state": "commit", "boots_most": 0}
    assert _update(commit) == "being installed: x, tries counted: 1"


@pytest.mark.slow
def test_boots_of_a_trial_of_an_older_agent(desk: Desk) -> None:
    """Its status() does not say how many there are: they are in its configuration."""
    tree = relative(expected(source=True)) | {".ota/state": state_of("trial", boots=8)}
    head = b'[2, "fa8884d2", 5, 24, 7, 900, "installed", 0, 0, null]\n='
    tree[".ota/journal"] = head + zlib.crc32(head).to_bytes(4, "little")
    tree["ota.json"] = json.dumps(IDS | {"trial_boots": 5}).encode()
    trial = tree["ota/install/trial.py"]
    assert b'        "boots_most": head' in trial
    tree["ota/install/trial.py"] = trial.replace(b'"boots_most": head', b'"other": head')
    with desk.board(desk.flash(tree)) as board:
        assert "boots counted: 2 of 5" in desk.type("status", board.port, "--stay")


@pytest.mark.slow
def test_status_of_a_board_without_it(desk: Desk) -> None:
    image = desk.flash({"ota/__init__.py": b"1/0\n", "ota/recovery.py": b""})
    with desk.board(image) as board:
        seen = desk.type("status", board.port)
    assert "agent    does not load: ZeroDivisionError: divide by zero" in seen
    assert "boot.py  none: an update could not be finished" in seen


# Who a node is


def answer(desk: Desk, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    read, write = os.pipe()
    os.write(write, "".join(line + "\n" for line in lines).encode())
    os.close(write)
    monkeypatch.setattr(sys, "stdin", os.fdopen(read))


@pytest.mark.check
def test_provision(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.provisioning.unlink()
    file = ["--file", str(desk.provisioning)]
    answer(desk, monkeypatch, DEVICE_ID, CONTROL_CHANNEL, DEVICE_KEY)
    desk.type("provision", None, *file, "--server", "localhost:8443", "--mqtt", "localhost:1884")
    assert json.loads(desk.provisioning.read_text()) == {
        **IDS,
        "server": "localhost:8443",
        "mqtt": {"host": "localhost", "port": 1884},
    }
    assert desk.provisioning.stat().st_mode & 0o777 == 0o600
    answer(desk, monkeypatch, "", "")  # the channel and the key are kept
    desk.type("provision", None, *file, "--id", "another", "--tls", "1")
    kept = json.loads(desk.provisioning.read_text())
    assert (kept["device_id"], kept["device_key"]) == ("another", DEVICE_KEY)
    assert kept["mqtt"] == {"host": "localhost", "port": 1884, "tls": True}


@pytest.mark.slow
def test_a_node_that_speaks_plain_is_told_of(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the desk, and on the board; never where it speaks TLS."""
    line = "plain MQTT: the device key goes over the network in clear"
    for tls in ("1", "0"):
        answer(desk, monkeypatch, DEVICE_ID, CONTROL_CHANNEL, DEVICE_KEY)
        seen = desk.type("provision", None, "--file", str(desk.provisioning), "--tls", tls)
        assert (line in seen) == (tls == "0")
    config = desk.provisioning.read_bytes()
    assert json.loads(config)["mqtt"] == {"tls": False}
    with desk.board(desk.flash({**relative(agent()), "ota.json": config})) as board:
        seen = desk.type("status", board.port)
        assert "MQTT console.insigh.io:1883, no trust anchor" in seen
        assert line in seen


@pytest.mark.parametrize(
    ("options", "lines", "message"),
    [
        ([], [""], "no device id given"),
        ([], ["a", "b", ""], "no device key given"),
        (["--id", "a/b"], ["c", "k"], "not written: device_id has a character not allowed"),
        (["--server", "x y"], ["a", "b", "c"], "not written: server is not host or host:port"),
        (["--mqtt", "h:x"], ["a", "b", "c"], "--mqtt h:x: write host or host:port"),
    ],
)
def test_provisioning_that_makes_no_sense(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, options: list, lines: list, message: str
) -> None:
    desk.provisioning.unlink()
    answer(desk, monkeypatch, *lines)
    seen = desk.type("provision", None, "--file", str(desk.provisioning), *options, code=2)
    assert message in seen
    assert not list(desk.folder.glob("provision*"))


def test_the_provisioning_file_stays_out_of_git() -> None:
    assert str(provision.DEFAULT) == "provision.json"
    assert "/provision*.json" in (PROJECT / ".gitignore").read_text().splitlines()


def test_only_what_git_ignores_is_said_to_be_ignored(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of another name or in another place may well be committed, and git knows."""
    if (PROJECT / ".git").exists():
        assert provision.is_ignored(PROJECT / "provision.json")
        assert provision.is_ignored(PROJECT / "provision-7.json")
        assert not provision.is_ignored(PROJECT / "node-7.json")
        assert not provision.is_ignored(PROJECT / "docs" / "provision.json")

    def told(file: Path) -> str:
        answer(desk, monkeypatch, DEVICE_ID, CONTROL_CHANNEL, DEVICE_KEY)
        return desk.type("provision", None, "--file", str(file))

    seen = told(desk.provisioning)
    assert "only you can read it" in seen
    assert "git " not in seen.removeprefix(str(desk.provisioning))  # no project: nobody knows
    project = desk.folder / "project"
    subprocess.run(["git", "init", "-q", project], check=True)
    assert f"git does not ignore {project / 'a.json'}, which holds" in told(project / "a.json")
    (project / ".gitignore").write_text("/a.json\n")
    assert "only you can read it, and git ignores it\n" in told(project / "a.json")
    subprocess.run(["git", "-C", project, "add", "-f", "a.json"], check=True)
    said = re.search("git -C .* rm --cached a.json(?=, and)", told(project / "a.json"))
    subprocess.run(shlex.split(said[0]), check=True, cwd="/", capture_output=True)
    assert "and git ignores it\n" in told(project / "a.json")
    subprocess.run(["git", "-C", project, "add", "-f", "a.json"], check=True)
    assert "git does not ignore" in told(project / "[a].json")  # a name, no pattern


def test_provision_shows_no_key_to_who_looks_over_the_shoulder(desk: Desk) -> None:
    desk.provisioning.unlink()
    ours, theirs = pty.openpty()
    person = subprocess.Popen(
        [sys.executable, "-m", "insigh_ota.deploy", "provision", "--file", desk.provisioning],
        cwd=PROJECT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    screen = ""
    answers = {
        "device id: ": DEVICE_ID,
        "control channel id: ": CONTROL_CHANNEL,
        "device key (not shown): ": DEVICE_KEY,
        "only you can read it": "",
    }
    for question, reply in answers.items():
        while question not in screen:
            screen += os.read(ours, 1024).decode()
        os.write(ours, f"{reply}\n".encode() if reply else b"")
    assert person.wait(60) == 0
    os.close(ours)
    assert DEVICE_ID in screen
    assert not holds_key(screen)
    assert json.loads(desk.provisioning.read_text()) == IDS


# The trust anchor


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    """A root, an intermediate below it, and a server that shows a leaf of that."""
    folder = tmp_path_factory.mktemp("ca")
    root, stranger = trustme.CA(), trustme.CA()
    middle = root.create_child_ca()
    leaf = middle.issue_cert("localhost")
    stranger.cert_pem.write_to_path(folder / "roots.pem")
    root.cert_pem.write_to_path(folder / "roots.pem", append=True)
    stranger.cert_pem.write_to_path(folder / "stranger.pem")
    leaf.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    leaf.private_key_pem.write_to_path(folder / "short.pem")
    leaf.cert_chain_pems[0].write_to_path(folder / "short.pem", append=True)
    leaf.cert_chain_pems[0].write_to_path(folder / "leaf.pem")
    middle.cert_pem.write_to_path(folder / "middle.pem")
    for number, part in enumerate(leaf.cert_chain_pems):
        part.write_to_path(folder / "chain.pem", append=number > 0)
    server, short = serve(folder / "server.pem"), serve(folder / "short.pem")
    der = load_pem_x509_certificate(root.cert_pem.bytes()).public_bytes(Encoding.DER)
    yield {
        "folder": folder,
        "host": f"localhost:{server.server_port}",
        "incomplete": f"localhost:{short.server_port}",
        "der": der,
    }
    for each in server, short:
        each.shutdown()
        each.server_close()


def serve(key_and_chain: Path) -> http.server.ThreadingHTTPServer:
    """An HTTPS server that shows this chain."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(key_and_chain)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_the_root_of_a_host(authority: dict) -> None:
    folder = authority["folder"]
    root = ca.of_host(authority["host"], folder / "roots.pem")
    assert root.public_bytes(Encoding.DER) == authority["der"]
    with pytest.raises(DeployError, match="no public root vouches for it; give its own with"):
        ca.of_host(authority["host"], folder / "stranger.pem")
    with pytest.raises(DeployError, match=r"can not reach 127\.0\.0\.1:1: "):
        ca.of_host("127.0.0.1:1")


def test_a_server_that_sends_half_of_its_chain(authority: dict) -> None:
    """No node could verify it with any root; nothing that it sends is taken on its word."""
    line = r"localhost sends its own certificate only.*let it send its whole chain, or give"
    for roots in ("roots.pem", "stranger.pem"):
        with pytest.raises(DeployError, match=line) as caught:
            ca.of_host(authority["incomplete"], authority["folder"] / roots)
        issuer = load_pem_x509_certificate((authority["folder"] / "middle.pem").read_bytes())
        assert issuer.subject.rfc4514_string() in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_root_of_a_chain_file(authority: dict) -> None:
    folder = authority["folder"]
    root = ca.of_chain(folder / "chain.pem", folder / "roots.pem")
    assert root.public_bytes(Encoding.DER) == authority["der"]
    with pytest.raises(DeployError, match="no public root issued what"):
        ca.of_chain(folder / "chain.pem", folder / "stranger.pem")


def test_the_bundle_is_certifis() -> None:
    names = [root.subject.rfc4514_string() for root in ca.bundle()]
    assert len(names) > 50
    assert any("ISRG Root X1" in name for name in names)


@pytest.mark.slow
def test_the_anchor_on_the_node(desk: Desk, authority: dict) -> None:
    config = json.dumps(IDS | {"ca": "/certs/root.der"}).encode()
    image = desk.flash({"ota.json": config})
    with desk.board(image) as board:
        chain = str(authority["folder"] / "chain.pem")
        seen = desk.type("ca", board.port, "--file", chain, code=2)
        assert "holds 2 certificates and no root: --chain (make: CHAIN=) finds" in seen
        leaf = str(authority["folder"] / "leaf.pem")
        seen = desk.type("ca", board.port, "--file", leaf, code=2)
        assert "is a server's certificate that somebody else has issued" in seen
        middle = str(authority["folder"] / "middle.pem")
        seen = desk.type("ca", board.port, "--file", middle)
        assert "issuer   " in seen
        der = flash.read_tree(image)["/certs/root.der"]
        assert load_der_x509_certificate(der).issuer != load_der_x509_certificate(der).subject
        (desk.folder / "root.der").write_bytes(authority["der"])
        seen = desk.type("ca", board.port, "--file", str(desk.folder / "root.der"))
        assert "written to /certs/root.der as DER" in seen
        assert flash.read_tree(image)["/certs/root.der"] == authority["der"]
        pem = trustme.CA()
        pem.cert_pem.write_to_path(desk.folder / "new.pem")
        desk.type("ca", board.port, "--file", str(desk.folder / "new.pem"))
        der = load_pem_x509_certificate(pem.cert_pem.bytes()).public_bytes(Encoding.DER)
        assert flash.read_tree(image) == {"/ota.json": config, "/certs/root.der": der}
        seen = desk.type("ca", board.port, "--file", str(desk.folder / "new.pem"))
        assert "it was in /certs/root.der already" in seen
        # Two at a time, for a root that is to change.
        roots = authority["folder"] / "roots.pem"
        seen = desk.type("ca", board.port, "--file", str(roots))
        assert seen.count("root     ") == 2
        assert "written to /certs/root.der as PEM" in seen
        there = flash.read_tree(image)["/certs/root.der"]
        assert load_pem_x509_certificates(there) == load_pem_x509_certificates(roots.read_bytes())
        seen = desk.type("ca", board.port, "--file", str(desk.provisioning), code=2)
        assert "holds no certificate, neither PEM nor DER" in seen


# Other ways to the board


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_an_interrupted_undeploy_leaves_is_ours() -> None:
    """Of the agents with one folder as well, whose modules have other places now."""
    assert plan.foreign_package(["report.mpy", "staging.mpy", "install/report.mpy"]) is None
    assert plan.foreign_package(["report.mpy", "other.py"]) == "other"


@pytest.mark.slow
@pytest.mark.parametrize("source", [True, False], ids=["source", "dist"])
def test_mip_brings_the_same_files(desk: Desk, tmp_path: Path, source: bool) -> None:
    if not source:
        dist.write(Console(quiet=True), tmp_path / "dist")
    image = desk.flash({"main.py": MAIN})
    with desk.board(image) as board, served(PROJECT if source else tmp_path / "dist") as url:
        mpremote(board.port, "mip", "install", "--target", "/", f"{url}/package.json")
        by_mip = flash.read_tree(image)
        desk.type("deploy", board.port, *(["--src"] if source else []))
    by_deploy = flash.read_tree(image)
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in by_deploy.items()}
    del sums["/ota.json"]
    assert {name: hashlib.sha256(data).hexdigest() for name, data in by_mip.items()} == sums
    assert by_deploy == expected(source, main=MAIN)


def test_package_json_names_every_file() -> None:
    assert PACKAGE.read_text() == dist.source_package(), "run make dist"
    for name, source in json.loads(PACKAGE.read_text())["urls"]:
        assert (PROJECT / source).read_bytes()
        assert source == f"firmware/{name}"


def test_romfs_writes_an_image(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "own.bin").write_bytes(b"mine")
    out = tmp_path / "new" / "ota.romfs"
    seen = desk.type("romfs", None, "--out", str(out), "--more", str(tmp_path / "more"))
    assert out.read_bytes() == romfs.build(firmware.FIRMWARE, tmp_path / "more")
    assert f"{len(out.read_bytes())} bytes, agent {firmware.version()}" in seen
    assert "no folder" in desk.type("romfs", None, "--more", str(tmp_path / "none"), code=2)


def test_status_knows_an_agent_in_romfs() -> None:
    told = {"version": "1.2", "file": "/rom/lib/ota/__init__.mpy"}
    assert status._agent(None, told) == "1.2, in the firmware's ROMFS"


def test_an_agent_in_the_firmware_needs_boot_and_config(desk: Desk, tmp_path: Path) -> None:
    rom = tmp_path / "ota.romfs"
    rom.write_bytes(romfs.build(firmware.FIRMWARE))
    image = desk.flash({"main.py": MAIN})
    with desk.board(image) as board:
        before = image.read_bytes()
        seen = desk.type("deploy", board.port, "--agent", "firmware", code=2)
        assert "has no agent that loads: ImportError" in seen
        assert image.read_bytes() == before
    with desk.board(image, romfs=rom) as board:
        for end in ("verified by SHA-256 on the board", "all of it was there already"):
            seen = desk.type("deploy", board.port, "--agent", "firmware")
            assert f"agent    {firmware.version()} in the firmware" in seen
            assert end in seen
        seen = desk.type("status", board.port)
        assert "in the firmware's ROMFS" in seen
        assert "boot.py  ours" in seen
    whole = {"/boot.py": firmware.boot(), "/ota.json": CONFIG, "/main.py": MAIN}
    assert flash.read_tree(image) == whole
    assert not [folder for folder in flash.read_folders(image) if folder.startswith("/ota")]


def test_an_agent_on_flash_would_hide_that_of_the_firmware(desk: Desk) -> None:
    files = {"/ota/agent.mpy": [1, "x"]}
    found = plan.Found("m", [1], 6, False, 4096, 1 << 20, ["/ca.der"], None, None, files)
    with pytest.raises(DeployError, match="insigh-ota undeploy"):
        plan.check_firmware(found, {"version": "1"})


def manifest() -> tuple[dict, list]:
    """What manifest.py asks of the firmware's build."""
    told: dict = {}
    packages: list = []
    names = {
        "metadata": lambda **given: told.update(given),
        "package": lambda *names, **given: packages.append((names, given)),
    }
    exec((PROJECT / "manifest.py").read_text(), names)
    return told, packages


def test_versions_are_equal_everywhere() -> None:
    pyproject = re.search(r'^path = "(.+)"$', (PROJECT / "pyproject.toml").read_text(), re.M)
    assert pyproject
    version = re.search(r'^__version__ = "(.+)"$', (PROJECT / pyproject[1]).read_text(), re.M)
    change_log = re.search(r"^## (\S+)", (PROJECT / "CHANGELOG.md").read_text(), re.M)
    versions = {
        firmware.version(),
        version[1],
        change_log[1],
        json.loads(PACKAGE.read_text())["version"],
        manifest()[0]["version"],
    }
    assert len(versions) == 1, versions


def test_the_manifest_freezes_the_package_and_not_boot() -> None:
    ((names, options),) = manifest()[1]
    assert names == ("ota",)
    assert (PROJECT / options["base_path"] / "ota/__init__.py").is_file()


# By the words of the README


def make(*arguments: str) -> subprocess.CompletedProcess:
    """Run make, whose virtual environment is this one."""
    command = ["make", "-s", "-o", ".venv/.ready", f"BIN={Path(sys.executable).parent}"]
    return subprocess.run(
        [*command, *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "words",
    [
        "deploy SRC=1 BOOT=keep TRIAL=keep",
        "status STAY=1",
        "undeploy",
        "ca CA=README.md",
        "ca HOST=localhost",
    ],
)
def test_make_hands_on_what_was_said(words: str) -> None:
    done = make(*words.split(), "PORT=/dev/none")
    command = words.split()[0]
    assert f"{command}: /dev/none is no port" in done.stderr
    assert done.stdout == ""
    assert done.returncode


@pytest.mark.slow
def test_make_without_a_port() -> None:
    assert "deploy: which port? Say --port DEVICE (make: PORT=…)" in make("deploy").stderr
    assert "ca: which trust anchor? Say --host SERVER" in make("ca", "PORT=/dev/none").stderr
    assert "BOOT=keep or replace" in re.sub(r"  +[0-9]* ?s?\s+", " ", make("help").stdout)
