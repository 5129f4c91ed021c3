"""What brokers do differently that matters to a node, measured on each of them."""

from __future__ import annotations

import contextlib
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from host_sim.campaigns.brokers.connection import (
    PING,
    Closed,
    Connection,
    packet,
    puback,
    publish,
    subscribe,
    text,
)
from host_sim.console import Console

BROKERS = ("mosquitto", "amqtt", "nats", "rabbitmq", "aedes")
_ROUNDS = 50
_SILENCE_S = 1.5
# NATS shuts out a client id that comes back twice before it has seen the goodbyes.
_BETWEEN_S = 0.05
_THIEF = ("thief", "its-key", "its-channel")
#: Ids that the simulated console takes, and a broker perhaps not.
_STRANGE = ("a.dot", "a-dash_underscore", "ümlaut", "$dollar", "a=b,c;d")


class Facts:
    """One broker's answers, as rows of a table."""

    def __init__(self, broker: str) -> None:
        self._broker = broker

    def rows(self) -> dict[str, str]:
        """Name of the fact, and what was seen."""
        with (
            tempfile.TemporaryDirectory() as folder,
            Console(Path(folder) / "console", broker=self._broker) as self._console,
        ):
            questions = self._questions()
            # A device for each: some brokers remember longer than they should.
            ids = [(f"node-{n}", "key", f"channel-{n}") for n in range(len(questions))]
            strange = [(f"strange-{name}", "key", name) for name in _STRANGE]
            # All at once: nats-server 2.9.10 may crash when it reads its accounts anew later.
            self._console.add_devices([*ids, *strange, _THIEF])
            rows = {}
            for (self._device, *_), (name, ask) in zip(ids, questions.items(), strict=True):
                self._topic = self._console.topic(self._device)
                rows[name] = self._guarded(ask)
            return rows

    def _questions(self) -> dict[str, Callable[[], str]]:
        return {
            "what is retained comes before PINGRESP": self._order,
            "how late after PINGRESP": self._lateness,
            "a second SUBSCRIBE brings it again": self._second_subscribe,
            "a filter with `#` brings it": self._wildcard,
            "a clear comes back to who sent it": self._own_clear,
            "a clear that the ACL forbids": self._forbidden_clear,
            "a SUBSCRIBE that the ACL forbids": self._forbidden_subscribe,
            "of 1, 2 before a loss and 3 after it, it sends at once": self._unacknowledged,
            "a second connection of the same client id": self._same_id,
            "five connections, each lost without a goodbye": self._back_at_once,
            "a keep-alive of 1 s, missed": self._keepalive,
            "ids that do not work": self._strange_ids,
        }

    def _guarded(self, ask: Callable[[], str]) -> str:
        try:
            return ask()
        except Closed:
            return "it closes the connection"
        except (TimeoutError, OSError) as error:
            return f"{type(error).__name__}"

    def _connect(self, user: str = "", key: str = "key", *, clean: bool = True) -> Connection:
        port = self._console.ports.mqtt
        assert port is not None
        return Connection(port, user or self._device, key, clean=clean)

    def _look(self) -> tuple[list[str], float]:
        """SUBSCRIBE and PINGREQ at once, as a node does: the order of the answers, and how late
        the message was after the PINGRESP, in ms.
        """
        with self._connect() as node:
            node.send(subscribe(self._topic) + PING)
            order, at = [], {}
            while len(order) < 3:
                heard = node.next()
                order.append(heard.type)
                at[heard.type] = time.monotonic()
                if heard.type == "PUBLISH":
                    node.send(puback(heard.pid))
        time.sleep(_BETWEEN_S)
        return order, (at["PUBLISH"] - at["PINGRESP"]) * 1000

    def _order(self) -> str:
        self._console.request_raw(self._device, b"[]")
        looks = [self._look() for _ in range(_ROUNDS)]
        early = sum(order.index("PUBLISH") < order.index("PINGRESP") for order, _ in looks)
        return f"{early} of {_ROUNDS} times"

    def _lateness(self) -> str:
        self._console.request_raw(self._device, b"[]")
        late = [late for _, late in (self._look() for _ in range(_ROUNDS))]
        if max(late) <= 0:
            return "never"
        return f"{statistics.median(late):.0f} ms, at most {max(late):.0f} ms"

    def _second_subscribe(self) -> str:
        self._console.request_raw(self._device, b"[]")
        with self._connect() as node:
            node.send(subscribe(self._topic))
            self._acknowledge(node)
            node.send(subscribe(self._topic, 3))
            return _yes(any(each.type == "PUBLISH" for each in node.rest(0.5)))

    def _acknowledge(self, node: Connection) -> None:
        for each in node.rest(0.5):
            if each.type == "PUBLISH":
                node.send(puback(each.pid))

    def _wildcard(self) -> str:
        self._console.request_raw(self._device, b"[]")
        with self._connect() as node:
            node.send(subscribe(self._topic.removesuffix("ota") + "#"))
            return _yes(any(each.type == "PUBLISH" for each in node.rest(0.5)))

    def _own_clear(self) -> str:
        self._console.request_raw(self._device, b"[]")
        with self._connect() as node:
            node.send(subscribe(self._topic))
            self._acknowledge(node)
            node.send(publish(self._topic, b"", retain=True))
            heard = [each.type for each in node.rest(0.5)]
            retained = self._console.retained(self._device)
            cleared = "" if retained is None else ", but it is not cleared"
            return " then ".join(heard) + cleared

    def _forbidden_clear(self) -> str:
        self._console.request_raw(self._device, b"[]")
        with self._connect(*_THIEF[:2]) as thief:
            thief.send(publish(self._topic, b"", retain=True))
            thief.send(PING)
            heard = " then ".join(each.type for each in thief.until("PINGRESP", _SILENCE_S))
        kept = self._console.retained(self._device) is not None
        return heard + ("" if kept else ", and it IS cleared")

    def _forbidden_subscribe(self) -> str:
        with self._connect(*_THIEF[:2]) as thief:
            thief.send(subscribe(self._topic))
            answer = thief.until("SUBACK", _SILENCE_S)[-1]
            return f"SUBACK {answer.codes[0]:#04x}"

    def _unacknowledged(self) -> str:
        topic = self._topic.removesuffix("ota") + "config"
        with self._connect(clean=False) as node:
            node.send(subscribe(topic))
            node.until("SUBACK")
            for word in (b"1", b"2"):
                self._console.request_raw(self._device, word, retain=False, topic=topic)
            node.until("PUBLISH")
            time.sleep(0.2)
            node.lose()
        time.sleep(0.3)
        self._console.request_raw(self._device, b"3", retain=False, topic=topic)
        with self._connect(clean=False) as node:
            heard = b" ".join(node.acknowledge_all(2)).decode()
        return heard or "nothing"

    def _same_id(self) -> str:
        with self._connect() as first:
            time.sleep(1.5)
            with self._connect() as second:
                time.sleep(1)
                ends = []
                for node in (first, second):
                    try:
                        node.send(PING)
                        node.until("PINGRESP", _SILENCE_S)
                        ends.append("stays")
                    except (Closed, OSError):
                        ends.append("is closed")
        return "both stay" if ends == ["stays"] * 2 else f"the first {ends[0]}"

    def _back_at_once(self) -> str:
        for n in range(5):
            try:
                with self._connect() as node:
                    node.send(PING)
                    node.until("PINGRESP", _SILENCE_S)
                    node.lose()
            except Closed:
                return f"it refuses number {n + 1}"
        return "all are let in"

    def _keepalive(self) -> str:
        ids = text(self._device) + text(self._device) + text("key")
        port = self._console.ports.mqtt
        with socket.create_connection(("127.0.0.1", port)) as quiet:
            quiet.sendall(packet(0x10, b"\0\4MQTT\4\xc2\0\x01" + ids))
            quiet.recv(4)
            began = time.monotonic()
            quiet.settimeout(8)
            try:
                quiet.recv(1)
            except TimeoutError:
                return "not closed in 8 s"
            except ConnectionResetError:
                pass
            return f"closed after {time.monotonic() - began:.1f} s"

    def _strange_ids(self) -> str:
        bad = []
        for name in _STRANGE:
            device = f"strange-{name}"
            topic = self._console.topic(device)
            heard: list[str | None] = []
            with contextlib.suppress(Closed, OSError), self._connect(device, "key") as node:
                node.send(publish(topic, b"[]", retain=True))
                node.next()
                node.send(subscribe(topic))
                heard = [each.topic for each in node.rest(1) if each.type == "PUBLISH"]
            if set(heard) != {topic}:
                bad.append(f"`{name}`")
        return ", ".join(bad) or "none of those tried"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def table() -> list[str]:
    """All brokers' facts as a Markdown table."""
    columns = {broker: Facts(broker).rows() for broker in BROKERS}
    lines = [f"| | {' | '.join(BROKERS)} |", "|---" * (len(BROKERS) + 1) + "|"]
    for name in next(iter(columns.values())):
        lines.append(f"| {name} | {' | '.join(rows[name] for rows in columns.values())} |")
    return lines
