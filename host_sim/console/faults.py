"""What the package server is told to do wrong."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass

_LOCK = threading.Lock()


@dataclass
class Faults:
    """Faults of the download, to be changed at any time; each new request looks at them.

    All positions count in the body of one response: with a range, from the range's start.
    """

    status: int | None = None
    """Answer this status, with a short text for a body, whatever was asked."""
    redirect_to: str | None = None
    """Answer 302 with this Location; `{query}` in it becomes the query of the request."""
    truncate_at: int | None = None
    """Close after this many bytes of the body, the announced length staying as it was."""
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
    times: int | None = None
    """Counts down with each download; at 0 the server behaves. None: every download."""

    def take(self) -> Faults:
        """The faults of the next download, as a copy that nobody changes under way."""
        with _LOCK:
            if self.times is None:
                return copy.copy(self)
            if self.times <= 0:
                return Faults()
            self.times -= 1
            return copy.copy(self)

    def clear(self) -> None:
        """Behave from now on."""
        with _LOCK:
            self.__dict__.update(Faults().__dict__)
