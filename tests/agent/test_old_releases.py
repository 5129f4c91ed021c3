"""The device code uses nothing that an older MicroPython than today's does not have.

The simulator runs one release, and `mpy-cross` of the others sees the syntax only. What is missing
where was read in MicroPython's sources: py/mpconfig.h, py/modbuiltins.c, py/obj*.c of each tag,
ports/esp32/mpconfigport.h. docs/limits.md has the rules as a table.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "firmware").rglob("*.py"))


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


#: Builtins of an ESP32 with 1.22, beside those that are no functions or types.
BUILTINS = words(
    """
    ArithmeticError AssertionError AttributeError BaseException EOFError Ellipsis Exception
    GeneratorExit ImportError IndentationError IndexError KeyError KeyboardInterrupt
    LookupError MemoryError NameError NotImplemented NotImplementedError OSError OverflowError
    RuntimeError StopAsyncIteration StopIteration SyntaxError SystemExit TypeError
    UnicodeError ValueError ZeroDivisionError __build_class__ __import__ __name__ abs all any
    bin bool bytearray bytes callable chr classmethod compile complex delattr dict dir divmod
    enumerate eval exec execfile filter float frozenset getattr globals hasattr hash help hex
    id input int isinstance issubclass iter len list locals map max memoryview min next object
    oct open ord pow print property range repr reversed round set setattr slice sorted
    staticmethod str sum super tuple type zip
    """
)
#: Methods of its builtin types.
METHODS = words(
    """
    append center count decode encode endswith extend find format fromhex hex index isalpha
    isdigit islower isspace isupper join lower lstrip partition replace rfind rindex
    rpartition rsplit rstrip split splitlines startswith strip upper add clear copy difference
    difference_update discard from_bytes fromkeys get insert intersection intersection_update
    isdisjoint issubset issuperset items keys pop popitem remove reverse setdefault sort
    symmetric_difference symmetric_difference_update to_bytes union update values
    """
)
MODULES = words(
    """
    __main__ array asyncio binascii collections deflate errno esp32 gc hashlib io json machine math
    micropython network os random re select socket ssl struct sys time uctypes umqtt.simple
    """
)
#: Of builtin types and functions that take positional arguments only.
NO_KEYWORDS = words(
    """
    split rsplit splitlines encode decode replace find sum int str bytes bytearray range zip
    round divmod pow getattr isinstance len iter next
    """
)
TYPES = (str, bytes, bytearray, memoryview, list, dict, set, int, float, tuple)
OTHERS = {name for kind in TYPES for name in dir(kind) if not name.startswith("_")} - METHODS


def _name(node: ast.expr) -> str | None:
    """The name that a call calls, of a function or of a method."""
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)


def _next_with_default(node: ast.AST) -> bool:
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return is_call and node.func.id == "next" and len(node.args) != 1


def _iter_with_sentinel(node: ast.AST) -> bool:
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return is_call and node.func.id == "iter" and len(node.args) != 1


def _bytes_of_int(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or _name(node.func) not in ("from_bytes", "to_bytes"):
        return False
    return bool(node.keywords) or len(node.args) != 2


def _decode_errors(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    most = {"decode": 1, "str": 2}.get(_name(node.func) or "", 99)
    return len(node.args) > most


def _keywords(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and bool(node.keywords) and _name(node.func) in NO_KEYWORDS


def _method(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in OTHERS


def _is_bound(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _builtin(node: ast.AST) -> bool:
    if not isinstance(node, ast.Name) or node.id.startswith("_"):
        return False
    return hasattr(builtins, node.id) and node.id not in BUILTINS


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [node.module or ""]
    return []


def _other_module(node: ast.AST) -> bool:
    own = ("ota", "ota.recovery", "recovery", "vfs")
    return any(name not in MODULES and name not in own for name in _imported(node))


def _attribute(*names: str):
    return lambda node: isinstance(node, ast.Attribute) and node.attr in names


def _definition(node: ast.AST) -> bool:
    if isinstance(node, ast.ClassDef):
        return bool(node.keywords)
    return isinstance(node, ast.arguments) and bool(node.posonlyargs)


def _syntax(*names: str):
    kinds = tuple(getattr(ast, name) for name in names if hasattr(ast, name))
    return lambda node: isinstance(node, kinds)


NEVER = "none"
#: What it is, as in docs/limits.md: (the first release that has it, a test, what it has to catch).
RULES = {
    "`next(iterator, default)`": ("1.25", _next_with_default, "next(x, None)"),
    "`from_bytes()`, `to_bytes()` with keywords or defaults": (
        "1.29",
        _bytes_of_int,
        "int.from_bytes(x, 'big', signed=True)",
    ),
    "`decode()`, `str()` with an error handler": (
        "1.29",
        _decode_errors,
        "x.decode('utf-8', 'x')",
    ),
    "`import vfs`": ("1.23", lambda node: "vfs" in _imported(node), "import vfs"),
    "`VfsRom`": ("1.25", _attribute("VfsRom"), "os.VfsRom(x)"),
    "`micropython.RingIO`": ("1.24", _attribute("RingIO"), "micropython.RingIO(9)"),
    "`sys.implementation._build`": ("1.25", _attribute("_build"), "sys.implementation._build"),
    "`__set_name__`": (
        "1.26",
        lambda node: isinstance(node, ast.FunctionDef) and node.name == "__set_name__",
        "def __set_name__(self, owner, name):\n pass",
    ),
    "`Timer.init(hard=…)`": (
        "1.27",
        lambda node: isinstance(node, ast.keyword) and node.arg == "hard",
        "t.init(period=1, hard=True)",
    ),
    "`iter(call, sentinel)`": (NEVER, _iter_with_sentinel, "iter(read, b'')"),
    "keywords of builtin functions and methods": (NEVER, _keywords, "x.split(maxsplit=1)"),
    "methods such as `removeprefix`, `zfill`, `ljust`, `isalnum`, `bit_length`": (
        NEVER,
        _method,
        "x.removeprefix('a')",
    ),
    "builtins such as `format`, `vars`, `TimeoutError`": (NEVER, _builtin, "raise TimeoutError"),
    "modules that an ESP32 has not built in": (NEVER, _other_module, "import functools"),
    "`match`, `except*`, strings with `t`, type parameters": (
        NEVER,
        _syntax("Match", "TryStar", "TemplateStr", "TypeAlias"),
        "match x:\n case 1:\n  pass",
    ),
    "`def f(a, /)`, `class A(metaclass=…)`": (NEVER, _definition, "def f(a, /):\n pass"),
    "strings with `f`: nested quotes and `!a` are read another way": (
        NEVER,
        _syntax("JoinedStr"),
        "f'{x}'",
    ),
}


def found(source: str) -> Iterator[tuple[str, int]]:
    """(rule, line) of all in a source that an older release does not have."""
    tree = ast.parse(source)
    own = {node.id for node in ast.walk(tree) if _is_bound(node)}
    own |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in own:
            continue
        for rule, (_, breaks, _) in RULES.items():
            if breaks(node):
                yield rule, getattr(node, "lineno", 0)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_device_code_runs_on_1_22(source: Path):
    assert list(found(source.read_text())) == []


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_catches_what_it_is_for(rule: str):
    assert rule in {name for name, _ in found(RULES[rule][2])}


def test_what_1_22_has_is_not_refused():
    sound = """
import json, os
from .errors import X
next(x), iter(x), int.from_bytes(x, 'big'), x.to_bytes(4, 'big'), x.decode(), str(x, 'utf-8')
x.split(b' ', 1), max(a, b, key=c)

def f(format):
    return format
"""
    assert list(found(sound)) == []


def test_the_page_has_these_rules():
    text = (ROOT / "docs" / "limits.md").read_text()
    table = text.split("### What older releases do not have")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| ([\d.]+|none) \|$", table, re.MULTILINE)
    assert dict(rows) == {rule: release for rule, (release, *_) in RULES.items()}
