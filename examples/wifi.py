# For nodes on Wi-Fi: connect, and set the clock, without which no certificate can be verified.

import time

import network
import ntptime

SSID = "your network"
PASSWORD = "its password"


def connect(timeout_s=15):
    """Connect and set the clock. False when that is not done in timeout_s (roughly)."""
    wlan = network.WLAN(network.STA_IF)
    wlan.active(True)
    if not wlan.isconnected():
        wlan.connect(SSID, PASSWORD)
    give_up = time.ticks_add(time.ticks_ms(), timeout_s * 1000)
    while not wlan.isconnected():
        if time.ticks_diff(give_up, time.ticks_ms()) < 0:
            return False
        time.sleep_ms(100)
    if time.gmtime()[0] < 2026:  # the clock runs on in deep sleep, but not without power
        try:
            ntptime.settime()
        except OSError:
            return False
    return True
