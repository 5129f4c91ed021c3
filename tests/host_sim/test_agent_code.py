"""What changes when the agent is compiled: private names, and what all changes leave as it is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from host_sim import sample
from host_sim.errors import SimError
from host_sim.node import flash, process
from host_sim.node.agent_code import shorten
from host_sim.node.agent_code.names import short_names, shorten_names
from host_sim.node.flash import FIRMWARE
from host_sim.node.node import run_code
from insigh_ota.deploy import firmware
from insigh_ota.package.sources import Selection
from insigh_ota.package.transform import apply
from tests.conftest import MakeSite

AGENT = FIRMWARE / "ota"
SOURCES = {path.stem: path.read_bytes() for path in sorted(AGENT.rglob("*.py"))}
#: Their names inside the package.
MODULES = sorted(
    ".".join(path.relative_to(AGENT).with_suffix("").parts)
    for path in AGENT.rglob("*.py")
    if path.stem != "__init__"
)

SOURCE = '''\
"""A module: `_value` in words stays, as `_GONE` does, which no .mpy has."""

from micropython import const
from .errors import _name_of

_GONE = const(7)
_1 = 0


class _Private:
    def __init__(self, value, _given=None):
        self._value = value  # _value
        self._spelled = getattr(self, "_spelled", _given)

    def _more(self): return "ä", self._value + self._value, __name__, self._more


def make(*_):
    return _name_of(_Private(_given=_1))
'''
SHORT = '''\
"""A module: `_value` in words stays, as `_GONE` does, which no .mpy has."""


from .errors import _name_of

_GONE = const(7)
_2 = 0


class _3:
    def __init__(self, value, _given=None):
        self._0 = value  # _value
        self._spelled = getattr(self, "_spelled", _given)

    def _4(self): return "ä", self._0 + self._0, __name__, self._4


def make(*_):
    return _name_of(_3(_given=_2))
'''
FAMILY = "from .control import Control\n\nclass Borrowed(Control):\n    _open = 1\n"


#: The compiler does without it, and no module that is compiled has that name.
CONST = "from micropython import const"


def test_what_is_shortened():
    assert shorten_names(SOURCE.encode(), "x").decode() == SHORT
    returns = SOURCE.replace("\n", "\r\n").encode()
    assert shorten_names(returns, "x").decode() == SHORT.replace("\n", "\r\n")


def test_what_does_not_parse_is_left_to_the_compiler():
    assert shorten(b"_x = = 1\n", "x") == b"_x = = 1\n"


def test_a_class_with_a_base_in_another_module_stays():
    """Else its names could be the short ones of the other module's class."""
    assert shorten_names(FAMILY.encode(), "x") == FAMILY.encode()
    local = FAMILY.replace("from .control import Control", "class Control: pass")
    assert b"_open" not in shorten_names(local.encode(), "x")


@pytest.mark.parametrize(
    "line",
    ["agent._hook()", "self._hook = agent._hook", "self._limits.step()", "control._open = 1"],
)
def test_the_private_name_of_another_module_is_refused(line: str):
    source = f"def f(self, agent, control):\n    {line}\n"
    with pytest.raises(SimError, match=r"ota/x\.py, line 2: _\w+ may be another module's"):
        shorten(source.encode(), "ota/x.py")


def clashes(sources: dict[str, bytes]) -> set[str]:
    """Private names in modules of one family of classes, of which one would hide the other."""
    found = set()
    for source in sources.values():
        tree = ast.parse(source)
        bases = {
            ast.unparse(b) for c in ast.walk(tree) if isinstance(c, ast.ClassDef) for b in c.bases
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and bases & {name.name for name in node.names}:
                found |= private(source) & private(sources.get(node.module or "", b""))
    return found


def private(source: bytes) -> set[str]:
    """Private attributes and methods."""
    names = re.findall(rb"(?:self\.|super\(\)\.|    def )(_[a-z]\w*)", source)
    return {name.decode() for name in names}


def test_no_module_needs_anothers_private_names():
    for name, source in SOURCES.items():
        shorten(source, name)
    assert clashes(SOURCES) == set()


def test_a_name_that_would_hide_anothers_is_seen():
    planted = SOURCES["borrowed"].replace(b"self._theirs", b"self._wait")
    assert clashes(SOURCES | {"borrowed": planted}) == {"_wait"}


def test_all_but_private_names_stays_in_its_place():
    for name, source in SOURCES.items():
        names = short_names(source, name)
        assert len(set(names.values())) == len(names)
        back = {short: long for long, short in names.items()}
        lines = shorten_names(source, name).decode().split("\n")
        for line, old in zip(lines, source.decode().split("\n"), strict=True):
            if old == CONST:
                assert line == ""
                continue
            assert re.sub(r"\b_\w+", lambda m, back=back: back.get(m[0], m[0]), line) == old


def test_modules_share_their_short_names():
    shorter = [short_names(source, name) for name, source in SOURCES.items()]
    long = {name for names in shorter for name in names}
    short = {name for names in shorter for name in names.values()}
    assert len(long) > 150
    assert len(short) < 50
    assert max(map(len, short)) == 3


@pytest.mark.check
def test_public_names_are_the_same(compiled: Path):
    code = """
for module in MODULES:
    module = __import__("ota." + module, None, None, ("x",))
    for name in sorted(dir(module)):
        if name[0] != "_":
            print(module.__name__, name)
            thing = getattr(module, name)
            if isinstance(thing, type):
                print(sorted(each for each in dir(thing) if each[0] != "_" or each[:2] == "__"))
"""
    code = f"MODULES = {MODULES!r}\n{code}"
    outputs = [run_code(code, path=[p], heap="2M").output for p in (FIRMWARE, compiled)]
    assert re.sub(r"(?m)^\S+ const\n", "", outputs[0]) == outputs[1]
    assert "ota.install.staging Staging\n" in outputs[0]


def test_a_traceback_of_the_source_has_the_line_and_a_compiled_one_the_module(compiled: Path):
    code = "from ota import request\nrequest.read(1, 0)\n"
    line = SOURCES["request"].decode().split("\n").index("    if not payload:") + 3
    outputs = [run_code(code, path=[p], heap="2M").output for p in (FIRMWARE, compiled)]
    assert re.search(rf'ota/request\.py", line {line}, in parse', outputs[0]), outputs[0]
    assert 'File "ota.request", line 1, in parse' in outputs[1], outputs[1]


@pytest.mark.parametrize("odd", [0, 1])
def test_modules_of_another_compilation_are_no_others(make_site: MakeSite, odd: int):
    """A package may bring some modules of one version to the others of another."""
    paths = [path.relative_to(AGENT) for path in sorted(AGENT.rglob("*.py"))]
    plain = {
        f"ota/{path.with_suffix('.mpy')}": process.compiled((AGENT / path).read_bytes(), str(path))
        for path in paths[odd::2]
    }
    site = make_site(tls=True, extra=plain)
    assert site.flash_files().items() >= {f"/{name}": code for name, code in plain.items()}.items()
    site.ask(sample.tar_gz({"main.py": sample.main_py(2)}))
    run = site.run()
    assert "version 2 runs" in run.output, run.output
    assert [report["e"] for report in site.reports()] == [1]


def test_whoever_compiles_the_agent_shortens(compiled: Path, tmp_path: Path):
    expected = (compiled / "ota/install/staging.mpy").read_bytes()
    assert b"_copy_bytes" not in expected
    assert firmware.agent(source=False)["install/staging.mpy"] == expected
    flash.build(None, tmp_path / "node.img", mpy=True)
    assert flash.read_tree(tmp_path / "node.img")["/ota/install/staging.mpy"] == expected
    assert packaged(SOURCES["staging"]) == expected
    # Nobody knows what else an agent has of which this is another version.
    assert b"_copy_bytes" in packaged(SOURCES["staging"] + b"\n")


def packaged(source: bytes) -> bytes:
    """What insigh_ota.package makes of it."""
    selection = Selection()
    selection.files["ota/install/staging.py"] = source
    return apply(selection, [], ["*"]).files["ota/install/staging.mpy"]
