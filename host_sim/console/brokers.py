"""What the console wants from a broker, and how to choose one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from host_sim.console.registry import Registry
from host_sim.errors import SimError


class Broker(Protocol):
    """A broker under the console's control, or somebody's."""

    host: str
    mqtt_port: int | None
    mqtts_port: int | None
    late_s: float
    """How long after its answer to a SUBSCRIBE it may still send what is retained."""

    def start(self) -> None:
        """Be ready for connections when this returns."""

    def refresh(self) -> None:
        """The registry's devices have changed; be up to date when this returns."""

    def stop(self) -> None:
        """Leave no thread and no process."""


class ForeignBroker:
    """A broker that somebody else runs: nothing to start, no say in who may connect."""

    mqtts_port = None
    late_s = 0.0

    def __init__(self, host: str, mqtt_port: int) -> None:
        self.host = host
        self.mqtt_port = mqtt_port

    def start(self) -> None:
        """Nothing: the console's own connection shows whether it is there."""

    def refresh(self) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


#: Brokers by name. A number behind "aedes": so many ms to look for what is retained.
KINDS = ("amqtt", "mosquitto", "nats", "nats-tls", "rabbitmq", "aedes", "aedes-500")


def choose(
    kind: str, registry: Registry, directory: Path, certificate: Path, ports: tuple[int, int]
) -> Broker:
    """The broker for `--broker`: one of KINDS, or HOST:PORT."""
    # Imported late: amqtt alone takes longer to import than the console to start.
    if kind == "amqtt":
        from host_sim.console.amqtt_broker import AmqttBroker

        return AmqttBroker(registry, certificate, *ports)
    if kind == "mosquitto":
        from host_sim.console.mosquitto_broker import MosquittoBroker

        return MosquittoBroker(registry, directory, certificate, *ports)
    if kind in ("nats", "nats-tls"):
        from host_sim.console.nats_broker import NatsBroker

        return NatsBroker(registry, directory, certificate, *ports, tls=kind == "nats-tls")
    if kind == "rabbitmq":
        from host_sim.console.rabbitmq_broker import RabbitmqBroker

        return RabbitmqBroker(registry, directory, certificate, *ports)
    name, _, delay = kind.partition("-")
    if name == "aedes" and (delay or "0").isdecimal():
        from host_sim.console.aedes_broker import AedesBroker

        return AedesBroker(registry, directory, certificate, *ports, delay_ms=int(delay or 0))
    host, _, port = kind.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise SimError(f"broker {kind!r}: must be {', '.join(KINDS)} or HOST:PORT")
    return ForeignBroker(host.strip("[]"), int(port))
