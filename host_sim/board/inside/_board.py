# ruff: noqa: PTH116, PTH123
# Power-up of the board: its flash, boot.py, main.py; what follows is the interpreter's own REPL.
#
# This module is also the block device. On a board C drives the flash, and neither Ctrl-C nor a
# timer's callback nor a collection (it closes files that were left open) comes in between; here
# any of them would find littlefs half-way. The first two come where bytecode jumps, so there is no
# `if` and no loop below; the third where something is allocated, so the heap is locked.

import gc
import os
import sys
from struct import pack_into

import _sim
import machine  # noqa: F401 (before the host's files are gone)
import vfs
from micropython import const, heap_lock, heap_unlock

import __main__

_BLOCK = const(4096)

# Events (chip.py on the host has the same numbers).
_CUT = const(1)
_SOFT_RESET = const(3)
_REPL = const(4)
_NO_FLASH = const(5)
_BOOTING = const(32)
_MAIN = const(33)

# Records of the operation log (flash_rules.py on the host has the same numbers).
_PROGRAM = const(1)
_ERASE = const(2)

_seek = _sim._image.seek
_readinto = _sim._image.readinto
_write = _sim._image.write
_log = _sim._log.write
_record = bytearray(8)
_blank = b"\xff" * _BLOCK
_ops = _cut = 0  # set by start()

# What new firmware writes when it formats the flash of an ESP32.
_STOCK_BOOT = """\
# This file is executed on every boot (including wake-boot from deepsleep)
#import esp
#esp.osdebug(None)
#import webrepl
#webrepl.start()
"""


def readblocks(block, buf, off=0):
    heap_lock()
    _seek(block * _BLOCK + off)
    _readinto(buf)
    heap_unlock()


def writeblocks(block, buf, off=0):
    heap_lock()
    at = block * _BLOCK + off
    _operation(_PROGRAM, at, len(buf), buf)
    _seek(at)
    _write(buf)
    heap_unlock()


def ioctl(op, arg):
    return _ioctl.get(op, _ioctl_other)(arg)


def _erase(block):
    heap_lock()
    at = block * _BLOCK
    _operation(_ERASE, at, _BLOCK, b"")
    _seek(at)
    _write(_blank)
    heap_unlock()
    return 0


def _ioctl_other(_):
    return 0


_ioctl = {4: lambda _: _sim._blocks, 5: lambda _: _BLOCK, 6: _erase}


def _operation(kind, at, size, data):
    # Count one program or erase; it may be the one at which power fails.
    global _ops
    _ops += 1
    _or_cut[_ops == _cut](kind, at, size, data)


def _note(kind, at, size, _):
    pack_into("<BBHI", _record, 0, kind, 0, size, at)
    _log(_record)


def _power_fails(kind, at, _, data):
    _sim.end(_CUT, kind, at, data)


_or_cut = {False: _note, True: _power_fails}


class _FatDevice:
    # FAT knows nothing of erasing: what is written goes over what was there.
    def readblocks(self, block, buf):
        readblocks(block, buf)

    def writeblocks(self, block, buf):
        for at in range(0, len(buf), _BLOCK):
            ioctl(6, block)
            writeblocks(block, memoryview(buf)[at : at + _BLOCK])
            block += 1

    def ioctl(self, op, arg):
        return ioctl(op, arg)


def start(late, frozen, fat, fresh, romfs, blocks, ops, cut, cause):
    global _ops, _cut
    _sim.late = late
    _sim._blocks = blocks
    _ops = ops
    _cut = cut
    _sim.cause = cause
    device, kind = sys.modules["_board"], vfs.VfsLfs2
    if fat:
        device, kind = _FatDevice(), vfs.VfsFat
    vfs.umount("/")
    try:
        if fresh:
            kind.mkfs(device)
        vfs.mount(kind(device), "/")
    except OSError as e:
        _sim.end(_NO_FLASH, 0, 0, repr(e))
    sys.path[:] = ["", ".frozen", "/lib"]
    if romfs:
        _sim.load("_romfs").mount(romfs)
    sys.argv.clear()
    for name in frozen:
        sys.modules[name] = _sim.Frozen(name)
    if fresh:
        with open("/boot.py", "w") as file:
            file.write(_STOCK_BOOT)


def run(raw, patient):
    # As on a board: a boot.py that raises stops main.py, and so does a raw REPL that goes on over
    # the soft reset. patient: the host may have something to say before main.py.
    names = __main__.__dict__
    names.pop("_board")
    del sys.modules["_board"]
    gc.collect()
    _sim.event(_BOOTING)
    try:
        _run_file(names, "boot.py")
        if not raw:
            _sim.event(_MAIN)
            if patient:
                _wait()
            _run_file(names, "main.py")
    except SystemExit:
        _sim.end(_SOFT_RESET)
    except BaseException as e:
        sys.print_exception(e)
    _sim.event(_REPL)
    if raw:
        _wait()


def _wait():
    while sys.stdin.buffer.read(1) != b"\x07":
        pass


def _run_file(names, name):
    try:
        os.stat(name)
    except OSError:
        return
    names["__file__"] = name
    exec("execfile(__file__)", names)
