"""Private names, shortened.

The private name that a module has most often becomes `_0`, the next `_1`, and so on, so that a
node has the same ones from all modules, and no application's subclass of Agent has one of them.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from itertools import count

from host_sim.errors import SimError

_CONST = re.compile(r"^from micropython import const(?=\r?$)")


def shorten_names(source: bytes, name: str) -> bytes:
    """The source of a module with its private names shortened, in the same lines.

    Raises SimError when it uses a private name that may be another module's.
    """
    short = short_names(source, name)
    # The compiler knows const() without it, and at run time nothing is left of that.
    lines = [_CONST.sub("", line) for line in source.decode().split("\n")]
    for token in reversed(_names(source)):
        if token.string in short:
            (row, start), (_, end) = token.start, token.end
            line = lines[row - 1]
            lines[row - 1] = line[:start] + short[token.string] + line[end:]
    return "\n".join(lines).encode()


def short_names(source: bytes, name: str) -> dict[str, str]:
    """The private names of a module, and what they are called when it is compiled."""
    tree = ast.parse(source)
    bound = _bound(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_foreign(node, bound):
            raise SimError(
                f"{name}, line {node.lineno}: {node.attr} may be another module's, where it has "
                "a short name when compiled: take the underscore off"
            )
    if _inherits(tree):
        return {}  # its objects have the other module's short names already
    kept = _kept(tree)
    used = [token.string for token in _names(source)]
    often = Counter(name for name in used if name in bound - kept)
    fresh = (short for short in map("_{}".format, count()) if short not in kept.union(used))
    by_use = sorted(often, key=lambda name: (-often[name], name))
    return dict(zip(by_use, fresh, strict=False))


def _names(source: bytes) -> list[tokenize.TokenInfo]:
    tokens = tokenize.tokenize(io.BytesIO(source).readline)
    return [token for token in tokens if token.type == tokenize.NAME]


def is_private(name: str) -> bool:
    """Whether no other module may use it."""
    return name.startswith("_") and not name.startswith("__") and name != "_"


def _is_foreign(node: ast.Attribute, bound: set[str]) -> bool:
    own = node.attr in bound and ast.unparse(node.value) in ("self", "super()")
    return is_private(node.attr) and not own


def _bound(tree: ast.Module) -> set[str]:
    """Private names that the module gives to something of its own."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return set(filter(is_private, found))


def _kept(tree: ast.Module) -> set[str]:
    """Names that have to stay, or that no compiled module has."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.alias):
            found |= {node.name, node.asname or node.name}
        elif isinstance(node, (ast.keyword, ast.arg)):
            found.add(node.arg)
        elif isinstance(node, ast.Constant):
            found.add(node.value)  # perhaps for getattr()
        elif isinstance(node, ast.Assign) and _is_const(node.value):
            found |= {name.id for name in node.targets}
    return found


def _is_const(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func) == "const"


def _inherits(tree: ast.Module) -> bool:
    """Whether a class here has a base in another module of the package."""
    nodes = list(ast.walk(tree))
    froms = (node for node in nodes if isinstance(node, ast.ImportFrom) and node.level)
    imported = {name.asname or name.name for node in froms for name in node.names}
    bases = (base for node in nodes if isinstance(node, ast.ClassDef) for base in node.bases)
    return any(ast.unparse(base).split(".")[0] in imported for base in bases)
