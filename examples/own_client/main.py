# An application with an MQTT client of its own, and further subtopics on the control channel.

import time

import ota
import wifi
from ota.trust import trust
from umqtt.simple import MQTTClient

VERSION = 1
KEEPALIVE_S = 60

config = ota.load_config()
device, mqtt = config["device_id"], config["mqtt"]
base = ("channels/%s/messages/%s/" % (config["control_channel"], device)).encode()
client = MQTTClient(device, mqtt["host"], mqtt["port"], device, config["device_key"], KEEPALIVE_S)
agent = ota.Agent(config, client=client)
pump_runs = False


def on_message(topic, payload):
    """Every message that the client gets; those of the agent go to the agent."""
    global pump_runs
    if agent.handle(topic, payload):
        return  # agent.pending tells the loop below; a callback is no place for a download
    if topic == base + b"cmd":
        pump_runs = payload == b"pump on"
        print("pump", "on" if pump_runs else "off")
    elif topic == base + b"config":
        print("configuration:", payload.decode())


def connect():
    """Connect, and subscribe to what the application and the agent listen to."""
    if mqtt["tls"]:
        # As the agent does it. Without TLS the device key goes over the network in clear.
        client.ssl = trust(config["ca"], "no trust")
    client.connect()
    for leaf in (b"ota", b"config", b"cmd"):
        client.subscribe(base + leaf, 1)


def loop():
    """Work until the connection is lost, which raises."""
    global pump_runs
    ping_at = time.ticks_add(time.ticks_ms(), KEEPALIVE_S * 500)
    while True:
        client.check_msg()
        if agent.pending:
            pump_runs = False  # nothing may be under way when the node resets
        # Does what check() does when it is time to: at the start, for a request, for another try.
        outcome = agent.poll()
        if outcome:
            print("update:", outcome, agent.reason or "")
        if time.ticks_diff(ping_at, time.ticks_ms()) < 0:
            ping_at = time.ticks_add(time.ticks_ms(), KEEPALIVE_S * 500)
            client.ping()
        time.sleep_ms(50)


print("version", VERSION, "works")
client.set_callback(on_message)
while True:
    try:
        if not wifi.connect():
            raise OSError("no network")
        connect()
        loop()
    except Exception as error:  # umqtt.simple has others than OSError
        print("connection lost,", type(error).__name__)
        time.sleep_ms(1000 + agent.retry_ms())
