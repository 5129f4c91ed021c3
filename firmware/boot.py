# First code at power-up. When no transaction is open this is one stat and nothing more.
# A package may replace this file only by one that begins with the same code up to boot().
import os

_trial = False
try:
    os.stat("/.ota/state")
except OSError:
    pass
else:
    # Committed, on trial or rolling back: the tree may be between old and new right now, so this
    # comes before any other code of the node.
    _trial = True
    try:
        import ota.recovery

        ota.recovery.boot()
    except BaseException as error:
        # The last guard: whatever is wrong here, main.py may still reach the control channel.
        import sys

        sys.print_exception(error)

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
        import sys

        sys.print_exception(error)
