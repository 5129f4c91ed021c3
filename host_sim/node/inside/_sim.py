# The node's side of the simulator: event channel, flash, and what runs at power-up.
#
# The host opens the files below before MicroPython starts; they stay usable after the host's file
# system is unmounted. This module itself is the block device: VfsLfs2 finds readblocks,
# writeblocks and ioctl in it. None of them may allocate: littlefs also writes from inside a
# collection, when an unclosed file is finalised.

import gc
import os
import sys
import time
from _thread import allocate_lock
from struct import pack_into

import vfs
from micropython import const

import __main__

_BLOCK = const(4096)
_PAGE = const(128)

# Events (boot.py on the host has the same numbers).
_CUT = const(1)
_NOR = const(2)
_SOFT_RESET = const(3)
_REPL = const(4)

# Records of the operation log (flash_rules.py on the host has the same numbers).
_PROGRAM = const(1)
_ERASE = const(2)
_SYNC = const(3)
_FAILED = const(4)

_ESP_ERROR = const(24577)  # a flash chip's error, as ESP-IDF numbers it

_events = open(3, "wb")
control = open(4, "rb")
_image = open(5, "r+b")
_log = open(6, "wb")
rtc = open(7, "r+b")

_never = allocate_lock()
_never.acquire()
_event = bytearray(24)
_record = bytearray(8)
_page = bytearray(b"\xff" * _PAGE)  # all ones between calls

# Set by _start.py: what the host wants of this boot.
_blocks = _ops = _cut = _fail_from = _fail_to = _errno = _undo = cause = 0
late = ""
fail_read = 0  # reads until one fails, once; counted when boot.py begins
read_errno = _reads_left = 0
key_op = 0  # the operation during which a key is pressed; -1 once it has been
special = None  # called before boot.py and main.py: the text of another, frozen one, or None

# The block read last, where the heap is not limited.
_cache = _cached = None
_cached_block = -1

dead = False  # power is gone, or the chip is being reset: the flash takes no more


def event(code, a=0, b=0, data=b""):
    pack_into("<IIqq", _event, 0, code, len(data), a, b)
    _events.write(_event)
    if data:
        _events.write(data)


def end(code, a=0, b=0, data=b""):
    # The hard end of a boot: no `except` or `finally` of the application runs after it, because
    # this thread never gets past the lock; the host kills the process when it sees the event.
    global dead
    dead = True
    event(code, a, b, data)
    while True:
        _never.acquire()


def _operation(kind, at, size, data):
    # Count one program or erase; it may be the one at which power or the chip fails.
    global _ops, _cached_block, key_op
    _cached_block = -1
    if dead:
        while True:
            _never.acquire()
    _ops += 1
    if _ops == key_op:
        key_op = -1
    if _ops == _cut:
        end(_CUT, kind, at, data)
    if _fail_from <= _ops <= _fail_to:
        pack_into("<BBHI", _record, 0, _FAILED, 0, 0, at)
        _log.write(_record)
        if _errno == _ESP_ERROR:  # thrown through littlefs, as on ESP32
            raise OSError(-_ESP_ERROR)
        return -_errno
    pack_into("<BBHI", _record, 0, kind, 0, size, at)
    _log.write(_record)
    return 0


def readblocks(block, buf, off=0):
    global _cached_block, _reads_left
    if _reads_left:
        _reads_left -= 1
        if not _reads_left:
            if read_errno == _ESP_ERROR:
                raise OSError(-_ESP_ERROR)
            return -read_errno
    if _cached:
        # littlefs reads a folder's block in many small pieces. A BytesIO hands them out without a
        # system call, and without allocating.
        if block != _cached_block:
            _image.seek(block * _BLOCK)
            _image.readinto(_cache)
            _cached.seek(0)
            _cached.write(_cache)
            _cached_block = block
        _cached.seek(off)
        _cached.readinto(buf)
        return
    _image.seek(block * _BLOCK + off)
    _image.readinto(buf)


def writeblocks(block, buf, off=0):
    at = block * _BLOCK + off
    size = len(buf)
    error = _operation(_PROGRAM, at, size, buf)
    if error:
        return error
    if _undo:
        _log.write(buf)
    _image.seek(at)
    if size > _PAGE:
        return _overwrite(at, buf)
    _image.readinto(_page, size)
    if min(_page) != 255:
        return _overwrite(at, buf)
    _image.seek(at)
    _image.write(buf)


def _overwrite(at, buf):
    # The slow path: programming can only clear bits, so what was there shows through.
    old = bytearray(len(buf))
    _image.seek(at)
    _image.readinto(old)
    if min(old) != 255:
        event(_NOR, _ops, at)
    for i in range(len(buf)):
        old[i] &= buf[i]
    _image.seek(at)
    _image.write(old)
    _blank_page()


def _blank_page():
    for i in range(_PAGE):
        _page[i] = 255


def ioctl(op, arg):
    if op == 3:  # sync: what was written so far is durable
        pack_into("<BBHI", _record, 0, _SYNC, 0, 0, 0)
        _log.write(_record)
    elif op == 4:
        return _blocks
    elif op == 5:
        return _BLOCK
    elif op == 6:
        at = arg * _BLOCK
        error = _operation(_ERASE, at, _BLOCK, b"")
        if error:
            return error
        _image.seek(at)
        if _undo:  # the host may have to bring the old content back
            for _ in range(_BLOCK // _PAGE):
                _image.readinto(_page)
                _log.write(_page)
            _blank_page()
            _image.seek(at)
        for _ in range(_BLOCK // _PAGE):
            _image.write(_page)
    return 0


def cache_a_block():
    from io import BytesIO

    global _cache, _cached
    _cache = bytearray(_BLOCK)
    _cached = BytesIO(_cache)


def load(name):
    # Import what is no part of the node's flash, from a folder that is there for this moment only,
    # so that os.listdir("/") and sys.path are the node's own.
    path = sys.path[:]
    vfs.mount(vfs.VfsPosix(late), "/.late", readonly=True)
    # An interpreter that has it frozen itself is as a board is: it takes no heap there.
    sys.path[:0] = ".frozen", "/.late"
    try:
        return __import__(name, None, None, (1,))
    finally:
        sys.path[:] = path
        vfs.umount("/.late")


class Frozen:
    # Stands in sys.modules for a module that stock firmware has frozen, and costs next to nothing
    # until it is used. A module of the same name in the root of the flash wins, as on a board.
    def __init__(self, name):
        self._name = name

    def __getattr__(self, attr):
        modules = sys.modules
        name = self._name
        if modules[name] is self:
            top = name.split(".")[0]
            for other in list(modules):
                if other.split(".")[0] == top:
                    del modules[other]
            whole = "umqtt.simple" if top == "umqtt" else name
            for end in ("", ".py", ".mpy"):
                try:
                    os.stat("/" + top + end)
                except OSError:
                    continue
                __import__(whole)
                break
            else:
                load(whole)
        return getattr(modules[name], attr)


def run(code):
    global _reads_left
    names = __main__.__dict__
    names.pop("_sim")
    gc.collect()
    error = b""
    try:
        if code:
            exec(code, names)
        else:
            # As on a board: a boot.py that raises stops main.py from running.
            for name in ("boot.py", "main.py"):
                frozen = special and special(name)
                if not frozen:
                    try:
                        os.stat(name)
                    except OSError:
                        continue
                    if fail_read and name == "boot.py":
                        # What a board does when it can not read boot.py is the port's affair.
                        with open(name) as file:
                            frozen = file.read()
                        _reads_left = fail_read
                names["__file__"] = name
                exec(frozen or "execfile(__file__)", names)
    except SystemExit:
        end(_SOFT_RESET)
    except BaseException as e:
        sys.print_exception(e, sys.stderr)
        error = type(e).__name__
        try:
            if str(e):
                error += ": " + str(e)
        except MemoryError:
            pass
    # At the REPL, powered: timers still run.
    event(_REPL, 0, 0, error)
    while True:
        time.sleep_ms(1000)
