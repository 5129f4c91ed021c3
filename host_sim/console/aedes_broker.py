"""aedes (npm) as a child process of Node.js, with a retained store as slow as one likes.

`python -m host_sim.console.aedes_broker` installs it into the virtual environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from host_sim.console.process_broker import ProcessBroker, find_program
from host_sim.console.registry import Registry, write_private
from host_sim.errors import SimError
from host_sim.npm import Pinned

_SOURCE = Path(__file__).parent / "aedes"
AEDES = Pinned("aedes", _SOURCE)
# What is retained comes after the answers to SUBSCRIBE and PINGREQ; more on a busy machine.
_LATE_S = 0.3


def find_aedes() -> Path | None:
    """The folder with aedes, or None when it, or Node.js, is not installed."""
    return AEDES.find()


class AedesBroker(ProcessBroker):
    """delay_ms: how long it looks for what is retained."""

    name = "aedes"

    def __init__(
        self,
        registry: Registry,
        directory: Path,
        certificate: Path,
        mqtt_port: int,
        mqtts_port: int,
        *,
        delay_ms: int = 0,
    ) -> None:
        folder = find_aedes()
        if folder is None:
            raise SimError("aedes is not installed: make aedes (it needs Node.js and npm)")
        super().__init__(registry, directory, certificate, mqtt_port, mqtts_port)
        self._modules = folder / "node_modules"
        self._delay_ms = delay_ms
        self.late_s = delay_ms / 1000 + _LATE_S
        self._settings = directory / "aedes.json"
        self._account_file = directory / "aedes.accounts.json"

    def _command(self) -> list[str]:
        settings = {
            "host": self.host,
            "port": self.mqtt_port,
            "tls_port": self.mqtts_port,
            "certificate": str(self._certificate),
            "accounts": str(self._account_file),
            "delay_ms": self._delay_ms,
        }
        self._settings.write_text(json.dumps(settings), encoding="utf-8")
        node = find_program("node")
        assert node is not None
        return [node, str(_SOURCE / "server.js"), str(self._settings)]

    def _environ(self) -> Mapping[str, str]:
        return {"NODE_PATH": os.fspath(self._modules)}

    def _write_accounts(self) -> None:
        accounts = {self._probe_user: {"password": self._probe, "topics": None}}
        for user, password, device in self._accounts():
            topics = device.topic("") if device else ""
            accounts[user] = {"password": password, "topics": topics}
        write_private(self._account_file, json.dumps(accounts))

    def _reload(self, process: subprocess.Popen[bytes]) -> None:
        """Nothing: it reads them at each login."""


if __name__ == "__main__":
    sys.exit(AEDES.main())
