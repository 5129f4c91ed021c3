# The field firmware's main loop, as far as an update is concerned.

import machine
from apps.demo_console import ota
from apps.demo_console.transfer_protocol import Modem, TransferProtocol

VERSION = 1
MODEM = False

print("version", VERSION, "runs")
client = TransferProtocol(Modem() if MODEM else None)
client.connect()
print("checkAndApply:", ota.checkAndApply(client), ota.checkAndApply(None))
client.disconnect()
machine.deepsleep(60000)
