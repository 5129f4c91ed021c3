# The field's scenario: measure, connect when it is time, upload, look for messages, sleep.

from utime import gmtime, sleep_ms, ticks_add, ticks_diff, ticks_ms, time_ns

start_time = ticks_ms()

import logging

import device_info
import machine
import utils

from . import cfg, message_buffer


def getUptime():
    return ticks_diff(ticks_ms(), start_time)


def isLightSleepScenario():
    on_battery = not device_info.bq_charger_exec(device_info.bq_charger_is_on_external_power)
    return cfg.get("_LIGHT_SLEEP_ON") and not (
        cfg.get("_LIGHT_SLEEP_DEACTIVATE_ON_BATTERY") and on_battery
    )


def execute():
    executeDeviceInitialization()
    executeMeasureAndUploadLoop()
    executeTimingConfiguration()


def executeDeviceInitialization():
    # The watchdog is there only where the node stays awake.
    device_info.set_defaults(
        wifi_on_boot=False,
        wdt_on_boot=isLightSleepScenario(),
        wdt_on_boot_timeout_sec=cfg.get("_WD_PERIOD"),
    )
    cfg.set("device_id", device_info.get_device_id()[0])
    device_info.wdt_reset()


def determine_message_buffering_and_network_connection_necessity():
    buffered = cfg.get("_BATCH_UPLOAD_MESSAGE_BUFFER") is not None
    return (buffered, buffered and gmtime()[0] > 2024)


def executeMeasureAndUploadLoop():
    period = cfg.get("_DEEP_SLEEP_PERIOD_SEC")
    is_first_run, was_connected = True, None
    while True:
        always_on = isLightSleepScenario()
        device_info.wdt_reset()
        measurements = {"uptime": {"value": getUptime(), "unit": "ms"}}
        message_buffer.timestamp_measurements(measurements, period >= 60)
        if is_first_run:
            measurements["reset_cause"] = {"value": device_info.get_reset_cause()}
        buffered, clock_ok = determine_message_buffering_and_network_connection_necessity()
        stored = message_buffer.store_measurement(measurements, True)
        if (
            not buffered
            or not clock_ok
            or not stored
            or message_buffer.buffered_measurements_count()
            >= cfg.get("_BATCH_UPLOAD_MESSAGE_BUFFER")
        ):
            was_connected = executeConnectAndUpload(cfg, measurements, is_first_run, always_on)
        is_first_run = False
        if not always_on or not period:
            break
        if not cfg.get("_LIGHT_SLEEP_NETWORK_ACTIVE") and was_connected is not None:
            executeNetworkDisconnect()
        end = ticks_add(ticks_ms(), get_sleep_duration_ms_remaining(period))
        while ticks_diff(ticks_ms(), end) < 0:
            device_info.wdt_reset()
            sleep_ms(1000)
    if was_connected is not None:
        executeNetworkDisconnect()


def _network():
    if cfg.get("network") == "cellular":
        from . import cellular as network
    else:
        from . import wifi as network
    return network


def executeConnectAndUpload(cfg, measurements, is_first_run, light_sleep_on):
    network = _network()
    network.init(cfg)
    if cfg.get("network") == "cellular":
        network.prepareForConnectAndUpload()
    message_sent = is_connected = False
    try:
        if network.is_connected():
            is_connected = True
        else:
            if not is_first_run:
                network.disconnect()
            results = network.connect(cfg)
            is_connected = "status" in results and results["status"]["value"] is True
            results.pop("status", None)
            measurements = dict(list(measurements.items()) + list(results.items()))
    except Exception as e:
        is_connected = False
        logging.exception(e, "Exception during connection:")
    message_buffer.update_last_stored_measurement(measurements)
    try:
        logging.info("Network [%s] connected: %s" % (cfg.get("network"), is_connected))
        if is_connected:
            message_sent = message_buffer.parse_stored_measurements_and_upload(network)
            if cfg.get("_CHECK_FOR_OTA"):
                network.check_and_apply_ota(cfg)
            executeDeviceConfigurationUpload(cfg, network)
    except Exception as e:
        logging.exception(e, "Exception while sending data:")
        return False
    if cfg.get("network") == "cellular":
        network.prepareForGPS()
    if not light_sleep_on or not is_connected:
        try:
            network.disconnect()
        except Exception as e:
            logging.exception(e, "Exception during disconnection:")
    return message_sent


def executeNetworkDisconnect():
    try:
        _network().deinit()
    except Exception:
        logging.error("No network?")


def executeDeviceStatisticsUpload(cfg, network):
    stats = {}
    try:
        import srcInfo

        stats["sw_commit"] = utils.get_var_from_module(srcInfo, "commit")
    except ImportError:
        logging.error("no srcInfo file found")
    stats["hw_version"] = device_info.get_hw_module_version()
    stats["free_flash"] = device_info.get_free_flash()
    if utils.data_partition_in_use():
        stats["free_data_flash"] = device_info.get_free_flash("/data")
    stats["serial"] = device_info.get_device_id()[0]
    network.update_hw_ids(stats, False, True)
    return network.send_control_message(cfg, network.create_message(None, stats), "/stat")


def executeDeviceConfigurationUpload(cfg, network):
    configuration = utils.readFromFlagFile("/configLog")
    if configuration and network.send_config_message(cfg, configuration):
        utils.deleteFlagFile("/configLog")
    if (
        configuration
        or utils.existsFlagFile("/ota_applied_flag")
        or utils.existsFile("/ota_applied_flag")
        or device_info.get_reset_cause() < 2
    ):
        if executeDeviceStatisticsUpload(cfg, network):
            utils.deleteFlagFile("/ota_applied_flag")
            utils.deleteFile("/ota_applied_flag")
        else:
            utils.writeToFlagFile("/ota_applied_flag", "1")


def get_sleep_duration_ms_remaining(sleep_period_s):
    # Up to the next multiple of the period.
    period_ms = 600000 if sleep_period_s is None else sleep_period_s * 1000
    return period_ms - time_ns() // 1000000 % period_ms


def executeTimingConfiguration():
    if cfg.get("_DEEP_SLEEP_PERIOD_SEC") is not None:
        logging.info("Getting into deep sleep...")
        machine.deepsleep(get_sleep_duration_ms_remaining(cfg.get("_DEEP_SLEEP_PERIOD_SEC")))
    else:
        logging.error("Timing neither periodic nor scheduled, will sleep for a minute")
        machine.deepsleep(60000)
