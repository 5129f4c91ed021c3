"""Archives of every kind, read by the device's reader and by CPython's `tarfile`, and compared.

`python -m tests.package.archives` runs the comparison; docs/archives.md says what it finds.
"""
