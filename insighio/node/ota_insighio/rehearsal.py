"""Whether the next update would come through the adapter: tried on trial only.

The agent tries its own part. What only an update needs of this package is used here on a modem
that is made up: nothing is sent, and nothing is written.
"""

from micropython import const

_ID = const("rehearsal")
_SIZE = const(300)  # two pieces
_NAME = const('"rehearsal.tar"')
_EIO = const(5)


def rehearse(channel):
    """Try it. Raises OSError where it does not work, else what the code raises.

    channel: the Channel of this check. ImportError, NameError and SyntaxError are those by which
    the agent knows a version that can not be updated again.
    """
    from . import _forget

    try:
        _try_all(channel)
    except MemoryError:
        # As in the agent's: that there is enough has been seen, and this code lies in between.
        print("ota: the adapter's rehearsal ran out of memory")
    except AttributeError as error:
        # Names that a module does not have: the agent would take it for the broker's.
        raise ImportError(str(error))
    finally:
        _forget()  # what is loaded for this


def _try_all(channel):
    from ota.request import Request

    from . import Job, as_the_field_says
    from .arrive import said, settle, verdict  # noqa: F401
    from .upload import do_apply, has_enough_free_space  # noqa: F401

    as_the_field_says(b'[{"n":"m","vs":"x"}]')
    request = Request(_ID, ".tar", _SIZE)
    modem = _Modem()
    dry = channel
    if channel.field.modem_based:
        from .channel_modem import ModemChannel

        uart = channel.modem.uart
        uart.any, uart.readline, uart.readinto, uart.write  # noqa: B018
        dry = ModemChannel(_Client(modem), channel.config, channel.feed)
        dry.attach()
    said_before = channel.said
    job = Job(dry.field, dry)
    channel.said = said_before
    job._policy(request)
    if dry is channel:
        return
    file = job._open("https://rehearsal")
    buffer = bytearray(512)
    got = b""
    while True:
        n = file.raw.readinto(buffer, len(buffer))
        if not n:
            break
        got += buffer[:n]
    file.delete()
    if got != _body() or file.status_code != 200 or modem.kept or modem.opened:
        raise OSError(_EIO)


def _body():
    return b"OK\r\n\r\n" + bytes(_SIZE - 6)


class _Client:
    """The field's, with a modem that is made up."""

    modem_based = True
    modem_client_id = 1

    def __init__(self, modem):
        self.modem_instance = modem


class _Modem:
    """Driver, wire and modem in one: it has one package to give."""

    def __init__(self):
        self.uart = self
        self.kept = self.opened = False
        self._at = 0
        self._out = b""

    def send_at_cmd(self, text, *_):
        """What the modem says to a command."""
        lines = []
        if text.startswith("AT+QFLST"):
            lines = ["+QFLST: %s,%d" % (_NAME, _SIZE)] if self.kept else []
        elif text.startswith("AT+QHTTPURL"):
            return True, ["CONNECT"]
        elif text.startswith("AT+QHTTPGET"):
            return True, ["OK", "+QHTTPGET: 0,200,%d" % _SIZE]
        elif text.startswith("AT+QHTTPREADFILE"):
            self.kept = True
            return True, ["OK", "+QHTTPREADFILE: 0"]
        elif text.startswith("AT+QFOPEN="):
            self.opened = True
            lines = ["+QFOPEN: 1"]
        elif text.startswith("AT+QFCLOSE"):
            self.opened = False
        elif text.startswith("AT+QFDEL"):
            self.kept = False
        return True, lines + ["OK"]

    def write(self, data):
        """A read of the file, or the URL."""
        data = data if isinstance(data, bytes) else data.encode()
        if data.startswith(b"AT+QFREAD="):
            n = int(data[10:].split(b",")[1])
            piece = _body()[self._at : self._at + n]
            self._at += len(piece)
            self._out += b"\r\nCONNECT %d\r\n" % len(piece) + piece
        self._out += b"\r\nOK\r\n"
        return len(data)

    def any(self):
        """As the UART's."""
        return len(self._out)

    def readline(self):
        """As the UART's."""
        line, end, self._out = self._out.partition(b"\n")
        return line + end

    def readinto(self, view):
        """As the UART's."""
        n = min(len(view), len(self._out))
        view[:n] = self._out[:n]
        self._out = self._out[n:]
        return n
