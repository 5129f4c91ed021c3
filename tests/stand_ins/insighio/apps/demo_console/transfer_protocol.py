# The field's transfer clients, without CoAP and without the second one.

import logging

import utils

from . import locks


class TransferProtocol:
    def __init__(self, cfg, modem_instance=None):
        self.connected = False
        self.protocol_config = cfg.get_protocol_config()
        self.protocol_config.client_name = cfg.get("device_id")
        if self.protocol_config.keepalive is None:
            self.protocol_config.keepalive = 120
        self.protocol = cfg.get("protocol")
        self.modem_based = False
        ack = utils.get_var_from_module(self.protocol_config, "REQ_MESG_DEL_ACK")
        self.require_message_delivery_ack = True if ack is None else ack

    def _topic(self, channel, subtopic=None):
        topic = "channels/%s/messages/%s" % (channel, self.protocol_config.thing_id)
        return topic + (subtopic or "")

    def _ready(self):
        if not self.connected:
            logging.info("TransferProtocol not connected")
        return self.connected


class TransferProtocolModemAT(TransferProtocol):
    def __init__(self, cfg, modem_instance=None):
        super().__init__(cfg, modem_instance)
        self.modem_instance = modem_instance
        self.modem_based = modem_instance is not None
        self.modem_client_id = 1

    def connect(self):
        if self.is_connected():
            return True
        config = self.protocol_config
        self.connected = self.modem_instance.mqtt_connect(
            config.server_ip,
            config.server_port,
            config.thing_id,
            config.thing_token,
            config.keepalive,
            config.client_name,
            self.modem_client_id,
        )
        return self.connected

    def is_connected(self):
        self.connected = self.modem_instance.mqtt_is_connected(self.modem_client_id)
        return self.connected

    def disconnect(self):
        self.modem_instance.mqtt_disconnect(self.modem_client_id)
        self.connected = False
        logging.info("Disconnected")

    def send_packet(self, message, subtopic=None):
        if not self._ready():
            return False
        return self.modem_instance.mqtt_publish(
            self._topic(self.protocol_config.message_channel_id, subtopic),
            message,
            3,
            False,
            1 if self.require_message_delivery_ack else 0,
            self.modem_client_id,
        )

    def send_control_packet(self, message, subtopic):
        if not self._ready():
            return False
        topic = self._topic(self.protocol_config.control_channel_id, subtopic)
        return self.modem_instance.mqtt_publish(topic, message)

    def send_config_packet(self, message):
        if not self._ready():
            return False
        topic = self._topic(self.protocol_config.control_channel_id, "/configResponse")
        return self.modem_instance.http_post_with_auth_header(
            self.protocol_config.server_ip,
            "/http/" + topic,
            self.protocol_config.thing_token,
            [{"n": "config", "vs": message}, {"n": "e", "v": 9}],
            timeout_ms=125000,
        )

    def get_control_message(self):
        # Text for topic and message; None for "nothing came" and for "could not listen" alike.
        if not self._ready():
            return None
        topic = self._topic(self.protocol_config.control_channel_id, "/#")
        return self.modem_instance.mqtt_get_message(topic, 5000)

    def clear_retained(self, topic):
        # Not stopped by a connection that is down.
        return self.modem_instance.mqtt_publish(topic, "", 3, True)


class TransferProtocolMQTT(TransferProtocol):
    def __init__(self, cfg):
        super().__init__(cfg)
        from protocols import mqtt_client

        config = self.protocol_config
        self.client = mqtt_client.MQTTClientCustom(config)
        if config.lw_subtopic is not None and config.lw_message is not None:
            self.client.set_last_will(
                config.lw_subtopic, config.lw_message, config.lw_retain, config.lw_qos
            )

    def connect(self):
        if not self.connected:
            with locks.network_transmit_mutex:
                self.connected = self.client.connect()
            logging.info("mqtt connection status: %s" % self.connected)
        return self.connected

    def is_connected(self):
        with locks.network_transmit_mutex:
            return self.client.is_connected()

    def disconnect(self):
        self.client.disconnect()
        self.connected = False
        logging.info("Disconnected")

    def send_packet(self, message, channel=None):
        if not self._ready():
            return False
        for _ in range(3):
            with locks.network_transmit_mutex:
                sent = self.client.sendMessage(
                    message, channel, False, self.require_message_delivery_ack
                )
            if sent:
                return True
        return False

    def send_control_packet(self, message, subtopic):
        if not self._ready():
            return False
        with locks.network_transmit_mutex:
            return self.client.sendControlMessage(message, subtopic)

    def get_control_message(self):
        # As above, with bytearrays.
        if not self._ready():
            return None
        with locks.network_transmit_mutex:
            return self.client.subscribe_and_get_first_message()

    def clear_retained(self, topic):
        with locks.network_transmit_mutex:
            return self.client.sendMessage("", topic, True)
