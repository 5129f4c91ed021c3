"""The virtual node, the simulated console and what drives them: everything the agent meets."""
