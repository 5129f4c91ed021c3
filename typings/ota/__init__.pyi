"""The public names of the package `ota`, for editors. The firmware has the docstrings in full."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, NoReturn, Protocol, TypedDict

__version__: str

_Outcome = Literal["idle", "later", "failed", "installed", "confirmed", "rolled_back"]
_Step = Literal[
    "request",
    "notice",
    "space",
    "download",
    "staged",
    "bytes",
    "file",
    "commit",
    "install",
    "clear",
    "report",
    "confirm",
    "failed",
    "later",
]

class _Request(NamedTuple):
    file_id: str
    kind: Literal[".tar", ".tar.gz"]
    size: int

class _Status(TypedDict):
    state: Literal["idle", "staged", "commit", "trial", "back"]
    file_id: str | None
    boots: int
    boots_most: int
    undelivered: str | None
    staged: int

class _Raw(Protocol):
    def readinto(self, buffer: bytearray | memoryview, n: int) -> int: ...

class _Response(Protocol):
    status_code: int
    raw: _Raw
    def close(self) -> None: ...

class _Reads(Protocol):
    def read(self, n: int) -> bytes: ...

class _ReadsInto(Protocol):
    def readinto(self, buffer: bytearray | memoryview) -> int: ...

class _Watchdog(Protocol):
    def feed(self) -> None: ...

class Agent:
    """The update agent of one node."""

    reason: str | None
    """The text of the last failure, None after a cycle without one."""
    pending: bool
    """True when handle() has heard of a request that check() has not seen yet."""
    budget: int
    """Bytes of a package that a wake may fetch; 0: as the configuration says."""

    def __init__(
        self,
        config: dict[str, Any],
        progress: Callable[[_Step, Any], object] | None = None,
        open_stream: Callable[[str], _Response] | None = None,
        client: Any | None = None,
        policy: Callable[[_Request], Literal["go", "later"] | tuple[str, str | int]] | None = None,
        watchdog: _Watchdog | None = None,
    ) -> None: ...
    def check(self) -> _Outcome:
        """One cycle: deliver what is owed, confirm a trial, act on a waiting request."""

    def begin(self) -> Any | None:
        """The first half of a check(), for an application that has something to send."""

    def serve(self) -> NoReturn:
        """Stay connected and act on each request at once."""

    def poll(self) -> _Outcome | None:
        """One step of serve(), for applications with a loop of their own."""

    def install(
        self, stream: _Reads | _ReadsInto, size: int, reset: bool = True
    ) -> Literal["committed", "installed", "failed", "later"]:
        """Install a package that the application has itself; of `size` bytes."""

    def handle(self, topic: bytes, payload: bytes) -> bool:
        """For an application that owns the subscription: True when the message was ours."""

    def retry_ms(self) -> int:
        """How long to wait after a "later", in ms."""

def load_config(path: str = "/ota.json") -> dict[str, Any]:
    """Read the configuration file; every key is present then."""

def confirm(own_watchdog: bool = False) -> bool:
    """Keep the new tree. True when a trial ended by this."""

def status() -> _Status:
    """What is open, and what has not been delivered."""
