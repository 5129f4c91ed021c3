"""What all tests of the migration begin with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from insigh_ota.package.migrate import Migration
from tests.insighio.field import Platform, migration


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Migration:
    return migration(tmp_path_factory.mktemp("migration"))


@pytest.fixture
def platform(package: Migration) -> Iterator[Platform]:
    with Platform(package.content) as platform:
        platform.ask()
        yield platform
