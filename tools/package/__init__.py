"""The old name of `insigh_ota.package`: `python -m tools.package` goes on working."""
