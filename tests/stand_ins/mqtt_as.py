"""An MQTT client of our own in mqtt_as's shape: coroutines, one reader, a callback or a queue.

Like that one it connects anew by itself, and publishes until the broker has acknowledged.
"""

import asyncio

config = {
    "client_id": "",
    "server": None,
    "port": 1883,
    "user": "",
    "password": "",
    "keepalive": 60,
    "clean": True,
    "subs_cb": lambda *_: None,
    "queue_len": 0,
    "ssid": None,
    "wifi_pw": None,
}


def _text(text):
    data = text.encode() if isinstance(text, str) else bytes(text)
    return bytes((len(data) >> 8, len(data) & 255)) + data


def _packet(kind, body):
    n = len(body)
    head = bytearray((kind,))
    while n > 127:
        head.append(n & 127 | 128)
        n >>= 7
    head.append(n)
    return bytes(head) + body


class Queue:
    def __init__(self):
        self._messages = []
        self._event = asyncio.Event()

    def put(self, *message):
        self._messages.append(message)
        self._event.set()

    def __aiter__(self):
        return self

    async def __anext__(self):
        while not self._messages:
            self._event.clear()
            await self._event.wait()
        return self._messages.pop(0)


class MQTTClient:
    def __init__(self, config):
        self._config = config
        self._pid = 0
        self._waiting = set()
        self._writer = None
        self._lock = asyncio.Lock()
        self.up = asyncio.Event()
        self._cb = config["subs_cb"]
        if config["queue_len"]:
            self.queue = Queue()
            self._cb = self.queue.put

    def isconnected(self):
        return self._writer is not None

    async def connect(self, *, quick=False):
        await self._open()
        self._keeper = asyncio.create_task(self._keep())

    async def subscribe(self, topic, qos):
        pid = self._next()
        body = bytes((pid >> 8, pid & 255)) + _text(topic) + bytes((qos,))
        await self._send(_packet(0x82, body))
        if not await self._answered(pid):
            raise OSError(-1)

    async def publish(self, topic, msg, retain=False, qos=0):
        msg = msg.encode() if isinstance(msg, str) else bytes(msg)
        while True:
            pid = self._next() if qos else 0
            body = _text(topic) + (bytes((pid >> 8, pid & 255)) if qos else b"") + msg
            try:
                await self._send(_packet(0x30 | qos << 1 | retain, body))
                if not qos or await self._answered(pid):
                    return
            except OSError:
                pass
            await asyncio.sleep_ms(50)

    def _next(self):
        self._pid = self._pid % 65535 + 1
        self._waiting.add(self._pid)
        return self._pid

    async def _answered(self, pid):
        for _ in range(100):
            if pid not in self._waiting:
                return True
            if not self.isconnected():
                break
            await asyncio.sleep_ms(20)
        return False

    async def _send(self, data):
        if not self._writer:
            raise OSError(-1)
        async with self._lock:
            self._writer.write(data)
            await self._writer.drain()

    async def _open(self):
        config = self._config
        reader, writer = await asyncio.open_connection(config["server"], config["port"])
        keepalive = config["keepalive"]
        body = b"\0\4MQTT\4" + bytes(
            (0xC0 | config["clean"] << 1, keepalive >> 8, keepalive & 255)
        )
        body += _text(config["client_id"]) + _text(config["user"]) + _text(config["password"])
        writer.write(_packet(0x10, body))
        await writer.drain()
        if await reader.readexactly(4) != b"\x20\2\0\0":
            raise OSError(-1)
        self._writer = writer
        self._reader = asyncio.create_task(self._read(reader, writer))
        self.up.set()

    async def _keep(self):
        rounds = 0
        while True:
            await asyncio.sleep_ms(100)
            rounds += 1
            try:
                if not self.isconnected():
                    await self._open()
                elif rounds % (self._config["keepalive"] * 4) == 0:
                    await self._send(b"\xc0\0")
            except (OSError, EOFError):
                pass

    async def _read(self, reader, writer):
        try:
            while True:
                kind = (await reader.readexactly(1))[0]
                n = shift = 0
                while True:
                    byte = (await reader.readexactly(1))[0]
                    n |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
                body = await reader.readexactly(n) if n else b""
                if kind in (0x40, 0x90):
                    self._waiting.discard(body[0] << 8 | body[1])
                elif kind & 0xF0 == 0x30:
                    at = 2 + (body[0] << 8 | body[1])
                    topic = body[2:at]
                    if kind & 6:
                        await self._send(b"\x40\2" + body[at : at + 2])
                        at += 2
                    self._cb(topic, body[at:], bool(kind & 1))
        except (OSError, EOFError):
            pass
        if self._writer is writer:
            self._writer = None
        writer.close()
