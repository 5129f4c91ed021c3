"""docs/reasons.md lists every text that the agent can report or put into `agent.reason`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.readme import ROOT

FIRMWARE = ROOT / "firmware/ota"
PAGE = (ROOT / "docs/reasons.md").read_text()
#: What these calls put before their argument; wrappers() adds those of Refused and Transient.
CALLS = {"BadRequest": "bad request: ", "later": ""}
#: Texts that the code puts together, so that they can not be read off: module and pieces.
ASSEMBLED = {
    "rolled back, but not whole: lost": ("recovery", "rolled back, but not whole: lost"),
    "rolled back: the report was damaged on flash": (
        "transaction",
        "2 %s rolled back: the report was damaged on flash",
    ),
    "installed, but the request could not be cleared": (
        "report",
        "installed, but ",
        "the request could not be cleared",
    ),
} | {
    f"rolled back: … {what} without confirm": (
        "recovery",
        "rolled back: %d %s without confirm",
        what,
    )
    for what in ("boots", "wakes", "days")
}
#: What gathered() makes of them.
PIECES = {"rolled back: … … without confirm"}
WHOLE = re.compile(r"(can not \w+|not enough space|rolled back): .")


class _Plain(ast.NodeTransformer):
    """Takes `const(…)` for what is in it."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        return node.args[0] if getattr(node.func, "id", "") == "const" else node


class Module:
    """The texts that one source brings."""

    def __init__(self, source: Path) -> None:
        self.tree = tree = _Plain().visit(ast.parse(source.read_text()))
        self.constants = {
            node.targets[0].id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        }

    def text(self, node: ast.expr) -> str:
        """What the expression makes, with … for what is not known before it runs."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return re.sub(r"%0?2?[dsrX]", "…", node.value)
        if isinstance(node, ast.Name) and node.id in self.constants:
            return self.constants[node.id]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
            return self.text(node.left)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self.text(node.left) + self.text(node.right)
        return "…"

    def wrappers(self) -> Iterator[tuple[str, str]]:
        """Functions that only put their one argument into a Refused or a Transient."""
        for node in self.tree.body:
            if not isinstance(node, ast.FunctionDef) or len(node.args.args) != 1:
                continue
            call = getattr(node.body[-1], "value", None)  # of its return
            if getattr(getattr(call, "func", None), "id", "") in ("Refused", "Transient"):
                reason, detail = map(self.text, call.args)
                yield node.name, f"{reason}: {detail}".removesuffix("…")

    def imports(self) -> Iterator[str]:
        """Modules of the same package."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                if node.module:
                    yield node.module.rpartition(".")[2]
                yield from [each.name for each in node.names]

    def gather(self, calls: dict[str, str]) -> Iterator[str]:
        for function in ast.walk(self.tree):
            if isinstance(function, ast.FunctionDef) and function.name not in calls:
                yield from self._of_calls(function, calls)
                yield from self._whole(function)
                if function.name == "verdict":
                    yield from self._verdicts(function)

    def _of_calls(self, function: ast.FunctionDef, calls: dict[str, str]) -> Iterator[str]:
        for call in ast.walk(function):
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "id", None) or getattr(call.func, "attr", None)
            if name in ("Refused", "Transient"):
                reason, *details = (call.args[0], *call.args[1:2])
                for detail in self._each(function, details[0]) if details else [""]:
                    known = self.text(reason)
                    yield f"{known}: {detail}" if known != "…" and detail else detail or known
            elif name in calls and call.args:
                for detail in self._each(function, call.args[0]):
                    yield calls[name] + detail

    def _each(self, function: ast.FunctionDef, detail: ast.expr) -> list[str]:
        """The text, or all that a variable of the function can be."""
        if not isinstance(detail, ast.Name) or detail.id in self.constants:
            return [self.text(detail)]
        values = [
            self.text(node.value)
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == detail.id
        ]
        return values or ["…"]

    def _whole(self, function: ast.FunctionDef) -> Iterator[str]:
        """Texts that have their reason in front already, wherever they stand."""
        inner = {
            id(part)
            for node in ast.walk(function)
            if isinstance(node, ast.BinOp)
            for part in (node.left, node.right)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.expr) and id(node) not in inner:
                text = self.text(node)
                if WHOLE.match(text):
                    yield text

    def _verdicts(self, function: ast.FunctionDef) -> Iterator[str]:
        for node in ast.walk(function):
            if isinstance(node, ast.Return):
                yield self.text(node.value)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_VERDICTS":
                for _, ours in ast.literal_eval(node.value):
                    yield ours


def gathered(folder: Path = FIRMWARE, *starts: str) -> set[str]:
    """The texts of the modules that are imported, directly or not, from those named."""
    modules: dict[str, Module] = {}
    left = [*starts] or ["agent", "recovery"]
    while left:
        name = left.pop()
        source = next(folder.rglob(f"{name}.py"), None)
        if name not in modules and source:
            modules[name] = Module(source)
            left += modules[name].imports()
    modules.pop("config", None)  # its errors are raised at the start, never reported
    calls = CALLS | dict(pair for module in modules.values() for pair in module.wrappers())
    found = {text for module in modules.values() for text in module.gather(calls)}
    return found - {"…", ""}


def listed() -> set[str]:
    """The first cell of each row that begins with code."""
    rows = re.findall(r"^\| (`.+?`) \|", PAGE, re.MULTILINE)
    return {text for row in rows for text in re.findall("`(.+?)`", row)}


def assembled() -> set[str]:
    """Those of ASSEMBLED of which the code still has all pieces."""
    found = set()
    for text, (module, *pieces) in ASSEMBLED.items():
        tree = ast.parse(next(FIRMWARE.rglob(f"{module}.py")).read_text())
        strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        if strings.issuperset(pieces):
            found.add(text)
    return found


def test_every_reason_is_on_the_page():
    assert sorted((gathered() - PIECES | assembled()) - listed()) == []


def test_the_page_has_no_reason_that_is_none():
    assert sorted(listed() - gathered() - assembled()) == []


def test_each_row_says_cause_and_remedy():
    for row in re.findall(r"^\| `.*", PAGE, re.MULTILINE):
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 3 and all(cells), row


def test_what_a_status_means_is_on_the_page():
    source = (FIRMWARE / "fetch.py").read_text()
    known = re.findall(r"^ +(\d{3}): \"(.+)\",$", source, re.MULTILINE)
    assert len(known) == 3
    for status, meaning in known:
        assert f"`{status} {meaning}`" in PAGE


def test_the_gathering_finds_each_way_of_saying_it(tmp_path: Path):
    (tmp_path / "x.py").write_text(
        "from .y import odd\n"
        '_REASON = "can not fly"\n'
        "def f(self, n, error):\n"
        '    detail = "too heavy, %d" % n\n'
        "    detail = name_of(error)\n"
        "    raise Transient(_REASON, detail)\n"
        "def g(self, path, reason):\n"
        '    raise Refused("refused", "no " + path)\n'
        '    raise odd("it is odd")\n'
        '    reason = "can not apply: late"\n'
        '    return "rolled back: %s times" % n\n'
        '    raise Transient(reason, "the door is shut")\n'
        '    self.later("asleep")\n'
    )
    (tmp_path / "y.py").write_text(
        'def odd(detail):\n    return Refused("can not apply", "bad egg, " + detail)\n'
    )
    (tmp_path / "z.py").write_text('def h():\n    raise Refused("not", "imported")\n')
    assert gathered(tmp_path, "x") == {
        "can not fly: too heavy, …",
        "can not fly: …",
        "refused: no …",
        "can not apply: bad egg, it is odd",
        "can not apply: late",
        "rolled back: … times",
        "the door is shut",
        "asleep",
    }
