# Power-up, before the node's own code.

import io  # noqa: F401 - these are there for good: on a board they are the firmware's
import json  # noqa: F401
import os
import random
import select  # noqa: F401
import socket  # noqa: F401
import ssl  # noqa: F401
import sys
import time  # noqa: F401

import _flash
import machine  # noqa: F401
import umqtt.simple  # noqa: F401


def _urandom(n):
    return bytes(random.getrandbits(8) for _ in range(n))


os.urandom = _urandom


class _Given:
    number = 0  # the node's own flash


def start(run=""):
    """Put the node's flash in the place of /, and run boot.py and main.py as a board does."""
    sys.path[:] = ["", ".frozen", "/lib"]
    _flash.umount("/")
    _flash.mount(_flash.VfsLfs2(_Given), "/")
    os.chdir("/")
    names = __import__("__main__").__dict__
    if run:
        exec(run, names)
        return
    # A boot.py that raises stops main.py from running.
    for name in "boot.py", "main.py":
        try:
            os.stat(name)
        except OSError:
            continue
        with open(name) as file:
            code = compile(file.read(), name, "exec")
        exec(code, names)
