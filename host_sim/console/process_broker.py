"""A broker as a child process, with all that it needs in the console's directory."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from host_sim import orphan
from host_sim.console.mqtt_client import MqttClient, Refused
from host_sim.console.registry import Device, Registry
from host_sim.errors import SimError

_ATTEMPTS = 3
PROBE_S = 2.0
_BAD_WORDS = ("rror", "[FTL]")
# Debian puts some brokers where only root's PATH looks.
_SBIN = ("/usr/sbin", "/usr/local/sbin")


def find_program(name: str) -> str | None:
    """Where a broker's program is, or None."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_SBIN))


class ProcessBroker:
    """Starts a program and ends it by its id; what is special to one broker is in a subclass.

    A probe, an account that may do nothing, has a new password each time that the accounts are
    written: its first login proves that these are in force.
    """

    host = "127.0.0.1"
    late_s = 0.0
    name = ""
    start_timeout = 30.0  # a second; more on a busy machine

    def __init__(
        self,
        registry: Registry,
        directory: Path,
        certificate: Path,
        mqtt_port: int,
        mqtts_port: int,
    ) -> None:
        self.mqtt_port: int | None = mqtt_port
        self.mqtts_port: int | None = mqtts_port
        self._wanted_ports = (mqtt_port, mqtts_port)
        self._registry = registry
        self._directory = directory
        self._certificate = certificate
        self._log = directory / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._probe_user = "probe-" + secrets.token_hex(4)
        self._probe = ""

    # -- what a subclass says --------------------------------------------------------------------

    def _command(self) -> list[str]:
        """Write what the program reads at its start; how to start it. The ports are known."""
        raise NotImplementedError

    def _write_accounts(self) -> None:
        """Write the accounts down where the program finds them."""
        raise NotImplementedError

    def _reload(self, process: subprocess.Popen[bytes]) -> None:
        """Have the running program take over what `_write_accounts` wrote."""
        process.send_signal(signal.SIGHUP)

    def _wait_until_started(self) -> None:
        """Wait for what a program does at its start behind the first login that it answers."""

    def _environ(self) -> Mapping[str, str]:
        """What the program's environment has more than ours."""
        return {}

    # -- what the console asks -------------------------------------------------------------------

    def start(self) -> None:
        """Start it and wait until it answers."""
        for attempt in range(_ATTEMPTS):
            # It cannot be asked for "any free port": find one, and try again if it was taken.
            with contextlib.ExitStack() as ports:
                self.mqtt_port, self.mqtts_port = (
                    port or ports.enter_context(reserved()) for port in self._wanted_ports
                )
                self._renew_accounts()
                self._launch()
                try:
                    self._wait_until_current()
                    self._wait_until_started()
                    # Whoever starts it again wants it where it was.
                    self._wanted_ports = (self.mqtt_port, self.mqtts_port)
                    return
                except SimError:
                    self.stop()
                    if attempt == _ATTEMPTS - 1:
                        raise

    def refresh(self) -> None:
        """Write the accounts anew and wait until they count."""
        self._renew_accounts()
        if self._process is not None:
            self._reload(self._process)
            self._wait_until_current()

    def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            end(process)

    # -- inside ----------------------------------------------------------------------------------

    def _launch(self) -> None:
        command = self._command()
        with self._log.open("wb") as log:
            self._process = start(command, log, self._environ())

    def _renew_accounts(self) -> None:
        self._probe = secrets.token_hex(16)
        self._write_accounts()

    def _accounts(self) -> Iterator[tuple[str, str, Device | None]]:
        """Each account's user, password, and device. None: the console; the probe is apart."""
        registry = self._registry
        yield registry.admin_user, registry.admin_password, None
        for device in registry.devices():
            yield device.device_id, device.key, device

    def _wait_until_current(self) -> None:
        deadline = time.monotonic() + self.start_timeout
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                raise SimError(f"{self.name} ended at once: {self._last_words()}")
            with contextlib.suppress(Refused, OSError), self._connect_probe():
                return
            time.sleep(0.01)
        raise SimError(f"{self.name} does not answer: {self._last_words()}")

    def _connect_probe(self) -> MqttClient:
        assert self.mqtt_port is not None
        # Perhaps somebody else has the port, who never answers.
        return MqttClient(
            self.host, self.mqtt_port, self._probe_user, self._probe, patience_s=PROBE_S
        )

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = (line for line in reversed(lines) if any(word in line for word in _BAD_WORDS))
        return next(said, "no reason in its log")


def start(
    command: Sequence[str], log: IO[bytes] | int, environ: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """A program that ends with this process: a killed console's broker would keep its port."""
    return subprocess.Popen(
        orphan.bound(command),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=os.environ | (environ or {}),
        # Ctrl-C is for the console, which ends the broker in its own time.
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes], patience_s: float = 5) -> None:
    """End a child that leads a session of its own, and whatever it has started itself."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        # The group, not the process: its number stays ours until the leader has been waited for.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
            return


@contextlib.contextmanager
def reserved(port: int = 0) -> Iterator[int]:
    """A port (0: any) at which nobody listens, and that nobody else is given inside the `with`.

    Who sets SO_REUSEADDR, as servers do, can listen there all the same: on Linux. Elsewhere the
    port is only looked for, and another program may be quicker.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
        port = holder.getsockname()[1]
        if sys.platform != "linux":
            holder.close()
        yield port


def free_port() -> int:
    """A port that nobody listens at just now."""
    with reserved() as port:
        return port
