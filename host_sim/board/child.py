"""The process of one boot of the board: a MicroPython that takes Ctrl-C between two bytecodes.

Run as a script by :mod:`host_sim.board.chip`, with the settings as JSON.

The interpreter's own answer to SIGINT is a jump out of whatever C code it is in, be that littlefs
in the middle of a write. SIGUSR2 makes it do what a board does: remember the Ctrl-C, and raise
KeyboardInterrupt at the next safe moment.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import signal
import sys

KEYBOARD_INTERRUPT = signal.SIGUSR2


def main() -> int:
    """Become the interpreter; returns its exit code."""
    settings = json.loads(sys.argv[1])
    sys.path += settings["path"]
    from host_sim.node.server import become_node
    from host_sim.orphan import end_with

    # Else a node that is busy would go on to write a flash that the next board may take.
    end_with(settings["parent"], signal.SIGKILL)

    library = ctypes.CDLL(importlib.util.find_spec("micropython_run").origin)
    remember = ctypes.cast(library.mp_sched_keyboard_interrupt, ctypes.c_void_p)
    libc = ctypes.CDLL(None)
    libc.signal(int(KEYBOARD_INTERRUPT), remember)
    libc.siginterrupt(int(KEYBOARD_INTERRUPT), 1)  # also out of a system call

    from micropython_run import run_main

    return become_node(settings, settings["fds"], run_main)


if __name__ == "__main__":
    sys.exit(main())
