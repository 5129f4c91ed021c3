# First code at power-up. When no transaction is open this is one stat and nothing more.
# A package may replace this file only by one with the same code as far as the last `_path`.
import sys

_path = sys.path[:]
# Another release's boot.py runs this file as /boot_user.py, and has done what comes here.
_own = "_trial" not in globals()
# Nothing that a package brings, not even an os.py of its own, may come in between.
sys.path[:] = ()
import os  # noqa: E402

try:
    _trial = _own and os.stat("/.ota/state")
except OSError as error:
    # Nothing there is 2 or, under a file, 20. A flash that can not be read may have one.
    _trial = error.errno % 18 != 2
if _trial:
    # Committed, on trial or rolling back: the tree may be between old and new right now, so this
    # comes before any other code of the node, and no key stops it.
    import micropython

    micropython.kbd_intr(-1)
    # The copy that was left at the commit, if flash has not damaged it; else the agent that is
    # frozen into the firmware, which leaves none; else whatever agent there is. The copy once
    # more: an error that ESP32 throws through littlefs leaves rubbish in the cache of one read.
    for sys.path[:] in ("/.ota",), (".frozen",), ("/.ota",), _path:
        try:
            if sys.path[0] == "/.ota":
                from binascii import crc32

                for _n in os.listdir("/.ota"):
                    if "recovery." in _n:
                        with open("/.ota/" + _n, "rb") as _f:
                            if crc32(_f.read()) != 0x2144DF1C:  # it ends in its CRC-32
                                raise  # RuntimeError: nothing more is needed
                import recovery
            else:
                from ota import recovery
            recovery.boot()
            break
        except Exception:
            pass  # no copy, or a damaged one
    # An application may have a module of this name, its agent stand in another place, and the RAM.
    for _n in "recovery", "ota", "ota.recovery":
        sys.modules.pop(_n, None)
    recovery = None
    micropython.kbd_intr(3)
sys.path[:] = _path

try:
    os.stat("/boot_user.py")
except OSError:
    pass
else:
    # A package's own boot.py, which knows nothing of recovery: it runs, but never first.
    try:
        _own and execfile("/boot_user.py")  # noqa: F821 - a builtin of MicroPython
    except Exception as error:
        if _trial:
            raise  # a new one that fails: stay at the REPL until the trial deadline
        sys.print_exception(error)
