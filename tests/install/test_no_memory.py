"""Memory that runs out while the agent loads what it needs, which it does again at each check."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_sim.node.node import run_code

SCRIPT = """
import builtins
import ota

ids = {"device_id": "d", "device_key": "k", "control_channel": "c"}
agent = ota.Agent(ids, progress=lambda *_: None)
load = builtins.__import__


def short_of(missing):
    def loading(name, *rest):
        if name == missing:
            raise ERROR
        return load(name, *rest)

    return loading


for step in agent.check, agent.poll:
    step()
    for missing in MISSING:
        agent.retry_at = None
        builtins.__import__ = short_of(missing)
        try:
            end = step()
        except ERROR:
            end = "left to the application"
        builtins.__import__ = load
        print(missing, end)
"""


@pytest.mark.parametrize(
    ("error", "missing"),
    [
        ("MemoryError", ("dial", "wire", "link", "control", "backoff", "machine")),
        # A new version's that does not load.
        ("ImportError", ("dial", "wire", "link", "control")),
    ],
)
def test_it_ends_no_check_but_with_later(agent: Path, error: str, missing: tuple[str, ...]):
    """Whoever calls serve() last would be left at the REPL."""
    script = SCRIPT.replace("ERROR", error).replace("MISSING", repr(missing))
    result = run_code(script, path=[agent])
    assert result.exit_code == 0, result.output
    assert result.output.split("\n")[:-1] == [f"{name} later" for name in missing * 2]
