"""Arguments under names that each firmware has in its own flash.

The name of an argument is in RAM for a caller that passes it by name, which no module of the agent
does. The functions that an application calls keep theirs.
"""

from __future__ import annotations

import ast

from host_sim.errors import SimError
from host_sim.node.agent_code.edits import Edits
from host_sim.node.agent_code.names import is_private

#: Functions and classes that applications call, of `ota`, `ota.errors` and `ota.trust`.
PUBLIC = {"Agent", "ConfigError", "OtaError", "confirm", "load_config", "status", "trust"}

#: The firmware's functions that are passed arguments by name, and these names.
KEYWORDS = {
    "WDT": {"timeout"},
    "init": {"mode", "period", "callback"},
    "load_verify_locations": {"cadata"},
    "wrap_socket": {"server_hostname", "do_handshake_on_connect"},
}

#: No builtins. A .mpy takes them from any firmware by their number: they are in `static_qstr_list`
#: of MicroPython's py/makeqstrdata.py.
FREE = ("value", "key", "index", "start", "stop", "step", "count", "end", "sep", "args", "items")

_Function = ast.FunctionDef | ast.Lambda
_SCOPES = (
    *(ast.FunctionDef, ast.Lambda, ast.ClassDef),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
)


def rename_arguments(source: bytes, name: str) -> bytes:
    """The source of a module with other names for its functions' arguments.

    Raises SimError where a call passes an argument by name, to none of `KEYWORDS`.
    """
    tree = ast.parse(source)
    _check_calls(tree, name)
    public = _public(tree)
    changed = set()
    # Inner functions first: an outer one's new names have to be free in them, too.
    for function in reversed([node for node in ast.walk(tree) if isinstance(node, _Function)]):
        if function in public:
            continue
        for argument in function.args.posonlyargs + function.args.args:
            changed |= _rename(argument, function)
    edits = Edits(source)
    for node in changed:
        edits.replace(node, _names(node)[0])
    return edits.done()


def _check_calls(tree: ast.Module, name: str) -> None:
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        called = ast.unparse(call.func).rpartition(".")[2]
        for keyword in call.keywords:
            if keyword.arg not in KEYWORDS.get(called, ()):
                raise SimError(
                    f"{name}, line {call.lineno}: {called}({keyword.arg or '**'}=…) by name, but "
                    "arguments have other names when compiled: pass it by its place. One of the "
                    "firmware's goes into KEYWORDS of host_sim/node/agent_code/arguments.py"
                )


def _public(tree: ast.Module) -> set[_Function]:
    """Functions that applications may call with arguments by name."""
    found = {node for node in tree.body if getattr(node, "name", "") in PUBLIC}
    methods = (method for node in found if isinstance(node, ast.ClassDef) for method in node.body)
    return found | {method for method in methods if not is_private(getattr(method, "name", ""))}


def _rename(argument: ast.arg, function: _Function) -> set[ast.arg | ast.Name]:
    """Give an argument a new name, in the tree; returns what is called so now."""
    old = argument.arg
    inside = _inside(function)
    called = [node for node in inside if old in _names(node)]
    if old in ("self", *FREE) or not all(isinstance(node, ast.Name) for node in called):
        return set()  # it is bound in another way, too
    scopes = [node for node in inside if isinstance(node, _SCOPES)]
    for node in (node for scope in scopes for node in ast.walk(scope)):
        if isinstance(node, ast.Name) and node.id == old and not isinstance(node.ctx, ast.Load):
            return set()  # an inner scope may have one of its own
    arguments = [node for node in ast.walk(function.args) if isinstance(node, ast.arg)]
    taken = {name for node in (*inside, *arguments) for name in _names(node)}
    new = next((free for free in FREE if free not in taken), old)
    argument.arg = new
    for node in called:
        node.id = new
    return {argument, *called}


def _inside(function: _Function) -> list[ast.AST]:
    """All nodes of its body; what stands in its head is seen from outside."""
    body = function.body if isinstance(function.body, list) else [function.body]
    return [node for part in body for node in ast.walk(part)]


def _names(node: ast.AST) -> list[str]:
    """Names, but no attributes, that are bound or used in a node itself."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.alias):
        return [(node.asname or node.name).split(".")[0]]
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler)):
        return [node.name] if node.name else []
    return list(getattr(node, "names", ()) if isinstance(node, (ast.Global, ast.Nonlocal)) else ())
