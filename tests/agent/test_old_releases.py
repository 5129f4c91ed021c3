"""The device code uses nothing that an older MicroPython than today's does not have.

The simulator runs one release, and `mpy-cross` of the others sees the syntax only: tools/features
reads the code instead. docs/limits.md has its rules as a table.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.features import __main__ as features
from tools.features.__main__ import ROOT, device_files, found, own_modules
from tools.features.rules import RULES
from tools.features.table import ATTRIBUTES, MODULES, NEVER, NEWER

FILES = device_files()
OWN = own_modules(FILES)


def planted(name: str) -> str:
    """Code that uses a name of the table NEWER."""
    module, _, attribute = name.partition(".")
    return f"import {module}\n{name}" if attribute else f"import {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_device_code_runs_on_1_22(path: Path):
    assert found(path.read_text(), OWN) == []


def test_all_that_runs_on_nodes_is_looked_at():
    names = {path.relative_to(ROOT).as_posix() for path in FILES}
    some = ("firmware/boot.py", "firmware/ota/package/inflate.py", "examples/wifi.py")
    assert names.issuperset((*some, "insighio/node/ota_insighio/arrive.py"))


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_catches_what_it_is_for(rule: str):
    release, _, _, code = RULES[rule]
    assert (rule, release) in {(use.what, use.release) for use in found(code)}


@pytest.mark.parametrize("name", NEWER)
def test_each_newer_name_is_caught(name: str):
    uses = {(use.what.removeprefix("the module "), use.release) for use in found(planted(name))}
    assert (name, NEWER[name]) in uses


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_each_attribute_is_caught(name: str):
    uses = {(use.what, use.release) for use in found(f"x.{name}(y)")}
    assert ("." + name, ATTRIBUTES[name]) in uses


@pytest.mark.parametrize(
    "code",
    [
        "import functools",
        "import marshal",
        "from os import path",
        "import os\nos.walk('/')",
        "import sys as s\ns.settrace(f)",
        "import errno\nerrno.ENOSPC",
        "x.removeprefix('a')",
        "x.bit_length()",
        "raise TimeoutError",
        "vars(x)",
    ],
)
def test_what_no_esp32_has(code: str):
    assert [use.release for use in found(code)] == [NEVER]


@pytest.mark.parametrize("module", [name for name, known in MODULES.items() if known])
def test_what_1_22_has_in_a_module_is_not_refused(module: str):
    known = sorted(MODULES[module] or ())
    code = f"import {module}\n" + "\n".join(f"{module}.{name}" for name in known)
    assert found(code) == []
    assert found(f"from {module} import {', '.join(known)}") == []


def test_what_1_22_has_is_not_refused():
    sound = """
import json, os
import umqtt.simple as umqtt
from .errors import X
next(x), iter(x), int.from_bytes(x, 'big'), x.to_bytes(4, 'big'), x.decode(), str(x, 'utf-8')
x.split(b' ', 1), max(a, b, key=c), x.startswith('a', 1), umqtt.MQTTClient, os.stat
c.load_verify_locations(cadata=data)

def f(format):
    return format
"""
    assert found(sound) == []


@pytest.mark.parametrize(
    "code",
    [
        "try:\n import vfs\nexcept ImportError:\n import os as vfs",
        "try:\n next(x, None)\nexcept (TypeError, ValueError):\n pass",
        "try:\n import micropython\n micropython.RingIO\nexcept AttributeError:\n pass",
        "import esp32\nif hasattr(esp32, 'PCNT'):\n esp32.PCNT(0)",
        "import sys\nif sys.implementation[1] >= (1, 26):\n x.MSG, x.toggle()",
        "import sys\ny = x.toggle() if sys.implementation.version > (1, 24) else 0",
    ],
)
def test_a_guarded_use_is_not_refused(code: str):
    assert found(code) == []


@pytest.mark.parametrize(
    "code",
    [
        "try:\n import vfs\nexcept Exception:\n pass",
        "try:\n import vfs\nexcept AttributeError:\n pass",
        "try:\n pass\nexcept ImportError:\n import vfs",
        "import esp32\nif hasattr(esp32, 'PCNT'):\n pass\nelse:\n esp32.PCNT(0)",
        "try:\n f'{x}'\nexcept SyntaxError:\n pass",
    ],
)
def test_what_is_no_guard(code: str):
    assert len(found(code)) == 1


def test_of_a_newer_release_less_is_new():
    code = planted("vfs") + "\nnext(x, None)\nvfs.rom_ioctl(1)"
    assert [len(found(code, release=f"1.{minor}")) for minor in (22, 23, 24, 25)] == [3, 2, 2, 1]


def test_lint_fails_where_something_is_planted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    (tmp_path / "firmware").mkdir()
    (tmp_path / "firmware" / "x.py").write_text("import time\nnext(x, None)\n")
    monkeypatch.setattr(features, "ROOT", tmp_path)
    assert features.main() == 1
    assert capsys.readouterr().out == (
        "firmware/x.py:2: `next(iterator, default)`: from 1.25 on\n"
    )


def test_lint_runs_it():
    recipe = (ROOT / "Makefile").read_text().split("\nlint:")[1].split("\n\n")[0]
    assert "-m tools.features" in recipe
    command = [sys.executable, "-m", "tools.features"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_the_page_has_these_rules():
    text = (ROOT / "docs" / "limits.md").read_text()
    table = text.split("### What older releases do not have")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| ([\d.]+|none) \|$", table, re.MULTILINE)
    assert rows == features.rows()
