"""What comes before the bytes of a package: where the last wake has ended, and a connection.

Only loaded for that.
"""

import os

from micropython import const

from . import drop

# So many bytes tell whether a package has an index; a smaller one is fetched whole.
_HEAD = const(18)
_WHOLE = const(16 * 1024)


def connect(agent, request, rehearsal, progress, on_bytes):
    """Ask for the package, or for the rest of what an earlier wake has staged.

    on_bytes: as Download has it. Returns (a Download, what resume.look() says, whether the package
    has an index by which the rest is chosen). Raises as these.
    """
    left = None
    agent.resumed = False
    if not rehearsal and _is_marked():
        from .install.resume import look

        left = look(agent, request)
        del look
        # Nothing of what has checked it may lie beside TLS.
        drop("install", "package", "recovery", "tarfile_lite")
    open_stream = rehearsal.open_stream if rehearsal else agent.open_stream
    while True:
        from .download import Download

        at, etag, stop = 0, None, 0
        if left:
            at, etag, stop = left[0][0], left[1], (0, request.size, -1)[left[-2]]
        elif not (rehearsal or open_stream or agent.whole) and request.size > _WHOLE:
            stop = _HEAD if request.kind == ".tar.gz" else 0
        progress("download", request.size)
        if at:
            progress("staged", at)
        budget = 0
        if not rehearsal:
            # One wake may go as far beyond max_fetched as the package is long, and no further.
            most = (agent.config["max_fetched"] + 1) * request.size - agent.fetched
            budget = min(agent.allowed or agent.budget or agent.config["budget"] or most, most)
        arguments = agent.config, request, agent.limits, open_stream, on_bytes, budget, at, etag
        download = Download(*arguments, stop)
        if not at or download.done:
            break
        progress("notice", "the server has another package by now: from its beginning")
        left = None
        from .install.transaction import discard

        discard(agent.feed)
        del discard
        drop("install", "recovery")
    agent.resumed = bool(left)
    indexed = left and left[-2]
    if stop and download.stop == stop and not left:
        from .front import front

        indexed = front(download)
        del front
        drop("front")
    return download, left, indexed


def _is_marked():
    try:
        return os.stat("/.ota/mark")
    except OSError as error:
        if error.args[0] != 2:  # the chip's: leftovers must not be taken for nothing
            raise
