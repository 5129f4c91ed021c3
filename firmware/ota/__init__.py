"""Over-the-air updates for nodes of the insigh.io platform.

    import ota
    agent = ota.Agent(ota.load_config())
    agent.check()

Importing this package costs next to nothing: each name loads its module when it is first used, so
that the boot path and an application that never updates pay for neither network nor archive code.
"""

__version__ = "0.1.0"


# Found through the "" of sys.path it is relative: to "/" now, elsewhere once the application has
# changed folder.
if __path__[0] not in "./":
    import os

    __path__ = os.getcwd().rstrip("/") + "/" + __path__
    del os

_HOME = {
    "Agent": "agent",
    "load_config": "config",
    "confirm": "install.trial",
    "status": "install.trial",
}


def __getattr__(name):
    # Also asked by `from ota import recovery`: a name that is not public may be a module.
    if not name.startswith("_"):
        home = _HOME.get(name, name)
        try:
            module = __import__(__name__ + "." + home, None, None, (home,))
        except ImportError:
            if home != name:
                raise
        else:
            return getattr(module, name) if home != name else module
    raise AttributeError(name)


def drop(*names):
    """Forget modules of this package that are not needed any more: their code takes RAM.

    names: str, of modules such as `cycle` or `package.signature`, or of folders with all in them.
    """
    import gc
    import sys

    for name in names:
        path = "ota." + name
        if sys.modules.pop(path, None):
            room, _, module = path.rpartition(".")
            try:
                delattr(sys.modules[room], module)
            except (AttributeError, KeyError):
                pass  # imported by its whole name, or its folder is gone
        if name in ("install", "package"):  # folders
            path += "."  # not once for each module: a new str takes its time
            for inside in list(sys.modules):
                if inside.startswith(path):
                    sys.modules.pop(inside, None)
            inside = None
    # Once, as each walks through all of RAM; and not where cycle.run() has seen that much is free.
    if gc.threshold() < 16384:
        gc.collect()
