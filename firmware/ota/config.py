"""The node's configuration: `/ota.json` with every default filled in."""

import json

from micropython import const

from .errors import ConfigError

# Stands where a key has no default.
_REQUIRED = ()

# A trial deadline beyond this is none, and a longer text is a mistake.
_LONGEST_S = const(86400)
_LONGEST_TEXT = const(128)
_LETTERS = const(b"abcdefghijklmnopqrstuvwxyz0123456789")

# One row a key: its default (whose type is the key's type), least and greatest value of a number.
_KEYS = (
    ("device_id", _REQUIRED, 0, 0),
    ("device_key", _REQUIRED, 0, 0),
    ("control_channel", _REQUIRED, 0, 0),
    ("server", "console.insigh.io", 0, 0),
    ("ca", "/ca.der", 0, 0),
    ("protected", [], 0, 0),
    ("keys", [], 0, 0),
    ("require_signature", False, 0, 0),
    ("board", "unknown", 0, 0),
    ("report", "installed", 0, 0),
    ("trial_boots", 3, 1, 1000),
    ("trial_wakes", 24, 1, 100000),
    ("trial_days", 7, 1, 365),
    ("trial_deadline_s", 900, 0, _LONGEST_S),
    ("max_attempts", 5, 1, 1000),
    ("timeout_s", 20, 1, _LONGEST_S),
    ("cycle_s", 900, 1, _LONGEST_S),
    ("budget", 0, 0, 1 << 30),
    ("max_fetched", 3, 1, 1000),
    ("max_days", 30, 1, 365),
    ("min_rate", 50, 0, 1000000),
    ("retry_s", 60, 1, _LONGEST_S),
    ("watchdog_s", 0, 0, _LONGEST_S),
    ("stat", False, 0, 0),
)
_MQTT_KEYS = (
    ("host", "console.insigh.io", 0, 0),
    ("port", 8883, 1, 65535),
    ("tls", True, 0, 0),
    ("keepalive", 60, 0, 65535),
    ("grace_ms", -1, -1, 60000),  # -1: as long as the broker is seen to take
)


def load_config(path="/ota.json"):
    """Read the configuration file and return it as a dict with every key present.

    path: str, a JSON object; its keys are those of docs/configuration.md.
    Raises ConfigError naming what to correct.
    """
    try:
        with open(path) as file:
            given = json.load(file)
    except OSError:
        raise ConfigError("bad configuration", path + " is missing")
    except ValueError:
        raise ConfigError("bad configuration", path + " is not JSON")
    return complete(given)


def complete(given):
    """Check a configuration dict and return a new one with the defaults filled in.

    An unknown key, a wrong type, a missing id or a value out of range raises ConfigError
    naming the key.
    """
    if not isinstance(given, dict):
        raise ConfigError("bad configuration", "not a JSON object")
    mqtt = given.get("mqtt", {})
    if not isinstance(mqtt, dict):
        raise ConfigError("bad configuration", "mqtt is not an object")
    config = _fill(given, _KEYS, "")
    config["mqtt"] = _fill(mqtt, _MQTT_KEYS, "mqtt.")
    if not config["mqtt"]["tls"] and "port" not in mqtt:
        config["mqtt"]["port"] = 1883
    if config["report"] not in ("installed", "confirmed"):
        raise ConfigError("bad configuration", "report is neither installed nor confirmed")
    for key in ("device_id", "control_channel"):
        # Either stands in a topic: a level or a wildcard in it would reach beyond this node.
        # Bytes, because a node keeps each character that it has looked at alone.
        if any(byte in b"/+# \0" for byte in config[key].encode()):
            raise ConfigError("bad configuration", key + " has a character not allowed in it")
    _check_server(config["server"])
    if 0 < config["watchdog_s"] < 25:
        # lwIP asks up to three servers for 7 s each, and nothing feeds a watchdog meanwhile.
        raise ConfigError(
            "bad configuration", "watchdog_s is below 25: looking up a name may take 21 s"
        )
    for key in ("protected", "keys", "ca"):
        for path in () if type(config[key]) is str else config[key]:
            if type(path) is not str or not path.startswith("/"):
                raise ConfigError("bad configuration", key + " is not a list of paths like /a/b")
    if config["require_signature"] and not config["keys"]:
        # Such a node would take nothing, ever.
        raise ConfigError("bad configuration", "require_signature without keys")
    return config


def _fill(given, keys, prefix):
    known = [row[0] for row in keys]
    for key in given:
        if key not in known and prefix + key != "mqtt":
            raise ConfigError("bad configuration", "unknown key %s%s" % (prefix, key))
    filled = {}
    for key, default, least, most in keys:
        value = given.get(key, default)
        if value is _REQUIRED:
            raise ConfigError("bad configuration", "%s%s is missing" % (prefix, key))
        kind = str if default is _REQUIRED else type(default)
        if key == "ca" and type(value) is list and value:
            kind = list
        # bool is an int to isinstance, but `"port": true` is a mistake.
        if type(value) is not kind:
            raise ConfigError(
                "bad configuration", "%s%s is not of type %s" % (prefix, key, kind.__name__)
            )
        if kind is str and not value:
            raise ConfigError("bad configuration", "%s%s is empty" % (prefix, key))
        if kind is str and len(value) > _LONGEST_TEXT:
            raise ConfigError("bad configuration", "%s%s is too long" % (prefix, key))
        if kind is int and value < least:
            raise ConfigError("bad configuration", "%s%s is below %d" % (prefix, key, least))
        if kind is int and value > most:
            raise ConfigError("bad configuration", "%s%s is above %d" % (prefix, key, most))
        filled[key] = value[:] if kind is list else value
    return filled


def _check_server(server):
    server = server.encode()
    end = server.rfind(b"]") + 1  # of an IPv6 address
    host, colon, port = server[end:].partition(b":")
    more = b"._-"
    if end:
        host = not host and server[:1] == b"[" and server[1 : end - 1]
        more = b":."
    if (
        not host
        or any(byte not in _LETTERS + more for byte in host.lower())
        or (colon and not (port.isdigit() and 0 < int(port) < 65536))
    ):
        raise ConfigError("bad configuration", "server is not host or host:port")
