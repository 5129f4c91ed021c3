"""What the package server is told to do wrong."""

from __future__ import annotations

import copy
import dataclasses
import threading
from dataclasses import dataclass, field

_LOCK = threading.Lock()


@dataclass
class Faults:
    """Faults of the download, to be changed at any time; each new request looks at them.

    All positions but `cut_at` count in the body of one response: with a range, from its start.
    """

    status: int | None = None
    """Answer this status, with a short text for a body, whatever was asked."""
    redirect_to: str | None = None
    """Answer 302 with this Location; `{query}` in it becomes the query of the request."""
    truncate_at: int | None = None
    """Close after this many bytes of the body, the announced length staying as it was."""
    cut_at: list[int] = field(default_factory=list)
    """Close when the body comes to one of these offsets of the package; each strikes once."""
    stall_at: int | None = None
    """Fall silent after this many bytes of the body, the connection staying open."""
    flip_at: int | None = None
    """Invert one bit of this byte of the body."""
    extra: bytes = b""
    """Bytes put after the package and counted in the announced length."""
    extra_beyond_length: bytes = b""
    """Bytes sent after everything the announced length covers."""
    wrong_length: int | None = None
    """Announce this Content-Length, whatever is sent."""
    no_length: bool = False
    """No Content-Length: the body ends where the connection does."""
    chunked: bool = False
    """Send with Transfer-Encoding: chunked, and so without Content-Length."""
    drip: float | None = None
    """Bytes per second."""
    pause_every: int | None = None
    """Send the body in pieces of this many bytes, with a pause after each."""
    pause_ms: int = 0
    """How long that pause is."""
    extra_head: bytes = b""
    """Bytes sent between the status line and the headers: further lines, their ends included."""
    head_drip_ms: int = 0
    """Send status line and headers byte by byte, with this pause after each."""
    range_taken_as: str | None = None
    """Serve this in place of the request's Range, if it had any; empty: the whole package."""
    range_shift: int = 0
    """Begin a 206 this many bytes further than asked, and say so."""
    content_range: str | None = None
    """The Content-Range of a 206; empty: none. `{first}`, `{last}` and `{size}` in it become the
    right numbers, `{first:+1}` one more than that."""
    etag: str | None = None
    """Send this ETag; empty: none. If-Range is still compared with the right one."""
    if_range_ignored: bool = False
    """Serve the range even when If-Range names another package."""
    close: bool = False
    """Say `Connection: close`, and do so behind each answer."""
    hang_up: bool = False
    """Close the connection behind each answer, and do not say so."""
    protocol: str | None = None
    """Answer in this version, such as HTTP/1.0, which closes behind each answer."""
    times: int | None = None
    """Counts down with each download; at 0 the server does as `then` says. None: every one."""
    then: Faults | None = None
    """What comes after `times`; None: the server behaves."""

    def take(self) -> Faults:
        """The faults of the next download, as a copy that nobody changes under way."""
        with _LOCK:
            current: Faults | None = self
            while current is not None and current.times is not None and current.times <= 0:
                current = current.then
            if current is None:
                return Faults()
            if current.times is not None:
                current.times -= 1
            return copy.copy(current)

    def stop_at(self, start: int, whole: int) -> int | None:
        """After how many of its `whole` bytes a body that begins at `start` is to end early."""
        with _LOCK:
            cuts = [offset - start for offset in self.cut_at if offset >= start]
        stops = [stop for stop in (self.truncate_at, self.stall_at, *cuts) if stop is not None]
        stop = min(stops, default=whole)
        return stop if stop < whole else None

    def spend_cut(self, offset: int) -> None:
        """One of `cut_at` has struck, if it is one."""
        with _LOCK:
            if offset in self.cut_at:
                # The copies that `take` gives out share this list.
                self.cut_at.remove(offset)

    def clear(self) -> None:
        """Behave from now on."""
        with _LOCK:
            self.__dict__.update(Faults().__dict__)


def in_turn(*faults: Faults) -> Faults:
    """These, each for one download or as many as its `times` says; then the server behaves."""
    chain = None
    for each in reversed(faults):
        times = 1 if each.times is None else each.times
        chain = dataclasses.replace(each, times=times, then=chain)
    return chain or Faults()
