"""A package that the application has itself: from a card, over BLE, out of a web form.

It goes the way of one that the platform asks for: staging, journal, commit, trial. But the
platform does not know it: it is neither asked nor told. The file id in its journal is one that no
request can have, and so a report that begins with it is for the application only (ending.py). What
the platform is owed waits aside, where a roll back does not overwrite it.

The install itself is left to boot.py. An application that wants to say something before the reset,
and imports a module for that, finds its own one.
"""

from micropython import const

from . import drop
from .cycle import forget_staging, run
from .errors import Refused, Transient, name_of
from .request import Request

_FILE_ID = const("(local)")
_REASON = const("can not apply")
_GZIP = const(b"\x1f\x8b")


class Source:
    """The bytes of the package, in the place of a Download: exactly `size`, and none behind them.

    agent: its progress is told; stream: as Agent.install() says. Raises Transient.
    """

    length = 0  # anything but None: what is not an archive is no server's page

    def __init__(self, agent, stream, size):
        self._agent = agent
        self._stream = stream
        self._size = size
        self._done = 0
        self._head = b""
        head = bytearray(1)
        while len(self._head) < min(len(_GZIP), size):
            self._read(head, 1)
            self._head += head
        self.kind = ".tar.gz" if self._head == _GZIP else ".tar"

    def readinto(self, buffer, n):
        """Read at most n bytes into buffer; 0 when all have come."""
        head = self._head
        if head:
            n = min(n, len(head))
            buffer[:n] = head[:n]
            self._head = head[n:]
            return n
        n = min(n, self._size - self._done)
        return n and self._read(buffer, n)

    def end(self):
        """Whoever unpacks has come to the end."""

    def close(self):
        """The stream is the application's."""

    def _read(self, buffer, n):
        try:
            piece = buffer if n == len(buffer) else memoryview(buffer)[:n]
            if hasattr(self._stream, "readinto"):
                got = self._stream.readinto(piece) or 0
            else:
                data = self._stream.read(n) or b""
                got = len(data)
                piece[:got] = data
            if not 0 <= got <= n:
                raise ValueError
        except MemoryError:
            raise
        except Exception as error:  # the application's
            raise Transient(_REASON, "the stream failed, " + name_of(error))
        if not got:
            raise Transient(_REASON, "the stream ended after %d bytes" % self._done)
        self._done += got
        self._agent.progress("bytes", self._done)
        return got


def install(agent, stream, size, reset):
    """What Agent.install() says."""
    agent.reason = None
    agent.leave()
    outcome = run(agent, lambda agent: _install(agent, stream, size))
    if reset and outcome == "committed":
        agent.reset()
    drop("local", "cycle", "install", "recovery")
    return outcome


def _install(agent, stream, size):
    from .install.transaction import in_transaction
    from .install.trial import on_trial

    try:
        if in_transaction():
            if on_trial() is None:
                return agent.later("a transaction waits for the next boot")
            return agent.later("a trial is open: this version has to be confirmed first")
        del in_transaction, on_trial
        return _take(agent, Source(agent, stream, size), size)
    except Exception as caught:
        error = caught
    forget_staging()
    return _give_up(agent, error)


def _take(agent, source, size):
    """Stage and commit. Returns "committed", or "installed" where all was there already."""
    from .install.attempt import check_space, check_way_back
    from .install.transaction import discard, make_folder

    request = Request(_FILE_ID, source.kind, size)
    check_way_back(agent)
    # Attempts, and what the platform is owed, stay as they are.
    discard(agent.feed)
    check_space(agent, request)
    make_folder()
    del check_space, check_way_back, discard, make_folder
    from .arrival import stage

    staged, sequence = stage(agent, request, None, source)
    del stage
    forget_staging()
    from .install import transaction

    if not staged:
        transaction.keep_sequence(sequence)
        transaction.discard(agent.feed)
        return "installed"
    from .install.ready import write_copies

    write_copies()
    transaction.put_owed_aside()
    transaction.commit()
    agent.progress("commit", staged)
    return "committed"


def _give_up(agent, error):
    """Returns what Agent.install() says. Resets the node where flash has failed, at first."""
    if type(error) is MemoryError:
        error = Transient(_REASON, "out of memory")
    elif isinstance(error, OSError):
        outcome = agent.later("can not apply: flash failed, " + name_of(error))
        try:
            from .install.transaction import reset_after_flash_error
        except OSError:
            return outcome  # flash does not even give the code; nothing may be written now
        reset_after_flash_error(agent)
        return outcome
    elif not isinstance(error, (Refused, Transient)):
        error = Refused(_REASON, name_of(error))  # nobody expects it
    try:
        from .install.transaction import discard

        discard(agent.feed)
    except OSError as failed:
        return _give_up(agent, failed)
    if isinstance(error, Transient):
        return agent.later(error)
    agent.reason = str(error)
    agent.progress("failed", agent.reason)
    return "failed"
