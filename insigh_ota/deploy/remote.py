"""A board at the other end of ``mpremote``, run as a program with its documented commands."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import serial
from serial.tools import list_ports

from host_sim.files import left_behind
from insigh_ota.deploy.errors import DeployError

DEVICE = Path(__file__).parent / "device"
#: What a script on the board answers stands in a line that begins with this.
MARK = "@deploy "
#: A board that says nothing for so long has no REPL to offer.
SILENCE_S = 20.0
#: mpremote's reset comes a little after mpremote has gone.
RESET_S = 0.3
#: A board at its prompt begins a soft reset at once.
SOFT_RESET_S = 3.0


class Board:
    """The board at `port`. A method that fails raises :class:`DeployError`, one line."""

    def __init__(self, port: str | None) -> None:
        if not port:
            raise DeployError(f"which port? Say --port DEVICE (make: PORT=…){_ports_found()}")
        if left_behind(Path(port)):
            # The terminal may be another program's by now, such as the shell of whoever types.
            raise DeployError(f"{port} is what a killed board has left: start the board again")
        # mpremote knows a pseudo-terminal by its name only.
        self.port = os.path.realpath(port) if Path(port).is_symlink() else port
        there = Path(self.port).exists()
        if (there or "/" in self.port) and not Path(self.port).is_char_device():
            fault = "is not a serial port" if there else "is no port"
            raise DeployError(f"{port} {fault}{_ports_found()}")

    def run(self, script: str, *, reset: bool = False, **arguments: object) -> dict:
        """Run ``device/<script>.py`` with `arguments`; returns its answer."""
        return self.session([Run(script, arguments)], reset=reset)

    def reset(self) -> None:
        """Press the reset button."""
        self.session([], reset=True)

    def soft_reset(self) -> bool:
        """Ctrl-D at the friendly REPL, after which main.py runs. False when it did not come.

        mpremote's own soft reset stays in the raw REPL, where a board runs no main.py; so these
        two bytes are all that goes over the wire without it.
        """
        try:
            with serial.Serial(self.port, 115200, timeout=0.1) as wire:
                wire.write(b"\x03\x04")
                said, until = b"", time.monotonic() + SOFT_RESET_S
                while b"soft reboot" not in said and time.monotonic() < until:
                    said += wire.read(wire.in_waiting or 1)
        except (OSError, serial.SerialException):
            return False
        return b"soft reboot" in said

    def session(
        self,
        steps: Sequence[Run | Copy],
        copying: Callable[[Path], object] | None = None,
        *,
        reset: bool = False,
    ) -> dict:
        """Do `steps` in one connection, then reset if wanted; returns the last answer.

        `copying` is called as each file begins to be copied.
        """
        answers: list[dict] = []
        printed: list[str] = []  # since the last answer
        files = {str(path): path for step in steps for path in getattr(step, "files", ())}

        def hear(line: str) -> None:
            if line.startswith(MARK):
                answers.append(json.loads(line[len(MARK) :]))
                if "printed" in answers[-1]:
                    answers[-1]["printed"] = printed[:]
                printed.clear()
                return
            printed.append(line)
            if line.startswith("cp ") and copying:
                name = line[3:].rpartition(" :")[0]
                if name in files:
                    copying(files[name])

        with tempfile.TemporaryDirectory(prefix="deploy-") as scratch:
            command: list[str] = ["resume"]
            for number, step in enumerate(steps):
                command += [*step.command(Path(scratch) / f"{number}.py"), "+"]
            self._mpremote([*command, *["reset"] * reset], hear)
        if reset:
            time.sleep(RESET_S)
        return answers[-1] if answers else {}

    def _mpremote(self, command: list[str], hear: Callable[[str], object]) -> None:
        """Run it, line by line; no line for SILENCE_S is an error."""
        process = subprocess.Popen(
            [sys.executable, "-m", "mpremote", "connect", self.port, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            text=True,
            errors="replace",
        )
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
        reader.start()
        said: list[str] = []
        try:
            while (line := lines.get(timeout=SILENCE_S)) is not None:
                said.append(line)
                hear(line)
            process.wait()
        except queue.Empty:
            raise DeployError(
                f"nothing on {self.port} answers: is it a MicroPython board? Press its reset "
                "button and repeat"
            ) from None
        finally:
            process.kill()  # unless it has ended, as it should have
            process.wait()
            reader.join()
        if process.returncode:
            raise DeployError(_reason(self.port, said))


class Run:
    """A step: a script of ours, on the board."""

    def __init__(self, script: str, arguments: dict) -> None:
        self.script, self.arguments = script, arguments

    def command(self, scratch: Path) -> list[str]:
        """mpremote's; the script's arguments become its first line."""
        source = (DEVICE / f"{self.script}.py").read_text()
        scratch.write_text(f"args = {self.arguments!r}\n{source}")
        return ["run", str(scratch)]


class Copy:
    """A step: files, into a folder of the board."""

    def __init__(self, files: Sequence[Path], folder: str) -> None:
        self.files, self.folder = files, folder

    def command(self, _: Path) -> list[str]:
        """mpremote's."""
        return ["cp", *map(str, self.files), f":{self.folder}/"]


def _read(process: subprocess.Popen, lines: queue.Queue[str | None]) -> None:
    for line in process.stdout:
        lines.put(line.rstrip("\n"))
    lines.put(None)


def _ports_found() -> str:
    """What else there is, as the end of a sentence."""
    found = sorted(port.device for port in list_ports.comports() if port.vid)
    return f" (found: {', '.join(found)})" if found else " (no board found on USB)"


def _why_not(port: str) -> str:
    """Why mpremote can not open it. It always says that another program has it."""
    try:
        fd = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except PermissionError:
        return "can not be opened: you may not (add yourself to its group, often dialout)"
    except OSError as error:
        return f"can not be opened: {error.strerror}"
    try:
        if not os.isatty(fd):
            return f"is not a serial port{_ports_found()}"
    finally:
        os.close(fd)
    return "can not be opened: another program has it. End that one and repeat"


def _reason(port: str, said: list[str]) -> str:
    """The one line of all that mpremote has said that tells what is wrong."""
    last = next((line for line in reversed(said) if line.strip()), "mpremote ended without a word")
    last = last.strip().removeprefix("mpremote: ")
    if "could not enter raw repl" in last:
        return f"the board on {port} does not stop its program: press its reset button and repeat"
    if "in use by another program" in last:
        return f"{port} {_why_not(port)}"
    if "ENOSPC" in last or "OSError: 28" in last or "No space" in last:
        return "the board's flash is full; what was there still runs"
    if "disconnected" in last or "Input/output error" in last or "Errno 5" in last:
        return f"the board on {port} has gone away: connect it again and repeat"
    return f"the board on {port}: {last}"
