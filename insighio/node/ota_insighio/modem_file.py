"""A package through the modem, in pieces, as the agent's open_stream= has to return it.

The modem speaks HTTPS and keeps the package as a file; whether it verifies the server is its
affair. Nothing of it is stored on the node's own flash but what the package holds. A file that is
complete is used again, whatever came between: a reset of the node, a piece that was not read.
"""

import time

from micropython import const

_EIO = const(5)
_COMMAND_MS = const(5000)
# As long as the field's updater gives the modem.
_GET_MS = const(250000)
# What the field's own reader asks for: the UART's buffer of 256 bytes never runs over.
_PIECE = const(256)
_PIECE_MS = const(3000)
# So many lines may come before the one that is waited for.
_MOST_LINES = const(100)
# How often one piece is asked for.
_MOST_TRIES = const(4)
_PAUSE_MS = const(500)


class ModemFile:
    """A response, and its body.

    channel: a ModemChannel; url: of the package (it holds the device key, and is never given to
    the driver, which logs what it sends); request: the agent's Request. `status_code` is the
    server's; `length` what it announces, None where the file was there already. Raises OSError.
    """

    def __init__(self, channel, url, request):
        self._channel = channel
        self._name = request.file_id + request.kind
        self._size = request.size
        self._at = 0
        self._handle = None
        self.raw = self
        self.status_code = 200
        self.length = None
        files = self._files()
        for name in files:
            # Of another package, or what is not complete.
            if name != self._name or files[name] != self._size:
                self._delete(name)
        if files.get(self._name) != self._size:
            self._get(url)

    def readinto(self, buffer, n):
        """Read at most n bytes into buffer; 0 at the end. Raises OSError."""
        n = min(n, self._size - self._at, _PIECE)
        if not n:
            return 0
        left = _MOST_TRIES
        while True:
            try:
                got = self._read(memoryview(buffer)[:n])
                break
            except (OSError, ValueError):
                left -= 1
                if not left:
                    raise OSError(_EIO)
                # The modem may have been reset: from the beginning, and on at this byte.
                self.close()
                time.sleep_ms(_PAUSE_MS)
        self._at += got
        self._channel.feed()
        return got

    def close(self):
        """Close the file. It stays in the modem until delete()."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._channel.command("AT+QFCLOSE=" + handle, _COMMAND_MS)

    def delete(self):
        """Delete the file: its package is installed or refused."""
        self.close()
        self._delete(self._name)

    def _get(self, url):
        channel = self._channel
        command = channel.command
        if not command('AT+QHTTPCFG="contextid",1', _COMMAND_MS)[0]:
            raise OSError(_EIO)
        command('AT+QHTTPCFG="requestheader",0', _COMMAND_MS)
        command('AT+QHTTPCFG="responseheader",0', _COMMAND_MS)
        if not command("AT+QHTTPURL=%d,80" % len(url), 2 * _COMMAND_MS, "CONNECT")[0]:
            raise OSError(_EIO)
        channel.modem.uart.write(url)
        self._expect(b"OK", _COMMAND_MS)
        # <error>[,<status>[,<length>]]
        answer = channel.ask("AT+QHTTPGET=80", "+QHTTPGET:", _GET_MS)
        if answer[:1] != ["0"] or not answer[1:]:
            raise OSError(_EIO)
        self.status_code = int(answer[1])
        if answer[2:]:
            self.length = int(answer[2])
        if self.status_code != 200 or self.length not in (None, self._size):
            return  # the agent refuses it
        channel.ask('AT+QHTTPREADFILE="%s",80' % self._name, "+QHTTPREADFILE:", _GET_MS)
        # What the answer says differs; what counts is what has come.
        if self._files().get(self._name) != self._size:
            self._delete(self._name)
            raise OSError(_EIO)

    def _files(self):
        """The packages that the modem keeps: {name: size}."""
        found = {}
        for line in self._channel.command('AT+QFLST="*"', _COMMAND_MS)[1]:
            if line.startswith("+QFLST:"):
                name, _, size = line[7:].strip().rpartition(",")
                name = name.strip('"').split(":")[-1]
                if name.endswith(".tar") or name.endswith(".tar.gz"):
                    found[name] = int(size)
        return found

    def _delete(self, name):
        self._channel.command('AT+QFDEL="%s"' % name, _COMMAND_MS)

    def _open(self):
        command = self._channel.command
        # One that is open still, from before a reset of this node.
        for line in command("AT+QFOPEN?", _COMMAND_MS)[1]:
            if line.startswith("+QFOPEN:") and self._name in line:
                command("AT+QFCLOSE=" + line.split(",")[1].strip(), _COMMAND_MS)
        text = 'AT+QFOPEN="%s",2' % self._name
        answer = self._channel.ask(text, "+QFOPEN:", _COMMAND_MS, "OK")
        if len(answer) != 1:
            raise OSError(_EIO)
        self._handle = answer[0]
        if self._at:
            seek = "AT+QFSEEK=%s,%d,0" % (self._handle, self._at)
            if not command(seek, _COMMAND_MS)[0]:
                raise OSError(_EIO)

    def _read(self, view):
        if self._handle is None:
            self._open()
        channel = self._channel
        uart = channel.modem.uart
        channel.drain()
        uart.write("AT+QFREAD=%s,%d\r\n" % (self._handle, len(view)))
        # As many bytes as the modem says; they are not text.
        count = int(self._expect(b"CONNECT", _PIECE_MS)[7:])
        if not 0 < count <= len(view):
            raise OSError(_EIO)
        got = 0
        end = time.ticks_add(time.ticks_ms(), _PIECE_MS)
        while got < count:
            n = uart.any() and uart.readinto(view[got:count])
            if n:
                got += n
            elif time.ticks_diff(end, time.ticks_ms()) <= 0:
                raise OSError(_EIO)
            else:
                channel.feed()
                time.sleep_ms(1)
        self._expect(b"OK", _PIECE_MS)
        return count

    def _expect(self, begin, wait_ms):
        """The line that begins so; others come in between. Raises OSError at an error, or none."""
        end = time.ticks_add(time.ticks_ms(), wait_ms)
        for _ in range(_MOST_LINES):
            line = self._channel.line(time.ticks_diff(end, time.ticks_ms()))
            if line is None or line == b"ERROR" or line.startswith(b"+CME ERROR"):
                break
            if line.startswith(begin):
                return line
        raise OSError(_EIO)
