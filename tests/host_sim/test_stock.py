"""The download of what stock firmware has."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from pathlib import Path

import pytest

from host_sim.errors import SimError
from host_sim.node import stock


def sdist(path: Path, name: str = "p-1/umqtt/simple.py") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 3
        tar.addfile(member, io.BytesIO(b"x=1"))
    return path


def pin(monkeypatch, path: Path) -> None:
    monkeypatch.setattr(stock, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())


def test_install(tmp_path: Path, monkeypatch) -> None:
    archive = sdist(tmp_path / "a.tar.gz")
    pin(monkeypatch, archive)
    stock.install(archive, tmp_path / "node_stock")
    assert (tmp_path / "node_stock/umqtt/simple.py").read_bytes() == b"x=1"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar.gz", "node_stock"]


def test_wrong_digest_installs_nothing(tmp_path: Path) -> None:
    with pytest.raises(SimError, match="sha256"):
        stock.install(sdist(tmp_path / "a.tar.gz"), tmp_path / "node_stock")
    assert not (tmp_path / "node_stock").exists()


def test_module_missing(tmp_path: Path, monkeypatch) -> None:
    archive = sdist(tmp_path / "a.tar.gz", "p-1/other.py")
    pin(monkeypatch, archive)
    with pytest.raises(SimError, match=r"holds no umqtt/simple\.py"):
        stock.install(archive, tmp_path / "node_stock")


def test_no_network(tmp_path: Path, monkeypatch) -> None:
    class Index:
        def __enter__(self):
            raise OSError("no route")

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("pypi_simple.PyPISimple", Index)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(SimError, match=r"cannot download .*: no route"):
        stock.ensure()
    assert list(tmp_path.iterdir()) == []


def test_second_use_downloads_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    (tmp_path / "node_stock/umqtt").mkdir(parents=True)
    (tmp_path / "node_stock/umqtt/simple.py").write_text("x=1")
    monkeypatch.setattr(stock, "_download", None)
    assert stock.ensure() == tmp_path / "node_stock"
