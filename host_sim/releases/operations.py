"""What an instance can ask the host for, by number. The modules of inside/ have the same numbers.

Numbers below 6, and 8, are no questions: node.py sees to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from host_sim.errors import SimError
from host_sim.releases.flash import Flash
from host_sim.releases.sockets import Answer, Sockets, Tls

#: A handle of a file has the number of its flash in it, times this.
_HANDLES = 1 << 16


@dataclass
class Instance:
    """The world of one instance, from power-up to its end. The first flash is the node's own."""

    flashes: list[Flash]
    cause: int  # of its boot
    rtc: bytes  # memory that stays through resets and deep sleep
    sockets: Sockets = field(default_factory=Sockets)
    tls: Tls = field(default_factory=Tls)

    def answer(self, operation: int, a: int, b: int, data: bytes) -> Answer:
        """What an operation comes to. Raises OSError, LittleFSError."""
        if operation not in _DOES:
            raise SimError(f"an instance asks for {operation}")
        return _DOES[operation](self, a, b, data)

    def flash_of(self, handle: int) -> Flash:
        """The flash that an open file is on."""
        return self.flashes[handle // _HANDLES]

    def new_flash(self, blocks: int) -> Answer:
        """The number of one more flash."""
        self.flashes.append(Flash(blocks=blocks))
        return len(self.flashes) - 1, b""

    def open(self, flash: int, what: bytes) -> Answer:
        """The handle of a file."""
        mode, name = what.decode().split("\0")
        return self.flashes[flash].open(name, mode)[0] + flash * _HANDLES, b""

    def keep(self, is_new: int, data: bytes) -> Answer:
        """The memory of the RTC, or a new content for it."""
        if not is_new:
            return 0, self.rtc
        self.rtc = data
        return 0, b""


_DOES: dict[int, Callable[[Instance, int, int, bytes], Answer]] = {
    6: lambda me, *_: (me.cause, b""),
    7: lambda me, a, _, data: me.keep(a, data),
    16: lambda me, a, *_: me.new_flash(a),
    17: lambda me, a, *_: (me.flashes[a].operations, b""),
    18: lambda me, a, *_: me.flashes[a].format(),
    19: lambda me, a, *_: me.flashes[a].mount(),
    20: lambda me, a, _, data: me.open(a, data),
    21: lambda me, a, *_: me.flash_of(a).close(a % _HANDLES),
    22: lambda me, a, *_: me.flash_of(a).flush(a % _HANDLES),
    23: lambda me, a, b, _: me.flash_of(a).read_file(a % _HANDLES, b),
    24: lambda me, a, _, data: me.flash_of(a).write_file(a % _HANDLES, data),
    25: lambda me, a, b, data: me.flash_of(a).seek(a % _HANDLES, b, data[0]),
    26: lambda me, a, _, data: me.flashes[a].stat(data.decode()),
    27: lambda me, a, *_: me.flashes[a].statvfs(),
    28: lambda me, a, _, data: me.flashes[a].list(data.decode()),
    29: lambda me, a, _, data: me.flashes[a].mkdir(data.decode()),
    30: lambda me, a, _, data: me.flashes[a].remove(data.decode()),
    31: lambda me, a, _, data: me.flashes[a].rename(*data.decode().split("\0")),
    32: lambda me, a, b, _: me.flash_of(a).read_line(a % _HANDLES, b),
    40: lambda me, a, _, data: me.sockets.connect(data.decode(), a),
    41: lambda me, a, _, data: me.sockets.send(a, data),
    42: lambda me, a, b, _: me.sockets.receive(a, b),
    43: lambda me, a, *_: me.sockets.shut(a),
    44: lambda me, a, b, data: me.sockets.poll(a, b, int(data)),
    50: lambda me, *_: me.tls.context(),
    51: lambda me, a, _, data: me.tls.anchor(a, data),
    52: lambda me, a, _, data: me.tls.wrap(a, data.decode()),
    53: lambda me, a, *_: me.tls.shake(a),
    54: lambda me, a, b, _: me.tls.read(a, b),
    55: lambda me, a, _, data: me.tls.write(a, data),
    56: lambda me, a, _, data: me.tls.came(a, data),
    57: lambda me, a, *_: me.tls.goes(a),
}
