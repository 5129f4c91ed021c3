"""What all tests of the migration begin with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.insighio.field import Platform, migration
from tools.package.migrate import Migration


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Migration:
    return migration(tmp_path_factory.mktemp("migration"))


@pytest.fixture
def platform(package: Migration) -> Iterator[Platform]:
    with Platform(package.content) as platform:
        platform.ask()
        yield platform
