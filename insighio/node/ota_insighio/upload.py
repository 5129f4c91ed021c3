"""A package that somebody sends to the node's web server, which has written it to flash.

It goes through the agent's transaction: signatures, protected paths, trial and way back are those
of any other package. The node installs it in its next boot; the web server resets it.
"""

import os

import device_info
import ota
from ota.errors import OtaError, name_of

from . import UPLOADED, configuration


def do_apply(path=None):
    """Take the package at path and remove that file. True when the next boot has it.

    path: str; None for where the web server writes it. False when it is refused, or can not be
    taken now; then the tree is as it was, and the reason is printed. Raises nothing. Where flash
    fails the node resets.
    """
    path = path or UPLOADED
    try:
        size = os.stat(path)[6]
        agent = ota.Agent(configuration(), watchdog=_Watchdog())
        with open(path, "rb") as file:
            outcome = agent.install(file, size, False)
        return outcome in ("committed", "installed")
    except Exception as error:  # the configuration's, say: the web server has to answer
        print("ota:", error if isinstance(error, OtaError) else name_of(error))
        return False
    finally:
        _remove(path)


def has_enough_free_space(size):
    """Whether an upload of so many bytes fits, with what is staged of it beside it.

    What an upload before has left is removed first.
    """
    from ota.package.vetting import enough_for

    _remove(UPLOADED)
    return enough_for(2 * int(size))


def _remove(path):
    try:
        os.remove(path)
    except OSError:
        pass  # it is gone, or flash has failed


class _Watchdog:
    """The node's own, as machine.WDT."""

    def feed(self):
        device_info.wdt_reset()
