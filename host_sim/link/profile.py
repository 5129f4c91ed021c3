"""What a link is like, and its textual form."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from host_sim.errors import SimError

DIRECTIONS = ("up", "down")
CONNECT = ("open", "hold", "drop", "refuse")
TLS = ("garbage", "alert", "record", "overlong", "http")

HELP = """\
A link is described by items separated by commas. `up` is from the node to the console, `down` the
other way. Times are written 200ms or 1.5s, sizes in bytes, also as 20k (20,000) or 1.5M.

  rtt=200ms        round trip; TCP's own handshake takes one as well
  down=20k up=5k   bytes per second, of all connections together
  loss=2%          of the segments (up to 1460 bytes) have to be sent again: a pause, no loss
  rto=400ms        how long that pause is, doubling when it hits again; default: rtt + 200ms
  seed=7           which segments it hits
  cut=4096         end the connection behind this byte that comes down
  hold=4096        black hole: pass on nothing that comes down behind this byte, and say nothing
  corrupt=4096     invert the bits of this byte, the first one being 0
  drip=50ms        pass on what comes down byte by byte, with this pause after each
  tls=alert        answer the first bytes that come up with nonsense, and close: garbage, alert,
                   record (of the wrong type), overlong (a record) or http
  connect=hold     accept and pass on nothing; drop: let nobody connect, without a word (Linux
                   only); refuse: nobody listens
  times=3          the faults hit the first three connections only

cut, hold and corrupt count over the link's life and strike once. Words in front of the number,
with colons, change that: `each` counts and strikes in each connection (cut=each:97), `up` counts
what goes up; `reset` makes a cut a TCP reset, `both` makes a hold silent both ways. drip takes
`up`. All but the single numbers may be given several times: cut=100,cut=up:reset:200."""


@dataclass(frozen=True)
class Strike:
    """Something that happens at a byte of the stream, the first one being 0."""

    at: int
    direction: str = "down"
    each: bool = False
    """Counted and done in each connection; otherwise over the link's life, and once."""


@dataclass(frozen=True)
class Cut(Strike):
    """The connection ends, with FIN or RST to both sides, when `at` bytes have been delivered."""

    reset: bool = False


@dataclass(frozen=True)
class Hold(Strike):
    """Behind byte `at` nothing more is delivered, the connection staying open."""

    both: bool = False


@dataclass(frozen=True)
class Corrupt(Strike):
    """All bits of byte `at` are inverted."""


@dataclass(frozen=True)
class Profile:
    """A link's behaviour. The default is to pass everything on at once; see `HELP`."""

    rtt_ms: float = 0
    up: float | None = None
    """Bytes per second; None: no limit."""
    down: float | None = None
    loss: float = 0
    """Probability that a segment has to be sent again, below 1."""
    rto_ms: float | None = None
    seed: int = 0
    strikes: tuple[Strike, ...] = ()
    drip_up_ms: float = 0
    drip_down_ms: float = 0
    tls: str | None = None
    connect: str = "open"
    times: int | None = None

    @property
    def retransmission_ms(self) -> float:
        """The first pause for a lost segment."""
        return self.rtt_ms + 200 if self.rto_ms is None else self.rto_ms

    def for_connection(self, number: int) -> Profile:
        """The profile that counts for a connection, the first one being number 0."""
        if self.times is None or number < self.times:
            return self
        return dataclasses.replace(
            self, strikes=(), drip_up_ms=0, drip_down_ms=0, tls=None, connect="open", times=None
        )


def parse(text: str) -> Profile:
    """The profile that a text such as `rtt=200ms,down=20k,cut=4096` describes.

    Raises SimError with a text that names the wrong item and says what would be right.
    """
    fields: dict[str, Any] = {}
    strikes: list[Strike] = []
    for item in filter(None, (item.strip() for item in text.split(","))):
        key, equals, value = item.partition("=")
        if key not in _KEYS or not equals:
            raise SimError(f"link: {item!r}: must be KEY=VALUE, KEY being one of {_ALL_KEYS}")
        try:
            name, parsed = _KEYS[key](value)
        except ValueError as error:
            raise SimError(f"link: {item!r}: {error}") from None
        if isinstance(parsed, Strike):
            strikes.append(parsed)
        elif name in fields:
            raise SimError(f"link: {item!r}: given twice")
        else:
            fields[name] = parsed
    profile = Profile(strikes=tuple(strikes), **fields)
    if profile.times is not None and profile.connect in ("drop", "refuse"):
        raise SimError(f"link: times counts connections, and connect={profile.connect} has none")
    return profile


Item = Callable[[str], tuple[str, Any]]


def _field(name: str, read: Callable[[str], Any]) -> Item:
    return lambda value: (name, read(value))


def _time_ms(value: str) -> float:
    match = re.fullmatch(r"(\d+\.?\d*)(ms|s)", value)
    if not match:
        raise ValueError("must be a time such as 200ms or 1.5s")
    return float(match[1]) * (1 if match[2] == "ms" else 1000)


def _rate(value: str) -> float:
    match = re.fullmatch(r"(\d+\.?\d*)([kM]?)", value)
    if not match or not float(match[1]):
        raise ValueError("must be bytes per second such as 5000, 20k or 1.5M")
    return float(match[1]) * {"": 1, "k": 1e3, "M": 1e6}[match[2]]


def _share(value: str) -> float:
    match = re.fullmatch(r"(\d+\.?\d*)(%?)", value)
    share = float(match[1]) / (100 if match[2] else 1) if match else 1
    if share > 0.9:
        raise ValueError("must be a share such as 2% or 0.02, 90% at most")
    return share


def _count(value: str) -> int:
    if not re.fullmatch(r"\d{1,15}", value):
        raise ValueError("must be a whole number")
    return int(value)


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value

    return read


def _drip(value: str) -> tuple[str, float]:
    direction, _, time = value.rpartition(":")
    if direction not in ("", *DIRECTIONS):
        raise ValueError("must be a time such as 50ms, with up: or down: in front")
    return f"drip_{direction or 'down'}_ms", _time_ms(time)


def _strike(kind: type[Strike], extra: str = "") -> Item:
    def read(value: str) -> tuple[str, Strike]:
        *words, at = value.split(":")
        known = [*DIRECTIONS, "each", *filter(None, [extra])]
        options: dict[str, Any] = {}
        for word in words:
            name = "direction" if word in DIRECTIONS else word
            if word not in known or name in options:
                raise ValueError(f"must be a number of bytes, with {', '.join(known)} in front")
            options[name] = word if name == "direction" else True
        return "strikes", kind(_size(at), **options)

    return read


def _size(value: str) -> int:
    match = re.fullmatch(r"(\d{1,12})([kM]?)", value)
    if not match:
        raise ValueError("must be a number of bytes such as 4096 or 20k")
    return int(match[1]) * {"": 1, "k": 1000, "M": 1_000_000}[match[2]]


_KEYS: dict[str, Item] = {
    "rtt": _field("rtt_ms", _time_ms),
    "down": _field("down", _rate),
    "up": _field("up", _rate),
    "loss": _field("loss", _share),
    "rto": _field("rto_ms", _time_ms),
    "seed": _field("seed", _count),
    "cut": _strike(Cut, "reset"),
    "hold": _strike(Hold, "both"),
    "corrupt": _strike(Corrupt),
    "drip": _drip,
    "tls": _field("tls", _one_of(TLS)),
    "connect": _field("connect", _one_of(CONNECT)),
    "times": _field("times", _count),
}
_ALL_KEYS = ", ".join(_KEYS)
