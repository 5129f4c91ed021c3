"""A package to a whole fleet, in waves that stop by themselves."""
