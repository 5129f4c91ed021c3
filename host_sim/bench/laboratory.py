"""Where figures are taken: the compiled agent, and runs of `inside/` in the interpreter."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from host_sim.errors import SimError
from host_sim.node import stock
from host_sim.node.agent_code import compile_all
from host_sim.node.flash import FIRMWARE
from host_sim.node.node import CodeResult, run_code
from host_sim.node.process import compile_mpy
from host_sim.sample import Tree

INSIDE = Path(__file__).parent / "inside"
KB = 1024
#: Where the agent lies that is measured: for all but the first the interpreter has to hold it.
FLASH, ROMFS, FROZEN = "flash", "ROMFS", "frozen"
_MOUNT = """
import sys, vfs
from romfs_image import IMAGE
vfs.mount(vfs.VfsRom(IMAGE), "/rom")
sys.path.append("/rom/lib")
del IMAGE, sys.modules["romfs_image"]
"""


class Laboratory:
    """A scratch folder with all that is compiled once; end it with `close` or `with`.

    `firmware` is the folder whose agent is measured; `where` it lies: FLASH, or ROMFS or FROZEN on
    an interpreter of :mod:`host_sim.bench.built`.
    """

    def __init__(self, firmware: Path = FIRMWARE, where: str = FLASH) -> None:
        self.where = where
        self._scratch = tempfile.TemporaryDirectory()
        self.folder = Path(self._scratch.name)
        self.firmware = firmware
        self.agent = self.folder / "agent"
        self.inside = self.folder / "inside"
        compile_all(firmware, self.agent)
        for source in sorted(INSIDE.glob("*.py")):
            compile_mpy(source, self.inside / f"{source.stem}.mpy", source.name)
        # Stock firmware has it frozen.
        umqtt = stock.ensure() / "umqtt" / "simple.py"
        compile_mpy(umqtt, self.folder / "stock" / "umqtt" / "simple.mpy", "simple.py")

    def __enter__(self) -> Laboratory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the scratch folder."""
        self._scratch.cleanup()

    def agent_tree(self) -> Tree:
        """The agent as it lies on flash: compiled, `boot.py` as source, which always does."""
        boot = {"boot.py": (self.firmware / "boot.py").read_bytes()}
        if self.where != FLASH:
            return boot
        modules = sorted(self.agent.rglob("*.mpy"))
        return {m.relative_to(self.agent).as_posix(): m.read_bytes() for m in modules} | boot

    def bundle(self, name: str, **trees: Tree | bytes) -> str:
        """Write trees, and packages, where `inside/measure.py` finds them; returns the folder."""
        folder = self.folder / "bundles" / name
        folder.mkdir(parents=True, exist_ok=True)
        index = {}
        for key, tree in trees.items():
            files = {"": tree} if isinstance(tree, bytes) else tree
            index[key] = [[path, len(content)] for path, content in files.items()]
            (folder / key).write_bytes(b"".join(files.values()))
        (folder / "index.json").write_text(json.dumps(index))
        return str(folder)

    def measure(self, function: str, *arguments: object, timeout_s: float = 600) -> Any:
        """What a function of `inside/measure.py` prints last, from JSON."""
        call = ", ".join(map(repr, arguments))
        result = run_code(
            f"import measure\nmeasure.{function}({call})",
            path=[self.inside, self.agent],
            heap="128M",
            timeout_s=timeout_s,
        )
        lines = result.output.strip().splitlines()
        try:
            return json.loads(lines[-1])
        except (ValueError, IndexError) as error:
            raise SimError(f"bench: {function} failed: {result.output[-600:]}") from error

    def bare(self, module: str, call: str, heap: str, timeout_s: float = 60) -> CodeResult:
        """Run a call of a module of `inside/` in the bare interpreter, with this heap."""
        return run_code(
            # An interpreter's own frozen umqtt, where it has one, comes before ours.
            f"{_MOUNT if self.where == ROMFS else ''}\n"
            f"import sys;sys.path.append('./stock');import {module};{module}.{call}",
            # A module's path is in RAM: a figure must not depend on the name of our folder.
            path=["./inside"] + ["./agent"] * (self.where == FLASH),
            cwd=self.folder,
            heap=heap,
            timeout_s=timeout_s,
        )


def on_flash(tree: Tree) -> Tree:
    """A tree by absolute paths."""
    return {"/" + name: content for name, content in tree.items()}
