# The field's driver of the Quectel BG600: MQTT, HTTP and files by AT commands. No positioning.

import logging
import random
import re

from device_info import get_device_id, wdt_reset
from utime import sleep_ms, ticks_add, ticks_diff, ticks_ms

from . import modem_base


class ModemBG600(modem_base.Modem):
    def __init__(self, power_on, power_key, modem_tx, modem_rx):
        super().__init__(power_on, power_key, modem_tx, modem_rx)
        self._last_prioritization_is_gnss = None
        self._mqtt_client_id = 1

    def wait_for_modem_power_on(self, command=None):
        return self.send_at_cmd("", 10000, "APP RDY")[0]

    def power_off(self):
        return self.send_at_cmd("AT+QPOWD", 15000, "\\s*POWERED DOWN\\s*")[0]

    def set_technology(self, technology):
        mode = {"nbiot": "1", "lte-m": "0"}.get(technology.lower(), "2")
        lines = self.send_at_cmd('AT+QCFG="iotopmode"')[1]
        if self._match_regex('"iotopmode",' + mode, lines) is None:
            self.send_at_cmd("AT+CFUN=0")
            self.send_at_cmd('AT+QCFG="iotopmode",' + mode)
            self.send_at_cmd("AT+CFUN=1,1", 15000, "APP RDY")
            self.send_at_cmd("ATE0")
            sleep_ms(1000)

    def _prioritize(self, gnss):
        if self._last_prioritization_is_gnss is not gnss:
            self.reset_uart()
            self.send_at_cmd('AT+QGPSCFG="priority",%d,0' % (not gnss))
            self._last_prioritization_is_gnss = gnss
            sleep_ms(100)

    def prioritizeWWAN(self):
        self._prioritize(False)

    def prioritizeGNSS(self):
        self._prioritize(True)

    def connect(self, timeoutms=30000):
        for _ in range(5):
            if self.send_at_cmd("AT+CGACT=1,1")[0]:
                break
        else:
            return False
        access = self.send_at_cmd('AT+QICSGP=1,1,"%s","","",0' % self.apn)[0]
        return self.send_at_cmd("AT+QIACT=1")[0] and access

    def is_connected(self):
        status, lines = self.send_at_cmd("AT+CGACT?")
        return status and len(lines) > 0 and "1,1" in lines[0]

    def disconnect(self):
        return self.send_at_cmd("AT+QIDEACT=1")[0]

    def deactivate_context(self):
        self.send_at_cmd("AT+QIDEACT=1")

    def update_ntp_date_time(self):
        status, lines = self.send_at_cmd('AT+QNTP=1,"pool.ntp.org"', 125000)
        found = re.match("\\+QNTP:\\s*(\\d+),", lines[0]) if status and lines else None
        return bool(found and found.group(1) == "0")

    def get_sim_card_ids(self):
        imsi = super().get_sim_card_ids()[0]
        status, lines = self.send_at_cmd("AT+QCCID")
        found = self._match_regex("\\+QCCID:\\s+(\\d+)", lines) if status else None
        return (imsi, found.group(1) if found else None)

    # MQTT

    def _client(self, explicit):
        if not explicit and not self._mqtt_client_id:
            self._mqtt_client_id = 1
        return explicit or self._mqtt_client_id

    def mqtt_connect(
        self,
        server_ip,
        server_port,
        username,
        password,
        keepalive=120,
        device_id=get_device_id()[0],
        explicit_client_id=None,
    ):
        if not self.send_at_cmd('AT+QMTCFG="pdpcid",1')[0]:
            return False
        self.send_at_cmd('AT+QMTCFG="keepalive",1,%s' % keepalive)
        n = self._client(explicit_client_id)
        for _ in range(3):
            lines = self.send_at_cmd(
                'AT+QMTOPEN=%s,"%s",%s' % (n, server_ip, server_port),
                60000,
                "\\+QMTOPEN:\\s*%s,\\d" % n,
            )[1]
            found = self._match_regex("\\+QMTOPEN:\\s*%s,(-?\\d)" % n, lines)
            result = found.group(1) if found else ""
            if result == "0":
                break
            if result == "2":
                # Always the first client, whichever is asked for.
                self.mqtt_disconnect()
                sleep_ms(1000)
            elif not found and self._match_regex('\\+QIURC:\\s*"pdpdeact",1', lines):
                self.deactivate_context()
            sleep_ms(500)
        else:
            logging.error("Mqtt not ready")
            return False
        for _ in range(3):
            if self.send_at_cmd(
                'AT+QMTCONN=%s,"%s_%s","%s","%s"' % (n, device_id, n, username, password),
                15000,
                "\\+QMTCONN:\\s+%s,0,0" % n,
            )[0]:
                return True
            sleep_ms(500)
        return False

    def mqtt_is_connected(self, explicit_client_id=None):
        n = self._client(explicit_client_id)
        opened = self.send_at_cmd("AT+QMTOPEN?", 1000, "\\+QMTOPEN:\\s+%s.*" % n)[0]
        return self.send_at_cmd("AT+QMTCONN?", 1000, "\\+QMTCONN:\\s+%s,3" % n)[0] and opened

    def mqtt_publish(
        self, topic, message, num_of_retries=3, retain=False, qos=1, explicit_client_id=None
    ):
        # num_of_retries counts for nothing: the modem itself tries again.
        n = self._client(explicit_client_id)
        mid = random.randint(1, 65530) if qos else 0
        if not self.send_at_cmd(
            'AT+QMTPUB=%s,%d,%d,%d,"%s"' % (n, mid, 1 if qos else 0, 1 if retain else 0, topic),
            15000,
            ">.*",
        )[0]:
            logging.error("Mqtt not ready to send")
            sleep_ms(500)
            return False
        for _ in range(2):
            answered, lines = self.send_at_cmd(
                message + "\x1a", 15000, "\\+QMTPUB:\\s*\\d+,\\d+,[012]"
            )
            sent = any("%s,%d,%s" % (n, mid, r) in line for line in lines for r in "01")
            if answered:
                return sent
            logging.error("Mqtt publish failed")
            sleep_ms(500)
        return False

    def mqtt_get_message(self, topic, timeout_ms=5000, explicit_client_id=None):
        # Listens for all of timeout_ms when nothing comes. None also when it could not subscribe.
        n = self._client(explicit_client_id)
        mid = random.randint(1, 65530)
        lines = self.send_at_cmd(
            'AT+QMTSUB=%s,%d,"%s",1' % (n, mid, topic), timeout_ms, "\\+QMTRECV:.*"
        )[1]
        self.send_at_cmd('AT+QMTUNS=%s,%d,"%s"' % (n, mid, topic), 30000, "\\+QMTUNS:.*")
        for line in lines:
            if line.startswith("+QMTRECV:"):
                return self.extract_topic_message_without_regex(line)
        return None

    def extract_topic_message_without_regex(self, line):
        parts = line.split('"')
        topic = parts[1] if len(parts) > 1 else ""
        begin = line.find('"', line.find('"') + len(topic) + 2)
        if begin < 0:
            return {"topic": topic, "message": ""}
        return {"topic": topic, "message": line[begin + 1 :][: line.rfind('"') - begin - 1]}

    def mqtt_disconnect(self, explicit_client_id=None):
        n = self._client(explicit_client_id)
        if self.send_at_cmd("AT+QMTDISC=%s" % n, 20000, "\\++QMTDISC:\\s*%s,0" % n)[0]:
            return True
        return self.send_at_cmd("AT+QMTCLOSE=%s" % n, 30000, "\\+QMTCLOSE:.*")[0]

    # Files

    def get_file_size(self, source):
        # None where the file is not; an IndexError where the modem is silent.
        lines = self.send_at_cmd('AT+QFLST="%s"' % source)[1]
        found = re.match('\\+QFLST: ".*",(\\d+)', lines[0])
        return int(found.group(1)) if found else None

    def open_file_read_only(self, source):
        lines = self.send_at_cmd('AT+QFOPEN="%s",2' % source)[1]
        found = re.match("\\+QFOPEN:\\s+(\\d+)", lines[0])
        return found.group(1) if found else None

    def get_next_bytes_from_file(self, file_handle, num_of_bytes, timeout_ms=2000):
        # None after an error. Where the modem says nothing for half a second: a TypeError.
        while self.uart.any():
            self.uart.readline()
        command = "AT+QFREAD=%s,%d" % (file_handle, num_of_bytes)
        if not self.uart.write(command + "\r\n"):
            return None
        status = data = None
        end = ticks_add(ticks_ms(), timeout_ms)
        while ticks_diff(ticks_ms(), end) < 0:
            wdt_reset()
            if status is not None and not self.uart.any():
                break
            line = self.uart.readline()
            try:
                line = line if line is None else line.decode().strip()
            except UnicodeError:
                line = ""
            if line == "CONNECT %d" % num_of_bytes:
                data = self.uart.read(num_of_bytes)
            elif line != command:
                if re.search("^([\\w\\s\\+]+)?OK$", line):
                    status = True
                elif re.search("ERROR$|FAIL$|\\+CM[ES] ERROR", line):
                    status = False
            sleep_ms(50)
        return data if status else None

    def get_file(self, source, destination, timeoutms=250000):
        # A file that can not be opened: a TypeError. What was read is not compared in length: a
        # short piece becomes a short file, and True.
        size = self.get_file_size(source)
        if not size:
            return False
        handle = self.open_file_read_only(source)
        logging.debug("File opened with handle: " + handle)
        done = 0
        file = open(destination, "wb")
        while done < size:
            want = min(256, size - done)
            data = self.get_next_bytes_from_file(handle, want)
            if not data:
                logging.error("error reading file from modem")
                file.close()
                return False
            file.write(data)
            done += want
            sleep_ms(10)
        file.close()
        self.send_at_cmd("AT+QFCLOSE=" + handle)
        return done == size

    def delete_file(self, destination):
        return self.send_at_cmd('AT+QFDEL="%s"' % destination)[0]

    # HTTP

    def http_context_disconnect(self):
        return self.send_at_cmd("AT+QIDEACT=3")[0]

    def _set_url(self, url):
        if not self.send_at_cmd("AT+QHTTPURL=%d,80" % len(url), 8000, "CONNECT")[0]:
            return False
        return self.send_at_cmd(url, 80)[0]

    def http_get_file(self, url, destination_file, timeout_ms=250000):
        # (downloaded, size). The size is the server's word, whatever the status; downloaded is
        # True also when the modem says that it could not write or receive it.
        if not self.send_at_cmd('AT+QHTTPCFG="contextid",1')[0]:
            return (False, -1)
        self.send_at_cmd('AT+QHTTPCFG="requestheader",0')
        self.send_at_cmd('AT+QHTTPCFG="responseheader",0')
        if not self._set_url(url):
            self.http_context_disconnect()
            return (False, -1)
        done, lines = self.send_at_cmd("AT+QHTTPGET=80", timeout_ms, "\\+QHTTPGET:.*")
        found = self._match_regex("\\+QHTTPGET:\\s*(\\d+),(\\d+),(\\d+)", lines)
        size = int(found.group(3)) if found else -1
        if not done or size < 0:
            self.http_context_disconnect()
            return (False, size)
        done = self.send_at_cmd(
            'AT+QHTTPREADFILE="%s"' % destination_file, timeout_ms, "\\+QHTTPREADFILE:\\s*"
        )[0]
        return (done, size)

    def _with_header(self, command, name, url_base, head, timeout_ms):
        # The lines of the answer; None where it did not come so far.
        self.send_at_cmd('AT+QHTTPCFG="requestheader",1')
        self.send_at_cmd('AT+QHTTPCFG="responseheader",0')
        if not self._set_url("https://" + url_base):
            return None
        if not self.send_at_cmd(command, 125000, "CONNECT")[0]:
            return None
        done, lines = self.send_at_cmd(head, timeout_ms, "\\+%s:.*" % name)
        return lines if done else None

    @staticmethod
    def _head(method, route, url_base, auth_token, more=""):
        return (
            "%s %s HTTP/1.1\r\nHost: %s\r\nAccept: */*\r\nContent-Type: application/json\r\n"
            "%sAuthorization: %s\r\n\r\n" % (method, route, url_base, more, auth_token)
        )

    def http_get_with_auth_header(
        self, url_base, url_request_route, auth_token, destination_file, timeout_ms=60000
    ):
        if not self.send_at_cmd('AT+QHTTPCFG="contextid",1')[0]:
            return (False, -1)  # true, if one asks like that
        head = self._head("GET", url_request_route, url_base, auth_token)
        command = "AT+QHTTPGET=80,%d" % len(head)
        if self._with_header(command, "QHTTPGET", url_base, head, timeout_ms) is None:
            return None
        return self.send_at_cmd(
            'AT+QHTTPREADFILE="%s"' % destination_file, timeout_ms, "\\+QHTTPREADFILE:.*"
        )[0]

    def http_post_with_auth_header(
        self, url_base, url_request_route, auth_token, post_body, timeout_ms=60000
    ):
        import json

        if not self.send_at_cmd('AT+QHTTPCFG="contextid",1')[0]:
            return (False, -1)
        body = json.dumps(post_body) if isinstance(post_body, (dict, list)) else str(post_body)
        length = "Content-Length: %d\r\n" % len(body)
        head = self._head("POST", url_request_route, url_base, auth_token, length) + body
        command = "AT+QHTTPPOST=%d,80" % len(head)
        lines = self._with_header(command, "QHTTPPOST", url_base, head, timeout_ms)
        if lines is None:
            return None
        found = self._match_regex("\\+QHTTPPOST:\\s*(\\d+)", lines)
        return found and found.group(1) == "0"
