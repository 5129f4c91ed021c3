"""Arguments and texts of the compiled agent: other names, another place, and nothing else."""

from __future__ import annotations

import ast
import dis
import re
from collections.abc import Iterator
from types import CodeType

import pytest

from host_sim.errors import SimError
from host_sim.node import process
from host_sim.node.agent_code import shorten
from host_sim.node.agent_code.arguments import FREE, KEYWORDS, PUBLIC, rename_arguments
from host_sim.node.agent_code.texts import join_texts
from host_sim.node.flash import FIRMWARE

ROOT = FIRMWARE.parent
SOURCES = {path.stem: path.read_bytes() for path in sorted((FIRMWARE / "ota").rglob("*.py"))}

ARGUMENTS = [
    (
        "def f(self, topic): return topic, topic.topic",
        "def f(self, value): return value, value.topic",
    ),
    ("def f(topic, key=None): topic = key", "def f(value, key=None): value = key"),
    ("f = lambda topic, *more: topic(more)", "f = lambda value, *more: value(more)"),
    # A head is seen from outside.
    ("def f(a, b=a): return a + b", "def f(value, key=a): return value + key"),
    ("def f(a): return lambda b=a: b", "def f(key): return lambda value=key: value"),
    # What a function uses besides is not hidden.
    ("def f(a): return value(key, a)", "def f(index): return value(key, index)"),
    ("def f(a): return [value for value in a]", "def f(key): return [value for value in key]"),
    ("def f(a):\n def g(b): return a, b", "def f(key):\n def g(value): return key, value"),
    ("def f(a):\n def g():\n  nonlocal b", "def f(value):\n def g():\n  nonlocal b"),
    # Inside it is another one, or may be.
    ("def f(a): return [a for a in b]", None),
    ("def f(a):\n def g(): a = 1", None),
    ("def f(a):\n def g():\n  nonlocal a", None),
    ("def f(a):\n class a: pass", None),
    ("def f(a): import a.b", None),
    ("def f(a):\n try: pass\n except E as a: pass", None),
    # Applications call these.
    ("def load_config(path): pass", None),
    ("class Agent:\n def handle(self, topic, payload): pass", None),
    ("class Agent:\n def __init__(self, config): pass", None),
    ("class Agent:\n def _f(self, topic): pass", "class Agent:\n def _f(self, value): pass"),
    ("def f(*, a, **more): pass", None),
]


@pytest.mark.parametrize(("source", "renamed"), ARGUMENTS)
def test_what_arguments_are_called(source: str, renamed: str | None):
    assert rename_arguments(source.encode(), "x").decode() == (renamed or source)


def test_arguments_have_names_of_each_firmware():
    """Only those add nothing to a node's names: a .mpy does not spell them."""
    for free in FREE:
        assert free.encode() not in process.compiled(f"def f({free}): pass".encode(), "x")
    assert b"topic" in process.compiled(b"def f(topic): pass", "x")
    own = [
        argument.arg
        for name, source in SOURCES.items()
        for node in ast.walk(ast.parse(rename_arguments(source, name)))
        if isinstance(node, ast.arguments)
        for argument in node.args
    ]
    others = [name for name in own if name not in ("self", *FREE)]
    assert len(own) > 600
    assert len(others) < 40, others  # of public functions, and bound in another way, too


def test_nothing_else_changes_with_an_arguments_name():
    for name, source in SOURCES.items():
        old = compile(source, name, "exec")
        assert_alike(old, compile(rename_arguments(source, name), name, "exec"), {})


def assert_alike(old: CodeType, new: CodeType, outer: dict[str, str]) -> None:
    """The same instructions, but for what arguments are called here and further out."""
    count = old.co_argcount
    names = outer | dict(zip(new.co_varnames[:count], old.co_varnames[:count], strict=True))
    # Cells are in the order of their names.
    order = sorted if old.co_cellvars or old.co_freevars else list
    assert order(steps(new, names)) == order(steps(old, {}))
    inner = [
        [each for each in code.co_consts if isinstance(each, CodeType)] for code in (old, new)
    ]
    for pair in zip(*inner, strict=True):
        assert_alike(*pair, names)


def steps(code: CodeType, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Instructions with what they are about, local names as `names` has them."""
    for step in dis.get_instructions(code):
        value = "code" if isinstance(step.argval, CodeType) else step.argval
        if re.search("FAST|DEREF|CLOSURE|CELL", step.opname):
            several = value if isinstance(value, tuple) else (value,)
            value = [names.get(each, each) for each in several]
        yield step.opname, repr(value)


def test_public_functions_keep_their_arguments():
    for stub in (ROOT / "typings/ota").glob("*.pyi"):
        nodes = ast.parse(stub.read_text()).body
        names = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        assert {name for name in names if name[0] != "_"} <= PUBLIC, stub


def test_others_have_no_arguments_by_name():
    """Nor are there functions of ours that one would take for the firmware's."""
    trees = [ast.parse(source) for source in SOURCES.values()]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    classes = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    assert not KEYWORDS.keys() & (functions | classes)
    files = [
        path for folder in ("insighio/node", "examples") for path in (ROOT / folder).rglob("*.py")
    ]
    assert len(files) > 10
    for path in files:
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and call.keywords:
                called = ast.unparse(call.func).rpartition(".")[2]
                assert called not in (functions | classes) - PUBLIC, (path, call.lineno)


@pytest.mark.parametrize("call", ["agent.later(reason=1)", "later(**found)", "WDT(reason=1)"])
def test_an_argument_by_name_is_refused(call: str):
    with pytest.raises(
        SimError, match=r"ota/x\.py, line 2: \w+\(.+=…\) by name, but .* its place"
    ):
        shorten(f"def f(found):\n    {call}\n".encode(), "ota/x.py")
    assert shorten(b"machine.WDT(timeout=1)\n", "x") == b"machine.WDT(timeout=1)\n"


# -- texts ---------------------------------------------------------------------------------------

TEXTS = """\
def f(n):
    if n == 0:
        raise E("the first text")
    if n == 1:
        raise E("x", "a second"
            " text %d" % n)
    if n == 2:
        return "another text" + "short"
    return "a second text %d", "out of memory: no room", "is there anyway", "ä is two bytes"


def g(text="is there anyway"):
    return "first text"
"""


def test_texts_are_cut_out_of_one():
    joined = join_texts(TEXTS.encode()).decode()
    whole = "a second text %dthe first textanother text"
    for text in ("the first text", "a second text %d", "another text"):
        start = whole.index(text)
        assert f"{whole!r}[{start}:{start + len(text)}]" in joined
    assert joined.count(whole) == 4
    assert uncut(joined) == uncut(TEXTS)
    few = TEXTS.replace("another text", "another").encode()
    assert join_texts(few) == few


def test_no_text_changes():
    cut = 0
    for source in SOURCES.values():
        joined = join_texts(source).decode()
        assert uncut(joined) == uncut(source.decode())
        for node in ast.walk(ast.parse(joined)):
            cut += is_cut(node)
            assert not is_cut(node) or len(node.value.value) <= 255
    assert cut > 150


def is_cut(node: ast.AST) -> bool:
    """Whether it is a part of a constant."""
    return isinstance(node, ast.Subscript) and isinstance(node.value, ast.Constant)


def uncut(source: str) -> str:
    """The tree of a source, parts of constants as what they are."""

    class Uncut(ast.NodeTransformer):
        def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
            self.generic_visit(node)
            return (
                ast.Constant(
                    ast.literal_eval(node.value)[node.slice.lower.value : node.slice.upper.value]
                )
                if is_cut(node)
                else node
            )

    return ast.dump(Uncut().visit(ast.parse(source)))
