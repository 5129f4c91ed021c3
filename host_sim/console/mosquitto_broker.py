"""mosquitto as a child process."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from pathlib import Path

from host_sim.console.process_broker import ProcessBroker, find_program
from host_sim.console.registry import Registry, write_private
from host_sim.errors import SimError


def find_mosquitto() -> str | None:
    """The broker's program, or None."""
    return find_program("mosquitto")


class MosquittoBroker(ProcessBroker):
    """A real broker, for what amqtt may do differently."""

    name = "mosquitto"

    def __init__(
        self,
        registry: Registry,
        directory: Path,
        certificate: Path,
        mqtt_port: int,
        mqtts_port: int,
    ) -> None:
        program = find_mosquitto()
        if program is None:
            raise SimError(
                "mosquitto is not installed: install Debian's package mosquitto, "
                "or use --broker amqtt"
            )
        super().__init__(registry, directory, certificate, mqtt_port, mqtts_port)
        self._program = program
        self._config = directory / "mosquitto.conf"
        self._passwords = directory / "mosquitto.passwords"
        self._acl = directory / "mosquitto.acl"
        # To hash 10,000 keys again for each new device would take minutes.
        self._hashes: dict[str, tuple[str, str]] = {}

    def _command(self) -> list[str]:
        lines = [
            "per_listener_settings false",
            "allow_anonymous false",
            f"password_file {self._passwords}",
            f"acl_file {self._acl}",
            "persistence false",
            "set_tcp_nodelay true",
            # What a whole fleet says at once must reach the console. 0 would be no limit, but
            # 2.0.11 then ends the connection of who publishes what it may not.
            "max_queued_messages 1000000",
            "log_dest stderr",
            f"listener {self.mqtt_port} {self.host}",
            f"listener {self.mqtts_port} {self.host}",
            f"certfile {self._certificate}",
            f"keyfile {self._certificate}",
        ]
        if os.geteuid() == 0:
            # It would become user mosquitto, who may not read this directory.
            lines.append("user root")
        self._config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return [self._program, "-c", str(self._config)]

    def _write_accounts(self) -> None:
        acl = []
        passwords = [f"{self._probe_user}:{_hash(self._probe)}\n"]
        for user, password, device in self._accounts():
            if self._hashes.get(user, ("",))[0] != password:
                self._hashes[user] = password, _hash(password)
            passwords.append(f"{user}:{self._hashes[user][1]}\n")
            topics = device.topic("#") if device else "#"
            acl += [f"user {user}", f"topic readwrite {topics}", ""]
        write_private(self._acl, "\n".join(acl) + "\n")
        write_private(self._passwords, "".join(passwords))


def _hash(password: str) -> str:
    """A password as mosquitto_passwd writes it."""
    salt, rounds = secrets.token_bytes(12), 101
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return "$".join(
        ("", "7", str(rounds), base64.b64encode(salt).decode(), base64.b64encode(digest).decode())
    )
