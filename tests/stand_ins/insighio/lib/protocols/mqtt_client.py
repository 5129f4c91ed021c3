# The field's MQTT client on Wi-Fi: each method says by its result that something failed, and one
# message is told of at a time.

import _thread
import logging

from external.umqtt.simple import MQTTClient
from utime import sleep_ms, ticks_add, ticks_diff, ticks_ms

LISTEN_MS = 5000


class MQTTClientCustom:
    def __init__(self, mqtt_config):
        c = self.config = mqtt_config
        self.client = MQTTClient(
            c.client_name, c.server_ip, c.server_port, c.thing_id, c.thing_token, c.keepalive
        )
        channel = "channels/%s/messages/%s"
        self.controlChannelGeneric = channel % (c.control_channel_id, c.thing_id)
        self.messageChannel = channel % (c.message_channel_id, c.thing_id)
        self.lastReceivedMessage = None
        self.keepalive = c.keepalive
        self.mutex = _thread.allocate_lock()
        self._has_connected = self._is_connected = False

    def _on_message(self, topic, message):
        with self.mutex:
            self.lastReceivedMessage = {"topic": topic, "message": message}

    def set_last_will(self, subtopic, msg, retain=False, qos=0):
        try:
            self.client.set_last_will(self.controlChannelGeneric + subtopic, msg, retain, qos)
        except Exception as e:
            logging.exception(e, "Exception while setting last will")

    def connect(self):
        self.client.set_callback(self._on_message)
        try:
            self.client.connect(True)
        except Exception as e:
            logging.exception(e, "Exception during MQTT connect with:")
            self._is_connected = False
            return False
        self._has_connected = self._is_connected = True
        if self.keepalive > 0:
            _thread.start_new_thread(self._keep_alive, ())
        return True

    def is_connected(self):
        return self._is_connected

    def sendMessage(self, message, topic=None, retained=False, require_message_delivery_ack=True):
        try:
            self.client.publish(
                self.messageChannel if topic is None else topic,
                message,
                retained,
                1 if require_message_delivery_ack else 0,
            )
            return True
        except Exception as e:
            logging.exception(e, "Exception during MQTT message sending:")
            return False

    def sendControlMessage(self, message, subtopic):
        return self.sendMessage(message, self.controlChannelGeneric + subtopic, False)

    def subscribe_and_get_first_message(self, channel=None):
        # None: nothing came, or the subscription failed, or the connection is gone.
        try:
            self.client.subscribe(channel or self.controlChannelGeneric + "/#")
            end = ticks_add(ticks_ms(), LISTEN_MS)
            while ticks_diff(ticks_ms(), end) < 0:
                try:
                    self.client.check_msg()
                    with self.mutex:
                        heard, self.lastReceivedMessage = self.lastReceivedMessage, None
                    if heard is not None:
                        return heard
                except AssertionError:
                    pass
                sleep_ms(10)
        except Exception as e:
            logging.exception(e, "Exception during MQTT subscribe with:")
        return None

    def disconnect(self):
        try:
            self.client.disconnect()
        except Exception as e:
            logging.exception(e, "Exception during MQTT disconnect:")
            return False
        self._has_connected = self._is_connected = False
        return True

    def _keep_alive(self):
        interval = 1000 * self.keepalive // 4
        while self._has_connected:
            if ticks_diff(ticks_ms(), self.client.last_rx) // interval >= 4:
                self._is_connected = False
                return
            sleep_ms(interval)
            try:
                self.client.ping()
            except OSError:
                self._is_connected = False
                return
