# A modem with the AT commands that the adapter uses, and its driver. The modem keeps its files in
# /ufs. `faults` is what goes wrong, by a name for each; the tests write it.

import os
import re
import select
import socket
import ssl
import time

try:
    from faults import FAULTS as faults
except ImportError:
    faults = {}


PLACE = "/ufs/"


class Uart:
    """The modem at the other end of the wire."""

    def __init__(self, fetch=None):
        self.out = b""
        self.commands = []
        self._fetch = fetch or https
        self._mqtt = self._await = self._body = self._later = None
        self._open = {}
        self._in = b""
        try:
            os.mkdir(PLACE[:-1])
        except OSError:
            pass

    # What a driver sees.

    def any(self):
        if self._later and time.ticks_diff(self._later[0], time.ticks_ms()) < 0:
            self.say(self._later[1])
            self._later = None
        if self._mqtt:
            while select_readable(self._mqtt.sock):
                self._mqtt.wait_msg()
        return len(self.out)

    def readline(self):
        line, end, self.out = self.out.partition(b"\n")
        return line + end

    def readinto(self, view):
        n = min(len(view), len(self.out), 100)  # what one call finds
        view[:n] = self.out[:n]
        self.out = self.out[n:]
        return n

    def write(self, data):
        data = data if isinstance(data, bytes) else data.encode()
        size = len(data)
        if self._await:
            call, need = self._await
            self._in += data
            if len(self._in) >= need if need else b"\x1a" in self._in:
                data, self._in, self._await = self._in, b"", None
                call(data)
            return size
        text = data.strip().decode()
        print("AT:", text)
        self.commands.append(text)
        name, _, more = text[3:].partition("=")
        fields = [field.strip('"') for field in more.split(",")]
        try:
            getattr(self, "_" + name.rstrip("?"))(*fields)
        except OSError:
            self.say("+CME ERROR: 405")
        return size

    def say(self, *lines):
        self.out += "".join("\r\n%s\r\n" % line for line in lines).encode()

    # MQTT. mqtt_connect() below stands for AT+QMTOPEN and AT+QMTCONN.

    def connected(self, mqtt):
        self._mqtt = mqtt
        if mqtt:
            mqtt.set_callback(self._urc)

    def _urc(self, topic, message):
        line = '+QMTRECV: 1,0,"%s","%s"' % (topic.decode(), message.decode())
        self.say(line)

    def _QMTSUB(self, client, number, topic, _qos):
        self.say("OK")
        if faults.get("deaf"):
            return self.say("+QMTSUB: %s,%s,0,1" % (client, number))
        if faults.get("refused"):
            return self.say("+QMTSUB: %s,%s,0,128" % (client, number))
        self._mqtt.subscribe(topic, 1)
        done = "+QMTSUB: %s,%s,0,1" % (client, number)
        if faults.get("again"):
            self.say("+QMTSUB: %s,%s,1" % (client, number))
            self._later = time.ticks_add(time.ticks_ms(), 300), done
        else:
            self.say(done)

    def _QMTUNS(self, client, number, topic):
        self.say("OK", "+QMTUNS: %s,%s,0" % (client, number))

    def _QMTPUB(self, client, number, qos, retain, topic):
        def publish(data):
            self._mqtt.publish(topic, data[: data.index(b"\x1a")], retain == "1", 1)
            self.say("OK", "+QMTPUB: %s,%s,0" % (client, number))

        self._await = publish, 0
        self.out += b"\r\n> \r\n"

    # HTTP.

    def _QHTTPCFG(self, *_):
        self.say("OK")

    def _QHTTPURL(self, size, _wait):
        def url(data):
            self._url = data[: int(size)].decode()
            self.say("OK")

        self._await = url, int(size)
        self.say("CONNECT")

    def _QHTTPGET(self, _wait):
        self.say("OK")
        if faults.get("no_answer"):
            return self.say("+QHTTPGET: 702")
        status, self._body = self._fetch(self._url)
        length = faults.get("length", len(self._body))
        self.say('+QIURC: "recv",1', "+QHTTPGET: 0,%d,%d" % (status, length))

    def _QHTTPREADFILE(self, name, _wait):
        self.say("OK")
        with open(PLACE + name, "wb") as file:
            file.write(self._body[: faults.get("short", len(self._body))])
        self.say("+QHTTPREADFILE: 0")

    # Files.

    def _QFLST(self, _pattern):
        for name in os.listdir(PLACE):
            self.say('+QFLST: "UFS:%s",%d' % (name, os.stat(PLACE + name)[6]))
        self.say("OK")

    def _QFDEL(self, name):
        os.remove(PLACE + name)
        self.say("OK")

    def _QFOPEN(self, name, _mode=None):
        if not name:
            for handle in self._open:
                self.say('+QFOPEN: "%s",%d,2' % (self._open[handle][0], handle))
            return self.say("OK")
        if name in [each[0] for each in self._open.values()]:
            return self.say("+CME ERROR: 426")
        os.stat(PLACE + name)
        handle = 1027 + len(self.commands)
        self._open[handle] = [name, 0]
        self.say("+QFOPEN: %d" % handle, "OK")

    def _QFSEEK(self, handle, offset, _from):
        self._open[int(handle)][1] = int(offset)
        self.say("OK")

    def _QFCLOSE(self, handle):
        if self._open.pop(int(handle), None):
            return self.say("OK")
        self.say("+CME ERROR: 405")

    def _QFREAD(self, handle, n):
        if int(handle) not in self._open:
            return self.say("+CME ERROR: 405")
        name, at = self._open[int(handle)]
        n = min(int(n), faults.get("most", 1 << 20))
        with open(PLACE + name, "rb") as file:
            file.seek(at)
            data = file.read(n)
        self._open[int(handle)][1] += len(data)
        reads = self.commands.count("reads")
        self.commands.append("reads")
        time.sleep_ms(faults.get("slow_ms", 0))
        if faults.get("broker_lost_at") == reads:
            self._mqtt.sock.close()
            self._mqtt = None
            self.say("+QMTSTAT: 1,1")
        if faults.get("urc"):
            self.say('+QIURC: "pdpdeact",1')
        if faults.get("lost_at") == reads:
            self.out += b"\r\nCONNECT %d\r\n" % len(data) + data[:7]  # and no more
            return
        if faults.get("reset_at") == reads:
            self._open = {}
            return self.say("APP RDY")
        self.out += b"\r\nCONNECT %d\r\n" % len(data) + data + b"\r\nOK\r\n"


class Modem:
    """The driver, with what the adapter uses of the field firmware's."""

    def __init__(self, fetch=None):
        self.uart = Uart(fetch)
        self._mqtt = None

    def send_at_cmd(self, command, timeoutms=30000, success_condition="OK", extra=""):
        print("log: >", command)
        while self.uart.any():
            self.uart.readline()  # as the field's does
        self.uart.write(command + "\r\n")
        status, lines = None, []
        end = time.ticks_add(time.ticks_ms(), timeoutms)
        while time.ticks_diff(end, time.ticks_ms()) > 0:
            if not self.uart.any():
                if status is not None:
                    break
                time.sleep_ms(5)
                continue
            line = self.uart.readline().decode().strip()
            if line and line != command:
                lines.append(line)
                if re.search("^([\\w\\s\\+]+)?" + success_condition, line):
                    status = True
                elif re.search("ERROR|FAIL", line):
                    status = False
        return bool(status), lines

    def mqtt_connect(self, config):
        from umqtt.simple import MQTTClient

        mqtt = config.mqtt
        who = config.thing_id, mqtt["host"], mqtt["port"], config.thing_id, config.thing_token
        print("mqtt_connect")
        client = MQTTClient(*who)
        client.connect()
        self._mqtt = client
        self.uart.connected(client)
        return True

    def mqtt_disconnect(self):
        self.uart.connected(None)
        try:
            self._mqtt.disconnect()
        except OSError:
            pass

    def mqtt_publish(self, topic, message, num_of_retries=3, retain=False, qos=1):
        text = 'AT+QMTPUB=1,7,%d,%d,"%s"' % (qos, retain, topic)
        if not self.send_at_cmd(text, 15000, ">.*")[0]:
            return False
        lines = self.send_at_cmd(message + "\x1a", 15000, r"\+QMTPUB:\s*\d+,\d+,[012]")[1]
        return any("1,7,0" in line for line in lines)


def select_readable(sock):
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def https(url):
    """What the server says: (status, body)."""
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
    return int(head.split(b" ")[1]), body
