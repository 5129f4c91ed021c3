"""What bad links do to a node: downloads cut everywhere, broken control channels, black holes."""
