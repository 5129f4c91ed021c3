"""One update from request to reset, and which code is in RAM for each step of it.

Here is what an agent does when there is something to do: a request, a report that is owed, a trial
to confirm.
"""

import gc

from micropython import const

from . import drop
from .errors import Refused, Transient, name_of

# What DeflateIO allocates at its first read.
_WINDOW = const(33 * 1024)
# The name of the member that makes a package a signed one (docs/signing.md).
_MANIFEST = const(".ota-manifest")


def run(agent):
    """Do whatever waits. Returns what Agent.check() says. Raises Transient, OSError."""
    before = gc.threshold()
    # Else what is loaded for good would come to lie above the garbage of a whole heap, and cut
    # that in pieces. A part of the heap, so that a large one does not collect all the time.
    gc.threshold((gc.mem_alloc() + gc.mem_free()) // 16)
    try:
        return _run(agent)
    finally:
        gc.threshold(before)


def _run(agent):
    from .ending import fail, settle

    outcome = settle(agent)
    if outcome == "open":
        # Another version's, or boot.py could not finish it: staging would overwrite it.
        return agent.later("a transaction waits for the next boot")
    bad, request = agent.control.bad, agent.control.request
    if bad:
        return fail(agent, bad.file_id, str(bad))
    if not request:
        return outcome
    # What is only for the end makes room for what is only for the beginning; nothing here may
    # hold on to it.
    del fail, settle
    drop("ending")
    return _take(agent, request)


def _take(agent, request):
    agent.progress("request", request.file_id)
    last = flash_failed = False
    try:
        last = _admit(agent, request)
        if last is None:
            return agent.later("the application's policy")
        staged, sequence = _stage(agent, request)
    except Refused as error:
        reason = str(error)
        last = True
    except Transient as error:
        reason = str(error)
    except MemoryError:
        reason = "can not apply: out of memory"
    except OSError as error:
        if error.args[0] == 28:
            reason = "not enough space: flash is full"
        else:
            reason = "can not apply: flash failed, " + name_of(error)
        last = flash_failed = True
    except Exception as error:
        # Nobody expects it, so nobody may be left without an answer for it.
        reason = "can not apply: " + name_of(error)
    else:
        _forget_staging()
        from .ending import install

        return install(agent, request, staged, sequence)
    _forget_staging()
    if last:
        from .ending import fail

        return fail(agent, request.file_id, reason, not flash_failed)
    from . import recovery

    recovery.discard(agent.feed)
    return agent.later(reason)


def _admit(agent, request):
    """True when this attempt is the last one, False when not; None: the application says later."""
    from .admission import ask_policy, check_space, count_attempt

    if ask_policy(agent, request):
        return None
    check_space(agent, request)
    return count_attempt(agent, request.file_id)


def _stage(agent, request):
    """Download, verify and stage; the live tree is not touched.

    Returns (how much has changed, the package's sequence number or None).
    """
    # A node without PSRAM can not hold everything at a time: two connections, and code that has
    # done its part or has it still before it.
    if not agent.client:
        agent.leave()
    drop("admission", "recovery", "request", "report")
    # In the order of how large a piece of memory each needs, while there are large ones: the
    # window, for which room is kept until DeflateIO takes it at its first read, TLS, and code.
    window = _room_for_window(request)
    from .download import Download

    config = agent.config

    def on_bytes(count):
        agent.progress("bytes", count)
        if agent.client:
            agent.control.service()

    agent.progress("download", request.size)
    download = Download(config, request, agent.limits, agent.open_stream, on_bytes)
    staging = signed = None
    try:
        if window:
            from . import inflate  # noqa: F401 - now, or it would take the room for the window
        from .archive import open_archive
        from .staging import Staging
        from .tarfile_lite import TarReader
        from .vetting import clean_path

        window, reader = None, TarReader(open_archive(download))
        more = reader.next()
        if reader.name == _MANIFEST and not reader.is_folder:
            from .signed import SignedReader

            reader = signed = SignedReader(reader, config, agent.feed)
            more = signed.next()
        elif config["require_signature"]:
            raise Refused("manifest", "there is none, and this node requires it")
        elif not more:
            raise Refused("can not apply", "bad archive, it is empty")
        paths = config["protected"] + [config["ca"]]
        if not (signed and signed.signed):
            paths += config["keys"]
        staging = Staging(agent.progress, [clean_path(path) for path in paths], agent.feed)
        while more:
            staging.add(reader, signed and signed.digest)
            more = reader.next()
        if signed:
            for path in signed.deletions():
                staging.delete(path)
        download.end()
        staging.finish()
        return staging.staged, signed and signed.sequence
    except OSError:
        if staging:
            agent.unclosed = staging.leave_open()
            staging = None
        raise
    finally:
        if signed:
            signed.close()
        if staging:
            staging.close()
        download.close()


def _room_for_window(request):
    """Memory that DeflateIO's window will take; None for none, or none to be had."""
    if request.kind == ".tar.gz":
        try:
            return bytearray(_WINDOW)
        except MemoryError:
            pass  # zlib may need less, and the kind may lie: whatever unpacks will tell
    return None


def _forget_staging():
    names = "admission download https body archive inflate tarfile_lite staging journal places"
    names += " space vetting signed manifest signature"
    drop(*names.split(" "))
