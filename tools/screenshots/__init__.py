"""Pictures for docs/, made from the real thing: `python -m tools.screenshots [WHAT…]`."""
