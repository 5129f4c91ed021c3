# A client with the manners of the field firmware's fork of umqtt.simple: it takes a lock, reads
# with patience (10 s without a byte end a read, not the call), and raises what a broker refuses.

import _thread
import socket
import struct
import time

_BUSY = (11, 110, 115, 118, 119)
_PATIENCE_MS = 10000


class MQTTClient:
    def __init__(self, client_id, server, port, user, password, keepalive):
        self._who = client_id, user, password
        self._where = server, port
        self._keepalive = keepalive
        self.sock = self.cb = None
        self._number = 0
        self.lock = _thread.allocate_lock()

    def set_callback(self, callback):
        self.cb = callback

    def connect(self):
        self.sock = socket.socket()
        self.sock.connect(socket.getaddrinfo(*self._where)[0][-1])
        body = b"\x00\x04MQTT\x04\xc2" + struct.pack("!H", self._keepalive)
        self._send(0x10, body + b"".join(_text(each) for each in self._who))
        if bytes(self._read(4)) != b"\x20\x02\x00\x00":
            raise OSError(-1, "refused")

    def disconnect(self):
        if self.sock:
            try:
                self._write(b"\xe0\x00")
            except OSError:
                pass
            self.sock.close()

    def ping(self):
        with self.lock:
            self._write(b"\xc0\x00")
        self.wait_msg()

    def publish(self, topic, msg, retain=False, qos=0):
        number = struct.pack("!H", self._next())
        with self.lock:
            msg = msg.encode() if isinstance(msg, str) else msg
            self._send(0x30 | qos << 1 | retain, _text(topic) + (number if qos else b"") + msg)
        while qos:
            if self.wait_msg() == 0x40 and bytes(self._read(3))[1:] == number:
                return

    def subscribe(self, topic, qos=0):
        number = struct.pack("!H", self._next())
        with self.lock:
            self._send(0x82, number + _text(topic) + bytes((qos,)))
        while True:
            if self.wait_msg() == 0x90:
                if self._read(4)[3] == 0x80:
                    raise OSError(-1, "refused")
                return

    def check_msg(self):
        self.sock.setblocking(False)
        return self.wait_msg()

    def wait_msg(self):
        with self.lock:
            first = self._read(1)
            self.sock.setblocking(True)
            if first is None:
                return None
            kind = first[0]
            if kind == 0xD0:
                self._read(1)
                return None
            if kind & 0xF0 != 0x30:
                return kind
            size = shift = 0
            while True:
                byte = self._read(1)[0]
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            body = bytes(self._read(size))
            length = 2 + int.from_bytes(body[:2], "big")
            self.cb(body[2:length], body[length + (2 if kind & 6 else 0) :])
            return None

    def _next(self):
        self._number += 1
        return self._number

    def _send(self, kind, body):
        head = bytearray((kind,))
        size = len(body)
        while True:
            head.append(size & 127 | (128 if size > 127 else 0))
            size >>= 7
            if not size:
                break
        self._write(bytes(head) + body)

    def _write(self, data):
        while data:
            n = self.sock.write(data)
            data = data[n or 0 :]

    def _read(self, n):
        data = b""
        end = time.ticks_add(time.ticks_ms(), _PATIENCE_MS)
        while len(data) < n:
            if time.ticks_diff(end, time.ticks_ms()) <= 0:
                return None
            piece = None
            try:
                piece = self.sock.read(n - len(data))
            except OSError as error:
                if error.args[0] not in _BUSY:
                    raise
            if piece == b"":
                raise OSError(-1, "closed")
            if piece:
                data += piece
            else:
                time.sleep_ms(5)
        return data


def _text(value):
    value = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(value)) + value
