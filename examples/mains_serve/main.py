# A node on mains power: it stays connected, and takes an update as soon as it is asked to.

import machine
import ota
import wifi

VERSION = 1
WATCHDOG_S = 60

level = 0


def work(_):
    """What the node is for; a timer calls it every second."""
    global level
    level = (level + 1) % 100


print("version", VERSION, "serves")
# Timer 2 is half of the trial's deadline, or 0 on chips that have no 2.
machine.Timer(0).init(period=1000, mode=machine.Timer.PERIODIC, callback=work)

config = ota.load_config()
config["watchdog_s"] = WATCHDOG_S
watchdog = machine.WDT(timeout=WATCHDOG_S * 1000)
while not wifi.connect():
    watchdog.feed()
# Never returns. It comes back by itself when the broker, or the network, was away.
ota.Agent(config, watchdog=watchdog).serve()
