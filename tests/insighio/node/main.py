# The field firmware's main loop, as far as an update is concerned.

import machine
from apps.demo_console import ota
from apps.demo_console.transfer_protocol import TransferProtocolModemAT, TransferProtocolMQTT

VERSION = 1
MODEM = False
WATCHDOG_S = 0

print("version", VERSION, "runs")
if WATCHDOG_S:
    import device_info

    device_info.start_watchdog(WATCHDOG_S)
if MODEM:
    from modem import Modem

    client = TransferProtocolModemAT(Modem())
else:
    client = TransferProtocolMQTT()
print("connect:", client.connect())
print("checkAndApply:", ota.checkAndApply(client), ota.checkAndApply(None))
print("still connected:", client.connected)
client.disconnect()
machine.deepsleep(60000)
