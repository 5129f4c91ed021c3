"""What people run from a checkout to bring the agent to their boards."""
