# Modules that a firmware has frozen: found where `.frozen` stands in sys.path, and not on flash.
#
# MicroPython never asks a file system for what is below `.frozen/`. So while such a module is
# imported, and only then, the host's folder is mounted, and stands in sys.path and in `__path__`
# where `.frozen` stands otherwise. What wins over what is the interpreter's own business.

import builtins
import os
import sys

import _sim
import vfs
from micropython import const

_FROZEN = const(".frozen")
_MOUNT = const("/.frozen~")

_original = builtins.__import__
# Modules that are something else here. With an empty sys.path the interpreter would pass over
# sys.modules and take its own.
stand_ins = {}
_tops = set()
_folder = None
_mounted = False


def install(folder):
    global _folder
    builtins.__import__ = _import
    if not folder:
        return
    _folder = folder
    _mount()
    for entry in os.ilistdir(_MOUNT):
        _tops.add(entry[0].rsplit(".", 1)[0])
    _unmount()
    for name in list(sys.modules):  # of stock firmware, and not used yet
        if name.split(".", 1)[0] in _tops:
            del sys.modules[name]
    _sim.special = _source


def _import(name, globals=None, locals=None, fromlist=None, level=0):
    # The original would take this module's globals for those of the importer.
    if level:
        name = _absolute(name, globals, level)
    if name in stand_ins:
        return stand_ins[name]
    modules = sys.modules
    top = name[: name.find(".")] if "." in name else name
    if _mounted or top not in _tops or (name in modules and top in modules):
        return _original(name, None, None, fromlist, 0)
    _mount()
    try:
        _swap(_FROZEN, _MOUNT)
        return _original(name, None, None, fromlist, 0)
    finally:
        _swap(_MOUNT, _FROZEN)
        _unmount()


def _absolute(name, globals, level):
    parts = globals["__name__"].split(".")
    if "__path__" in globals:
        level -= 1
    if level >= len(parts):
        raise ImportError("can't perform relative import")
    parts = parts[: len(parts) - level]
    if name:
        parts.append(name)
    return ".".join(parts)


def _swap(old, new):
    path = sys.path
    for i in range(len(path)):
        if path[i] == old:
            path[i] = new
    for name, module in sys.modules.items():
        if name.split(".", 1)[0] in _tops:
            at = getattr(module, "__path__", "")
            if at.startswith(old):
                module.__path__ = new + at[len(old) :]
            at = getattr(module, "__file__", "")
            if at.startswith(_MOUNT):
                # Never with the folder, and always of a source: as in a firmware.
                module.__file__ = at[len(_MOUNT) + 1 :].rsplit(".", 1)[0] + ".py"


def _mount():
    global _mounted
    vfs.mount(vfs.VfsPosix(_folder), _MOUNT, readonly=True)
    _mounted = True


def _unmount():
    global _mounted
    _mounted = False
    vfs.umount(_MOUNT)


def _source(name):
    # The text of a frozen boot.py or main.py, which wins over the one on flash.
    _mount()
    try:
        with open(_MOUNT + "/" + name) as file:
            return file.read()
    except OSError:
        return None
    finally:
        _unmount()
