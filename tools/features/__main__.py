"""Looks through the device code; see the package."""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.features.rules import RULES, is_builtin_call
from tools.features.table import ATTRIBUTES, BROUGHT, BUILTINS, MODULES, NEVER, NEWER, OTHERS

ROOT = Path(__file__).parents[2]
#: What runs on nodes.
DEVICE = ("firmware", "insighio/node", "examples")
#: What is not in the tables, as docs/limits.md says it.
OTHER_NAMES = (
    "methods such as `removeprefix`, `zfill`, `ljust`, `isalnum`, `bit_length`",
    "builtins such as `format`, `vars`, `TimeoutError`",
    "modules that an ESP32 has not built in, and other names in those it has: `os.path`, "
    "`errno.ENOSPC`, `sys.settrace`",
)


@dataclass(frozen=True)
class Use:
    """Something that 1.22 does not have: what, where, and the first release that has it."""

    line: int
    what: str
    release: str
    error: str | None  # which error it raises where it is missing; None: it can not be guarded


class _Reader:
    """One module: what it names, and what is guarded in it."""

    def __init__(self, tree: ast.Module, own: frozenset[str]) -> None:
        self.own = own
        nodes = list(ast.walk(tree))
        self.bound = {
            n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }
        self.bound |= {n.arg for n in nodes if isinstance(n, ast.arg)}
        self.defined = {n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        self.known = BUILTINS | self.bound | self.defined
        self.modules: dict[str, str] = {}  # by what they are called here
        for node in nodes:
            for alias in node.names if isinstance(node, ast.Import) else ():
                self.modules[alias.asname or alias.name.partition(".")[0]] = alias.name

    def uses(self, node: ast.AST) -> Iterator[Use]:
        """What this node alone uses."""
        line = getattr(node, "lineno", 0)
        for what, (release, breaks, error, _) in RULES.items():
            if breaks(node):
                yield Use(line, what, release, error)
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from self._module(line, alias.name)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from self._module(line, node.module)
            for alias in node.names:
                yield from self._member(line, node.module, alias.name, "ImportError")
        elif isinstance(node, ast.Attribute):
            yield from self._attribute(line, node)
        elif isinstance(node, ast.Name) and self._is_missing(node.id):
            yield Use(line, f"the builtin {node.id}", NEVER, "NameError")

    def _is_missing(self, name: str) -> bool:
        return hasattr(builtins, name) and name not in self.known and not name.startswith("_")

    def _module(self, line: int, name: str) -> Iterator[Use]:
        if name in MODULES or name.partition(".")[0] in self.own:
            return
        yield Use(line, f"the module {name}", NEWER.get(name, NEVER), "ImportError")

    def _member(self, line: int, module: str, name: str, error: str) -> Iterator[Use]:
        whole = f"{module}.{name}"
        known = MODULES.get(module)
        if whole in NEWER:
            yield Use(line, whole, NEWER[whole], error)
        elif known is not None and not name.startswith("__") and name not in known | {"*"}:
            yield Use(line, whole, NEVER, error)

    def _attribute(self, line: int, node: ast.Attribute) -> Iterator[Use]:
        base = node.value.id if isinstance(node.value, ast.Name) else ""
        if base in self.modules and base not in self.bound:
            yield from self._member(line, self.modules[base], node.attr, "AttributeError")
        if node.attr in self.defined or base == "self":
            return
        if node.attr in ATTRIBUTES:
            yield Use(line, f".{node.attr}", ATTRIBUTES[node.attr], "AttributeError")
        elif node.attr in OTHERS and base not in self.modules:
            yield Use(line, f"the method {node.attr}()", NEVER, "AttributeError")

    def walk(self, node: ast.AST, guards: frozenset[str]) -> Iterator[Use]:
        """What a node and all below it use that is not guarded; guards: errors that are caught."""
        for use in self.uses(node):
            if use.error is None or not guards & {use.error, "*"}:
                yield use
        inside = guards
        if isinstance(node, ast.Try):
            for handler in node.handlers:
                inside |= _caught(handler)
        for name, field in ast.iter_fields(node):
            below = inside if name == "body" else guards
            if isinstance(node, (ast.If, ast.IfExp)) and name == "body" and _asks(node.test):
                below |= {"*"}
            for child in field if isinstance(field, list) else [field]:
                if isinstance(child, ast.AST):
                    yield from self.walk(child, below)


def _caught(handler: ast.ExceptHandler) -> set[str]:
    """Errors that a handler names. `except Exception` hides a missing feature: it names none."""
    named = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {name.id for name in named if isinstance(name, ast.Name)} - {"Exception"}


def _asks(test: ast.expr) -> bool:
    """Whether a condition asks for the feature, or for the release."""
    return any(
        is_builtin_call(node, "hasattr")
        or (isinstance(node, ast.Attribute) and node.attr == "implementation")
        for node in ast.walk(test)
    )


def found(source: str, own: frozenset[str] = frozenset(), release: str = "1.22") -> list[Use]:
    """What a source uses, unguarded, that `release` does not have; own: modules beside it."""
    tree = ast.parse(source)
    uses = _Reader(tree, own | BROUGHT).walk(tree, frozenset())
    oldest = int(release.partition(".")[2])
    return [u for u in uses if u.release == NEVER or int(u.release.partition(".")[2]) > oldest]


def rows() -> list[tuple[str, str]]:
    """What docs/limits.md says: (what is looked for, the first release that has it)."""
    names: dict[str, list[str]] = {}
    for name, release in (
        NEWER | {"." + name: since for name, since in ATTRIBUTES.items()}
    ).items():
        names.setdefault(release, []).append(f"`{name}`")
    said = [(", ".join(same), release) for release, same in names.items()]
    said += [(what, release) for what, (release, *_) in RULES.items()]
    said += [(what, NEVER) for what in OTHER_NAMES]
    return sorted(said, key=lambda row: (row[1] == NEVER, row[1]))


def device_files() -> list[Path]:
    """All sources that run on nodes."""
    return sorted(path for folder in DEVICE for path in (ROOT / folder).rglob("*.py"))


def own_modules(files: list[Path]) -> frozenset[str]:
    """What modules beside each other may import: their names, and those of their folders."""
    names = (part for path in files for part in path.relative_to(ROOT).with_suffix("").parts)
    return frozenset(names)


def main() -> int:
    """Say what is too new; 1 when there is something."""
    files, bad = device_files(), 0
    own = own_modules(files)
    for path in files:
        for use in found(path.read_text(encoding="utf-8"), own):
            since = "no ESP32 has it" if use.release == NEVER else f"from {use.release} on"
            print(f"{path.relative_to(ROOT)}:{use.line}: {use.what}: {since}")
            bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
