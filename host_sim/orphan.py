"""A process that ends with the one that started it, however that one ends.

As a script, ``orphan.py PID WORDS…``, it becomes the program WORDS, which ends with process PID.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # of prctl(2); it outlives execve(2)


def end_with(parent: int, number: int) -> None:
    """Get signal `number` when `parent`, which has started this process, is gone.

    On Linux; elsewhere it does nothing. There the *thread* that has started it counts: that one
    has to live as long as this process is to.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it was killed before
            os._exit(1)


def bound(command: Sequence[str]) -> list[str]:
    """The command that runs `command` as a program that ends with this process, or this thread."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *map(str, command)]


if __name__ == "__main__":
    end_with(int(sys.argv[1]), signal.SIGTERM)
    os.execvp(sys.argv[2], sys.argv[2:])
