"""One connection on its way through a link."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Coroutine
from typing import Any

from host_sim.link.profile import DIRECTIONS, Cut, Hold, Profile
from host_sim.link.record import Record
from host_sim.link.sockets import finish, reset
from host_sim.link.strikes import Life, Strikes
from host_sim.link.wire import SEGMENT, Lane, Wire

_MOST_IN_FLIGHT = 256

# When a piece arrives, when it came, and the piece: b"" for FIN, None for RST.
Flight = tuple[float, float, bytes | None]


class _Ended(Exception):
    def __init__(self, how: str, with_reset: bool) -> None:
        super().__init__(how)
        self.how = how
        self.with_reset = with_reset


class Passage:
    """Carries both directions until both have ended, one breaks off, or a fault strikes."""

    def __init__(
        self,
        node: socket.socket,
        profile: Profile,
        life: Life,
        lanes: dict[str, Lane],
        record: Record,
    ) -> None:
        self._ends = {"down": node}  # where each direction leads to
        self._record = record
        self._about = record.open()
        number = self._about.number
        self._profile = profile.for_connection(number)
        self._strikes = Strikes(self._profile, life)
        self._wires = {way: Wire(lanes[way], self._profile, number, way) for way in DIRECTIONS}
        self._held: set[str] = set()
        self._broken: set[socket.socket] = set()

    async def run(self, target: tuple[str, int]) -> None:
        """Connect to the target and carry; returns when everything is closed."""
        how, with_reset = "stopped", False
        try:
            await self._run(target)
        except _Ended as end:
            how, with_reset = end.how, end.with_reset
        finally:
            # Noted first: who sees the end is to find it here.
            self._record.end(self._about, how)
            if with_reset:
                await asyncio.gather(*map(reset, self._ends.values()))
            else:
                for each in self._ends.values():
                    finish(each)

    async def _run(self, target: tuple[str, int]) -> None:
        node = self._ends["down"]
        if self._profile.connect == "hold":
            await self._swallow(node)
            raise _Ended("held", False)
        self._strike(*self._strikes.at_start())
        # The handshake of TCP took no time here, but would have taken a round trip.
        await asyncio.sleep(self._profile.rtt_ms / 1000)
        if self._profile.tls:
            await self._answer_nonsense(node, self._profile.tls)
        console = await self._connect(target)
        self._ends["up"] = console
        flights: dict[str, asyncio.Queue[Flight]] = {
            way: asyncio.Queue(_MOST_IN_FLIGHT) for way in DIRECTIONS
        }
        await _all(
            self._send("up", node, flights["up"]),
            self._deliver_all("up", console, flights["up"]),
            self._send("down", console, flights["down"]),
            self._deliver_all("down", node, flights["down"]),
        )
        raise _Ended("closed", False)

    async def _connect(self, target: tuple[str, int]) -> socket.socket:
        console = socket.socket()
        try:
            console.setblocking(False)
            console.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(console, target)
        except ConnectionResetError:
            self._broken.add(console)  # gone again already; what it sent before is to be read
        except OSError:
            console.close()
            raise _Ended("unreachable", True) from None
        except BaseException:
            console.close()
            raise
        return console

    async def _send(self, way: str, source: socket.socket, flight: asyncio.Queue[Flight]) -> None:
        """Put what comes from the source on the wire, until it ends."""
        loop = asyncio.get_running_loop()
        wire = self._wires[way]
        data: bytes | None = b"-"
        while data:
            await wire.room()
            try:
                data = await loop.sock_recv(source, SEGMENT)
            except OSError:
                data = None
            if not data and source in self._broken:
                data = None  # a system tells of a reset once, and it was the other direction
            now = loop.time()
            await flight.put((wire.arrival(len(data or b""), now), now, data))

    async def _deliver_all(
        self, way: str, target: socket.socket, flight: asyncio.Queue[Flight]
    ) -> None:
        """Hand over to the target what arrives, until its end does."""
        loop = asyncio.get_running_loop()
        while True:
            arrival, entered, data = await flight.get()
            if (wait := arrival - loop.time()) > 0:
                await asyncio.sleep(wait)
            try:
                if way in self._held or target in self._broken:
                    pass
                elif data is None:
                    raise _Ended("reset", True)
                elif data:
                    await self._drip(way, target, data, entered)
                else:
                    target.shutdown(socket.SHUT_WR)
            except OSError:
                # The target has gone. What it sent before is still to be delivered, and behind
                # that the other direction comes to its end as well.
                self._broken.add(target)
            if not data:
                return

    async def _drip(self, way: str, target: socket.socket, data: bytes, entered: float) -> None:
        drip_ms = self._profile.drip_up_ms if way == "up" else self._profile.drip_down_ms
        size = 1 if drip_ms else len(data)
        for at in range(0, len(data), size):
            await self._deliver(way, target, data[at : at + size], entered)
            await asyncio.sleep(drip_ms / 1000)

    async def _deliver(self, way: str, target: socket.socket, data: bytes, entered: float) -> None:
        while data and way not in self._held:
            piece, strike = self._strikes.take(way, data)
            data = data[len(piece) :]
            # Written down first: who sees the effect is to find it there.
            self._record.deliver(self._about, way, len(piece), entered)
            await asyncio.get_running_loop().sock_sendall(target, piece)
            if strike:
                self._strike(strike)

    def _strike(self, *strikes: Cut | Hold) -> None:
        for strike in strikes:
            if isinstance(strike, Cut):
                raise _Ended("cut", strike.reset)
            self._held |= set(DIRECTIONS) if strike.both else {strike.direction}

    async def _answer_nonsense(self, node: socket.socket, kind: str) -> None:
        """What a server, or something in its place, might say to a ClientHello."""
        loop = asyncio.get_running_loop()
        chance = random.Random(self._profile.seed)
        answer = {
            "garbage": b"\x7f" + chance.randbytes(600),
            "alert": b"\x15\x03\x03\0\x02\x02\x28",  # fatal, handshake_failure
            "record": b"\x17\x03\x03\0\x40" + chance.randbytes(0x40),  # application data
            "overlong": b"\x16\x03\x03\xff\xff" + chance.randbytes(600),
            "http": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        }[kind]
        entered = loop.time()
        try:
            if await loop.sock_recv(node, 1 << 16):
                await asyncio.sleep(self._profile.rtt_ms / 1000)
                self._record.deliver(self._about, "down", len(answer), entered)
                await loop.sock_sendall(node, answer)
        except OSError:
            pass
        raise _Ended("tls fault", False)

    async def _swallow(self, node: socket.socket) -> None:
        try:
            while await asyncio.get_running_loop().sock_recv(node, 1 << 16):
                pass
        except OSError:
            pass


async def _all(*steps: Coroutine[Any, Any, None]) -> None:
    """Run them side by side; the first exception ends them all."""
    tasks = [asyncio.ensure_future(step) for step in steps]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
