"""Packages, good and forged, and the node in MicroPython that they are tried on."""
