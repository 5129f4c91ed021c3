# The field's Wi-Fi, without a scan.

import logging

import network
from utime import sleep_ms, ticks_add, ticks_diff, ticks_ms


def connect(known_nets, max_connection_attempt_time_sec, force_no_scan=True):
    wl = network.WLAN(network.STA_IF)
    wl.active(True)
    name = list(known_nets)[0]
    start = ticks_ms()
    wl.connect(name, known_nets[name]["pwd"])
    end = ticks_add(start, max_connection_attempt_time_sec * 1000)
    while not wl.isconnected() and ticks_diff(ticks_ms(), end) < 0:
        sleep_ms(10)
    if not wl.isconnected():
        logging.debug("Not connected to " + name)
    return (wl.isconnected(), ticks_diff(ticks_ms(), start), -1, -1, -1)


def is_connected():
    return network.WLAN(network.STA_IF).isconnected()


def deactivate():
    wl = network.WLAN(network.STA_IF)
    wl.disconnect()
    wl.active(False)
    return (False, 0)
