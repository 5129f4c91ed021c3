"""mosquitto as a child process, with everything it needs in the console's directory."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from host_sim.console.mqtt_client import MqttClient, Refused
from host_sim.console.registry import Registry, write_private
from host_sim.errors import SimError

_START_TIMEOUT = 10.0
_ATTEMPTS = 3
# Debian puts the broker where only root's PATH looks.
_SBIN = ("/usr/sbin", "/usr/local/sbin")


def find_mosquitto() -> str | None:
    """The broker's program, or None."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=os.pathsep.join(_SBIN))


class MosquittoBroker:
    """A real broker, for what amqtt may do differently."""

    host = "127.0.0.1"

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
        self.mqtt_port = mqtt_port
        self.mqtts_port: int | None = mqtts_port
        self._wanted_ports = (mqtt_port, mqtts_port)
        self._program = program
        self._registry = registry
        self._certificate = certificate
        self._config = directory / "mosquitto.conf"
        self._passwords = directory / "mosquitto.passwords"
        self._acl = directory / "mosquitto.acl"
        self._log = directory / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._probe_user = "probe-" + secrets.token_hex(4)
        self._probe = ""

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._write_accounts()
        for attempt in range(_ATTEMPTS):
            # It cannot be asked for "any free port": find one, and try again if it was taken.
            self.mqtt_port = self._wanted_ports[0] or _free_port()
            self.mqtts_port = self._wanted_ports[1] or _free_port()
            self._launch()
            try:
                self._wait_until_current()
                # Whoever starts it again wants it where it was.
                self._wanted_ports = (self.mqtt_port, self.mqtts_port)
                return
            except SimError:
                self.stop()
                if attempt == _ATTEMPTS - 1:
                    raise

    def refresh(self) -> None:
        """Write the accounts anew and wait until they count."""
        self._write_accounts()
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)
            self._wait_until_current()

    def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _launch(self) -> None:
        lines = [
            "per_listener_settings false",
            "allow_anonymous false",
            f"password_file {self._passwords}",
            f"acl_file {self._acl}",
            "persistence false",
            "set_tcp_nodelay true",
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
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [self._program, "-c", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the console, which ends the broker in its own time.
                start_new_session=True,
            )

    def _write_accounts(self) -> None:
        """Password and access files: the console, the devices, and a probe.

        The probe may do nothing. Its password is new every time, so its first successful login
        proves that the files in force are the ones just written.
        """
        self._probe = secrets.token_hex(16)
        registry = self._registry
        accounts = [
            (registry.admin_user, registry.admin_password),
            (self._probe_user, self._probe),
        ]
        acl = [f"user {registry.admin_user}", "topic readwrite #", ""]
        for device in registry.devices():
            accounts.append((device.device_id, device.key))
            acl += [f"user {device.device_id}", f"topic readwrite {device.topic('#')}", ""]
        write_private(self._acl, "\n".join(acl) + "\n")
        write_private(
            self._passwords,
            "".join(f"{user}:{_hash(password)}\n" for user, password in accounts),
        )

    def _wait_until_current(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                raise SimError(f"mosquitto ended at once: {self._last_words()}")
            with (
                contextlib.suppress(Refused, OSError),
                MqttClient(self.host, self.mqtt_port, self._probe_user, self._probe),
            ):
                return
            time.sleep(0.01)
        raise SimError(f"mosquitto does not answer: {self._last_words()}")

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line for line in reversed(lines) if "rror" in line), "no reason in its log")


def _hash(password: str) -> str:
    """A password as mosquitto_passwd writes it."""
    salt, rounds = secrets.token_bytes(12), 101
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return "$".join(
        ("", "7", str(rounds), base64.b64encode(salt).decode(), base64.b64encode(digest).decode())
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
