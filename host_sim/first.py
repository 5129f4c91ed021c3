"""Ctrl-C before a command knows :mod:`host_sim.ctrl_c`, whose imports take their time.

Only what is in the interpreter itself is imported here.
"""

import _signal
import posix


def _end(*_: object) -> None:
    posix.write(2, b"stopped\n")
    posix._exit(130)


_signal.signal(_signal.SIGINT, _end)
