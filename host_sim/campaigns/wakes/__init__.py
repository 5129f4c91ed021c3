"""Random schedules of wakes: a package comes over many of them, whatever ends each."""
