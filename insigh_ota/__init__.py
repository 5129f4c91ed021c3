"""What a fleet owner runs: the command `insigh-ota`, and the parts behind it."""
