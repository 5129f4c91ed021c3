# A node on a battery: wake, measure, publish, look for an update, sleep.

import machine
import ota
import wifi

VERSION = 1
PERIOD_MS = 15 * 60 * 1000
WATCHDOG_S = 120
DATA_CHANNEL = "the id of your channel for measurements"


def measure():
    """Read the sensor: degrees Celsius."""
    return 21.5


def publish(client, value):
    """Send one measurement to the platform. Raises when that can not be done."""
    message = '[{"n":"temperature","u":"Cel","v":%.1f}]' % value
    topic = "channels/%s/messages/%s" % (DATA_CHANNEL, config["device_id"])
    client.publish(topic, message, False, 1)


print("version", VERSION, "wakes")
watchdog = machine.WDT(timeout=WATCHDOG_S * 1000)
config = ota.load_config()
# The agent has to know the period: no wait of its, or of its client's, comes near it.
config["watchdog_s"] = WATCHDOG_S
agent = ota.Agent(config, watchdog=watchdog)

outcome = "later"
value = measure()
if wifi.connect():
    # One connection for both. While the measurement is on its way, the broker looks up whether a
    # request waits: so check() comes last.
    client = agent.begin()
    try:
        if not client:
            raise OSError("no connection")
        publish(client, value)
    except Exception as error:  # umqtt.simple has others than OSError
        print("not published,", type(error).__name__)
    outcome = agent.check()
    print("check:", outcome, agent.reason or "")
sleep_ms = PERIOD_MS
if outcome == "later":
    # Longer after each failure and drawn at random: it spares the battery, it does not use up the
    # tries of one package within minutes, and a fleet does not come back all at once.
    sleep_ms = max(PERIOD_MS, agent.retry_ms())
machine.deepsleep(sleep_ms)
