"""Images of a node's flash: built, listed, extracted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from host_sim.errors import SimError
from host_sim.node import flash

PROJECT = Path(__file__).parents[2]


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.fixture
def firmware(tmp_path: Path) -> Path:
    files = {"boot.py": b"import ota\n", "ota/__init__.py": b"x = 1\n", "ota/a.py": b"y = 2\n"}
    return write(tmp_path / "firmware", files)


@pytest.mark.check
def test_round_trip(tmp_path: Path) -> None:
    files = {"main.py": b"pass\n", "lib/deep/x.bin": bytes(range(256)) * 40, "empty": b""}
    root = write(tmp_path / "root", files)
    (root / "bare").mkdir()
    image = tmp_path / "node.img"
    flash.build(root, image, agent=False)
    assert flash.image_blocks(image) == 512
    assert flash.read_tree(image) == {"/" + name: content for name, content in files.items()}
    assert flash.read_folders(image) == ["/bare", "/lib", "/lib/deep"]
    assert ("/lib/deep/x.bin", 10240) in flash.listing(image)
    assert flash.extract(image, tmp_path / "out") == 3
    for name, content in files.items():
        assert (tmp_path / "out" / name).read_bytes() == content
    assert (tmp_path / "out" / "bare").is_dir()


def test_agent_lies_under_the_folder(tmp_path: Path, firmware: Path) -> None:
    root = write(tmp_path / "root", {"boot.py": b"mine\n", "ota/a.mpy": b"mine too"})
    image = tmp_path / "node.img"
    flash.build(root, image, blocks=32, firmware=firmware)
    tree = flash.read_tree(image)
    assert tree["/boot.py"] == b"mine\n"
    assert tree["/ota/__init__.py"] == b"x = 1\n"
    # A source beside the folder's own compiled module would win over it on the node.
    assert "/ota/a.py" not in tree
    flash.build(root, image, blocks=32, agent=False)
    assert set(flash.read_tree(image)) == {"/boot.py", "/ota/a.mpy"}


def test_agent_compiled(tmp_path: Path, firmware: Path) -> None:
    root = write(tmp_path / "root", {"ota/a.py": b"mine\n"})
    image = tmp_path / "node.img"
    flash.build(root, image, blocks=32, mpy=True, firmware=firmware)
    tree = flash.read_tree(image)
    assert set(tree) == {"/boot.py", "/ota/__init__.mpy", "/ota/a.py"}
    assert tree["/ota/__init__.mpy"][:2] == b"M\x06"
    assert tree["/boot.py"] == b"import ota\n"


def test_clear_errors(tmp_path: Path, firmware: Path) -> None:
    image = tmp_path / "node.img"
    with pytest.raises(SimError, match="no flash image"):
        flash.read_tree(image)
    image.write_bytes(b"x" * 100)
    with pytest.raises(SimError, match="not whole blocks"):
        flash.read_tree(image)
    image.write_bytes(b"\xff" * flash.BLOCK * 8)
    with pytest.raises(SimError, match="does not mount"):
        flash.read_tree(image)
    for read in (flash.read_tree, flash.listing, flash.image_blocks):
        with pytest.raises(SimError, match="is a folder, and no flash image"):
            read(tmp_path)
    with pytest.raises(SimError, match="no folder"):
        flash.build(tmp_path / "nothing", image)
    for blocks in (-3, 0, 1, 1 << 30):
        with pytest.raises(SimError, match=f"{blocks} blocks: a flash has 2 to 65536"):
            flash.build(None, image, blocks=blocks)
    root = write(tmp_path / "big", {"x": bytes(9 * flash.BLOCK)})
    with pytest.raises(SimError, match="into 8 blocks"):
        flash.build(root, image, blocks=8, agent=False)
    write(firmware, {"ota/bad.py": b"def\n"})
    with pytest.raises(SimError, match=r"ota\.bad does not compile"):
        flash.build(None, image, mpy=True, firmware=firmware)


@pytest.mark.parametrize("name", ["..", "a\\..\\b"])
def test_extract_stays_inside(tmp_path: Path, name: str, monkeypatch) -> None:
    image = tmp_path / "node.img"
    flash.build(None, image, blocks=8, agent=False)
    monkeypatch.setattr(flash, "read_tree", lambda _: {f"/{name}/evil": b"x"})
    with pytest.raises(SimError, match="outside"):
        flash.extract(image, tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_extract_follows_no_link_outside(tmp_path: Path) -> None:
    root = write(tmp_path / "root", {"link/evil": b"x"})
    image = tmp_path / "node.img"
    flash.build(root, image, blocks=8, agent=False)
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(outside)
    with pytest.raises(SimError, match="outside"):
        flash.extract(image, tmp_path / "out")
    assert list(outside.iterdir()) == []


@pytest.mark.slow
def test_command_line(tmp_path: Path) -> None:
    root = write(tmp_path / "root", {"main.py": b"pass\n"})
    image = tmp_path / "node.img"

    def command(*arguments: object) -> str:
        line = [sys.executable, "-m", "host_sim", "flash", *map(str, arguments)]
        return subprocess.run(line, cwd=PROJECT, check=True, capture_output=True, text=True).stdout

    made = command("build", "--root", root, "--out", image, "--blocks", 16, "--no-agent")
    assert json.loads(made) == {"image": str(image), "blocks": 16, "files": 1}
    assert command("ls", image).split() == ["5", "/main.py"]
    command("extract", image, tmp_path / "out")
    assert (tmp_path / "out" / "main.py").read_bytes() == b"pass\n"
