"""The matrix: what a node hears, and how long it has to wait for it, on each broker there is."""
