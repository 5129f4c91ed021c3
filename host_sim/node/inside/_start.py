# Power-up, before the node's own code: forgotten when it is done, so it costs the node nothing.

import sys

import _sim
import machine  # noqa: F401 (before the host's files are gone)
import vfs

import __main__


def start(
    late,
    frozen,
    has_code,
    blocks,
    ops,
    cut,
    fail_from,
    fail_to,
    errno,
    undo,
    cause,
    mtime,
    cache,
    more,
    fail_read=0,
    read_errno=0,
):
    _sim.late = late
    _sim._blocks = blocks
    _sim._ops = ops
    _sim._cut = cut
    _sim._fail_from = fail_from
    _sim._fail_to = fail_to
    _sim._errno = errno
    _sim._undo = undo
    _sim.cause = cause
    if cache:
        _sim.cache_a_block()
    code = open(8).read() if has_code else None
    vfs.umount("/")
    try:
        vfs.mount(vfs.VfsLfs2(_sim, mtime=mtime), "/")
    except OSError as e:
        _sim.end(5, 0, 0, repr(e))  # NO_FLASH
    _sim.fail_read = fail_read
    _sim.read_errno = read_errno
    sys.path[:] = ["", ".frozen", "/lib"]
    sys.argv.clear()
    for name in frozen:
        sys.modules[name] = _sim.Frozen(name)
    if more:
        _sim.load("_more").start(*more)
    del sys.modules["_start"]
    __main__.__dict__.pop("_start")
    return code
