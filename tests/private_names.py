"""Private names of the agent, for the tests that have to reach behind its public ones."""

from __future__ import annotations

from pathlib import Path

from host_sim.node.agent_code.names import short_names
from host_sim.node.flash import FIRMWARE


def private(agent: Path, module: str, name: str) -> str:
    """What a name of a module is called by the agent in this folder, be it source or compiled."""
    if (agent / f"ota/{module}.py").exists():
        return name
    return short_names((FIRMWARE / f"ota/{module}.py").read_bytes(), module)[name]
