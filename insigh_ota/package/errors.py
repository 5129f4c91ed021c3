"""The one exception that reaches a person, as one clear line."""


class PackageError(Exception):
    """Something the person at the keyboard can mend; its text says what to do."""
