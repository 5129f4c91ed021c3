"""The virtual node: flash, power, chip, and MicroPython processes, one for each boot."""
