"""The firmware, the stubs for editors and the pages agree on the public names."""

from __future__ import annotations

import ast
import re

import pytest

from host_sim.node.node import run_code
from tests.docs.readme import ROOT, pages

FIRMWARE = ROOT / "firmware/ota"
GUIDE = (ROOT / "docs/integrating.md").read_text()
STUB = ast.parse((ROOT / "typings/ota/__init__.pyi").read_text())
Function = ast.FunctionDef


def tree(name: str) -> ast.Module:
    return ast.parse((FIRMWARE / f"{name.replace('.', '/')}.py").read_text())


def homes() -> dict[str, str]:
    """The module of each public name, as the package itself finds it."""
    for node in tree("__init__").body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "_HOME":
            return ast.literal_eval(node.value)
    raise AssertionError("no _HOME")


def find(module: ast.Module, name: str) -> Function | ast.ClassDef:
    return next(node for node in module.body if getattr(node, "name", None) == name)


def methods(cls: ast.ClassDef, before: int = 10**6) -> dict[str, Function]:
    return {
        node.name: node for node in cls.body if isinstance(node, Function) and node.lineno < before
    }


def public_methods() -> dict[str, Function]:
    """Those of Agent above the line that says where the others begin."""
    lines = (FIRMWARE / "agent.py").read_text().splitlines()
    (border,) = [n for n, line in enumerate(lines) if "for the other modules of this" in line]
    return methods(find(tree("agent"), "Agent"), border)


def signature(function: Function) -> tuple[list[str], list[str]]:
    arguments = function.args
    assert not arguments.vararg and not arguments.kwarg and not arguments.kwonlyargs
    return [each.arg for each in arguments.args], [ast.dump(each) for each in arguments.defaults]


def doc(node: Function | ast.ClassDef) -> str:
    return ast.get_docstring(node) or ""


def literal(name: str) -> tuple[str, ...]:
    """The values of a Literal in the stub."""
    for node in STUB.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value.slice)
    raise AssertionError(name)


def fields(name: str) -> list[str]:
    return [n.target.id for n in find(STUB, name).body if isinstance(n, ast.AnnAssign)]


@pytest.mark.check
def test_the_names_are_the_same():
    stubbed = {node.name for node in STUB.body if hasattr(node, "name")}
    assert {name for name in stubbed if not name.startswith("_")} == set(homes())
    code = f"import ota\nfor name in {sorted(homes())!r}: getattr(ota, name)\n"
    assert run_code(code, path=[ROOT / "firmware"]).output == ""


@pytest.mark.parametrize("name", sorted(set(homes()) - {"Agent"}))
def test_functions_have_the_same_signature(name: str):
    real, stub = find(tree(homes()[name]), name), find(STUB, name)
    assert signature(real) == signature(stub)
    assert doc(real) and doc(stub)


def test_the_agent_has_the_same_methods():
    real, stub = public_methods(), methods(find(STUB, "Agent"))
    assert list(real) == list(stub)
    for name in real:
        assert signature(real[name]) == signature(stub[name]), name
        assert name == "__init__" or (doc(real[name]) and doc(stub[name])), name


def test_the_agent_has_the_same_attributes():
    agent = find(tree("agent"), "Agent")
    assigned = {
        node.targets[0].attr
        for node in ast.walk(methods(agent)["__init__"])
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)
    }
    for name in fields("Agent"):
        assert name in assigned
        assert f"`{name}`" in doc(agent)
        assert f"agent.{name}" in GUIDE


def test_the_outcomes_are_the_same():
    stubbed = set(literal("_Outcome"))
    assert set(re.findall(r'"(\w+)"', doc(public_methods()["check"]))) == stubbed
    assert set(re.findall(r'^\| `"(\w+)"` \|', GUIDE, re.MULTILINE)) == stubbed
    page = (ROOT / "docs/getting-started.md").read_text()
    (paragraph,) = re.findall(r"^`check\(\)` returns .*?\n\n", page, re.DOTALL | re.MULTILINE)
    assert set(re.findall(r'`"(\w+)"`', paragraph)) == stubbed


def test_the_steps_are_the_same():
    told = {
        call.args[0].value
        for source in FIRMWARE.rglob("*.py")
        for call in ast.walk(ast.parse(source.read_text()))
        if isinstance(call, ast.Call)
        and {"progress", "_progress"}
        & {getattr(call.func, "attr", ""), getattr(call.func, "id", "")}
    }
    assert told == set(literal("_Step"))
    (listed,) = re.findall(r"calls `fn\(step, value\)`: (.*?)\.", GUIDE, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", listed)) == told
    assert {step for step in told if step in doc(find(tree("agent"), "Agent"))} == told


def test_the_status_is_the_same():
    (returned,) = [
        n for n in find(tree(homes()["status"]), "status").body if isinstance(n, ast.Return)
    ]
    keys = [key.value for key in returned.value.keys]
    assert fields("_Status") == keys
    assert re.findall(r"^\| `(\w+)` \|", GUIDE, re.MULTILINE) == keys


def test_the_request_is_the_same():
    (real,) = [
        ast.literal_eval(node.value.args[1])
        for node in tree("request").body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "Request"
    ]
    assert tuple(fields("_Request")) == real
    for name in real:
        assert f"`{name}`" in GUIDE


def test_the_errors_are_the_same():
    stub = ast.parse((ROOT / "typings/ota/errors.pyi").read_text())
    for node in stub.body[1:]:
        real = find(tree("errors"), node.name)
        assert [ast.dump(base) for base in node.bases] == [ast.dump(b) for b in real.bases]
        assert f"ota.errors.{node.name}" in GUIDE


# What pages and examples use


def code_of(text: str) -> str:
    """The code on a page: blocks and what stands between backticks."""
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", text)])


def strangers(code: str) -> set[str]:
    """What is called of `ota`, of an agent or of its constructor that is not public."""
    known = {*homes(), "errors", "__version__"}
    found = {f"ota.{name}" for name in re.findall(r"(?<![\w/.])ota\.(\w+)(?=\()", code)}
    found -= {f"ota.{name}" for name in known}
    members = {*public_methods(), *fields("Agent")}
    found |= {f"agent.{n}" for n in re.findall(r"\bagent\.(\w+)", code)} - {
        f"agent.{name}" for name in members
    }
    keywords = set(signature(public_methods()["__init__"])[0])
    for call in re.findall(r"\bAgent\(([^()]*)", code):
        found |= {f"{k}=" for k in re.findall(r"(\w+)=", call)} - {f"{k}=" for k in keywords}
    return found


INTEGRATORS = [
    "README.md",
    "docs/getting-started.md",
    "docs/integrating.md",
    "docs/configuration.md",
    "docs/reasons.md",
]


@pytest.mark.parametrize("name", INTEGRATORS)
def test_pages_use_what_is_public(name: str):
    assert ROOT / name in pages()
    assert strangers(code_of((ROOT / name).read_text())) == set()


@pytest.mark.parametrize("folder", ["examples", "insighio/node"])
def test_examples_use_what_is_public(folder: str):
    used = {
        path.relative_to(ROOT / folder).as_posix(): strangers(path.read_text())
        for path in (ROOT / folder).rglob("*.py")
    }
    assert len(used) > 3
    assert {name: found for name, found in used.items() if found} == {}


# What a client of another shape has to have


def asked(*names: str) -> dict[str, set[str]]:
    """The names that the agent's modules ask of a `client`, and of its connection."""
    found: dict[str, set[str]] = {"client": set(), "connection": set()}
    owners = {
        "client": "client",
        "_theirs": "client",
        "link": "connection",
        "socket": "connection",
    }
    for name in names:
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Attribute):
                owner = getattr(node.value, "attr", getattr(node.value, "id", ""))
                if owner in owners:
                    found[owners[owner]].add(node.attr)
            asks = ("ask", "fence", "getattr")
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in asks:
                for first in node.args[:1]:
                    if isinstance(first, ast.Constant):
                        found["client"].add(first.value)
    return found


def listed(whose: str) -> set[str]:
    """What the guide's table says that the client, or its connection, has."""
    part = GUIDE[GUIDE.index("## A client of another shape") :].split("\n## ")[0]
    return set(re.findall(rf"^\| {whose} \| `(\w+)", part, re.MULTILINE))


def test_a_client_of_another_shape_is_described():
    found = asked("borrowed", "control", "serve", "install.report")
    # Of a client of ours only, or of the agent's own Link; `client.cb = …` is not asked of it.
    ours = {"connect", "disconnect"}
    assert listed("client") == found["client"] - ours
    assert listed("connection") == found["connection"] | {"setblocking"}


@pytest.mark.parametrize(
    "path", ["examples/asyncio_mqtt_as/ota_asyncio.py", "insighio/node/ota_insighio/channel.py"]
)
def test_the_adapters_have_it(path: str):
    text = (ROOT / path).read_text()
    for name in listed("client") | listed("connection"):
        assert re.search(rf"def {name}\(|self\.{name} = |\b{name} = ", text), name


def test_strangers_are_noticed():
    assert strangers("ota.confirm(); agent.check(); ota.Agent(config, client=c)") == set()
    assert strangers("ota.apply(1)") == {"ota.apply"}
    assert strangers("agent.contact()") == {"agent.contact"}
    assert strangers("Agent(config, transport=x)") == {"transport="}


def test_every_public_name_is_explained():
    for name in homes():
        assert f"ota.{name}" in GUIDE, name
    for name in set(public_methods()) - {"__init__"}:
        assert re.search(rf"\b{name}\(\)", GUIDE), name
    for name in signature(public_methods()["__init__"])[0][2:]:
        assert re.search(rf"\b{name}=", GUIDE), name
