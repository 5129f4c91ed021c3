# The field firmware's two clients that speak MQTT, as far as an updater sees them.

from . import cfg, locks


class TransferProtocolMQTT:
    """Over Wi-Fi."""

    modem_based = False

    def __init__(self):
        from protocols import mqtt_client

        self.connected = False
        self.client = mqtt_client.MQTTClientCustom(cfg.get_protocol_config())

    def connect(self):
        with locks.network_transmit_mutex:
            self.connected = self.client.connect()
        return self.connected

    def disconnect(self):
        print("disconnect")
        self.client.disconnect()
        self.connected = False

    def get_control_message(self):
        print("get_control_message")
        with locks.network_transmit_mutex:
            return self.client.subscribe_and_get_first_message()

    def clear_retained(self, topic):
        with locks.network_transmit_mutex:
            return self.client.send(topic, "", True)


class TransferProtocolModemAT:
    """Over a modem."""

    modem_based = True
    modem_client_id = 1
    is_secondary_transfer_protocol = False

    def __init__(self, modem_instance):
        self.modem_instance = modem_instance
        self.connected = False

    def connect(self):
        self.connected = self.modem_instance.mqtt_connect(cfg.get_protocol_config())
        return self.connected

    def disconnect(self):
        print("disconnect")
        self.modem_instance.mqtt_disconnect()
        self.connected = False

    def clear_retained(self, topic):
        return self.modem_instance.mqtt_publish(topic, "", 3, True)
