"""All of the agent, imported for good: it does not lie on the littlefs that becomes `/`."""

import os

import ota


def _keep(*names):
    pass


# What the agent would let go of to save memory could not be imported again.
ota.drop = _keep


def _load(folder, name):
    for entry in os.ilistdir(folder):
        stem, _, kind = entry[0].rpartition(".")
        if entry[1] == 0x4000 and entry[0] != "__pycache__":
            _load(folder + "/" + entry[0], name + "." + entry[0])
        elif kind in ("py", "mpy") and stem != "__init__":
            __import__(name + "." + stem)


_load(ota.__path__, "ota")
