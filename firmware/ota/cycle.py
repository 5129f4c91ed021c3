"""One update from request to reset; the only module that knows all others.

Here is what an agent does when there is something to do: a request, a report that is owed, a trial
to confirm.
"""

import gc

from micropython import const

from . import drop
from .errors import Refused, Transient, name_of

# What DeflateIO allocates at its first read.
_WINDOW = const(33 * 1024)


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
    outcome = _settle(agent)
    if outcome == "open":
        # Another version's, or boot.py could not finish it: staging would overwrite it.
        return agent.later("a transaction waits for the next boot")
    bad, request = agent.control.bad, agent.control.request
    if bad:
        return _fail(agent, bad.file_id, str(bad))
    if request:
        return _take(agent, request)
    return outcome


def _settle(agent):
    """Confirm a trial and deliver an owed report, before anything new is begun."""
    from . import recovery

    outcome = "idle"
    if not recovery.exists("/.ota"):
        return outcome
    outcome = _deliver(agent, recovery) or outcome
    # A node that reaches its control channel, and can report there, can be mended from there.
    if recovery.confirm():
        agent.progress("confirm", "")
        _deliver(agent, recovery)
        outcome = "confirmed"
    if recovery.in_transaction():
        return "open"
    recovery.discard(agent.feed)
    if not agent.control.request:
        recovery.forget("attempts")
    return outcome


def _deliver(agent, recovery):
    """Send the owed report, if there is one. Returns what check() says of a bad end, or None."""
    owed = recovery.load("report")
    if owed:
        _send(agent, owed)
        recovery.forget("report")
        if owed.startswith("2 "):
            agent.reason = owed.split(" ", 2)[2]
            return "rolled_back" if agent.reason.startswith("rolled back") else "failed"


def _take(agent, request):
    agent.progress("request", request.file_id)
    last = False
    try:
        if _ask_policy(agent, request):
            return agent.later("the application's policy")
        _check_space(agent, request)
        last = _count_attempt(agent, request.file_id)
        staged = _stage(agent, request)
    except Refused as error:
        return _fail(agent, request.file_id, str(error))
    except Transient as error:
        reason = str(error)
    except MemoryError:
        reason = "can not apply: out of memory"
    except OSError as error:
        if error.args[0] == 28:
            reason = "not enough space: flash is full"
        else:
            reason = "can not apply: flash failed, " + name_of(error)
        return _fail(agent, request.file_id, reason, False)
    except Exception as error:
        # Nobody expects it, so nobody may be left without an answer for it.
        reason = "can not apply: " + name_of(error)
    else:
        _forget_staging()
        return _install(agent, request, staged)
    _forget_staging()
    from . import recovery

    recovery.discard(agent.feed)
    return _fail(agent, request.file_id, reason) if last else agent.later(reason)


def _ask_policy(agent, request):
    """True when the application wants to wait. Raises Refused when it does not want at all."""
    if not agent.policy:
        return False
    try:
        answer = agent.policy(request)
        if type(answer) is tuple and answer[0] == "refuse":
            detail = str(answer[1])
        elif answer in ("go", "later"):
            return answer == "later"
        else:
            raise ValueError
    except Exception as error:
        # Nobody can tell what it meant: waiting loses nothing.
        print("ota: the policy hook failed,", name_of(error))
        return True
    raise Refused("refused", detail)


def _check_space(agent, request):
    from .staging import enough_for, free_blocks

    if not enough_for(request.size):
        raise Refused(
            "not enough space",
            "%d bytes announced, %d blocks are free" % (request.size, free_blocks()),
        )
    agent.progress("space", free_blocks())


def _count_attempt(agent, file_id):
    """Count this attempt on flash before it begins; True when it is the last one.

    One that ends in a watchdog reset or a power cut is counted as well: such a package would
    otherwise be fetched for ever. Raises Refused when there have been enough.
    """
    from . import recovery

    # What an earlier attempt left must not be taken for this one's: an old file above all.
    recovery.discard(agent.feed)
    count = 1
    before = recovery.load("attempts")
    if before and before.split(" ")[0] == file_id:
        count += int(before.split(" ")[1])
    most = agent.config["max_attempts"]
    if count > most:
        raise Refused("can not apply", "interrupted %d times" % most)
    recovery.save("attempts", "%s %d" % (file_id, count))
    return count == most


def _stage(agent, request):
    """Download, verify and stage; the live tree is not touched. Returns how much has changed."""
    # A node without PSRAM can not hold everything at a time: two connections, and code that has
    # done its part or has it still before it.
    if not agent.client:
        agent.leave()
    drop("recovery", "request", "report", "staging", "journal", "vetting")
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
    staging = None
    try:
        drop("trust")
        if window:
            from . import inflate  # noqa: F401 - now, or it would take the room for the window
        from .archive import open_archive
        from .staging import Staging
        from .tarfile_lite import TarReader
        from .vetting import clean_path

        reader = TarReader(open_archive(download))
        protected = [clean_path(path) for path in config["protected"]]
        staging = Staging(agent.progress, protected + [clean_path(config["ca"])], agent.feed)
        window = None
        while reader.next():
            staging.add(reader)
        download.end()
        if reader.name is None:
            raise Refused("can not apply", "bad archive, it is empty")
        staging.finish()
        return staging.staged
    finally:
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
    drop("download", "https", "archive", "inflate", "tarfile_lite")
    drop("staging", "journal", "vetting")


def _install(agent, request, staged):
    from . import recovery

    config = agent.config
    if not staged:
        # Nothing differs from what runs: no trial, and no reset.
        return "installed" if _end(agent, "1 " + request.file_id) else "later"
    # All that tells the end, now: after the install, flash has the new version's.
    from . import report as _report  # noqa: F401
    from . import request as _request  # noqa: F401
    from . import trust as _trust  # noqa: F401

    if not agent.control:
        agent.approach()
    try:
        recovery.commit(
            request.file_id,
            config["trial_boots"],
            config["trial_wakes"],
            config["trial_deadline_s"],
            config["report"],
        )
        agent.progress("commit", staged)
        recovery.install(agent.feed)
        recovery.forget("attempts")
        agent.progress("install", staged)
        owed = recovery.load("report")
        if owed:
            _send(agent, owed)
            recovery.forget("report")
    except Transient as error:
        agent.later(error)  # the report waits on flash
    finally:
        # Whatever happened, flash errors included: the modules in memory are no longer those on
        # flash, and only a boot can go on.
        if recovery.in_transaction():
            import machine

            agent.leave()
            machine.reset()
    return "later"


def _fail(agent, file_id, reason, flash_works=True):
    agent.reason = reason
    agent.progress("failed", reason)
    return "failed" if _end(agent, "2 %s %s" % (file_id, reason), flash_works) else "later"


def _end(agent, owed, flash_works=True):
    """Report the end of a request that leaves no transaction. True when it was delivered."""
    from . import recovery

    try:
        if flash_works:
            recovery.discard(agent.feed)
            # On flash before the clear: a cut between clear and report must not lose the end.
            recovery.save("report", owed)
            recovery.forget("attempts")
    except OSError:
        flash_works = False
    if not flash_works:
        # Nothing can be kept about this end. On a fresh mount it may, or may not even be needed:
        # the request still stands, and the attempt is counted.
        agent.reset_after_flash_error()
    try:
        _send(agent, owed, flash_works)
        if flash_works:
            recovery.forget("report")
        return True
    except Transient as error:
        # It waits on flash, and goes out first at the next contact; where flash fails, the request
        # still stands.
        agent.later(error)
        return False


def _send(agent, owed, kept=True):
    from .report import finish

    if not agent.control:
        agent.approach()
    agent.limits.renew()
    event, file_id, text = (owed + "  ").split(" ", 2)
    text = text.strip() or None
    finish(agent.control, int(event), file_id, text, agent.progress, kept)
