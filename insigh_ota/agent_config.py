"""The agent's own check of a configuration, run here: no MicroPython is needed for it.

`firmware/ota/config.py` is plain enough for Python; all it wants of MicroPython is `const`.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from insigh_ota.places import FIRMWARE

#: The package that the agent's modules are in here.
_NAME = "insigh_ota._agent"


class ConfigError(Exception):
    """What the agent would say, without its `bad configuration: `."""


def complete(given: Any) -> dict:
    """The configuration with every default filled in. Raises ConfigError."""
    agent = _agent()
    try:
        return agent.complete(given)
    except agent.ConfigError as error:
        raise ConfigError(_plain(error)) from error


def parse(content: bytes) -> dict:
    """The same for the content of a file. Raises ConfigError."""
    try:
        given = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"it is not JSON: {error}") from error
    return complete(given)


def _plain(error: Exception) -> str:
    return str(error).removeprefix("bad configuration: ")


@functools.cache
def _agent() -> types.ModuleType:
    """Its module `config`, under a name of ours."""
    package = types.ModuleType(_NAME)
    package.__path__ = [str(FIRMWARE / "ota")]
    with _modules({_NAME: package, "micropython": _micropython()}):
        spec = importlib.util.find_spec(f"{_NAME}.config")
        if spec is None or spec.loader is None:
            raise FileNotFoundError(2, "the agent is missing", str(FIRMWARE / "ota/config.py"))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def _micropython() -> types.ModuleType:
    module = types.ModuleType("micropython")
    module.const = lambda value: value  # type: ignore[attr-defined]
    return module


@contextmanager
def _modules(known: dict[str, types.ModuleType]) -> Iterator[None]:
    """Python finds these meanwhile, and none of them, or of theirs, afterwards."""
    before = {name: sys.modules.get(name) for name in known}
    writes_none = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # nothing into the folder of the agent
    sys.modules.update(known)
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_none
        for name, module in before.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})
        sys.modules.pop(f"{_NAME}.errors", None)
