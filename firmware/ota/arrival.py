"""A package on its way from the platform to /.ota: downloaded, verified and staged in one go.

Beside what an idle check has, only what bytes on their way need is in RAM meanwhile.
"""

import gc
import io
import sys

from micropython import const

from . import drop
from .errors import OtaError, Transient

# What staging takes beside what is loaded before its first member.
_BUFFERS = const(2 * 1024 + 512)
# With such a threshold cycle.run() has seen that there is more memory than an archive needs.
_MUCH = const(16 * 1024)
# Holds a file that must not be closed.
_UNCLOSED = const("ota.unclosed")


def stage(agent, request, rehearsal=None, local=None):
    """Download, verify and stage; the live tree is not touched.

    rehearsal: a rehearsal.Package in the place of the platform; then nothing is written either.
    local: a local.Source in the place of a download, of which the platform does not know.
    Returns (how much has changed, the package's sequence number or None). After Transient what was
    staged of the platform's package stays, for another wake.
    """
    drop("request", "install", "package", "recovery")
    progress = agent.feed if rehearsal else agent.progress
    # Nobody hears of each piece, or of each file, but a hook.
    often = progress if agent.hook else agent.feed

    def on_bytes(count):  # here, or the code of begin.py would stay in RAM with it
        often("bytes", count)
        if agent.client:
            agent.control.service()
            if not rehearsal and agent.control.request != request:
                raise OtaError("withdrawn")

    # In the order of how large a piece of memory each needs, while there are large ones: TLS,
    # which on a chip gets what this heap has not taken, the window, as large as the archive says
    # (inflate.py takes it at once), and code.
    gc.collect()
    before = gc.mem_alloc()
    download, left, indexed = local, None, 0
    if not local:
        from .begin import connect

        heard = on_bytes if agent.hook or agent.client else agent.feed
        download, left, indexed = connect(agent, request, rehearsal, progress, heard)
        del connect
        drop("begin")
    signed = journal = marks = begun = wanted = None
    try:
        from .package.archive import open_archive

        archive = open_archive(download, () if left and left[-2] == 2 else left and left[2])
        del open_archive
        drop("package.archive")
        from .install.start import begin

        tar, signed, paths, head, said, marks = begin(
            agent, request, archive, rehearsal, local, download, left
        )
        del begin
        drop("install.start")
        if indexed:
            # Before staging's code is there: to look at what this node has takes memory as well.
            from .package.plan import choose

            wanted = choose(download, archive, tar, signed, agent.feed, left)
            del choose
            drop("package.plan")
        from .install.journal import Journal
        from .install.staging import Staging

        gc.collect()
        if agent.stat:
            agent.stat.look()
        if left:
            journal = Journal(None, None, left[0][1], left[0][2])
        else:
            head[8][1] = gc.mem_alloc() - before + _BUFFERS
            journal = Journal(head, rehearsal and io.BytesIO())
            if said:
                journal.line("u", "=", 0, said)
        head = said = None
        sums = None if signed else archive
        staging = Staging(often, paths, agent.feed, journal, tar.header, marks, sums)
        if gc.threshold() > _MUCH:
            from .package.widen import widen

            widen(archive)
            del widen
        if marks:
            marks.journal = journal
            tar.tick = marks.tick
        walk = reader = signed or tar
        more = not (left or signed)
        if left:
            from .install.again import go_on

            begun = go_on(staging, left, tar, signed)
            del go_on
            drop("install.again")
            more = begun
        # Not between a manifest and an index: the next wake would go on without that.
        if not (more or indexed):
            tar.skip()  # a manifest's padding
            if marks:
                marks.note()
        if wanted:
            wanted.staging = staging
            walk = tar = marks.archive = wanted
            archive = None  # a window that nothing needs any more
            if not left:
                marks.note()
        if not more:
            more = walk.next()
        while more:
            if more is not begun:
                staging.add(reader)
            tar.skip()
            if marks:
                marks.note()
            more = walk.next()
        from .install.finish import delete, finish

        if signed:
            for path in signed.deletions():
                agent.feed()  # the journal may be read for each
                delete(staging, path)
        if not wanted:
            download.end()
        if not rehearsal:
            finish(staging)
        return staging.staged, signed and signed.sequence
    except Transient:
        if journal and marks:
            journal.close()
            marks.save()
        raise
    except OSError:
        if journal:
            # Closing the journal would write, and so would a collection that finds it (see
            # recovery.install()). It is kept for longer than the agent, which an application may
            # make for each check.
            sys.modules[_UNCLOSED] = journal.file
            journal = None
        raise
    finally:
        if wanted:
            wanted.skip()  # closes
        if signed:
            signed.close()
        if journal:
            journal.close()
        if not local:
            agent.fetched += download.fetched
        download.close()
