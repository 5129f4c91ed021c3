"""The link itself: a port, and a thread that carries what comes to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from host_sim.errors import SimError
from host_sim.link.passage import Passage
from host_sim.link.profile import DIRECTIONS, Profile, parse
from host_sim.link.record import Connection, Record, Segment
from host_sim.link.sockets import Door
from host_sim.link.strikes import Life
from host_sim.link.wire import Lane

logger = logging.getLogger("link")


class Link:
    """A context manager: who connects to `port` on 127.0.0.1 talks to the target through it.

    The profile is a `Profile` or a text for `parse`.
    """

    def __init__(self, target_host: str, target_port: int, profile: Profile | str = "") -> None:
        self._where = (target_host, target_port)
        self._record = Record()
        self._passages: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._door_state = ""
        self._set(profile)
        self.port = 0

    def __enter__(self) -> Link:
        try:
            self._target = socket.getaddrinfo(
                *self._where, family=socket.AF_INET, type=socket.SOCK_STREAM
            )[0][4]
        except OSError as error:
            raise SimError(f"link: host {self._where[0]!r}: {error.strerror}") from error
        self._door = Door()
        self.port = self._door.port
        self._loop = asyncio.new_event_loop()
        # Daemonic: a process that forgets to end its link shall end all the same.
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._thread.start()
        try:
            self._in_loop(self._turn_door())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._in_loop(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._door.close()

    @property
    def profile(self) -> Profile:
        """What counts for new connections; set it (a text will do) to have all counts begin anew.

        Connections that are under way keep theirs.
        """
        return self._profile

    @profile.setter
    def profile(self, profile: Profile | str) -> None:
        async def change() -> None:
            self._set(profile)
            await self._turn_door()

        self._in_loop(change())

    @property
    def segments(self) -> list[Segment]:
        """All pieces so far, in the order in which they were passed on."""
        return self._record.segments()

    @property
    def connections(self) -> list[Connection]:
        """All connections so far, as they are now."""
        return self._record.connections()

    def delivered(self, direction: str) -> int:
        """Bytes passed on in one direction, over the link's life."""
        return sum(s.length for s in self.segments if s.direction == direction)

    def wait_for(self, predicate: Callable[[], bool], timeout: float = 5.0) -> bool:
        """Wait until the predicate holds: asked again after everything that happens."""
        return self._record.wait_for(predicate, timeout)

    # -- in the loop's thread ------------------------------------------------------------------

    def _set(self, profile: Profile | str) -> None:
        self._profile = parse(profile) if isinstance(profile, str) else profile
        self._life = Life()
        self._lanes = {way: Lane(getattr(self._profile, way)) for way in DIRECTIONS}

    async def _turn_door(self) -> None:
        """Open or close the door as the profile says."""
        wanted = self._profile.connect if self._profile.connect in ("refuse", "drop") else "open"
        if wanted == self._door_state:
            return
        await self._stop_accepting()
        self._door_state = wanted
        if wanted == "refuse":
            self._door.refuse()
        elif wanted == "drop":
            self._door.drop()
        else:
            self._accepting = asyncio.ensure_future(self._accept(self._door.open()))

    async def _stop_accepting(self) -> None:
        if self._accepting:
            self._accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._accepting
            self._accepting = None

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            node, _ = await asyncio.get_running_loop().sock_accept(listener)
            node.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            passage = Passage(node, self._profile, self._life, self._lanes, self._record)
            task = asyncio.ensure_future(passage.run(self._target))
            self._passages.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._passages.discard(task)
        if not task.cancelled() and task.exception():
            logger.error("fault in the link", exc_info=task.exception())

    async def _stop(self) -> None:
        await self._stop_accepting()
        await asyncio.sleep(0)  # a task that is cancelled before it began would close nothing
        passages = list(self._passages)
        for task in passages:
            task.cancel()
        await asyncio.gather(*passages, return_exceptions=True)

    def _in_loop(self, step: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result()
