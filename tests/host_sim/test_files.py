"""What commands write is whole, or not there. A limit of files' sizes stands for a full disk."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_sim import files
from host_sim.board import Board
from host_sim.console.registry import Registry
from host_sim.errors import SimError
from host_sim.node import flash
from insigh_ota.deploy import provision, rom
from insigh_ota.deploy.__main__ import main as deploy
from insigh_ota.deploy.errors import DeployError
from insigh_ota.package.__main__ import main as package

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def full(most: int = 100) -> Iterator[None]:
    """No file can get longer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_takes_nothing(tmp_path: Path) -> None:
    path, link = tmp_path / "a", tmp_path / "link"
    link.symlink_to("a")
    with full(), pytest.raises(SimError, match=r"/a can not be written: File too large"):
        files.write(path, bytes(101))
    assert list(tmp_path.iterdir()) == [link]
    files.write(path, "old")
    path.chmod(0o640)
    with full(), pytest.raises(SimError):
        files.write(path, bytes(101))
    assert path.read_bytes() == b"old"
    files.write(link, "new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()
    files.write(tmp_path / "key", b"k", mode=0o600)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(SimError, match="/dev/full can not be written: No space left on device"):
        files.write(Path("/dev/full"), b"1")


def test_places_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    for path, words in (
        (tmp_path, "it is a folder: name a file in it"),
        (tmp_path / "no/a", "no is no folder: make it first"),
        (tmp_path / "file/a", "file is no folder: make it first"),
    ):
        with pytest.raises(SimError, match=words):
            files.write(path, b"1")
        with pytest.raises(SimError):
            files.place(str(path))
    with pytest.raises(SimError, match="it is there already"):
        files.write(tmp_path / "file", b"1", new=True)
    files.write(tmp_path / "no/a", b"1", parents=True)
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert files.place(str(tmp_path / "x")) == tmp_path / "x"


def test_what_a_full_disk_leaves_of_keys_packages_and_images(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/a").write_bytes(bytes(300))
    out, image = tmp_path / "p.tar", tmp_path / "n.img"
    build = ["build", str(tmp_path / "app"), "--out", str(out)]
    assert package(build) == 0
    flash.build(tmp_path / "app", image, blocks=16, agent=False)
    (tmp_path / "x").mkdir()
    (tmp_path / "x/main.bin").write_bytes(b"old")
    (tmp_path / "app/main.bin").write_bytes(bytes(1001))
    whole = tmp_path / "whole.img"
    flash.build(tmp_path / "app", whole, blocks=16, agent=False)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    capsys.readouterr()
    with full(1000):
        assert package(["keygen", str(tmp_path / "key")]) == 2
        assert package(build) == 2
        with pytest.raises(SimError, match="can not be written"):
            flash.build(tmp_path / "app", image, blocks=16, agent=False)
        with pytest.raises(SimError, match="can not be written"):
            Board(tmp_path / "new.img", blocks=16)
        with pytest.raises(SimError, match="can not be written"):
            files.write(tmp_path / "table", "x" * 2000)
        with pytest.raises(SimError, match=r"x/main\.bin can not be written"):
            flash.extract(whole, tmp_path / "x")
    assert (tmp_path / "x/main.bin").read_bytes() == b"old"
    told = capsys.readouterr().err.splitlines()
    assert [line.rpartition(" can not be")[2] for line in told] == [" written: File too large"] * 2
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_console_knows_only_what_is_on_disk(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.add_device("a", "key", "channel")
    before = (tmp_path / "state.json").read_bytes()
    with full():
        for device in ("a", "b"):
            with pytest.raises(SimError, match=r"state\.json can not be written"):
                registry.add_device(device, "k" * 100, "channel")
        with pytest.raises(SimError, match="can not be written"):
            registry.add_package(bytes(101), None, "01234567")
    assert [device.key for device in registry.devices()] == ["key"]
    assert registry.find_package("01234567") is None
    assert (tmp_path / "state.json").read_bytes() == before
    assert not list((tmp_path / "packages").iterdir())


def test_provisioning_is_refused_before_a_key_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # nobody is asked
    ids = {"device_id": "d", "channel": "c"}
    for path, words in ((tmp_path / "no/a.json", "no is no folder"), (tmp_path, "is a folder")):
        with pytest.raises(DeployError, match=words):
            provision.write(path, **ids)
    monkeypatch.setattr(provision, "_ask_key", lambda _: "k" * 200)
    with full(), pytest.raises(DeployError, match=r"a\.json can not be written: File too large"):
        provision.write(tmp_path / "a.json", **ids)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_package_and_no_image(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"1")
    for words in (["build", str(tmp_path)], ["migrate"]):
        assert package([*words, "--out", "."]) == 2
        assert ": --out .: it is a folder, name a file in it: *.tar" in capsys.readouterr().err
    monkeypatch.setattr(rom.romfs, "build", lambda *_: b"1")
    assert deploy(["romfs", "--out", str(tmp_path)]) == 2
    assert "it is a folder: name a file in it" in capsys.readouterr().err


def test_what_no_command_foresaw_is_one_line_as_well(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom host_sim import ctrl_c\ndef main():\n    %s\nsys.exit(ctrl_c.run(main))"
    )
    for act, line in (
        ("open('/dev/full', 'wb', 0).write(b'1')", "No space left on device: make room there, "),
        (f"open({str(tmp_path / 'x/y')!r}, 'wb')", "x/y: No such file or directory"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code % act],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert line in done.stderr
        assert len(done.stderr.splitlines()) == 1
