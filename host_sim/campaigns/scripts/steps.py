"""Where a node tells of its steps, and is held until something has been done about one."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator


class Steps:
    """A context manager: a port at which a node says what step it is at, and waits for a byte."""

    def __init__(self) -> None:
        self._actions: dict[str, Callable[[], object]] = {}

    def __enter__(self) -> Steps:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    @contextlib.contextmanager
    def waiting(self, actions: dict[str, Callable[[], object]]) -> Iterator[int]:
        """Each action is done once, when its step comes first. Yields the port."""
        self._actions = actions
        yield self._listener.getsockname()[1]
        self._actions = {}

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                step = connection.makefile("rb").readline().decode().strip()
                action = self._actions.pop(step, None)
                if action:
                    action()
                connection.sendall(b".")
