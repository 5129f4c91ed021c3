"""Which brokers tests run on: amqtt always, mosquitto where installed, and in CI by force."""

from __future__ import annotations

import os

import pytest

from host_sim.console.mosquitto_broker import find_mosquitto


def require_mosquitto() -> None:
    """Skip the test without mosquitto; in CI, where it is to be installed, fail it."""
    if find_mosquitto() is None:
        message = "mosquitto is not installed (Debian's package mosquitto)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


def available_brokers() -> list[str]:
    """For `parametrize`. The test, or its fixture, calls `need` with the one it got."""
    return ["amqtt", "mosquitto"]


def need(broker: str) -> str:
    """The broker again, after `require_mosquitto` where that is the one."""
    if broker == "mosquitto":
        require_mosquitto()
    return broker
