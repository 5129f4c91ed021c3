"""A package that somebody sends to the node's web server, which has written it to flash.

It goes through the agent's transaction: signatures, protected paths, trial and way back are those
of any other package. The node installs it in its next boot; the web server resets it.
"""

import os

import device_info
import ota
from ota.errors import OtaError, name_of

from . import UPLOADED, configuration

# How the agent's reason begins then (docs/reasons.md).
_FLASH_FAILED = "can not apply: flash failed"


def do_apply(path=None):
    """Take the package at path and remove that file. True when the next boot has it.

    path: str; None for where the web server writes it. False when it is refused, or can not be
    taken now; then the tree is as it was, and the reason is printed. Raises nothing. Where flash
    fails the node resets, but only a few times in a wake. In any case nothing is written after
    that: the file stays, and the next check removes it.
    """
    path = path or UPLOADED
    try:
        taken = _install(path)
    except OSError as error:
        print("ota:", name_of(error))
        return False
    except Exception as error:  # the configuration's, say: the web server has to answer
        print("ota:", error if isinstance(error, OtaError) else name_of(error))
        taken = False
    if taken is not None:
        _remove(path)
    return bool(taken)


def _install(path):
    """True when it was taken, False when not, None where flash has failed. Raises OSError, …"""
    agent = ota.Agent(configuration(), watchdog=_Watchdog())
    with open(path, "rb") as file:
        outcome = agent.install(file, os.stat(path)[6], False)
    if (agent.reason or "").startswith(_FLASH_FAILED):
        return None
    return outcome in ("committed", "installed")


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
