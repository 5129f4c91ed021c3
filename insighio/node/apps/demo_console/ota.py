"""In the place of the field firmware's own, which stands beside as field_ota.py."""

try:
    from ota_insighio import check as checkAndApply
    from ota_insighio import has_enough_free_space as hasEnoughFreeSpace
except MemoryError:
    # It passes. The field's updater would take the next package as it comes.
    print("OTA: no memory for the adapter, nothing is updated in this boot")

    def checkAndApply(_client):
        """Nothing in this boot."""

    def hasEnoughFreeSpace(_size):
        """Nothing in this boot."""
        return False

except Exception as error:
    print("OTA: the adapter does not load,", type(error).__name__)
    import os

    import __main__

    try:
        os.stat("/.ota/state")
        on_trial = hasattr(__main__, "_trial")  # our boot.py has run, and counts the next boot
    except OSError:
        on_trial = False
    if on_trial:
        import machine

        machine.reset()
    # Such as a MicroPython that does not load these .mpy: without this, nothing could mend it.
    from .field_ota import checkAndApply, hasEnoughFreeSpace  # noqa: F401
