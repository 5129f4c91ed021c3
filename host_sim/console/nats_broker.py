"""nats-server as a child process: its MQTT port, on top of JetStream."""

from __future__ import annotations

import json
import shutil
import ssl
from pathlib import Path

from host_sim.console.mqtt_client import MqttClient
from host_sim.console.process_broker import PROBE_S, ProcessBroker, find_program, free_port
from host_sim.console.registry import Registry, write_private
from host_sim.errors import SimError


class NatsBroker(ProcessBroker):
    """One nats-server has one MQTT port, plain or with TLS: `tls` says which.

    The other one's number is None.
    """

    name = "nats"

    def __init__(
        self,
        registry: Registry,
        directory: Path,
        certificate: Path,
        mqtt_port: int,
        mqtts_port: int,
        *,
        tls: bool = False,
    ) -> None:
        program = find_program("nats-server")
        if program is None:
            raise SimError("nats-server is not installed: install Debian's package nats-server")
        super().__init__(registry, directory, certificate, mqtt_port, mqtts_port)
        self._program = program
        self._tls = tls
        self._config = directory / "nats.conf"
        self._store = directory / "nats"
        self._own_port = 0

    def start(self) -> None:
        """As ProcessBroker's; what an earlier one has retained is forgotten."""
        shutil.rmtree(self._store, ignore_errors=True)
        super().start()

    def _renew_accounts(self) -> None:
        if self._process is None:
            self._own_port = free_port()
        if self._tls:
            self.mqtt_port = None
        else:
            self.mqtts_port = None
        super()._renew_accounts()

    def _write_accounts(self) -> None:
        users: list[dict] = [
            {
                "user": self._probe_user,
                "password": self._probe,
                "permissions": {"publish": {"deny": ">"}, "subscribe": {"deny": ">"}},
            }
        ]
        for user, password, device in self._accounts():
            account: dict = {"user": user, "password": password}
            if device:
                # A subscription at QoS 1 is one to $MQTT.sub as well.
                own = device.topic(">").replace("/", ".")
                # The filter …/# is one to the level above as well.
                heard = [own, own.removesuffix(".>"), "$MQTT.sub.>"]
                account["permissions"] = {"publish": [own], "subscribe": heard}
            users.append(account)
        # The two limits are the defaults. Not written out, 2.9.10 takes 0 for both when it reads
        # the file again, and then sends no message of QoS 1 any more.
        mqtt: dict = {
            "host": self.host,
            "port": self.mqtts_port or self.mqtt_port,
            "ack_wait": "30s",
            "max_ack_pending": 100,
        }
        if self._tls:
            mqtt["tls"] = {
                "cert_file": str(self._certificate),
                "key_file": str(self._certificate),
                "timeout": 10,
            }
        # JSON is what its own language of configuration contains.
        config = {
            "server_name": "console",
            "host": self.host,
            "port": self._own_port,
            "jetstream": {"store_dir": str(self._store)},
            "mqtt": mqtt,
            "authorization": {"users": users},
        }
        write_private(self._config, json.dumps(config, indent=1, ensure_ascii=False))

    def _command(self) -> list[str]:
        return [self._program, "-c", str(self._config)]

    def _connect_probe(self) -> MqttClient:
        if not self._tls:
            return super()._connect_probe()
        assert self.mqtts_port is not None
        # Only whether it answers: who it is, the console's own connection verifies.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return MqttClient(
            self.host,
            self.mqtts_port,
            self._probe_user,
            self._probe,
            context=context,
            patience_s=PROBE_S,
        )
