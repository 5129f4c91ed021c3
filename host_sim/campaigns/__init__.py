"""What is tried many times over, with a rule for the end: each campaign has a folder."""
