"""The control channel over the MQTT of a Quectel modem, by the field firmware's driver.

The driver's mqtt_get_message() can not be used: it tells nothing of a subscription that failed.
"""

import time

from micropython import const

from .channel import Channel

_ECONNRESET = const(104)
_SUBSCRIBE_MS = const(30000)
_SUBSCRIBED_MS = const(60000)  # all tries of the modem's
_UNSUBSCRIBE_MS = const(5000)
_TURN_MS = const(5)  # the buffer of the UART holds 256 bytes: 22 ms
_REST_MS = const(500)  # what is left of the longest line
_LONGEST_LINE = const(4096)


class ModemChannel(Channel):
    """A Channel on TransferProtocolModemAT: `client.modem_instance` is the driver."""

    def __init__(self, client, config, feed):
        super().__init__(client, config, feed)
        self.modem = client.modem_instance
        self._id = getattr(client, "modem_client_id", 1)
        self._message = 0  # the number of the last subscription
        self._send_at_cmd = None
        self._rest = b""  # of a line that is not complete

    def attach(self):
        """Hear what comes in the answers to all commands: a driver drops what is not its own."""
        self._send_at_cmd = self.modem.send_at_cmd
        self.modem.send_at_cmd = self.command

    def detach(self):
        """Give the driver back as it was."""
        if not self.lost:
            self._ask("UNS", "", _UNSUBSCRIBE_MS)
        self.modem.send_at_cmd = self._send_at_cmd

    def ask_for_all(self):
        """Subscribe. Raises OSError when the modem does not say that the broker has taken it."""
        end = time.ticks_add(time.ticks_ms(), _SUBSCRIBED_MS)
        answer = self._ask("SUB", ",1", _SUBSCRIBE_MS)
        line = b""
        while answer[2:3] == ["1"] and line is not None:  # the modem tries again, and tells
            line = self.line(time.ticks_diff(end, time.ticks_ms()))
            if line and line.startswith(b"+QMTSUB:"):
                answer = _fields(line.decode(), "+QMTSUB:")
        # <client>,<id>,<result>[,<granted>]: 128 is a refusal.
        if answer[2:3] != ["0"] or (answer[3:] and answer[3] not in ("0", "1", "2")):
            raise OSError(_ECONNRESET)

    def send(self, topic, payload, retain):
        """Publish, acknowledged. Raises OSError."""
        if not self.modem.mqtt_publish(_text(topic), _text(payload), 3, retain, 1):
            raise OSError(_ECONNRESET)

    def hear(self, wait_ms):
        """Hear what comes within wait_ms."""
        end = time.ticks_add(time.ticks_ms(), wait_ms)
        while not self.modem.uart.any():
            if time.ticks_diff(end, time.ticks_ms()) <= 0:
                return
            time.sleep_ms(_TURN_MS)
        self.drain()

    def command(self, text, *args, **options):
        """The driver's send_at_cmd(); nothing is lost that has come before it or comes with it."""
        self.drain()
        # The driver begins by dropping what is there: not the rest of a line of ours.
        end = time.ticks_add(time.ticks_ms(), _REST_MS)
        while self._rest and time.ticks_diff(end, time.ticks_ms()) > 0:
            time.sleep_ms(_TURN_MS)
            self.drain()
        status, lines = self._send_at_cmd(text, *args, **options)
        for line in lines:
            self._take(line)
        return status, lines

    def ask(self, text, answer, wait_ms, last=None):
        """Send a command; the fields of the last line that begins with answer, [] without one.

        last: the line that ends it, "OK", where that is not the answer itself.
        """
        found = []
        for line in self.command(text, wait_ms, last or "\\" + answer)[1]:
            if line.startswith(answer):
                found = _fields(line, answer)
        return found

    def drain(self):
        """Hear all lines that have come."""
        while self.modem.uart.any():
            self.line(0)

    def line(self, wait_ms):
        """The next line from the modem as bytes, not empty; None when none comes in time.

        The watchdog is fed meanwhile.
        """
        end = time.ticks_add(time.ticks_ms(), wait_ms)
        uart = self.modem.uart
        while True:
            if uart.any():
                self._rest += uart.readline() or b""
                if self._rest[-1:] == b"\n" or len(self._rest) > _LONGEST_LINE:
                    line, self._rest = self._rest.strip(), b""
                    if line:
                        try:
                            self._take(line.decode())
                        except UnicodeError:
                            pass  # not text
                        return line
            elif time.ticks_diff(end, time.ticks_ms()) <= 0:
                return None
            else:
                self.feed()
                time.sleep_ms(_TURN_MS)

    def _ask(self, verb, more, wait_ms):
        self._message = self._message % 65535 + 1
        text = 'AT+QMT%s=%d,%d,"%s/#"%s' % (verb, self._id, self._message, self.base, more)
        return self.ask(text, "+QMT%s:" % verb, wait_ms)

    def _take(self, line):
        if line.startswith("+QMTRECV:"):
            split = getattr(self.modem, "extract_topic_message_without_regex", _split)
            heard = split(line)
            self.take(heard["topic"], heard["message"])
        elif line.startswith("+QMTSTAT:") and line[9:].strip().startswith("%d," % self._id):
            self.lost = True  # the modem has lost the broker


def _fields(line, begin):
    return [field.strip() for field in line[len(begin) :].split(",")]


def _split(line):
    """Topic and message of a line `+QMTRECV: <client>,<id>,"<topic>","<message>"`."""
    first = line.find('"')
    second = line.find('"', first + 1)
    third = line.find('"', second + 1)
    return {"topic": line[first + 1 : second], "message": line[third + 1 : line.rfind('"')]}


def _text(value):
    return value if isinstance(value, str) else value.decode()
