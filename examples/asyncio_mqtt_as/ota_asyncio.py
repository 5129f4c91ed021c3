# The agent on the MQTT client of an asyncio application, one that is shaped as mqtt_as's.
#
# The agent waits, and a task of asyncio must not. So whenever the agent waits for the broker, and
# four times a second while a package comes, the loop runs on inside of the agent's call.

import asyncio
import time

import ota

_TURN_MS = 20  # how long the loop runs on when the agent only lets it
_PUBLISH = 0x30
_ETIMEDOUT = 110


async def _turn():
    await asyncio.sleep_ms(_TURN_MS)


class Bridge:
    """An ota.Agent (`agent`) that hears and speaks through client.

    client: connected by the application, with the coroutines `publish(topic, payload, retain,
    qos)` and `subscribe(topic, qos)`, which end when the broker has acknowledged, and with
    `isconnected()`. config and options are those of ota.Agent. The application subscribes to the
    ota topic, gives each message to handle(), and calls `agent.poll()` from a task.
    """

    def __init__(self, client, config, **options):
        self._client = client
        self._heard = []
        self.kind = None  # of the last message: a PUBLISH, with the flag of a retained one
        self._pongs = 0  # answers to pings that have come, and not been read yet
        self._topic = None
        wait_s = config.get("timeout_s", 20)
        if config.get("watchdog_s"):
            wait_s = min(wait_s, config["watchdog_s"] / 4)  # two in a row, and nobody feeds it
        self._wait_ms = int(wait_s * 1000)
        # From here on what the agent asks of umqtt.simple's client and of its connection.
        self.cb = None
        self.skipped = 0
        self.wire = self
        self.agent = ota.Agent(config, client=self, **options)

    def handle(self, topic, payload, retained=False):
        """To be called with each message, by callback or from a queue: True when it was ours."""
        topic = topic.encode() if isinstance(topic, str) else bytes(topic)
        payload = bytes(payload)
        if not self.agent.handle(topic, payload):
            return False
        if self.cb:  # the agent is at work, and waits for it
            self._heard.append((topic, payload, retained))
        return True

    def _run(self, coro):
        """Let the loop run until coro has ended. Raises OSError when that takes too long."""
        task = asyncio.create_task(asyncio.wait_for_ms(coro, self._wait_ms))
        caller = asyncio.current_task()
        try:
            return asyncio.get_event_loop().run_until_complete(task)
        except asyncio.TimeoutError:
            raise OSError(_ETIMEDOUT)
        finally:
            asyncio.core.cur_task = caller

    # -- as a client

    @property
    def sock(self):
        """A connection that needs no other one around it; None while there is none."""
        return self if self._client.isconnected() else None

    def set_callback(self, callback):
        """Who hears the messages from now on; None: nobody, the agent has ended."""
        self.cb = callback
        self._pongs = 0
        if not callback:
            heard, self._heard = self._heard, []
            for topic, payload, _ in heard:  # too late for it, so for the next time
                self.agent.handle(topic, payload)

    def publish(self, topic, payload, retain=False, qos=0):
        """Publish, and wait for the acknowledgement."""
        self._run(self._client.publish(topic.decode(), payload, retain, qos))

    def subscribe(self, topic, qos=0):
        """Subscribe, once more if need be: then the broker says again what is retained."""
        self._topic = topic
        self._run(self._client.subscribe(topic.decode(), qos))

    def ping(self):
        """What the broker has sent before it answers has been heard: a subscription does that."""
        self.subscribe(self._topic, 1)
        self._pongs += 1

    def wait_msg(self):
        """Wait for one message, or for the answer to a ping (None)."""
        if not self.readable(self._wait_ms):
            raise OSError(_ETIMEDOUT)
        if self._heard:
            topic, payload, retained = self._heard.pop(0)
            self.kind = _PUBLISH | bool(retained)
            self.cb(topic, payload)
            return _PUBLISH
        self._pongs -= 1
        return None

    # -- as its connection

    def send_after(self, data):
        """A ping that follows the subscription."""
        self._pongs += 1

    def readable(self, wait_ms):
        """True when something is there, or comes within wait_ms; the loop has a turn anyway."""
        end = time.ticks_add(time.ticks_ms(), wait_ms)
        while True:
            self._run(_turn())
            if self._heard or self._pongs:
                return True
            if time.ticks_diff(end, time.ticks_ms()) <= 0 or not self._client.isconnected():
                return False

    def close(self, *_):
        """Nothing: the client belongs to the application, and connects anew by itself."""

    flush = setblocking = close
