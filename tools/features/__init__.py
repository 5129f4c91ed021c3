"""``python -m tools.features``: does device code use what an older firmware does not have?

Firmware with MicroPython 1.22 and 1.23 can not be run in CI, and a compiler sees the syntax only.
So this reads the code, and compares it with what an ESP32 with 1.22 has. The tables were read in
MicroPython's sources at the tags v1.22.0 to v1.28.0, and of 1.29 at its preview: py/, extmod/,
ports/esp32/ with its mpconfigport.h, and what its manifest.py freezes.

A use may be newer where it is guarded: in a `try` whose `except` names the error (ImportError,
AttributeError, NameError, TypeError), or below an `if` that asks `hasattr(…)` or
`sys.implementation`. It can not see the type of an object: it knows a method by its name.
"""
