"""Many nodes at one console: all asked at once, and all without their broker at once."""
