"""Random fault scripts: all that can go wrong in a row of wakes, and one rule for the end."""
