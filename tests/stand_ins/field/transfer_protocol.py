# A client with the methods of the field firmware's, and its manners: it tells of one message at a
# time, of whatever subtopic, as bytes on Wi-Fi and as text on a modem.

import socket
import ssl
import time

from umqtt.simple import MQTTClient

from . import cfg


class TransferProtocol:
    def __init__(self, modem_instance=None):
        protocol = cfg.get_protocol_config()
        self.modem_instance = modem_instance
        self.modem_based = modem_instance is not None
        self._base = "channels/%s/messages/%s" % (
            protocol.control_channel_id,
            protocol.thing_id,
        )
        self._heard = None
        mqtt = protocol.mqtt
        self._client = MQTTClient(
            protocol.thing_id,
            mqtt["host"],
            mqtt["port"],
            protocol.thing_id,
            protocol.thing_token,
        )

    def connect(self):
        self._client.set_callback(self._on_message)
        self._client.connect()

    def disconnect(self):
        self._client.disconnect()

    def get_control_message(self):
        print("get_control_message")
        self._client.subscribe(self._base + "/#")
        for _ in range(30):  # the field's waits for 5 s
            self._client.check_msg()
            if self._heard:
                heard, self._heard = self._heard, None
                return heard
            time.sleep_ms(10)

    def clear_retained(self, topic):
        print("clear_retained")
        return self._publish(topic, "", True)

    def send_control_packet(self, message, subtopic):
        print("send_control_packet", subtopic, message)
        return self._publish(self._base + subtopic, message, False)

    def _publish(self, topic, message, retained):
        try:
            self._client.publish(topic, message, retained, 1)
        except OSError:
            return False
        return True

    def _on_message(self, topic, message):
        if self.modem_based:
            topic, message = topic.decode(), message.decode()
        self._heard = {"topic": topic, "message": message}


class Modem:
    """Has files of its own, and speaks HTTPS."""

    def __init__(self):
        self._files = {}

    def http_get_file(self, url, name, _timeout_ms):
        host, _, path = url[8:].partition("/")
        host, _, port = host.partition(":")
        sock = socket.socket()
        sock.connect(socket.getaddrinfo(host, int(port))[0][-1])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_mode = ssl.CERT_REQUIRED
        with open("/ca.der", "rb") as file:
            context.load_verify_locations(cadata=file.read())
        stream = context.wrap_socket(sock, server_hostname=host)
        stream.write(b"GET /%s HTTP/1.0\r\nHost: %s\r\n\r\n" % (path.encode(), host.encode()))
        head, _, body = stream.read().partition(b"\r\n\r\n")
        stream.close()
        if head.split(b" ")[1] != b"200":
            return False
        print("http_get_file", len(body))
        self._files[name] = body
        return True

    def get_file(self, name, path):
        with open(path, "wb") as file:
            file.write(self._files[name])
        return True

    def delete_file(self, name):
        del self._files[name]
