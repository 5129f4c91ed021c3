"""The package server of the console without TLS, and the node's side of that.

A campaign starts a node tens of thousands of times, and TLS takes most of the time of a wake. Here
the agent's own HTTPS runs as it is, over a module `ssl` that lets everything pass in clear. That
counts what the node takes of bodies: a server knows only what it has handed to the network.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

from host_sim.campaigns.powercut.platform import Platform
from host_sim.console.download_server import DownloadServer
from host_sim.console.faults import Faults
from host_sim.console.journal import Journal
from host_sim.console.registry import Registry
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID, DEVICE_KEY

# In front of an application. Before the agent loads anything: it takes modules as it finds them.
# "(" is a body that begins, "+N" what came of it; RESET_AT: the reset of a wake, in such bytes.
APPLICATION = """\
import json
import machine
import os
import sys
import time

left = [int(os.getenv("RESET_AT") or 0)]
if machine.reset_cause() == machine.HARD_RESET:
    left[0] = 0

class Stream:
    def __init__(self, wire):
        self.wire = wire
        self.begin()

    def begin(self):
        self.head = b""
        self.line = 0
        self.body = None

    def readinto(self, buffer):
        n = self.wire.readinto(buffer)
        if n and n > 0:
            if self.body is None:
                self.look(buffer, n)
            elif self.body:
                print("+%d" % n)
                if left[0] > 0:
                    left[0] -= n
                    if left[0] <= 0:
                        machine.reset()
        return n

    def look(self, buffer, n):
        for i in range(n):
            if len(self.head) < 11:
                self.head += bytes(buffer[i : i + 1])
            if buffer[i] == 10:
                if not self.line:
                    self.body = self.head[9:] == b"20"
                    if self.body:
                        print("(")
                self.line = 0
            elif buffer[i] != 13:
                self.line += 1

    def write(self, data):
        if self.body is not None:
            self.begin()  # another request on the same connection
        return self.wire.write(data)

    def close(self):
        pass

class Context:
    def __init__(self, protocol):
        pass

    def load_verify_locations(self, cadata):
        pass

    def wrap_socket(self, wire, server_hostname, do_handshake_on_connect=True):
        return Stream(wire)

class Ssl:
    PROTOCOL_TLS_CLIENT = CERT_REQUIRED = 0
    SSLContext = Context

class Hasty:
    def __getattr__(self, name):
        return getattr(time, name)

    def sleep_ms(self, ms):
        time.sleep_ms(ms // 100)

sys.modules["ssl"] = Ssl
sys.modules["time"] = Hasty()
"""


class Packages(Registry):
    """What the server has; a package may be given another entity tag."""

    def tag(self, fuid: str, etag: str) -> None:
        """The same bytes, said to be others."""
        with self._lock:
            self._packages[fuid] = dataclasses.replace(self._packages[fuid], etag=etag)


class _Server(DownloadServer):
    """One that does not keep the process of a campaign's worker from its end."""

    daemon_threads = True

    def start(self) -> None:
        """Serve from now on."""
        self._thread.daemon = True
        super().start()


class PlainPlatform(Platform):
    """The least platform, and beside it the console's package server without TLS.

    `faults` are the server's; `folder` is where it keeps packages.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.faults = Faults()
        self.journal = Journal()
        self.packages = Packages(folder)
        self.packages.add_device(DEVICE_ID, DEVICE_KEY, CONTROL_CHANNEL)
        self._stored: tuple[str, bytes] = ("", b"")

    def __enter__(self) -> PlainPlatform:
        super().__enter__()
        with contextlib.ExitStack() as stack:
            server = _Server(0, None, self.packages, self.journal, lambda: self.faults)
            server.start()
            stack.callback(server.stop)
            self.https_port = server.server_port
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        super().__exit__(*exception)

    def store(self, fuid: str, kind: str, archive: bytes) -> None:
        """The server has this package from now on."""
        if self._stored != (fuid, archive):
            self.packages.add_package(archive, "package." + kind, fuid)
            self._stored = fuid, archive
