"""What tests need to talk to a board: real ``mpremote``, and a bare serial port."""

from __future__ import annotations

import subprocess
import sys
import time

import serial


def mpremote(port: str, *arguments: str, ok: bool = True, timeout_s: float = 120) -> str:
    """Run unmodified mpremote on `port`; returns what it wrote. `ok`: it has to succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "mpremote", "connect", port, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    output = done.stdout + done.stderr
    assert (done.returncode == 0) == ok, output
    return output


class Line:
    """A terminal program at the port, without a mind of its own."""

    def __init__(self, port: str) -> None:
        self.serial = serial.Serial(port, timeout=0.02)
        self._rest = b""

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.serial.close()

    def type(self, text: str) -> None:
        """Send keys."""
        self.serial.write(text.encode())

    def until(self, end: str, timeout_s: float = 60) -> str:
        """Everything that arrives up to and with `end`."""
        wanted, give_up = end.encode(), time.monotonic() + timeout_s
        while wanted not in self._rest:
            assert time.monotonic() < give_up, f"no {end!r} in {self._rest!r}"
            self._rest += self.serial.read(max(1, self.serial.in_waiting))
        text, _, self._rest = self._rest.partition(wanted)
        return (text + wanted).decode()

    def quiet(self, seconds: float) -> str:
        """What arrives in that time: nothing, one hopes."""
        text, end = self._rest, time.monotonic() + seconds
        while time.monotonic() < end:
            text += self.serial.read(100)
        return text.decode()
