"""``dist``: what ``mip`` installs from, as source (in git) and compiled (in ``dist/``)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from host_sim import files as disk
from insigh_ota.deploy import firmware
from insigh_ota.deploy.errors import DeployError
from insigh_ota.places import CHECKOUT


def package(files: list[tuple[str, str]]) -> str:
    """A mip package of `files`, each ``(path on the node, path beside package.json)``."""
    rows = ",\n  ".join(json.dumps(row) for row in files)
    version = json.dumps(firmware.version())
    return f'{{\n "urls": [\n  {rows}\n ],\n "version": {version}\n}}\n'


def source_package() -> str:
    """The package.json of the checkout."""
    names = ["boot.py", *(f"ota/{name}.py" for name in firmware.modules())]
    return package([(name, f"firmware/{name}") for name in names])


def refresh(terminal: Console) -> None:
    """Bring the checkout's package.json up to date. Raises DeployError where there is none."""
    file = _checkout() / "package.json"
    if file.read_text() != source_package():
        disk.write(file, source_package())
        terminal.print("package.json is up to date now: commit it")


def _checkout() -> Path:
    if CHECKOUT is None:
        raise DeployError("dist is for a checkout of the project: run it there")
    return CHECKOUT


def write(terminal: Console, folder: Path | None = None) -> dict:
    """Make `folder` anew: the compiled agent, boot.py, and a package.json of them.

    folder: None means dist/ of the checkout. Returns what was made, for programs.
    """
    folder = folder or _checkout() / "dist"
    if folder.exists():
        shutil.rmtree(folder)
    files = {"boot.py": firmware.boot()}
    files |= {f"ota/{name}": data for name, data in firmware.agent(source=False).items()}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "package.json").write_text(package([(name, name) for name in files]))
    version = firmware.version()
    terminal.print(
        f"{escape(str(folder))}: {len(files)} files and package.json, version {version}"
    )
    return {"folder": str(folder), "files": len(files), "version": version}
