"""rabbitmq-server with its MQTT plugin, as an instance of its own that no other one meets."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from host_sim.console.process_broker import ProcessBroker, end, free_port, start
from host_sim.console.registry import Registry, write_private
from host_sim.errors import SimError

# Not /usr/sbin's: those become user rabbitmq, and work on the system's own instance.
_BIN = Path("/usr/lib/rabbitmq/bin")
_CONTROL_TIMEOUT = 120
# Erlang would listen on all interfaces; one scheduler starts sooner than one for each core.
_LOCAL = "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none"


def find_rabbitmq() -> Path | None:
    """The folder of the broker's programs, or None."""
    found = (_BIN / "rabbitmq-server").exists() and shutil.which("epmd")
    return _BIN if found else None


class RabbitmqBroker(ProcessBroker):
    """Node name, ports, data, cookie and the names' daemon: all in the console's directory."""

    name = "rabbitmq"
    # Erlang, thirty applications and a new database: 6 s, a minute on a busy machine.
    start_timeout = 120.0

    def __init__(
        self,
        registry: Registry,
        directory: Path,
        certificate: Path,
        mqtt_port: int,
        mqtts_port: int,
    ) -> None:
        folder = find_rabbitmq()
        if folder is None:
            raise SimError(
                "rabbitmq-server is not installed: install Debian's package rabbitmq-server"
            )
        super().__init__(registry, directory, certificate, mqtt_port, mqtts_port)
        self._programs = folder
        self._home = directory / "rabbitmq"
        self._definitions = directory / "rabbitmq.definitions.json"
        self._node = f"console-{secrets.token_hex(4)}@localhost"
        self._names_port = self._dist_port = 0
        self._names: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """As ProcessBroker's; what an earlier one has retained is forgotten."""
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir(mode=0o700)
        super().start()

    def stop(self) -> None:
        """End it, and the daemon of names that is its own."""
        super().stop()
        names, self._names = self._names, None
        if names is not None:
            end(names)

    def _command(self) -> list[str]:
        config = self._home / "rabbitmq.conf"
        lines = [
            "listeners.tcp = none",
            f"mqtt.listeners.tcp.1 = {self.host}:{self.mqtt_port}",
            f"mqtt.listeners.ssl.1 = {self.host}:{self.mqtts_port}",
            f"ssl_options.certfile = {self._certificate}",
            f"ssl_options.keyfile = {self._certificate}",
            "ssl_options.verify = verify_none",
            "mqtt.allow_anonymous = false",
            "mqtt.tcp_listen_options.nodelay = true",
            f"load_definitions = {self._definitions}",
            "log.file = false",
            "log.console = true",
            "log.console.level = error",
        ]
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        (self._home / "plugins").write_text("[rabbitmq_mqtt].\n", encoding="utf-8")
        self._names_port, self._dist_port = free_port(), free_port()
        # RabbitMQ would start it as a daemon that outlives it.
        self._names = start(
            ["epmd", "-address", self.host, "-port", str(self._names_port)], subprocess.DEVNULL
        )
        return [str(self._programs / "rabbitmq-server")]

    def _environ(self) -> Mapping[str, str]:
        home = str(self._home)
        return {
            "HOME": home,  # of the cookie
            "ERL_EPMD_ADDRESS": self.host,
            "ERL_EPMD_PORT": str(self._names_port),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq",
            "RABBITMQ_CONF_ENV_FILE": f"{home}/none",  # not the system's
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/plugins",
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_PID_FILE": f"{home}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _LOCAL,
            "RABBITMQ_CTL_ERL_ARGS": _LOCAL,
        }

    def _write_accounts(self) -> None:
        users, permissions, topics = [], [], []
        for user, password, device in (
            (self._probe_user, self._probe, None),
            *self._accounts(),
        ):
            users.append(
                {
                    "name": user,
                    "password_hash": _hash(password),
                    "hashing_algorithm": "rabbit_password_hashing_sha256",
                    "tags": "",
                }
            )
            # A client's queues are named after its client id.
            queues = "mqtt-subscription-.*"
            permissions.append(
                {
                    "user": user,
                    "vhost": "/",
                    "configure": f"^{queues}$",
                    "write": rf"^({queues}|amq\.topic)$",
                    "read": rf"^({queues}|amq\.topic)$",
                }
            )
            if device:
                own = "^" + re.escape(device.topic("").replace("/", "."))
            else:
                own = "^$" if user == self._probe_user else ".*"
            topics.append(
                {"user": user, "vhost": "/", "exchange": "amq.topic", "write": own, "read": own}
            )
        definitions = {
            "users": users,
            "vhosts": [{"name": "/"}],
            "permissions": permissions,
            "topic_permissions": topics,
        }
        write_private(self._definitions, json.dumps(definitions))

    def _wait_until_started(self) -> None:
        # It answers MQTT while it still starts, and takes no other commands until it has.
        self._control("await_startup")

    def _reload(self, process: subprocess.Popen[bytes]) -> None:
        self._control("import_definitions", str(self._definitions))

    def _control(self, *words: str) -> None:
        try:
            done = subprocess.run(
                [self._programs / "rabbitmqctl", "--node", self._node, *words],
                env=os.environ | self._environ(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_CONTROL_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SimError(f"rabbitmqctl {words[0]} does not end") from None
        if done.returncode != 0:
            raise SimError(f"rabbitmqctl {words[0]}: {(done.stderr or done.stdout).strip()}")


def _hash(password: str) -> str:
    """A password as RabbitMQ keeps it."""
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
