# A node on a battery: wake, measure, publish, look for an update, sleep.

import machine
import ota
import wifi
from umqtt.simple import MQTTClient

VERSION = 1
PERIOD_MS = 15 * 60 * 1000
WATCHDOG_S = 120
DATA_CHANNEL = "the id of your channel for measurements"


def measure():
    """Read the sensor: degrees Celsius."""
    return 21.5


def publish(value):
    """Send one measurement to the platform. Raises when that can not be done."""
    device, mqtt = config["device_id"], config["mqtt"]
    client = MQTTClient(device, mqtt["host"], mqtt["port"], device, config["device_key"])
    client.connect()
    message = '[{"n":"temperature","u":"Cel","v":%.1f}]' % value
    client.publish("channels/%s/messages/%s" % (DATA_CHANNEL, device), message, False, 1)
    client.disconnect()


print("version", VERSION, "wakes")
# umqtt.simple may wait for ever on a bad link. The agent never does; it has to know the period.
watchdog = machine.WDT(timeout=WATCHDOG_S * 1000)
config = ota.load_config()
config["watchdog_s"] = WATCHDOG_S
agent = ota.Agent(config, watchdog=watchdog)

outcome = "later"
if wifi.connect():
    try:
        publish(measure())
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
