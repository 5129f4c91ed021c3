# The field's way into the cellular network. Of the modems it knows the BG600 only.

import logging

import utils
from utime import sleep_ms, ticks_add, ticks_diff, ticks_ms, time

MODEM_DETTACHED = -1
MODEM_ACTIVATED = 0
MODEM_ATTACHED = 1
MODEM_CONNECTED = 2

modem_instance = None
_pins = (None, None, None, None)


def set_pins(
    power_on=None, power_key=None, modem_tx=None, modem_rx=None, gps_tx=None, gps_rx=None
):
    global _pins
    _pins = (power_on, power_key, modem_tx, modem_rx)


def detect_modem():
    # Its name in small letters, or None.
    from networking.modem.modem_base import Modem

    name = None
    try:
        modem = Modem(*_pins)
        for _ in range(3):
            if modem.is_alive():
                break
        else:
            modem.power_on()
        name = modem.get_model()
        if not name:
            modem.power_off()
            sleep_ms(1000)
            modem.power_on()
            name = modem.get_model()
    except Exception as e:
        logging.exception(e, "error detecting modem")
    return name


def get_modem_instance():
    global modem_instance
    if modem_instance is None:
        name = detect_modem()
        if name and "bg600" in name:
            from networking.modem.modem_bg600 import ModemBG600

            modem_instance = ModemBG600(*_pins)
            # It has said so long ago: ten seconds.
            modem_instance.wait_for_modem_power_on()
    return modem_instance


def reset_modem_instance():
    global modem_instance
    modem_instance = None


def connect(cfg):
    # (status, and how long activation, attachment and connection took); never an exception.
    status = MODEM_DETTACHED
    durations = [-1, -1, -1]
    try:
        modem = get_modem_instance()
        modem.init(
            cfg._IP_VERSION,
            cfg._APN,
            cfg._CELLULAR_TECHNOLOGY,
            getattr(cfg, "_CELLULAR_MCC_MNC", None),
        )
        start = ticks_ms()
        if modem.wait_for_registration(120000):
            status = MODEM_ACTIVATED
            durations[0] = ticks_diff(ticks_ms(), start)
            start = ticks_ms()
            end = ticks_add(start, cfg._MAX_ATTACHMENT_ATTEMPT_TIME_SEC * 1000)
            modem.get_registered_mcc_mnc()
            if not modem.is_attached():
                modem.attach()
                while not modem.is_attached() and ticks_diff(ticks_ms(), end) < 0:
                    sleep_ms(10)
            update_rtc_from_network_time(modem)
            if modem.is_attached():
                status = MODEM_ATTACHED
                durations[1] = ticks_diff(ticks_ms(), start)
                start = ticks_ms()
                if not modem.is_connected():
                    modem.connect()
                if modem.is_connected():
                    status = MODEM_CONNECTED
                    durations[2] = ticks_diff(ticks_ms(), start)
    except Exception as e:
        logging.exception(e, "Outer Exception: %s" % e)
    return (status, durations[0], durations[1], durations[2])


def update_rtc_from_network_time(modem, use_ntp_update=False):
    try:
        from device_info.rtc import update_time_from_tuple

        for _ in range(3 if use_ntp_update else 0):
            if modem.update_ntp_date_time():
                break
            sleep_ms(500)
        now = modem.get_network_date_time()
        if not 2021 <= now[0] <= 2050:
            logging.error("time not set to RTC...check if NTP can solve it...")
            return
        before = time()
        update_time_from_tuple(now)
        utils.writeToFlagFile("/epoch_diff", str(time() - before))
    except Exception as e:
        logging.exception(e, "RTC init failed")


def deactivate():
    start = ticks_ms()
    done = False
    try:
        modem = get_modem_instance()
        if modem:
            modem.disconnect()
            modem.power_off()
        done = True
    except Exception as e:
        logging.exception(e, "Error in deactivation")
    return (done, ticks_diff(ticks_ms(), start))
