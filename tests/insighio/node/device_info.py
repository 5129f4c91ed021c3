# The part of the field firmware's device_info that has to do with its watchdog.

wdt = None
wdt_timeout = None


def start_watchdog(period_s):
    """What its set_defaults() does for a node that sleeps lightly."""
    global wdt, wdt_timeout
    import machine

    wdt = machine.WDT(timeout=period_s * 1000)
    wdt_timeout = period_s


def wdt_reset():
    if wdt:
        wdt.feed()
