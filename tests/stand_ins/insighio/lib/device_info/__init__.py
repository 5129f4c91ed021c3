# The field's device_info, without LEDs and with a charger that only knows the battery's voltage.

import binascii
import gc
import logging
import os

import machine

_CONST_ESP32 = "esp32"
_CONST_ESP32_WROOM = "esp32wroom"
_CONST_ESP32S3 = "esp32s3"
_MAIN_VERSION_V1 = "v1"
_MAIN_VERSION_V2 = "v2"

wdt = None
wdt_timeout = None


def is_wdt_enabled():
    return wdt is not None


def wdt_reset():
    if wdt is not None:
        wdt.feed()


def set_defaults(
    heartbeat=False,
    wifi_on_boot=True,
    wdt_on_boot=False,
    wdt_on_boot_timeout_sec=120,
    bt_on_boot=False,
):
    global wdt, wdt_timeout
    import network

    wdt = None
    network.WLAN(network.STA_IF).active(wifi_on_boot)
    if wdt_on_boot:
        wdt_timeout = wdt_on_boot_timeout_sec
        wdt = machine.WDT(timeout=wdt_on_boot_timeout_sec * 1000)


def get_hw_module_version():
    return _CONST_ESP32S3


get_hw_module_verison = get_hw_module_version  # the name that much of the field's code has


def get_device_root_folder():
    return "/"


def get_firmware_version():
    return (1, 26, 0, "stand-in")


def get_reset_cause():
    return machine.reset_cause()


def get_device_id():
    raw = machine.unique_id()
    return (binascii.hexlify(raw).decode(), raw)


def get_heap_memory():
    return (gc.mem_alloc(), gc.mem_free())


def get_free_flash(partition_path="/"):
    status = os.statvfs(partition_path)
    return status[0] * status[3]


def initialize_led():
    pass


def set_led_enabled(led_enabled, led_pin_vdd=47, led_pin_din=21):
    pass


def set_led_color(color):
    pass


def blink_led(color):
    pass


def get_main_version():
    return _MAIN_VERSION_V2


def bq_charger_exec(bq_func, *args, **kwargs):
    # None without an I2C bus, as where there is no charger.
    return bq_func(None, 0x6B, *args, **kwargs)


def bq_charger_setup(i2c, address):
    logging.debug("Battery: initialization")


# The host says how full the battery is; without a word of it the node is charging.
def _millivolts():
    return os.getenv("BATTERY_MV")


def bq_charger_get_is_charging(i2c, address):
    return _millivolts() is None


bq_charger_is_on_external_power = bq_charger_get_is_charging


def bq_charger_get_vbat_adc(i2c, address):
    return float(_millivolts() or 4100)
