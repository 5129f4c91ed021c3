"""From a checkout to a working node: deploy, provision, status, undeploy, ca, dist, romfs.

Everything goes through ``mpremote`` with its documented commands, so a real board and the virtual
one are the same to it. Nothing secret is ever an argument of a process.
"""
