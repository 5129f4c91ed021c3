"""Which brokers tests run on: amqtt always, others where installed, and in CI by force.

And whether MicroPython's releases are installed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from host_sim.console.aedes_broker import find_aedes
from host_sim.console.process_broker import find_program
from host_sim.console.rabbitmq_broker import find_rabbitmq
from host_sim.releases.interpreters import RELEASES


def require_mosquitto() -> None:
    """Skip the test without mosquitto; in CI, where it is to be installed, fail it."""
    need("mosquitto")


def available_brokers() -> list[str]:
    """For `parametrize`. The test, or its fixture, calls `need` with the one it got."""
    return ["amqtt", "mosquitto"]


def real_brokers() -> list[str]:
    """As `available_brokers`, with those that take long to start or are rarely installed."""
    return [*available_brokers(), "nats", "rabbitmq", "aedes"]


def broker_params(names: list[str]) -> list:
    """Brokers for `parametrize`, with what RabbitMQ's long start asks for: it is slow."""
    slow = (pytest.mark.slow, pytest.mark.timeout(400))
    return [pytest.param(name, marks=slow if name == "rabbitmq" else ()) for name in names]


def need(broker: str) -> str:
    """The broker again. Skips the test where it is not installed; in CI that fails the test."""
    found, how = _find(broker.partition("-")[0])
    if not found:
        message = f"{broker} is not installed ({how})"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return broker


def _find(program: str) -> tuple[str | Path | None, str]:
    if program == "amqtt":
        return program, ""
    if program == "aedes":
        return find_aedes(), "make aedes"
    if program == "releases":
        return RELEASES.find(), "make releases"
    if program == "rabbitmq":
        return find_rabbitmq(), "Debian's package rabbitmq-server"
    package = {"nats": "nats-server"}.get(program, program)
    return find_program(package), f"Debian's package {package}"
