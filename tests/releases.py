"""The release of the flat layout, for tests that begin with it."""

from __future__ import annotations

import os

import pytest

from host_sim.campaigns.powercut import layouts


def need_release() -> None:
    """Skip the test in a checkout without history. With one it fails in CI."""
    why = layouts.missing()
    if why and os.environ.get("CI") == "true" and layouts.has_history():
        pytest.fail(why)
    if why:
        pytest.skip(why)
