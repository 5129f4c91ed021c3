# The field firmware's MQTT client of Wi-Fi: a failed subscription looks as if nothing waits.

import _thread
import time

from external.umqtt.simple import MQTTClient


class MQTTClientCustom:
    def __init__(self, config):
        mqtt = config.mqtt
        self.client = MQTTClient(
            config.thing_id, mqtt["host"], mqtt["port"], config.thing_id, config.thing_token, 120
        )
        self._base = "channels/%s/messages/%s" % (config.control_channel_id, config.thing_id)
        self._heard = None
        self._up = False

    def connect(self):
        self.client.set_callback(self.hear)
        try:
            self.client.connect()
        except Exception:
            return False
        self._up = True
        _thread.start_new_thread(self._pings, ())
        return True

    def disconnect(self):
        self._up = False
        self.client.disconnect()

    def hear(self, topic, message):
        self._heard = {"topic": topic, "message": message}

    def subscribe_and_get_first_message(self):
        try:
            self.client.subscribe(self._base + "/#")
            end = time.ticks_add(time.ticks_ms(), 5000)
            while time.ticks_diff(end, time.ticks_ms()) > 0:
                self.client.check_msg()
                if self._heard:
                    heard, self._heard = self._heard, None
                    return heard
        except Exception:
            pass
        return None

    def send(self, topic, message, retained):
        try:
            self.client.publish(topic, message, retained, 1)
            return True
        except Exception:
            return False

    def _pings(self):
        while True:
            time.sleep(30)
            if not self._up:
                return
            try:
                self.client.ping()
            except OSError:
                return
