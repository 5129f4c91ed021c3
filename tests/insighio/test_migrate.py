"""From the field's updater to ours, over the air: the package, and both halves on the node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from host_sim.node.node import Run
from tests.insighio.field import FILE_ID, FieldNode, Migration, Platform, migrated, migration

DONE = {"e": 1, "i": FILE_ID}
SETTLED = "arrive: the migration is done\n"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Migration:
    return migration(tmp_path_factory.mktemp("migration"))


@pytest.fixture
def platform(package: Migration) -> Iterator[Platform]:
    with Platform(package.content) as platform:
        platform.ask()
        yield platform


def is_reset(event: dict) -> bool:
    return event["event"] == "reset"


def test_a_node_is_migrated(tmp_path: Path, platform: Platform, package: Migration) -> None:
    node = FieldNode(tmp_path, platform)
    run = node.run(wakes=2)
    assert run.names() == ["boot", "reset", "boot", "reset", "boot", "sleep", "boot", "sleep", "flash"]
    assert run.output.count(SETTLED) == 1
    assert run.output.count("[boot] the field's boot.py runs") == 4
    assert node.files() == migrated(node.before, package)
    assert platform.reports == [DONE]
    assert not platform.retained
    assert node.run().ops == 0
