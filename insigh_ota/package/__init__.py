"""Packages from a folder or from what changed in git: signed, reproducible, tried beforehand.

docs/signing.md has the format, and how to make keys and sign with an HSM.
"""
