"""What is put on a board: the agent of this checkout, compiled or as source, and boot.py."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from pathlib import Path

from host_sim.errors import SimError
from host_sim.node.agent_code import compile_agent
from insigh_ota.deploy.errors import DeployError
from insigh_ota.places import FIRMWARE
from insigh_ota.places import version as version


def modules() -> list[str]:
    """Names of the agent's modules in its folder, such as ``install/journal``, without suffix."""
    agent = FIRMWARE / "ota"
    return sorted(
        path.relative_to(agent).with_suffix("").as_posix() for path in agent.rglob("*.py")
    )


def folders() -> list[str]:
    """Folders inside the agent's folder."""
    return sorted({name.rpartition("/")[0] for name in modules()} - {""})


def boot() -> bytes:
    """Our boot.py, which a board starts as source."""
    return (FIRMWARE / "boot.py").read_bytes()


def agent(source: bool) -> dict[str, bytes]:
    """The files of the package ``ota`` by their name in its folder."""
    if source:
        return {f"{name}.py": (FIRMWARE / f"ota/{name}.py").read_bytes() for name in modules()}
    return {f"{name}.mpy": _compiled(name) for name in modules()}


@functools.cache
def _compiled(name: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="deploy-") as scratch:
        target = Path(scratch) / "out.mpy"
        try:
            compile_agent(FIRMWARE / f"ota/{name}.py", target, f"ota/{name}.py")
        except SimError as error:
            raise DeployError(str(error)) from error
        return target.read_bytes()


def check_abi(files: dict[str, bytes], board: int) -> None:
    """Refuse .mpy that does not load where ``sys.implementation._mpy`` is `board`."""
    for name, content in files.items():
        if not name.endswith(".mpy"):
            continue
        ours, theirs = content[1], board & 0xFF
        if not board:
            raise DeployError(
                "the board's firmware loads no .mpy files: deploy sources, --src (make: SRC=1)"
            )
        if ours != theirs:
            raise DeployError(
                f"the board loads .mpy of ABI {theirs}, these have ABI {ours}: give it newer "
                "firmware, or deploy sources, --src (make: SRC=1)"
            )
        native = content[2] >> 2 & 0x2F
        if native and native != board >> 10 & 0x2F:
            raise DeployError(f"{name} holds machine code for another processor")


def digest(content: bytes) -> str:
    """SHA-256, as the board prints it."""
    return hashlib.sha256(content).hexdigest()
