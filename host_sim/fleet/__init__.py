"""Many nodes at one console: all asked at once, and all bereft of their broker at once."""
