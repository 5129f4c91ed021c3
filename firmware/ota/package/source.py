"""Sources that the next boot runs before it can repair anything: whether they could be loaded."""

import os

from micropython import const

from ..errors import Refused

# Each boot has to compile it, in whatever RAM is left.
_LARGEST_BOOT = const(16 * 1024)


def starts_recovery(new):
    """True when a new boot.py begins with the live one's code, up to what comes after recovery.

    One that fails before that could not be undone by anything on the node. And where the
    application gets its sys.path back it must not differ either: a boot without a transaction goes
    another way through these lines than one on trial, so no trial would find what is wrong. Only
    comment lines and empty ones may differ; what _code() can not be sure of is another code.
    """
    started = False
    try:
        live = open("/boot.py", "rb")
    except OSError:
        return False
    with live, open(new, "rb") as file:
        while True:
            line = _code(live)
            if not line or line != _code(file):
                return False
            started = started or b"recovery.boot()" in line
            if started and b"sys.path[:] = _path" in line:
                return True


def starts_itself(new):
    """True when this boot.py would run itself as /boot_user.py: one of ours of an earlier release.

    On trial that may end well, and in the boot after the confirm no main.py runs.
    """
    with open(new, "rb") as file:
        for line in file:
            if line.strip().startswith(b'execfile("/boot_user.py")'):
                return True
    return False


def _code(file):
    """The next line of code. Empty at the end, and where a line is not what it seems to be.

    MicroPython also ends a line at a lone CR, so that code can stand behind `# x`; and what looks
    like a comment is none in a string over several lines, or behind a backslash.
    """
    while True:
        line = file.readline()
        text = line[:-1]
        if line[-1:] != b"\n" or min(text or b" ") < 32 or max(text or b" ") > 126:
            return b""
        text = text.strip()
        if text and text[0] != 35:
            plain = not (b'"""' in text or b"'''" in text or text.endswith(b"\\"))
            return line if plain else b""


def check_source(path, new):
    """Raise Refused when the next boot could not even compile this file."""
    if path == "/boot.py" and os.stat(new)[6] > _LARGEST_BOOT:
        raise Refused("can not apply", "/boot.py is too large")
    try:
        with open(new) as file:
            compile(file.read(), path, "exec")
    except Exception as error:  # the compiler has more than SyntaxError, and memory may run out
        raise Refused("can not apply", "%s does not compile, %s" % (path, type(error).__name__))
