"""In the place of the field firmware's own, which stands beside as field_ota.py."""

from ota_insighio import check as checkAndApply  # noqa: F401
from ota_insighio import has_enough_free_space as hasEnoughFreeSpace  # noqa: F401
