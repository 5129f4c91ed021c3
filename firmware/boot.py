# First code at power-up. When no transaction is open this is one stat and nothing more.
# A package may replace this file only by one that begins with the same code up to boot().
import sys

_path = sys.path[:]
_trial = False
# Nothing that a package brings, not even an os.py of its own, may come in between.
sys.path[:] = ()
import os  # noqa: E402

try:
    os.stat("/.ota/state")
except OSError:
    sys.path[:] = _path
else:
    # Committed, on trial or rolling back: the tree may be between old and new right now, so this
    # comes before any other code of the node, and is the copy that was left at the commit.
    _trial = True
    try:
        sys.path[:] = ("/.ota",)
        try:
            import recovery
        except ImportError:
            sys.path[:] = _path  # an agent frozen into the firmware leaves no copy
            import ota.recovery as recovery

        recovery.boot()
    except BaseException as error:
        # The last guard: whatever is wrong here, main.py may still reach the control channel.
        sys.print_exception(error)
    sys.path[:] = _path
    sys.modules.pop("recovery", None)  # an application may have a module of this name

try:
    os.stat("/boot_user.py")
except OSError:
    pass
else:
    # A package's own boot.py, which knows nothing of recovery: it runs, but never first.
    try:
        execfile("/boot_user.py")  # noqa: F821 - a builtin of MicroPython
    except Exception as error:
        if _trial:
            raise  # a new one that fails: stay at the REPL until the trial deadline
        sys.print_exception(error)
