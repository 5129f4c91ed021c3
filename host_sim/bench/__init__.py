"""What the agent costs, each figure beside its floor: flash, heap, code, wear and time."""
