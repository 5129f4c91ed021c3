"""Texts that are seldom needed, cut out of longer ones when they are.

A text of more than ten characters is an object of its own, which takes some 30 bytes beside the
characters (shorter ones are names). As part of another it takes ten more bytes of code.
"""

from __future__ import annotations

import ast

from host_sim.node.agent_code.edits import Edits

_INTERNED = 10  # MICROPY_ALLOC_PARSE_INTERN_STRING_LEN
_LONGEST = 255  # a node's memory may be in pieces
_FEWEST = 3


def join_texts(source: bytes) -> bytes:
    """The source of a module, with the texts of its `raise` and `return` joined.

    Not the ones that speak of memory: where none is left they have to be there.
    """
    tree = ast.parse(source)
    places = {
        node
        for statement in ast.walk(tree)
        if isinstance(statement, (ast.Raise, ast.Return))
        for node in ast.walk(statement)
        if _is_text(node)
    }
    # What is there anyway needs no other place.
    others = {node.value for node in ast.walk(tree) if _is_text(node) and node not in places}
    places = {node for node in places if node.value not in others}
    texts = {node.value for node in places}
    if len(texts) < _FEWEST:
        return source
    joined = _join(sorted(texts, key=lambda text: (-len(text), text)))
    edits = Edits(source)
    for node in places:
        whole = next(each for each in joined if node.value in each)
        if whole != node.value:
            start = whole.index(node.value)
            edits.replace(node, f"{whole!r}[{start}:{start + len(node.value)}]")
    return edits.done()


def _is_text(node: ast.AST) -> bool:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return False
    return len(node.value) > _INTERNED and node.value.isascii() and "memory" not in node.value


def _join(texts: list[str]) -> list[str]:
    joined = [""]
    for text in texts:
        if any(text in each for each in joined):
            continue
        fits = (n for n, each in enumerate(joined) if len(each) + len(text) <= _LONGEST)
        if (n := next(fits, None)) is None:
            joined.append(text)
        else:
            joined[n] += text
    return joined
