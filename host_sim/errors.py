"""The one exception that host_sim shows to a person as a single clear line."""


class SimError(Exception):
    """Something the caller can mend; its text says what to do."""
