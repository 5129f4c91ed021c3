"""The old name of `insigh_ota.deploy`: `python -m tools.deploy` goes on working."""
