# The field's boot.py, without its test of the flash's speed. The interpreter knows no partitions:
# /data is a folder, if there is one.

import sys

import utils

sys.path.clear()
sys.path.extend(["/lib", ".frozen", ""])

import logging

logging.setLevel(logging.DEBUG)

from esp32 import Partition

p = Partition.find(Partition.TYPE_DATA, label="data")
print("[boot] Data partition", "found" if p or utils.data_partition_in_use() else "not found")

from device_info import bq_charger_exec, bq_charger_get_is_charging, bq_charger_get_vbat_adc

if not bq_charger_exec(bq_charger_get_is_charging):
    from machine import deepsleep
    from utime import sleep_ms

    flag = "/voltage_low"
    was_low = utils.existsFlagFile(flag)
    for _ in range(30):
        sleep_ms(100)
        voltage = bq_charger_exec(bq_charger_get_vbat_adc)
        is_low = voltage < 3500
        is_middle = not is_low and voltage < 3600 and was_low
        if not is_low and not is_middle:
            break
    if is_low:
        print("[boot] Low voltage, sleeping for a day")
        utils.writeToFlagFile(flag, "charging")
        deepsleep(86400000)
    if is_middle:
        print("[boot] Low voltage, sleeping for an hour")
        deepsleep(3600000)
    if was_low:
        utils.deleteFlagFile(flag)
        print("[boot] Battery recovered")

print("[boot] Voltage OK")
