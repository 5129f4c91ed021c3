"""The control channel on the field firmware's MQTT client of Wi-Fi, a fork of umqtt.simple."""

import select
import time

from micropython import const

from .channel import Channel

_ECONNRESET = const(104)


class WifiChannel(Channel):
    """A Channel on TransferProtocolMQTT: `client.client.client` is the fork's MQTTClient."""

    def __init__(self, client, config, feed):
        super().__init__(client, config, feed)
        self._mqtt = client.client.client
        self._socket = None
        try:
            from apps.demo_console.locks import network_transmit_mutex as lock
        except ImportError:  # before the field had threads that send
            import _thread

            lock = _thread.allocate_lock()
        self._lock = lock

    def attach(self):
        """Hear the client's messages, and limit its waits."""
        mqtt = self._mqtt
        self._callback = mqtt.cb
        mqtt.set_callback(self.take)
        self._socket = mqtt.sock = _Socket(mqtt.sock, self.feed)

    def detach(self):
        """Give the client back as it was."""
        mqtt, socket = self._mqtt, self._socket
        mqtt.set_callback(self._callback)
        if mqtt.sock is socket:  # else the field has connected it again
            mqtt.sock = socket.socket
            if self.lost:
                socket.close()  # what follows on it would make no sense to anybody
            else:
                socket.socket.setblocking(True)

    def ask_for_all(self):
        """Subscribe. Raises OSError."""
        self._call(self._mqtt.subscribe, self.base + "/#")

    def send(self, topic, payload, retain):
        """Publish, acknowledged. Raises OSError."""
        self._call(self._mqtt.publish, topic, payload, retain, 1)

    def hear(self, wait_ms):
        """Hear what comes within wait_ms. Raises OSError."""
        if self._socket.readable(wait_ms):
            with self._lock:
                self._mqtt.check_msg()

    def _call(self, function, *args):
        with self._lock:
            # The fork would wait for ever.
            self._socket.end = time.ticks_add(time.ticks_ms(), self.wait_ms)
            try:
                function(*args)
            finally:
                self._socket.end = None


class _Socket:
    """The socket of the fork, which never blocks. `end`: when a call has to be over, ticks_ms."""

    def __init__(self, socket, feed):
        self.socket = socket
        self.end = None
        self._feed = feed
        socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(socket, select.POLLIN)

    def readable(self, wait_ms):
        """Whether something comes within wait_ms."""
        return bool(self._poll.poll(wait_ms))

    def read(self, n):
        """At most n bytes, None when there are none; the fork asks again, up to 10 s."""
        data = self.socket.read(n)
        if data is None:
            self._feed()
            if self.end is not None and time.ticks_diff(self.end, time.ticks_ms()) <= 0:
                raise OSError(_ECONNRESET)  # the fork would try again at any other number
        return data

    def write(self, data):
        """As the socket's."""
        return self.socket.write(data)

    def setblocking(self, _flag):
        """Never."""

    def close(self):
        """As the socket's."""
        self.socket.close()
