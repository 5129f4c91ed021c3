"""What a member may be called and hold: all that is refused whatever else a package does right."""

import os
import sys

from micropython import const

from .errors import Refused

# A package that could rewrite these could steal the node from its owner, or its way back. The
# configuration's `ca` is protected as well, and from unsigned packages the keys are. A manifest
# is one only where it comes first.
_PROTECTED = const(("/.ota", "/ota.json", "/ota.sequence", "/.ota-manifest"))
_LONGEST_PATH = const(1024)
# The next boot runs these before it can mend anything.
_BOOT_PATH = const(("/boot.py", "/ota/", "/lib/ota/"))
# Each boot has to compile it, in whatever RAM is left.
_LARGEST_BOOT = const(16 * 1024)


def clean_path(name):
    """The absolute path on flash for a name in an archive.

    name: str; `./` and a leading `/` mean the root. Raises Refused for what leaves the root.
    """
    parts = []
    for part in name.split("/"):
        if part == "" or part == ".":
            continue
        if part == "..":
            raise Refused("can not apply", "a path leaves the root")
        raw = part.encode()
        if len(raw) > 255:
            raise Refused("can not apply", "a name is longer than 255 bytes")
        if min(raw) < 32 or b"\\" in raw or b"\x7f" in raw:
            raise Refused("can not apply", "a name has a character not allowed in it")
        parts.append(part)
    path = "/" + "/".join(parts)
    if len(path.encode()) > _LONGEST_PATH:
        raise Refused("can not apply", "a path is longer than %d bytes" % _LONGEST_PATH)
    return path


def check_path(path, more, is_folder=False):
    """Raise Refused when path is protected, or a file where the folder of a protected one belongs.

    more: list of further protected paths.
    """
    inside = path + "/"
    for paths in _PROTECTED, more:
        for protected in paths:
            protected += "/"
            if inside.startswith(protected) or (not is_folder and protected.startswith(inside)):
                raise Refused("can not apply", "protected path " + path)


def check_runs(path):
    """Raise Refused for what would retire the source that MicroPython starts."""
    if path in ("/boot.mpy", "/main.mpy", "/boot_user.mpy"):
        raise Refused("can not apply", "nothing runs " + path)


def on_boot_path(path):
    """True when the next boot runs this file before it can mend anything."""
    for start in _BOOT_PATH:
        if path == start or (start[-1] == "/" and path.startswith(start)):
            return True
    return False


def check_content(path, staged):
    """Raise Refused when what is staged for path could not be loaded by this interpreter."""
    if path.endswith(".mpy"):
        _check_mpy(path, staged)
    elif path.endswith(".py") and on_boot_path(path):
        _check_source(path, staged)


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


def _check_source(path, new):
    """Raise Refused when the next boot could not even compile this file."""
    if path == "/boot.py" and os.stat(new)[6] > _LARGEST_BOOT:
        raise Refused("can not apply", "/boot.py is too large")
    try:
        with open(new) as file:
            compile(file.read(), path, "exec")
    except Exception as error:  # the compiler has more than SyntaxError, and memory may run out
        raise Refused("can not apply", "%s does not compile, %s" % (path, type(error).__name__))


def _check_mpy(path, new):
    """Raise Refused when this interpreter does not load this file (py/persistentcode.c)."""
    ours = getattr(sys.implementation, "_mpy", 0)
    with open(new, "rb") as file:
        header = file.read(4)
    if len(header) < 4 or header[0] != 77:
        raise Refused("can not apply", "incompatible .mpy: %s is none" % path)
    arch = header[2] >> 2 & 0x2F
    native_differs = arch != ours >> 10 & 0x2F or header[2] & 3 != ours >> 8 & 3
    # The last byte is how many bits the compiler took for a small integer.
    small_int_fits = not header[3] or sys.maxsize >> header[3] - 1
    if header[1] != ours & 0xFF or (arch and native_differs) or not small_int_fits:
        raise Refused("can not apply", "incompatible .mpy: " + path)
