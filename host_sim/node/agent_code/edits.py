"""Changes to a source at places of its syntax tree; what is between them stays as it is."""

from __future__ import annotations

import ast
from itertools import accumulate


class Edits:
    """New texts for nodes of a source's tree."""

    def __init__(self, source: bytes) -> None:
        self._source = source
        lengths = (len(line) for line in source.splitlines(keepends=True))
        self._lines = list(accumulate(lengths, initial=0))
        self._edits: list[tuple[int, int, bytes]] = []

    def replace(self, node: ast.expr | ast.arg, text: str) -> None:
        """Put text in the node's place. No two nodes of which one is in the other."""
        start = self._lines[node.lineno - 1] + node.col_offset
        end = self._lines[node.end_lineno - 1] + node.end_col_offset
        self._edits.append((start, end, text.encode()))

    def done(self) -> bytes:
        """The source with all of them."""
        source = self._source
        for start, end, text in sorted(self._edits, reverse=True):
            source = source[:start] + text + source[end:]
        return source
