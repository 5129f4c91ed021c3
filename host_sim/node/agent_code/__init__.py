"""The agent compiled for the least RAM, with nothing else changed.

A node keeps each name in RAM for good, and each text as long as its module is loaded. So private
names are short and the same in all modules, arguments have names that the firmware has anyway,
and the texts of failures lie together. Line numbers are left out.

All of it is done to one module at a time, by rules that know no other module: a package may bring
some modules of one version to the others of another.
"""

from __future__ import annotations

import functools
from pathlib import Path

from host_sim.node.agent_code.arguments import rename_arguments
from host_sim.node.agent_code.names import shorten_names
from host_sim.node.agent_code.texts import join_texts
from host_sim.node.process import compiled


def compile_all(firmware: Path, target: Path) -> None:
    """Compile each module of `firmware`'s agent into `target`, in the same folders."""
    for source in sorted((firmware / "ota").rglob("*.py")):
        name = source.relative_to(firmware)
        compile_agent(source, target / name.with_suffix(".mpy"), name.as_posix())


def compile_agent(source: Path, target: Path, name: str) -> None:
    """Compile a module of the agent, `name` on the node, for tracebacks by its name in Python.

    A traceback names module and function, and says "line 1": line numbers cost RAM.
    Raises SimError when it does not compile, or breaks a rule that makes its compilation safe.
    """
    short = shorten(source.read_bytes(), name)
    # A node has the module's name in RAM anyway; a path would be one more.
    traced = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(compiled(short, traced, level=3))


@functools.lru_cache(maxsize=128)  # a campaign compiles the same agent for each of its nodes
def shorten(source: bytes, name: str) -> bytes:
    """The source of a module that does the same with less RAM; of what does not parse, itself.

    Raises SimError when it uses a private name that may be another module's, or passes an
    argument by its name.
    """
    try:
        return join_texts(rename_arguments(shorten_names(source, name), name))
    except (SyntaxError, ValueError):
        return source  # the compiler knows better what is wrong
