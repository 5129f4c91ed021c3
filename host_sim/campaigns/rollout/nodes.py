"""Light nodes: what a node does on the wire, without an interpreter, and in short time.

A node wakes on a schedule of its own, connects with its own credentials, hears its retained
request, fetches the package, and clears and reports as docs/protocol.md says. Where nothing is
retained for it, its wake would be a connection that hears nothing: that is left out.
"""

from __future__ import annotations

import collections
import heapq
import http.client
import itertools
import json
import random
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import paho.mqtt.client as paho

from host_sim.campaigns.rollout.cases import ABSENT, GOOD, GRAVE, LOST, SLIGHT
from host_sim.console import Console
from host_sim.console.journal import parse_senml
from host_sim.console.mqtt_client import MqttClient

#: What a node says at its end, by what it is in for.
_LAST_WORDS = {
    GOOD: (1, None),
    GRAVE: (2, "rolled back: 3 boots without confirm"),
    SLIGHT: (2, "not enough space: 61440 bytes announced, 9 blocks are free"),
}
_WAKES_OF_A_TRIAL = {GOOD: 1, GRAVE: 2}
_THREADS = 24
_PATIENCE_S = 5.0


@dataclass
class Node:
    """One node, and what it knows to have happened to it."""

    id: str
    key: str = field(repr=False)
    channel: str
    board: str
    end: str
    phase: float
    """When in each period it wakes, 0 to 1."""
    stat: bool
    https: bool
    trial: int = 0
    """Wakes that are left of it."""
    fetched: int = 0
    ended: list[int] = field(default_factory=list)
    """`e` of its reports."""
    requests: int = 0
    """How often a request was published for it."""
    after_end: int = 0
    """How often behind its end."""
    dead: bool = False

    def topic(self, leaf: str) -> str:
        """One of its topics."""
        return f"channels/{self.channel}/messages/{self.id}/{leaf}"


def make(ends: list[tuple[str, str]], seed: int, https_share: float) -> list[Node]:
    """Nodes with ids and keys, the same for the same seed."""
    chance = random.Random(seed)
    made = []
    for number, (board, end) in enumerate(ends):
        name = f"{chance.getrandbits(32):08x}-node-{number:05}"
        key, channel = f"key-{chance.getrandbits(64):016x}", f"control-{number // 100:03}"
        stat = number % 2 == 0
        https = chance.random() < https_share
        made.append(Node(name, key, channel, board, end, chance.random(), stat, https))
    return made


class Nodes:
    """All nodes of a fleet; a context manager. `period_s`: from wake to wake."""

    def __init__(
        self, console: Console, nodes: list[Node], fuid: str, size: int, period_s: float
    ) -> None:
        self._console, self._fuid, self._size = console, fuid, size
        self._period_s = period_s
        self.nodes = {node.id: node for node in nodes}
        self._retained: set[str] = set()
        self._heap: list[tuple[float, int, Node]] = []
        self._scheduled: set[str] = set()
        self._numbers = itertools.count()
        self._condition = threading.Condition()
        self._over = False
        self.wakes = 0
        self.faults: collections.Counter[str] = collections.Counter()
        self._tls = ssl.create_default_context(cafile=str(console.ca_pem))
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="node")
        self._clock = threading.Thread(target=self._run, name="nodes")

    def __enter__(self) -> Nodes:
        self._clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._over = True
            self._condition.notify_all()
        self._clock.join()
        self._pool.shutdown(cancel_futures=True)

    def heard(self, message: paho.MQTTMessage) -> None:
        """A message on a control channel, as an observer with rights to all of them sees it."""
        node = self.nodes.get(message.topic.split("/")[3])
        if node is None:
            return
        with self._condition:
            if not message.payload:
                self._retained.discard(node.id)
            elif (parse_senml(message.payload) or {}).get("e") == 0:
                if not message.retain:
                    node.requests += 1
                    node.after_end += bool(node.ended)
                self._retained.add(node.id)
                self._schedule(node)

    def _schedule(self, node: Node) -> None:
        if node.dead or node.end == ABSENT or node.id in self._scheduled:
            return
        self._scheduled.add(node.id)
        now = time.monotonic() / self._period_s
        at = (int(now) + node.phase + (node.phase <= now % 1)) * self._period_s
        heapq.heappush(self._heap, (at, next(self._numbers), node))
        self._condition.notify_all()

    def _run(self) -> None:
        while True:
            with self._condition:
                if self._over:
                    return
                left = self._heap[0][0] - time.monotonic() if self._heap else 1.0
                if left > 0:
                    self._condition.wait(left)
                    continue
                _, _, node = heapq.heappop(self._heap)
            self._pool.submit(self._wake, node)

    def _wake(self, node: Node) -> None:
        try:
            self._contact(node)
        except (OSError, TimeoutError, ValueError) as error:
            self.faults[type(error).__name__] += 1
        with self._condition:
            self.wakes += 1
            self._scheduled.discard(node.id)
            if node.trial or node.id in self._retained:
                self._schedule(node)

    def _contact(self, node: Node) -> None:
        came: list[bytes] = []
        there = threading.Event()

        def heard(message: paho.MQTTMessage) -> None:
            if message.retain:
                came.append(message.payload)
                there.set()

        port = self._console.ports.mqtt
        assert port is not None
        with MqttClient(self._console.mqtt_host, port, node.id, node.key, heard) as client:
            client.subscribe(node.topic("ota"), 1)
            if node.trial:
                node.trial -= 1
                if not node.trial:
                    self._report(node, client)
                return
            if not there.wait(0.2):
                return
            fields = parse_senml(came[-1]) or {}
            if fields.get("e") != 0 or fields.get("i") != self._fuid:
                return
            if node.stat:
                self._stat(node, client, [{"n": "e", "v": 0}, {"n": "s", "v": self._size}])
            if node.end == SLIGHT:
                self._report(node, client)
                return
            self._fetch(node)
            node.fetched += 1
            node.trial = _WAKES_OF_A_TRIAL.get(node.end, 0)
            if node.end == LOST:
                node.dead = True

    def _report(self, node: Node, client: MqttClient) -> None:
        event, words = _LAST_WORDS[node.end]
        client.publish(node.topic("ota"), b"", retain=True)
        pack: list[dict[str, object]] = [{"n": "e", "v": event}, {"n": "i", "vs": self._fuid}]
        node.ended.append(event)  # before anybody can hear it
        client.publish(
            node.topic("ota"), _json(pack + ([{"n": "m", "vs": words}] if words else []))
        )
        if node.stat:
            confirmed: list[dict[str, object]] = [{"n": "c", "vb": True}] if event == 1 else []
            self._stat(node, client, [{"n": "e", "v": event}, *confirmed])

    def _stat(self, node: Node, client: MqttClient, pack: list[dict[str, object]]) -> None:
        pack.insert(1, {"n": "i", "vs": self._fuid})
        # At QoS 0, as the agent: most brokers keep nothing of it for who is not there.
        client.publish(node.topic("stat"), _json(pack), qos=0)

    def _fetch(self, node: Node) -> None:
        if not node.https:
            return
        port = self._console.ports.https
        connection = http.client.HTTPSConnection(
            "localhost", port, timeout=_PATIENCE_S, context=self._tls
        )
        try:
            query = f"fuid={self._fuid}&did={node.id}&dk={node.key}&cid={node.channel}"
            connection.request("GET", f"/mf-rproxy/packages/download?{query}")
            answer = connection.getresponse()
            if answer.status != 200 or len(answer.read()) != self._size:
                raise ValueError("not the package")
        finally:
            connection.close()


def _json(pack: list[dict[str, object]]) -> bytes:
    return json.dumps(pack, separators=(",", ":")).encode()
