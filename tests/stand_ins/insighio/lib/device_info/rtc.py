# The field's time keeping, without its clock chip and NTP.

import logging
from time import time

from machine import RTC

_ESP32_SYS_TIME_OFFSET = 946684800


def system_time():
    # The interpreter of the tests counts from 1970, a node from 2000.
    epoch = time()
    return (epoch, epoch > 1650000000)


def update_time_from_rtc():
    logging.info("RTC chip not supported. Not updating from RTC.")


def update_time_from_tuple(t):
    RTC().datetime((t[0], t[1], t[2], t[3], t[4], t[5], t[6], 0))
    logging.info("time updated from tuple: " + str(RTC().datetime()))
