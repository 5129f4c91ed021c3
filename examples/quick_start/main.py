# The least that a node needs: say who runs, look for an update, sleep.

import machine
import ota

VERSION = 1
print("version", VERSION, "runs")

agent = ota.Agent(ota.load_config())
print("check:", agent.check(), agent.reason or "")
machine.deepsleep(60 * 1000)
