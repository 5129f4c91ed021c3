"""What a modem does wrong, and when."""

from __future__ import annotations

from dataclasses import dataclass

from host_sim.errors import SimError

#: What a fault may be, apart from an HTTP status and a line to answer with.
KINDS = ("silence", "reset", "pdpdeact", "truncate", "again")


@dataclass
class Fault:
    """What happens in place of a command that begins with `command`.

    `what` is a line to answer with, such as ``"ERROR"``, ``"+CME ERROR: 3"`` or
    ``"NO CARRIER"``; an HTTP status, which the server seems to have given; or one of:

    - ``"silence"``: nothing is done and nothing answered;
    - ``"reset"``: the modem starts again: connections and settings are lost, files are kept;
    - ``"pdpdeact"``: the network ends the connection in the middle, and `+QIURC` says so;
    - ``"truncate"``: the data of an answer is only half of what it says, then nothing follows;
    - ``"again"``: AT+QMTSUB reaches nobody at first: result 1 after 15 s and after 30 s, while
      the modem tries again, and the broker's answer after that.

    It happens `times` times (None: for ever), from the `first` such command on.
    """

    command: str
    what: str | int
    times: int | None = 1
    first: int = 1

    def __post_init__(self) -> None:
        if self.first < 1 or (self.times is not None and self.times < 1):
            raise SimError("a modem's fault counts from 1")

    def strikes(self, command: str) -> bool:
        """Whether it happens to this command; counts it."""
        if not command.upper().startswith(self.command.upper()) or self.times == 0:
            return False
        if self.first > 1:
            self.first -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True
