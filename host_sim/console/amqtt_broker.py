"""amqtt inside this process, on a thread and an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.mqtt.constants import QOS_1
from amqtt.mqtt.puback import PubackPacket
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import OutgoingApplicationMessage, Session

from host_sim.console.certificates import server_context
from host_sim.console.registry import Registry
from host_sim.errors import SimError

_START_TIMEOUT = 10
_STOP_TIMEOUT = 5
_LISTENERS = ("default", "tls")

logger = logging.getLogger("console.broker")


class AuthPlugin(BaseAuthPlugin):
    """Lets in the console and the devices of the registry."""

    @dataclass
    class Config:
        """What the broker's configuration hands over."""

        registry: Any

    async def authenticate(self, *, session: Session) -> bool | None:
        """Whether this user name and password are an account."""
        return self.config.registry.may_connect(session.username, session.password)


class TopicPlugin(BaseTopicPlugin):
    """Keeps each device on its own topics, for subscribing, publishing and receiving alike."""

    @dataclass
    class Config:
        """What the broker's configuration hands over."""

        registry: Any

    async def topic_filtering(
        self,
        *,
        session: Session | None = None,
        topic: str | None = None,
        action: Action | None = None,
    ) -> bool | None:
        """Whether the session's user may use the topic."""
        user = session.username if session else None
        return self.config.registry.may_use(user, topic or "")


class _Unacknowledged:
    """What a session that lasts was sent at QoS 1 and has not acknowledged, in order.

    The original forgets a message with the connection on which it was under way, or when it was
    not acknowledged within 5 s: a node that resets loses what it was just being sent, more of it
    the busier the machine is.
    """

    def __init__(self) -> None:
        self.ready = False  # the connection of now: its CONNACK and what was kept have gone out
        self._kept: dict[int, tuple[str, bytes, bool]] = {}
        self._last = 0

    def keep(self, topic: str, data: bytes, retain: bool) -> int:
        """Add a message; its packet id."""
        self._last = self._last % 65535 + 1
        self._kept[self._last] = (topic, data, retain)
        return self._last

    async def send(self, handler: Any, packet_id: int, again: bool) -> None:
        """Send a message that is kept."""
        topic, data, retain = self._kept[packet_id]
        message = OutgoingApplicationMessage(packet_id, topic, QOS_1, data, retain)
        await handler._send_packet(message.build_publish_packet(dup=again))

    async def acknowledged(self, puback: PubackPacket) -> None:
        """Forget a message."""
        self._kept.pop(puback.packet_id, None)

    def packet_ids(self) -> list[int]:
        """Of all that is kept, oldest first."""
        return list(self._kept)


def _unacknowledged(session: Session) -> _Unacknowledged:
    return session.attributes.setdefault(f"{__name__}.unacknowledged", _Unacknowledged())


class _Broker(Broker):
    """amqtt 0.12 with five of its faults mended; each would make tests fail now and then."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.ending = False
        self._subscribing: set[str | None] = set()

    async def _topic_filtering(self, session: Session, topic: str, action: Action) -> bool:
        # The original gives way to other tasks here, in the middle of a walk through the table of
        # subscriptions: a client that subscribes just then makes the walk fail and the message is
        # lost for everybody after. Awaiting the plugins directly gives way to nobody.
        for plugin in self.plugins_manager.plugins:
            if isinstance(plugin, BaseTopicPlugin) and not await plugin.topic_filtering(
                session=session, topic=topic, action=action
            ):
                return False
        return True

    async def _initialize_client_session(self, *arguments: Any) -> tuple[Any, Session]:
        # The original answers a ping at once and a subscription in its own time. What a client
        # sends in one go it may then answer in the wrong order: always when the client asks for
        # no keep-alive, and from Python 3.12 on for everybody, because waiting with a time limit
        # no longer gives way to other tasks when the data is there. A client that takes the
        # answer to the ping for the end of what is retained would be told too early.
        handler, session = await super()._initialize_client_session(*arguments)
        answer = handler.handle_pingreq

        async def answer_in_order(ping: Any) -> None:
            await handler._pending_subscriptions.join()
            await answer(ping)

        handler.handle_pingreq = answer_in_order
        if not session.clean_session:
            self._keep_unacknowledged(handler, session)
        return handler, session

    def _keep_unacknowledged(self, handler: Any, session: Session) -> None:
        unacknowledged, publish = _unacknowledged(session), handler.mqtt_publish
        unacknowledged.ready = False

        # Not a coroutine: what is said first is kept first.
        def keep_and_publish(
            topic: str, data: bytes, qos: int, retain: bool
        ) -> Coroutine[Any, Any, object]:
            if qos != QOS_1:
                return publish(topic, data, qos, retain)
            packet_id = unacknowledged.keep(topic, data, retain)
            if not unacknowledged.ready:
                return _nothing()
            return unacknowledged.send(handler, packet_id, False)

        handler.mqtt_publish = keep_and_publish
        handler.handle_puback = unacknowledged.acknowledged

    async def _retain_broadcast_message(
        self, broadcast: dict[str, Any], qos: int, target_session: Session
    ) -> None:
        _unacknowledged(target_session).keep(broadcast["topic"], broadcast["data"], False)

    async def _publish_session_retained_messages(self, session: Session) -> None:
        handler = self._get_handler(session)
        if handler is None or session.clean_session:
            return
        unacknowledged = _unacknowledged(session)
        tasks = [
            asyncio.ensure_future(unacknowledged.send(handler, packet_id, True))
            for packet_id in unacknowledged.packet_ids()
        ]
        unacknowledged.ready = True
        if tasks:
            await asyncio.wait(tasks)

    async def _handle_subscription(
        self, client_session: Session, handler: Any, subscribe_waiter: asyncio.Future[Any]
    ) -> None:
        self._subscribing.add(client_session.client_id)
        try:
            await super()._handle_subscription(client_session, handler, subscribe_waiter)
        finally:
            self._subscribing.discard(client_session.client_id)
            handler._pending_subscriptions.task_done()

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        # The original also calls this for every new connection and every filter that anybody has
        # subscribed to: a node would be sent all devices' requests before it asked for any.
        if session.client_id in self._subscribing:
            await super()._publish_retained_messages_for_subscription(subscription, session)

    async def _cleanup_session(self, client_id: str) -> None:
        # The original lists the dead sessions every second, then ends them by name: a node that
        # has come back under the same name in between would be thrown out.
        session, _ = self.sessions.get(client_id, (None, None))
        if self.ending or session is None or session.transitions.state != "connected":
            await super()._cleanup_session(client_id)


async def _nothing() -> None:
    pass


class AmqttBroker:
    """The broker that needs nothing installed."""

    host = "127.0.0.1"
    late_s = 0.0

    def __init__(
        self, registry: Registry, certificate: Path, mqtt_port: int, mqtts_port: int
    ) -> None:
        self.mqtt_port = mqtt_port
        self.mqtts_port: int | None = mqtts_port
        self._registry = registry
        self.tls = server_context(certificate)
        self._thread = threading.Thread(target=self._run, name="console-amqtt")
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._transports: set[asyncio.WriteTransport] = set()

    def start(self) -> None:
        """Start the thread and wait until both listeners are open."""
        # amqtt's lower levels print whole packets, a device's key among them, and its upper ones
        # complain about every client that goes away without a word.
        amqtt_logger = logging.getLogger("amqtt")
        if amqtt_logger.level == logging.NOTSET:
            amqtt_logger.setLevel(logging.CRITICAL)
        self._thread.start()
        if not self._ready.wait(_START_TIMEOUT):
            self._failure = SimError("amqtt did not start in time")
        if self._failure is not None:
            self.stop()
            if isinstance(self._failure, OSError):
                raise SimError(f"amqtt: {self._failure.strerror}") from self._failure
            raise self._failure

    def refresh(self) -> None:
        """Nothing: the plugins look into the registry itself."""

    def stop(self) -> None:
        """End the broker and its thread."""
        if self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread.is_alive():
            self._thread.join(_START_TIMEOUT)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Connections torn down by tests leave failed tasks: interesting, but not to everybody.
        self._loop.set_exception_handler(lambda _loop, context: logger.debug("%s", context))
        self._stopping = asyncio.Event()
        # "external": the listeners are ours, so we choose ports and TLS, and can close what is
        # still connected at the end. amqtt would wait for those clients.
        broker = _Broker(
            {
                "listeners": {name: {"type": "external"} for name in _LISTENERS},
                "plugins": {
                    f"{__name__}.AuthPlugin": {"registry": self._registry},
                    f"{__name__}.TopicPlugin": {"registry": self._registry},
                },
            }
        )
        await broker.start()
        async with contextlib.AsyncExitStack() as servers:
            self.mqtt_port = await self._listen(servers, broker, "default", self.mqtt_port, None)
            self.mqtts_port = await self._listen(servers, broker, "tls", self.mqtts_port, self.tls)
            self._ready.set()
            await self._stopping.wait()
            broker.ending = True
            for transport in list(self._transports):
                transport.abort()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(broker.shutdown(), _STOP_TIMEOUT)

    async def _listen(
        self,
        servers: contextlib.AsyncExitStack,
        broker: Broker,
        listener: str,
        port: int | None,
        tls: ssl.SSLContext | None,
    ) -> int:
        handler = partial(self._connected, broker, listener)
        server = await asyncio.start_server(handler, self.host, port, ssl=tls)
        servers.callback(server.close)
        return server.sockets[0].getsockname()[1]

    async def _connected(
        self,
        broker: Broker,
        listener: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._transports.add(writer.transport)
        try:
            await broker.external_connected(
                StreamReaderAdapter(reader), StreamWriterAdapter(writer), listener
            )
        finally:
            self._transports.discard(writer.transport)
            writer.close()
