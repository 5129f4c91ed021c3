"""A rollout to 10,000 light nodes at a real broker, and its decisions over many seeds."""
