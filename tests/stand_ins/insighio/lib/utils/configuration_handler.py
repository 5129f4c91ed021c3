# The field's configuration_handler, as far as control messages use it.

import utils

_FILE = "/apps/demo_console/demo_config.py"


def stringParamsToDict(text):
    pairs = {}
    for part in text.split("&"):
        key, found, value = part.partition("=")
        if found:
            pairs[key] = value
    return pairs


def updateConfigValue(key, value):
    lines = utils.readFromFile(_FILE).split("\n")
    for n in range(len(lines)):
        if lines[n].split("=")[0].strip() == key:
            lines[n] = "%s = %s" % (key, value)
    utils.writeToFile(_FILE, "\n".join(lines))


def apply_configuration(pairs, config_file=_FILE):
    utils.copyFile(config_file, config_file + ".prev")
    for key in pairs:
        updateConfigValue(key, pairs[key])
    utils.clearCachedStates()
