"""All of the agent, imported for good: it does not lie on the littlefs that becomes `/`."""

import os

import ota


def _keep(*names):
    pass


# What the agent would let go of to save memory could not be imported again.
ota.drop = _keep
for _entry in os.ilistdir(ota.__path__):
    _name, _, _kind = _entry[0].rpartition(".")
    if _kind in ("py", "mpy") and _name != "__init__":
        getattr(ota, _name)
