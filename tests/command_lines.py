"""Command lines, taken apart as click does it, with nothing run."""

from __future__ import annotations

from collections.abc import Sequence
from unittest import mock

import click


def parse(group: click.Command, words: Sequence[str]) -> click.Context:
    """The context of the command that would run. Raises click.UsageError, or Exit for --help."""
    with mock.patch.object(click.Command, "invoke", lambda _, context: context):
        outer = group.make_context("test", list(words))
        with outer:
            found = group.invoke(outer)
    assert isinstance(found, click.Context)
    return found
