# An asyncio application with mqtt_as, and further subtopics on the control channel.

import asyncio

import ota
import wifi
from mqtt_as import MQTTClient
from mqtt_as import config as mqtt_config
from ota_asyncio import Bridge

VERSION = 1

config = ota.load_config()
device, mqtt = config["device_id"], config["mqtt"]
base = "channels/%s/messages/%s/" % (config["control_channel"], device)
mqtt_config.update(
    {
        "client_id": device,
        "server": mqtt["host"],
        "port": mqtt["port"],
        "user": device,
        "password": config["device_key"],
        "ssid": wifi.SSID,
        "wifi_pw": wifi.PASSWORD,
        "queue_len": 8,
    }
)
client = MQTTClient(mqtt_config)
bridge = Bridge(client, config)


async def subscribe():
    """After each connection: to what the application and the agent listen to."""
    while True:
        await client.up.wait()
        client.up.clear()
        for leaf in ("ota", "config", "cmd"):
            await client.subscribe(base + leaf, 1)


async def listen():
    """Every message that the client gets; those of the agent go to the agent."""
    async for topic, payload, retained in client.queue:
        if not bridge.handle(topic, payload, retained):
            print(bytes(topic).decode()[len(base) :], bytes(payload).decode())


async def blink():
    """What the application does all the while, during an update as well."""
    while True:
        await asyncio.sleep_ms(100)


async def main():
    """Start, and see to updates; never ends, as the loop runs on inside of the agent's calls."""
    if not wifi.connect():  # for the clock; mqtt_as keeps up the rest
        raise OSError("no network")
    tasks = [asyncio.create_task(task()) for task in (subscribe, listen, blink)]
    await client.connect()
    while tasks:
        outcome = bridge.agent.poll()
        if outcome:
            print("update:", outcome, bridge.agent.reason or "")
        await asyncio.sleep_ms(200)


print("version", VERSION, "works")
asyncio.run(main())
