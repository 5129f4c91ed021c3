"""The board's end of the serial line: a pseudo-terminal that others open as ``/dev/pts/N``."""

from __future__ import annotations

import contextlib
import os
import re
import select
import tty
from collections.abc import Iterator
from pathlib import Path

from host_sim import files
from host_sim.errors import SimError

#: How often to look whether somebody has opened the port; no event tells of it.
LOOK_S = 0.02
#: Beyond this the node waits in `print` for whoever has opened the port to read.
MOST_PENDING = 1 << 16


class Wire:
    """A UART without flow control: what nobody listens to is lost."""

    def __init__(self, link: Path | None = None) -> None:
        """`link`: a symbolic link to make to the port, for a name that stays."""
        self.fd, theirs = os.openpty()
        tty.setraw(theirs)
        self.port = os.ttyname(theirs)
        os.close(theirs)  # so that the port shows whether anybody has opened it
        os.set_blocking(self.fd, False)
        self.connected = False
        self.pending = b""
        self._last = b""
        self._link = contextlib.ExitStack()
        if link is not None:
            try:
                self._link.enter_context(_linked(link, self.port))
            except BaseException:
                os.close(self.fd)
                raise

    def close(self) -> None:
        """Hang up."""
        self._link.close()  # while the port is still ours: another board may get one of its name
        os.close(self.fd)

    @property
    def full(self) -> bool:
        """True while the node should print no more."""
        return len(self.pending) > MOST_PENDING

    def look(self) -> bool:
        """Update :attr:`connected`; true when somebody has just opened the port."""
        poll = select.poll()
        poll.register(self.fd, 0)
        before = self.connected
        self.connected = not any(mask & select.POLLHUP for _, mask in poll.poll(0))
        if not self.connected:
            self.pending = b""
        return self.connected and not before

    def read(self) -> bytes:
        """What was typed, also by someone who has hung up since."""
        try:
            return os.read(self.fd, 65536)
        except (BlockingIOError, OSError):  # OSError: nobody there
            return b""

    def write(self, data: bytes) -> None:
        """Send the node's output; ``\\n`` becomes ``\\r\\n`` as on a board."""
        if not data:
            return
        cooked = re.sub(rb"(?<!\r)\n", b"\r\n", self._last + data)[len(self._last) :]
        self._last = data[-1:] if data[-1:] == b"\r" else b""
        if self.connected:
            self.pending += cooked
            self.flush()

    def flush(self) -> None:
        """Hand as much as is possible to the other side."""
        try:
            while self.pending:
                done = os.write(self.fd, self.pending)
                self.pending = self.pending[done:]
        except BlockingIOError:
            pass
        except OSError:
            self.pending = b""


@contextlib.contextmanager
def _linked(link: Path, port: str) -> Iterator[None]:
    """Inside the `with`, `link` leads to `port`, and is no other board's; else SimError.

    A board that was killed leaves its link behind, and any other program may be given the same
    terminal after it. So a lock tells whose the link is, not the terminal that it leads to.
    """
    taken = (
        f"{link} is the port of a board that runs already: end that one, or take another name "
        "(--link PATH; make: LINK=…)"
    )
    if not link.parent.is_dir():
        raise SimError(f"{link} can not be made: {link.parent} is no folder")
    left = files.left_behind(link)
    with files.locked(link, taken):
        try:
            if left:
                link.unlink()
            link.symlink_to(port)
        except FileExistsError:
            raise SimError(
                f"{link} is there already, and no board's: take another name, or remove it"
            ) from None
        except OSError as error:
            raise SimError(f"{link} can not be made: {error.strerror}") from error
        try:
            yield
        finally:
            if link.is_symlink() and str(link.readlink()) == port:
                link.unlink()  # else somebody has put something else in its place
