"""The node's configuration: defaults, and one clear error per mistake, naming the key."""

import check
from ota.config import complete, load_config
from ota.errors import ConfigError

IDS = {"device_id": "d", "device_key": "k", "control_channel": "c"}


def wrong(text, **changes):
    given = dict(IDS)
    given.update(changes)
    check.raises(ConfigError, text, complete, given)


def test_defaults():
    config = complete(IDS)
    check.equal(config["server"], "console.insigh.io")
    check.equal(config["mqtt"]["port"], 8883)
    check.equal(config["mqtt"]["tls"], True)
    check.equal(config["ca"], "/ca.der")
    check.equal(config["report"], "installed")
    check.equal((config["trial_boots"], config["trial_wakes"]), (3, 24))
    check.equal((config["trial_days"], config["trial_deadline_s"]), (7, 900))
    check.equal(config["max_attempts"], 5)


def test_a_complete_configuration_stays_as_it_is():
    config = complete(IDS)
    check.equal(complete(config), config)


def test_plain_has_to_be_written_out():
    """The device key in clear is never what nobody asked for."""
    for mqtt, tls, port in (
        ({}, True, 8883),
        ({"port": 1883}, True, 1883),
        ({"tls": True}, True, 8883),
        ({"tls": False}, False, 1883),
        ({"tls": False, "port": 8883}, False, 8883),
        ({"tls": False, "port": 1884}, False, 1884),
    ):
        config = complete(dict(IDS, mqtt=mqtt))
        check.equal((config["mqtt"]["tls"], config["mqtt"]["port"]), (tls, port))
        check.equal(complete(config), config)


def test_trust_anchors():
    both = ["/ca.der", "/next.der"]
    config = complete(dict(IDS, ca=both))
    check.equal(config["ca"], both)
    check.equal(complete(config), config)
    for wrong_one in ([], 1, None, {}):
        wrong("ca is not of type str", ca=wrong_one)
    for wrong_one in ([1], ["ca.der"], ["/ca.der", ""], [["/ca.der"]]):
        wrong("ca is not a list of paths", ca=wrong_one)


def test_missing_ids():
    for key in IDS:
        given = dict(IDS)
        del given[key]
        check.raises(ConfigError, key + " is missing", complete, given)


def test_unknown_keys():
    wrong("unknown key sever", sever="x")
    wrong("unknown key mqtt.prot", mqtt={"prot": 1})
    wrong("unknown key mqtt.mqtt", mqtt={"mqtt": {}})


def test_wrong_types():
    wrong("device_key is not of type str", device_key=5)
    wrong("trial_boots is not of type int", trial_boots="3")
    wrong("trial_boots is not of type int", trial_boots=3.5)
    wrong("mqtt is not an object", mqtt=1883)
    wrong("mqtt.port is not of type int", mqtt={"port": True})
    wrong("mqtt.tls is not of type bool", mqtt={"tls": 1})
    wrong("stat is not of type bool", stat=1)
    check.equal(complete(IDS)["stat"], False)
    check.raises(ConfigError, "not a JSON object", complete, [])


def test_values_out_of_range():
    wrong("device_id is empty", device_id="")
    wrong("max_attempts is below 1", max_attempts=0)
    wrong("mqtt.port is above 65535", mqtt={"port": 70000})
    for key, most in (
        ("trial_boots", 1000),
        ("trial_wakes", 100000),
        ("trial_days", 365),
        ("trial_deadline_s", 86400),
        ("watchdog_s", 86400),
        ("max_attempts", 1000),
        ("timeout_s", 86400),
    ):
        check.equal(complete(dict(IDS, **{key: most}))[key], most)
        wrong("%s is above %d" % (key, most), **{key: most + 1})
        wrong("%s is above %d" % (key, most), **{key: 1 << 70})
    for key, most in (("keepalive", 65535), ("grace_ms", 60000)):
        check.equal(complete(dict(IDS, mqtt={key: most}))["mqtt"][key], most)
        wrong("mqtt.%s is above %d" % (key, most), mqtt={key: most + 1})
    wrong("timeout_s is below 1", timeout_s=0)
    wrong("trial_days is below 1", trial_days=0)
    wrong("trial_days is not of type int", trial_days=0.5)
    for period_s in (1, 10, 21, 24):
        text = "watchdog_s is below 25: looking up a name may take 21 s"
        wrong(text, watchdog_s=period_s)
    for period_s in (0, 25):
        check.equal(complete(dict(IDS, watchdog_s=period_s))["watchdog_s"], period_s)
    wrong("watchdog_s is below 0", watchdog_s=-1)
    wrong("trial_deadline_s is below 0", trial_deadline_s=-1)
    wrong("mqtt.port is below 1", mqtt={"port": 0})
    wrong("report is neither", report="later")
    wrong("server is not host", server="http://console.insigh.io")
    wrong("server is not host", server="host:x")
    wrong("server is not host", server="user@host")
    wrong("device_id has a character", device_id="a/b")
    wrong("control_channel has a character", control_channel="+")


def test_texts_are_of_a_sensible_length():
    check.equal(complete(dict(IDS, ca="/" + "c" * 127))["ca"], "/" + "c" * 127)
    for key in ("device_id", "device_key", "control_channel", "server", "ca"):
        wrong(key + " is too long", **{key: "x" * 129})
    wrong("mqtt.host is too long", mqtt={"host": "x" * 129})


def test_servers_that_are_none():
    for server in ("a\tb", "a b", "host\r\nX: y", "a[b", "a\0", ":443", "host:0", "host:65536"):
        wrong("server is not host", server=server)
    for server in ("h:", "host:-1", "host:4_4", "host: 443", "\u03b1"):
        wrong("server is not host", server=server)
    for server in ("::1", "[::1", "::1]", "[]", "[]:1", "[::1]x", "x[::1]", "[a_b]", "[::1]:0"):
        wrong("server is not host", server=server)


def test_servers_that_are_unusual():
    for server in ("Console.Insigh.io:8443", "my_host", "_a:1", "[::1]", "[FD00::2]:8443"):
        check.equal(complete(dict(IDS, server=server))["server"], server)


def test_the_key_is_in_no_error():
    secret = "6bb7163b-6edd-42b3-8546-c76693bc2f18"
    for changes in ({"device_id": 1}, {"x": 1}, {"server": "a/b"}, {"mqtt": {"port": ""}}):
        given = dict(IDS)
        given["device_key"] = secret
        given.update(changes)
        error = check.raises(ConfigError, "", complete, given)
        check.equal(secret in repr(error), False)


def test_files():
    check.raises(ConfigError, "/nowhere.json is missing", load_config, "/nowhere.json")
    check.raises(ConfigError, "is not JSON", load_config, check.__file__)


check.run(globals())
