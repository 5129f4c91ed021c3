"""Hooks before every statement of a module: where a node can be interrupted by a keyboard.

The interpreter can not trace lines. So the source gets a call before each statement, of a module
`_keys` that a node with ``Node(hooks=True)`` finds whatever its ``sys.path`` is.

A soft reset is modelled as the end of the boot. A board also closes the files that were open,
which writes what was buffered; here that is lost, as in a power cut between two operations.
"""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

from host_sim.node import flash

#: What can happen at a hook: see Node.run's `interrupt`.
CTRL_C, SOFT_RESET = "ctrl_c", "soft_reset"
#: As tools send it: the second one comes at the next hook.
CTRL_C_TWICE = "ctrl_c_twice"
KINDS = (CTRL_C, SOFT_RESET, CTRL_C_TWICE)
#: What runs before anything else of the node, and can leave a tree between old and new.
BOOT_PATH = ("boot.py", "ota/recovery.py")
# No private name: those are shortened when the agent is compiled.
_HOOK = "hook"


def instrument(source: bytes, counted: bool = True) -> bytes:
    """The module with a call before each statement; comments are lost, lines are others.

    Only hooks of `counted` modules have numbers. The others are where a key takes effect that was
    pressed during an operation of the flash.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list) and not isinstance(node, ast.ClassDef):
                setattr(node, name, _hooked(block))
    what = "hit" if counted else "tap"
    at = 1 if ast.get_docstring(tree, clean=False) is not None else 0
    # An import would not find it while sys.path is empty. A builtin as well, for what runs on when
    # recovery has cleared its globals.
    header = f"{_HOOK} = __import__('sys').modules['_keys'].{what}"
    if counted:
        header += f"\n__import__('builtins').{_HOOK} = {_HOOK}"
    tree.body[at:at] = ast.parse(header).body
    return ast.unparse(ast.fix_missing_locations(tree)).encode() + b"\n"


def _hooked(block: list[ast.stmt]) -> list[ast.stmt]:
    found: list[ast.stmt] = []
    for n, statement in enumerate(block):
        docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not (n == 0 and docstring):
            found.append(ast.Expr(ast.Call(ast.Name(_HOOK, ast.Load()), [], [])))
        found.append(statement)
    return found


def instrument_agent(folder: Path, source: Path = flash.FIRMWARE) -> Path:
    """A copy of the agent in `folder` in which every module has hooks."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in folder.rglob("*.py"):
        name = path.relative_to(folder).as_posix()
        path.write_bytes(instrument(path.read_bytes(), name in BOOT_PATH))
    return folder
