# The field's own umqtt.simple: it reads with a patience of ten seconds, also in check_msg(), and
# gives topics and messages as bytearray.

import _thread
import socket
from struct import pack, unpack

from utime import sleep_ms, ticks_diff, ticks_ms

PATIENCE_MS = 10000
_BUSY = (11, 110, 115, 118, 119)  # EAGAIN as well: the interpreter of the tests raises it


class MQTTClient:
    def __init__(self, client_id, server, port=0, user=None, password=None, keepalive=0):
        self.client_id = client_id
        # Tests have their servers at other ports, and say so in server_ip.
        self.server = server.split(":")[0] if server.count(":") == 1 else server
        self.port = port or 1883
        self.user = user
        self.pswd = password
        self.keepalive = keepalive
        self.sock = None
        self.cb = None
        self.pid = 0
        self.will = None
        self.lock = _thread.allocate_lock()
        self.last_rx = ticks_ms()

    def set_callback(self, f):
        self.cb = f

    def set_last_will(self, topic, msg, retain=False, qos=0):
        assert 0 <= qos <= 2
        assert topic
        self.will = (topic, msg, retain, qos)

    def _write(self, data):
        rest = memoryview(data.encode() if isinstance(data, str) else data)
        since = ticks_ms()
        while rest:
            if ticks_diff(ticks_ms(), since) > PATIENCE_MS:
                return False
            try:
                sent = self.sock.write(rest)
            except OSError as e:
                if e.args[0] not in _BUSY:
                    raise
                sent = 0
            if sent:
                since = ticks_ms()
                rest = rest[sent:]
            sleep_ms(5)
        return True

    def _read(self, n):
        # None when nothing has come for ten seconds.
        data = bytearray()
        since = ticks_ms()
        while len(data) < n:
            if ticks_diff(ticks_ms(), since) > PATIENCE_MS:
                return None
            try:
                piece = self.sock.read(n - len(data))
            except OSError as e:
                if e.args[0] not in _BUSY:
                    raise
                piece = None
            if piece == b"":
                raise OSError(-1, "Connection closed by host")
            if piece:
                data.extend(piece)
                since = self.last_rx = ticks_ms()
            sleep_ms(5)
        return data

    def _length(self):
        size = shift = 0
        while True:
            byte = self._read(1)[0]  # a TypeError after ten seconds, as in the field
            size |= (byte & 127) << shift
            if byte < 128:
                return size
            shift += 7

    @staticmethod
    def _text(text):
        text = text.encode() if isinstance(text, str) else text
        return pack("!H", len(text)) + text

    @staticmethod
    def _packet(kind, body):
        head = bytearray((kind,))
        size = len(body)
        while size > 127:
            head.append(size & 127 | 128)
            size >>= 7
        head.append(size)
        return head + body

    def connect(self, clean_session=True):
        self.sock = socket.socket()
        self.sock.connect(socket.getaddrinfo(self.server, self.port)[0][-1])
        flags = clean_session << 1
        body = self._text(self.client_id)
        if self.will:
            topic, message, retain, qos = self.will
            flags |= 4 | qos << 3 | retain << 5
            body += self._text(topic) + self._text(message)
        if self.user is not None:
            flags |= 0xC0
            body += self._text(self.user) + self._text(self.pswd)
        head = b"\0\x04MQTT\x04" + bytes((flags,)) + pack("!H", self.keepalive)
        self._write(self._packet(0x10, head + body))
        answer = self._read(4)
        if answer[0] != 0x20 or answer[1] != 2 or answer[3] != 0:
            raise OSError(-1, "Bad CONNACK")

    def disconnect(self):
        if self.sock is None:
            return
        try:
            with self.lock:
                self._write(b"\xe0\0")
                sleep_ms(100)
        except OSError:
            pass
        self.sock.close()

    def ping(self):
        with self.lock:
            self._write(b"\xc0\0")
        self.wait_msg()

    def publish(self, topic, msg, retain=False, qos=0):
        with self.lock:
            body = self._text(topic)
            if qos:
                self.pid += 1
                body += pack("!H", self.pid)
            pid = self.pid
            body += msg.encode() if isinstance(msg, str) else msg
            self._write(self._packet(0x30 | qos << 1 | retain, body))
        if qos == 2:
            raise OSError(-1, "Invalid qos")
        while qos:  # for ever, where no acknowledgement comes
            if self.wait_msg() == 0x40:
                if self._read(1) != b"\x02":
                    raise OSError(-1, "Invalid PUBACK packet")
                if unpack("!H", self._read(2))[0] == pid:
                    return

    def subscribe(self, topic, qos=0):
        assert self.cb is not None, "Subscribe callback is not set"
        with self.lock:
            self.pid += 1
            body = pack("!H", self.pid) + self._text(topic) + bytes((qos,))
            # One byte for the length, whatever the topic's.
            self._write(bytes((0x82, len(body) & 255)) + body)
        while True:  # for ever, where no SUBACK comes
            if self.wait_msg() == 0x90:
                answer = self._read(4)
                if unpack("!H", answer[1:3])[0] != self.pid:
                    raise OSError(-1, "Invalid pid in SUBACK packet")
                if answer[3] == 0x80:
                    raise OSError(-1, "Invalid SUBACK packet")
                return

    def wait_msg(self):
        with self.lock:
            kind = self._read(1)
            self.sock.setblocking(True)
            if kind is None:
                return None
            kind = kind[0]
            if kind == 0xD0:
                self._read(1)
                return None
            if kind & 0xF0 != 0x30:
                return kind
            size = self._length()
            topic = self._read(unpack("!H", self._read(2))[0])
            size -= len(topic) + 2
            if kind & 6:
                pid = self._read(2)
                size -= 2
            message = self._read(size)
            self.cb(topic, message)
            if kind & 6 == 2:
                self._write(b"\x40\x02" + pid)
            elif kind & 6 == 4:
                assert 0

    def check_msg(self):
        # "Returns at once", says the original; this one waits for as long as wait_msg().
        self.sock.setblocking(False)
        return self.wait_msg()
