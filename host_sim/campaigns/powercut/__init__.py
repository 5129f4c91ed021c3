"""The power-fail campaign: cut the power at every flash operation, and judge what comes back."""
