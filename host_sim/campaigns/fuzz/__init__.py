"""Mutated headers, archives and messages, fed to the agent's own code inside MicroPython."""
