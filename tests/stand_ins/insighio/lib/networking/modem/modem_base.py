# The field's driver of any modem: send_at_cmd(), and what all modems answer alike.

import logging
import re

import utils
from device_info import wdt_reset
from machine import UART, Pin
from utime import sleep_ms, ticks_add, ticks_diff, ticks_ms


class Modem:
    def __init__(self, power_on=None, power_key=None, modem_tx=None, modem_rx=None):
        self.connected = False
        self.ppp = None
        self.uart = None
        self.apn = None
        self.gps_timestamp = None
        self.gps_date = None
        self.data_over_ppp = True
        self.modem_power_on = power_on
        self.modem_power_key = power_key
        self.modem_tx = modem_tx
        self.modem_rx = modem_rx
        if modem_tx is not None and modem_rx is not None:
            self.reset_uart()

    def reset_uart(self):
        if self.uart is not None:
            self.uart.deinit()
        self.uart = UART(2, 115200, tx=self.modem_tx, rx=self.modem_rx)
        self.uart.init(
            115200,
            bits=8,
            parity=None,
            stop=1,
            tx=self.modem_tx,
            rx=self.modem_rx,
            timeout=500,
            timeout_char=100,
        )

    def has_data_over_ppp(self):
        return self.data_over_ppp

    # Power

    def is_alive(self):
        return self.send_at_cmd("AT", 1000)[0]

    def get_model(self):
        status, lines = self.send_at_cmd("ATI")
        return "\n".join(lines).lower() if status and len(lines) > 1 else None

    def power_on(self):
        Pin(self.modem_power_on, Pin.OUT).on()
        self._press(1200)
        if self.wait_for_modem_power_on("AT"):
            self.send_at_cmd("at+cmee=2")

    def _press(self, ms):
        key = Pin(self.modem_power_key, Pin.OUT)
        key.on()
        sleep_ms(ms)
        key.off()

    def wait_for_modem_power_on(self, command="AT"):
        for _ in range(10):
            if self.send_at_cmd(command, 500)[0]:
                return True
        return False

    def power_off(self):
        self._press(800)
        Pin(self.modem_power_on, Pin.OUT).off()

    # The network

    def init(self, ip_version, apn, technology, mcc_mnc=None):
        if not self.is_alive():
            return False
        for _ in range(5):
            if self.has_sim():
                break
            sleep_ms(500)
        else:
            return False
        self.apn = apn
        self.send_at_cmd("AT+CFUN=1")
        self.send_at_cmd('AT+CGDCONT=1,"%s","%s"' % (ip_version, apn))
        self.set_technology(technology)
        self.set_operator_selection(technology, mcc_mnc)
        for command in ("ATE0", "AT+COPS=3,2", "AT+CREG=2", "AT+CTZU=1"):
            self.send_at_cmd(command)
        return True

    def set_technology(self, technology):
        pass

    def set_operator_selection(self, technology, mcc_mnc=None):
        # Where the modem is set otherwise, or does not say: set, and a reset of the modem.
        try:
            mcc_mnc = str(int(mcc_mnc))
        except (TypeError, ValueError):
            mcc_mnc = "20201" if technology.lower() == "nbiot" else None
        mode = "0" if mcc_mnc is None else "1"
        self.send_at_cmd("AT+COPS=3,2")
        for _ in range(10):
            status, lines = self.send_at_cmd("AT+COPS?")
            found = (
                re.search('\\+COPS:\\s*(\\d)(,\\d+,"(\\d+)")?', "\n".join(lines))
                if status
                else None
            )
            if found and found.group(1) == mode and mode == "0":
                return
            if found and found.group(1) == mode and found.group(3) == mcc_mnc:
                return
            sleep_ms(500)
        self.send_at_cmd("AT+COPS=4,2," + mcc_mnc if mcc_mnc else "AT+COPS=0", 180000)
        self.send_at_cmd("AT+CFUN=1,1", 15000, "APP RDY")
        self.send_at_cmd("ATE0")

    def prioritizeWWAN(self):
        pass

    def prioritizeGNSS(self):
        pass

    def has_sim(self):
        return self.send_at_cmd("at+cimi")[0]

    def wait_for_registration(self, timeoutms=30000):
        end = ticks_add(ticks_ms(), timeoutms)
        first, by_operator = True, False
        while ticks_diff(ticks_ms(), end) < 0:
            if by_operator:
                if self.get_registered_mcc_mnc()[0] is not None:
                    return True
            else:
                status, lines = self.send_at_cmd("AT+CREG?")
                state = self._match_regex("\\+CREG:\\s+\\d,(\\d)", lines) if status else None
                state = state.group(1) if state else ""
                if state in ("1", "5"):
                    return True
                by_operator = state == "3" or (state == "0" and not first)
                first = first and state != "2"
            sleep_ms(100)
        return not by_operator and self.get_registered_mcc_mnc()[0] is not None

    def attach(self, do_attach=True):
        return self.send_at_cmd("at+cgatt=%d" % do_attach, 144000)[0]

    def detach(self):
        return self.attach(False)

    def is_attached(self):
        status, lines = self.send_at_cmd("at+cgatt?")
        return status and len(lines) > 0 and "+CGATT: 1" in lines[0]

    def is_connected(self):
        return False

    def disconnect(self):
        self.connected = False
        active = self.send_at_cmd("AT+CGACT=0,1", 150000)[0]
        return self.detach() and active

    def get_network_date_time(self):
        # (2000, 0, ...) when the network has not said it in ten seconds.
        end = ticks_add(ticks_ms(), 10000)
        while ticks_diff(ticks_ms(), end) < 0:
            status, lines = self.send_at_cmd("AT+CCLK?")
            found = (
                self._match_regex("(\\d+)/(\\d+)/(\\d+),(\\d+):(\\d+):(\\d+)([+-]\\d+)", lines)
                if status
                else None
            )
            if found and int(found.group(1)) + 2000 >= 2023:
                utils.saveKeyValueInteger("tz_sec_offset", int(found.group(7)) * 15 * 60)
                t = [int(found.group(n)) for n in range(1, 7)]
                return (t[0] + 2000, t[1], t[2], 0, t[3], t[4], t[5], 0)
            sleep_ms(250)
        return (2000, 0, 0, 0, 0, 0, 0, 0)

    def update_ntp_date_time(self):
        return False

    def get_rssi(self):
        status, lines = self.send_at_cmd("AT+CSQ")
        found = self._match_regex("\\+CSQ:\\s*(\\d+),", lines) if status else None
        step = int(found.group(1)) if found else 99
        return -113 + 2 * step if step <= 31 else -141

    def get_registered_mcc_mnc(self):
        self.send_at_cmd("AT+COPS=3,2")
        status, lines = self.send_at_cmd("AT+COPS?")
        found = self._match_regex('\\+COPS:\\s+\\d,2,"(\\d+)"', lines) if status else None
        if not found:
            return (None, None)
        return (int(found.group(1)[:3]), int(found.group(1)[3:5]))

    def get_sim_card_ids(self):
        status, lines = self.send_at_cmd("at+cimi")
        found = self._match_regex("(\\d+)", lines) if status else None
        return (found.group(1) if found else None, None)

    def get_modem_imei(self):
        status, lines = self.send_at_cmd("at+gsn")
        found = self._match_regex("(\\d+)", lines) if status else None
        return found.group(1) if found else None

    def _match_regex(self, regex, lines):
        for line in lines:
            found = re.search(regex, line)
            if found is not None:
                return found
        return None

    # One command

    def send_at_cmd(
        self, command, timeoutms=30000, success_condition="OK", extra_error_condition=""
    ):
        # (True, lines) after a line that begins with success_condition, (False, lines) after an
        # error or in the end, (None, [text]) when nothing could be sent. Never an exception.
        # NO CARRIER is no error here: it is waited on.
        if self.connected:
            return (None, ["error: ppp connection active"])
        if self.uart is None:
            return (None, ["error: invalid uart"])
        while self.uart.any():
            self.uart.readline()
        logging.debug("> " + command)
        if not self.uart.write(command + "\r\n"):
            return (None, ["error: can not send command"])
        good = "^([\\w\\s\\+]+)?" + success_condition
        bad = "ERROR|FAIL"
        if extra_error_condition:
            bad += "|" + extra_error_condition
        status, lines = None, []
        fed = ticks_ms()
        end = ticks_add(fed, timeoutms)
        wdt_reset()
        while True:
            now = ticks_ms()
            waiting = self.uart.any()
            if ticks_diff(now, end) >= 0:
                break
            if ticks_diff(now, fed) >= 1000:
                wdt_reset()
                fed = now
            if waiting:
                line = self._line(self.uart.readline())
                if line and line != command:
                    logging.debug("< " + line)
                    lines.append(line)
                    if re.search(good, line):
                        status = True
                    elif re.search(bad, line):
                        status = False
            elif status is not None:
                break
            sleep_ms(5)
        logging.debug("! status: %s" % bool(status))
        return (bool(status), lines)

    @staticmethod
    def _line(data):
        try:
            return data.decode().strip() if data else ""
        except UnicodeError:
            logging.error("! " + str(data))
            return ""
