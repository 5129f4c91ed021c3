# A node on a cellular modem without PPP: all that the agent needs goes through AT commands.

import machine
import ota
import umqtt.simple as umqtt
from modem import Modem  # the driver of your modem
from modem_stream import Sockets, get

VERSION = 1
PERIOD_MS = 60 * 60 * 1000

print("version", VERSION, "wakes")
config = ota.load_config()
modem = Modem()
device, mqtt = config["device_id"], config["mqtt"]
umqtt.socket = Sockets(modem, mqtt["tls"])
client = umqtt.MQTTClient(device, mqtt["host"], mqtt["port"], device, config["device_key"], 300)
agent = ota.Agent(config, client=client, open_stream=lambda url: get(modem, url))

sleep_ms = PERIOD_MS
try:
    modem.on()
    client.connect()
    if agent.check() == "later":
        sleep_ms = max(PERIOD_MS, agent.retry_ms())
    client.disconnect()
except Exception as error:  # umqtt.simple has others than OSError
    print("no connection,", type(error).__name__)
modem.off()
machine.deepsleep(sleep_ms)
