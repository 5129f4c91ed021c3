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

    def disconnect(self):
        global _connected
        _connected = False
