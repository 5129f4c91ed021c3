# Power-up of a node that is more than the usual one.

import sys

import _sim


def start(chip, ahead, folder, keys, uarts, romfs):
    _sim.chip = chip
    if chip[3]:
        _sim.load("_dns").install()
    if ahead is not None:
        _sim.load("_clock").advance(ahead)
    if uarts:
        _sim.load("_virtual").install()
        _sim.load("_uart").ports.update(uarts)
    if romfs is not None:
        _sim.load("_romfs").mount(romfs)
    if folder or keys:
        _sim.load("_frozen").install(folder)
    if keys:
        _sim.load("_keys").install(*keys)
    del sys.modules["_more"]
