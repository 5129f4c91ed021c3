"""In the place of the field firmware's own, which stands beside as field_ota.py."""

try:
    from ota_insighio import check as checkAndApply
    from ota_insighio import has_enough_free_space as hasEnoughFreeSpace
except Exception as error:
    # Such as a MicroPython that does not load these .mpy: without this, nothing could mend it.
    print("OTA: the adapter does not load,", type(error).__name__)
    from .field_ota import checkAndApply, hasEnoughFreeSpace  # noqa: F401
