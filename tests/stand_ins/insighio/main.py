# The field's main.py.

import sys

sys.path.clear()
sys.path.extend(["/lib", ".frozen", ""])

import logging

logging.setLevel(logging.DEBUG)

import device_info
import gpio_handler

gpio_handler.set_pin_value(12, 1)
device_info.initialize_led()

import machine
import utils
from device_info import rtc

rtc.update_time_from_rtc()

demo_config_exists = False
try:
    import apps.demo_console.demo_config as cfg

    demo_config_exists = True
except Exception as e:
    logging.exception(e, "Configuration error")
    file = "/apps/demo_console/demo_config.py"
    if utils.existsFile(file) and utils.existsFile(file + ".prev"):
        utils.copyFile(file + ".prev", file)
        utils.deleteFile(file + ".prev")
        utils.writeToFlagFile("/config_reverted", "reverted")
        machine.reset()
    logging.error("Device never configured")

if demo_config_exists and hasattr(cfg, "_SYSTEM_SETTINGS"):
    try:
        import json

        logging.setLevelByName(json.loads(cfg._SYSTEM_SETTINGS)["loggingLevel"])
    except Exception as e:
        logging.exception(e, "Error loading system settings")

# A node without /www ends here, at the REPL.
www = utils.list_files_recursive("/www")
try:
    with open("/www_files.txt") as f:
        allowed = [line.strip() for line in f]
    for path in www:
        if path not in allowed:
            utils.deleteFile(path)
except OSError:
    logging.debug("No /www_files.txt file found")

if device_info.get_reset_cause() in (0, 1) or not demo_config_exists:
    try:
        import web_server

        web_server.start(60000 if demo_config_exists else -1)
        del sys.modules["web_server"]
    except Exception as e:
        logging.exception(e, "web server error")

try:
    import apps.demo_console.scenario as scenario

    scenario.execute()
except Exception as e:
    logging.exception(e, "Error executing scenario")
    try:
        with open("/error_log.txt", "a") as f:
            f.write(str(e) + "\n")
    except Exception:
        pass
    machine.reset()
