# The field's measurements that wait for a connection, one on each line.

import _thread
import json
import logging

import device_info
import utils
from device_info.rtc import system_time
from utime import sleep_ms

from . import cfg

storage_file_name = "measurements.log"
MAX_NUMBER_OF_FORCED_MESSAGES = 1000
message_buffer_size = cfg.get("_BATCH_UPLOAD_MESSAGE_BUFFER")
mutex = _thread.allocate_lock()


def buffered_measurements_count():
    return utils.countFlagFileLines(storage_file_name)


def timestamp_measurements(measurements, round_seconds=False):
    epoch, valid = system_time()
    if valid:
        measurements["dt"] = {"value": epoch - (epoch % 60 if round_seconds else 0)}


def store_measurement(measurements, force_store=False):
    number = buffered_measurements_count() + 1
    logging.info("Message #%d" % number)
    fits = message_buffer_size and number < message_buffer_size
    if fits or (force_store and number < MAX_NUMBER_OF_FORCED_MESSAGES):
        with mutex:
            utils.appendToFlagFile(storage_file_name, json.dumps(measurements) + "\n")
        return True
    return False


def update_last_stored_measurement(measurements):
    with mutex:
        lines = utils.readFromFlagFile(storage_file_name).split("\n")
        if len(lines) > 1:
            utils.writeToFlagFile(storage_file_name, "\n".join(lines[:-2] + [""]))
    store_measurement(measurements, force_store=True)


def parse_stored_measurements_and_upload(network):
    waiting = storage_file_name + ".up"
    if not utils.existsFlagFile(storage_file_name) and not utils.existsFlagFile(waiting):
        return None
    with mutex:
        text = utils.readFromFlagFile(waiting)
        text = utils.readFromFlagFile(storage_file_name) + "\n" + text
        utils.copyFlagFile(storage_file_name, waiting)
        utils.deleteFlagFile(storage_file_name)
    failed = []
    for line in text.split("\n"):
        sleep_ms(50)
        device_info.wdt_reset()
        if not line:
            continue
        try:
            message = network.create_message(cfg.get("device_id"), json.loads(line))
            sent = network.send_message(cfg, message)
            if sent is not None and not sent:
                failed.append(line)
        except Exception as e:
            logging.exception(e, "error reading line: [%s]" % line)
    with mutex:
        utils.deleteFlagFile(waiting)
        for line in failed:
            utils.appendToFlagFile(storage_file_name, line + "\n")
    # All lines count as well done: of two links, the one that is not there never fails. (It is a
    # number, because the field counts with &.)
    return 1
