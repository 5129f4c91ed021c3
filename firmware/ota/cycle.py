"""One update from request to reset, and which code is in RAM for each step of it.

Here is what an agent does when there is something to do: a request, a report that is owed, a trial
to confirm.
"""

import gc
import io
import sys
import time

from micropython import const

from . import drop
from .errors import OtaError, Refused

# What DeflateIO allocates at its first read.
_WINDOW = const(33 * 1024)
# What staging takes beside what is loaded before its first member.
_BUFFERS = const(5 * 1024)
# The name of the member that makes a package a signed one (docs/signing.md).
_MANIFEST = const(".ota-manifest")
# How often one contact takes up the request that has come in the place of another.
_MOST_REPLACED = const(3)
_HOUR_MS = const(3600000)
# Holds a file that must not be closed, see Staging.leave_open().
_UNCLOSED = const("ota.unclosed")


def run(agent, task=None):
    """Do whatever waits. Returns what Agent.check() says. Raises Transient, OSError.

    task: called with the agent, and what it says is returned, in place of that.
    """
    before = gc.threshold()
    # Without it what is loaded for good lies above the garbage of a whole heap, and cuts
    # that in pieces. A part of the heap, so that a large one does not collect all the time.
    gc.threshold((gc.mem_alloc() + gc.mem_free()) // 16)
    try:
        return (task or _run)(agent)
    finally:
        gc.threshold(before)


def _run(agent):
    from .install.ending import settle

    outcome, need = settle(agent)
    del settle
    # Not before: with an owed report its request is cleared.
    bad, request = agent.control.bad, agent.control.request
    if need is not None:
        # A node that reaches its control channel, and reports there, can be repaired from there,
        # if it can be updated.
        _forget_end()
        piece, need = need or (0, 0)
        if not agent.client:
            agent.leave()
        from .package.vetting import no_room

        wrong = no_room(piece, need)
        del no_room
        drop("package.vetting")
        if not wrong:
            from .install.rehearsal import rehearse

            wrong = rehearse(agent, stage, piece)
            del rehearse
        forget_staging()
        from .install.ending import end_trial

        outcome = end_trial(agent, wrong)
        del end_trial
        if agent.control:  # as above
            bad, request = agent.control.bad, agent.control.request
    if outcome == "open":
        # Another version's, or boot.py could not finish it: staging would overwrite it.
        from .install.attempt import without_boot_py

        without_boot_py(agent)
        return agent.later("a transaction waits for the next boot")
    from .install.transaction import exists

    if exists("/.ota/done"):
        if _has_ended(agent, bad or request):
            return outcome
        if agent.control:
            bad, request = agent.control.bad, agent.control.request
    del exists
    for _ in range(_MOST_REPLACED):
        if bad:
            from .install.ending import fail

            return fail(agent, bad.file_id, str(bad))
        if not request:
            return outcome
        # What is only for the end makes room for what is only for the beginning.
        _forget_end()
        ended = _take(agent, request)
        if ended:
            return ended
        bad, request = agent.control.bad, agent.control.request
        outcome = "idle"
    return outcome  # and contact() sees that there is more to do


def _has_ended(agent, pending):
    """What kept.has_ended() says; the clear is tried once in a wake, or in an hour."""
    from .install.kept import has_ended

    now = time.ticks_ms()
    before = agent.cleared_at
    try_clear = before is None or time.ticks_diff(now, before) > _HOUR_MS
    if try_clear and agent.control:
        agent.cleared_at = now
    return has_ended(agent, pending, try_clear)


def _take(agent, request):
    """Do what request asks for. Returns what check() says, None when it stands no more."""
    agent.progress("request", request.file_id)
    # Whether this attempt is counted on flash, and the last one.
    counted = last = False
    try:
        from .install.attempt import check_space, count_attempt
        from .install.transaction import check_way_back
        from .request import ask_policy

        if ask_policy(agent, request):
            return agent.later("the application's policy")
        check_way_back(agent)
        check_space(agent, request)
        last = count_attempt(agent, request.file_id)
        counted = True
        del ask_policy, check_space, check_way_back, count_attempt
        staged, sequence = stage(agent, request)
        forget_staging()
        from .install.ending import prepare

        prepare(agent, request, staged)
        del prepare
    except Exception as caught:
        error = caught
    else:
        from .install.ending import install

        return install(agent, request, staged, sequence)
    forget_staging()
    from .install.attempt import end_attempt

    return end_attempt(agent, request, error, counted, last)


def stage(agent, request, rehearsal=None, local=None):
    """Download, verify and stage; the live tree is not touched.

    rehearsal: a rehearsal.Package in the place of the platform; then nothing is written either.
    local: a local.Source in the place of a download, of which the platform does not know.
    Returns (how much has changed, the package's sequence number or None).
    """
    # A node without PSRAM can not hold everything at a time: two connections, and code that has
    # done its part or has it still before it.
    if not agent.client:
        agent.leave()
    drop("request", "install", "package", "recovery")
    # In the order of how large a piece of memory each needs, while there are large ones: the
    # window, for which room is kept until DeflateIO takes it at its first read, TLS, and code.
    before = gc.mem_alloc()
    window = _room_for_window(request)
    config = agent.config
    progress, open_stream = agent.progress, agent.open_stream
    if rehearsal:
        progress, open_stream = _quiet, rehearsal.open_stream

    def on_bytes(count):
        progress("bytes", count)
        agent.feed()
        if agent.client:
            agent.control.service()
            if not rehearsal and agent.control.request != request:
                raise OtaError("withdrawn")

    download = local
    if not download:
        from .download import Download

        progress("download", request.size)
        download = Download(config, request, agent.limits, open_stream, on_bytes)
    staging = signed = sequence = None
    try:
        if window:
            from .package import inflate  # noqa: F401 - now, or it would take the room for the window
        from .install.journal import Journal
        from .install.staging import Staging
        from .package.archive import open_archive
        from .package.vetting import clean_path
        from .tarfile_lite import TarReader

        archive = open_archive(download)
        reader = TarReader(archive)
        window = None  # all that could take its room is there
        more = reader.next()
        paths = config["protected"][:]
        if reader.name == _MANIFEST and not reader.is_folder:
            from .package.signed import SignedReader

            reader = signed = SignedReader(reader, config, agent.feed)
            sequence = signed.sequence
            more = signed.next()
        elif rehearsal:
            paths = []
        elif config["require_signature"]:
            raise Refused("manifest", "there is none, and this node requires it")
        elif not more:
            raise Refused("can not apply", "bad archive, it is empty")
        if not (signed and signed.signed):
            # Whoever could exchange these would have the node for good. The owner may: a trial
            # shows that the platform is trusted still (rehearsal.try_anchors).
            paths += config["keys"]
            paths += [config["ca"]] if type(config["ca"]) is str else config["ca"]
        gc.collect()
        need = gc.mem_alloc() - before + _BUFFERS
        head = [2, request.file_id]
        for key in "trial_boots", "trial_wakes", "trial_days", "trial_deadline_s":
            head.append(config[key])
        head.append(not local and config["report"] == "installed")
        head += [config["watchdog_s"], [archive.window, need]]
        head.append(sequence)
        journal = Journal(head, rehearsal and io.BytesIO())
        paths = [] if rehearsal else [clean_path(path) for path in paths]
        staging = Staging(progress, paths, agent.feed, journal)
        while more:
            staging.add(reader, signed and signed.digest)
            more = reader.next()
        if signed:
            for path in signed.deletions():
                staging.delete(path)
        download.end()
        if not rehearsal:
            staging.finish()
        return staging.staged, sequence
    except OSError:
        if staging:
            # Longer than the agent, which an application may make for each check.
            sys.modules[_UNCLOSED] = staging.leave_open()
            staging = None
        raise
    finally:
        if signed:
            signed.close()
        if staging:
            staging.close()
        download.close()


def _quiet(step, value):
    pass


def _room_for_window(request):
    """Memory that DeflateIO's window will take; None: it needs none, or there is none."""
    if request.kind == ".tar.gz":
        try:
            return bytearray(_WINDOW)
        except MemoryError:
            pass  # zlib may need less, and the kind may lie: whatever unpacks will tell
    return None


def _forget_end():
    drop("install", "recovery")


def forget_staging():
    """Free the RAM of all that stage() has loaded."""
    drop("download", "https", "package", "install", "tarfile_lite", "request")
