"""The node's download alone, many times over, in one MicroPython process."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import socket
import tarfile
import threading
from dataclasses import dataclass
from pathlib import Path

from host_sim.console import Console
from host_sim.errors import SimError
from host_sim.node.flash import FIRMWARE
from host_sim.node.node import CodeResult, run_code
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID, DEVICE_KEY

_START_TIMEOUT_S = 20
_ANSWER_TIMEOUT_S = 3600

# The same steps as in ota/cycle.py, but that the members go into a hash instead of on flash.
_SCRIPT = """
import gc
import hashlib
import json
import socket
from ota.package.archive import open_archive
from ota.download import Download
from ota.errors import OtaError
from ota.request import Request
from ota.tarfile_lite import TarReader
from ota.wire import Limits

def fetch(job):
    buffer = bytearray(1024)
    request = Request(job["fuid"], ".tar", job["size"])
    limits = Limits(job["wait_ms"], job["total_ms"])
    download = Download(job["config"], request, limits, None, lambda count: None)
    try:
        digest = hashlib.sha256()
        reader = TarReader(open_archive(download))
        while reader.next():
            digest.update(reader.name.rstrip("/").encode())
            while True:
                n = reader.readinto(buffer, 1024)
                if not n:
                    break
                digest.update(memoryview(buffer)[:n])
        download.end()
        return digest.digest().hex()
    finally:
        download.close()

talk = socket.socket()
talk.connect(socket.getaddrinfo("127.0.0.1", %d)[0][-1])
while True:
    line = talk.readline()
    if not line:
        break
    gc.collect()
    try:
        answer = [fetch(json.loads(line)), None]
    except OtaError as error:
        answer = [None, type(error).__name__ + " " + str(error)]
    talk.write(json.dumps(answer) + "\\n")
"""


def content_digest(archive: bytes) -> str:
    """What `Fetched.digest` is for this archive, read by Python's own tarfile."""
    digest = hashlib.sha256()
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            digest.update(member.name.encode())
            if member.isfile():
                digest.update(tar.extractfile(member).read())  # type: ignore[union-attr]
    return digest.hexdigest()


@dataclass(frozen=True)
class Fetched:
    """How a download ended: with the digest of names and contents, or with an error."""

    digest: str | None
    error: str | None
    """Class and text, such as `Transient can not download: the body ended early`."""


class Fetcher:
    """A context manager: a node that downloads from a console whenever it is told to.

    It runs the firmware's own download, inflate and tar code from the folder `firmware`.
    """

    def __init__(self, console: Console, *, firmware: Path = FIRMWARE) -> None:
        console.add_device(DEVICE_ID, DEVICE_KEY, CONTROL_CHANNEL)
        self._console = console
        self._firmware = firmware
        self._end: CodeResult | None = None

    def __enter__(self) -> Fetcher:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            script = _SCRIPT % listener.getsockname()[1]
            self._thread = threading.Thread(target=self._run, args=(script,), daemon=True)
            self._thread.start()
            listener.settimeout(_START_TIMEOUT_S)
            self._socket, _ = listener.accept()
        self._socket.settimeout(_ANSWER_TIMEOUT_S)
        self._answers = self._socket.makefile()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._answers.close()
        self._socket.close()

    def fetch(
        self,
        fuid: str,
        size: int,
        *,
        port: int | None = None,
        wait_s: float = 5,
        total_s: float = 120,
        min_rate: int = 50,
    ) -> Fetched:
        """Download a package once, over `port` (default: the console's own)."""
        job = {
            "fuid": fuid,
            "size": size,
            "wait_ms": int(wait_s * 1000),
            "total_ms": int(total_s * 1000),
            "config": {
                "device_id": DEVICE_ID,
                "device_key": DEVICE_KEY,
                "control_channel": CONTROL_CHANNEL,
                "server": f"localhost:{port or self._console.ports.https}",
                "ca": str(self._console.ca_der),
                "min_rate": min_rate,
            },
        }
        self._socket.sendall(json.dumps(job).encode() + b"\n")
        line = self._answers.readline()
        if not line:
            self._thread.join()
            raise SimError(f"the node has ended: {self._end.output if self._end else ''}")
        return Fetched(*json.loads(line))

    def _run(self, script: str) -> None:
        self._end = run_code(script, path=[self._firmware], timeout_s=3600)
