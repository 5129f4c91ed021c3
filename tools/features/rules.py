"""What came later than MicroPython 1.22, or never: calls and syntax."""

from __future__ import annotations

import ast
from collections.abc import Callable

from tools.features.table import NEVER, NO_KEYWORDS


def _calls(node: ast.AST, *names: str) -> bool:
    """Whether it calls a function, or a method, of one of these names."""
    if not isinstance(node, ast.Call):
        return False
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", None)
    return name in names


def is_builtin_call(node: ast.AST, name: str) -> bool:
    """Whether it calls the builtin function of this name, and no method."""
    return _calls(node, name) and isinstance(node.func, ast.Name)


def _keyword(name: str, *functions: str) -> Callable[[ast.AST], bool]:
    return lambda node: (
        (not functions or _calls(node, *functions))
        and isinstance(node, ast.Call)
        and any(keyword.arg == name for keyword in node.keywords)
    )


def _syntax(*names: str) -> Callable[[ast.AST], bool]:
    kinds = tuple(getattr(ast, name) for name in names if hasattr(ast, name))
    return lambda node: isinstance(node, kinds)


def _few_bytes(node: ast.AST) -> bool:
    return _calls(node, "from_bytes", "to_bytes") and len(node.args) + len(node.keywords) < 2


def _definition(node: ast.AST) -> bool:
    if isinstance(node, ast.ClassDef):
        return bool(node.keywords)
    return isinstance(node, ast.arguments) and bool(node.posonlyargs)


def _prefixes(node: ast.AST) -> bool:
    if not _calls(node, "startswith", "endswith") or not node.args:
        return False
    most = 2 if _calls(node, "startswith") else 1
    return len(node.args) > most or isinstance(node.args[0], ast.Tuple)


#: (The first release, a test, what it raises where it is missing, or None, what it has to find.)
RULES: dict[str, tuple[str, Callable[[ast.AST], bool], str | None, str]] = {
    "`from_bytes()`, `to_bytes()` with fewer than two arguments": (
        "1.24",
        _few_bytes,
        "TypeError",
        "x.to_bytes(2)",
    ),
    "`next(iterator, default)`": (
        "1.25",
        lambda node: is_builtin_call(node, "next") and len(node.args) != 1,
        "TypeError",
        "next(x, None)",
    ),
    "`startswith()`, `endswith()` with a tuple, or an end": (
        "1.25",
        _prefixes,
        "TypeError",
        "x.endswith(('a', 'b'))",
    ),
    "`__set_name__`": (
        "1.26",
        lambda node: isinstance(node, ast.FunctionDef) and node.name == "__set_name__",
        None,
        "def __set_name__(self, owner, name):\n pass",
    ),
    "`from x import *`, which `__all__` limits": (
        "1.26",
        lambda node: isinstance(node, ast.ImportFrom) and node.names[0].name == "*",
        None,
        "from time import *",
    ),
    "`Timer.init(hard=…)`": ("1.27", _keyword("hard"), "TypeError", "t.init(hard=True)"),
    "`decode()`, `str()` with an error handler": (
        "1.29",
        lambda node: (
            (_calls(node, "decode") and len(node.args) > 1)
            or (is_builtin_call(node, "str") and len(node.args) > 2)
        ),
        "TypeError",
        "x.decode('utf-8', 'x')",
    ),
    "`to_bytes()` with keywords": (
        "1.29",
        lambda node: _calls(node, "to_bytes") and bool(node.keywords),
        "TypeError",
        "x.to_bytes(2, 'big', signed=True)",
    ),
    "`load_verify_locations()` with a file, not `cadata=`": (
        "1.23",
        lambda node: _calls(node, "load_verify_locations") and not _keyword("cadata")(node),
        "TypeError",
        "c.load_verify_locations(name)",
    ),
    "`iter(call, sentinel)`": (
        NEVER,
        lambda node: is_builtin_call(node, "iter") and len(node.args) != 1,
        None,
        "iter(read, b'')",
    ),
    "keywords of builtin functions and methods": (
        NEVER,
        lambda node: (
            (_calls(node, *NO_KEYWORDS) and bool(node.keywords))
            or _keyword("flush", "print")(node)
        ),
        None,
        "x.split(maxsplit=1)",
    ),
    "`match`, `except*`, strings with `t`, type parameters": (
        NEVER,
        _syntax("Match", "TryStar", "TemplateStr", "TypeAlias"),
        None,
        "match x:\n case 1:\n  pass",
    ),
    "`def f(a, /)`, `class A(metaclass=…)`": (NEVER, _definition, None, "def f(a, /):\n pass"),
    "strings with `f`: nested quotes and `!a` are read another way": (
        NEVER,
        _syntax("JoinedStr"),
        None,
        "f'{x}'",
    ),
}
