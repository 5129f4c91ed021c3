"""What load_config() and Agent() raise."""

class OtaError(Exception):
    """Its text is `reason: detail`."""

class ConfigError(OtaError):
    """`/ota.json` can not be used; the text names the key to mend."""
