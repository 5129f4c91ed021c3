# A Wi-Fi that is there.

STA_IF = 0
AP_IF = 1
_connected = False


class WLAN:
    def __init__(self, interface):
        pass

    def active(self, on=None):
        return True

    def isconnected(self):
        return _connected

    def connect(self, ssid, password):
        global _connected
        _connected = True

    def ifconfig(self):
        return ("127.0.0.1", "255.0.0.0", "127.0.0.1", "127.0.0.1")

    def status(self, what=None):
        return -50

    def disconnect(self):
        global _connected
        _connected = False
