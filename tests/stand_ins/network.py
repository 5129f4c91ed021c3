# For the examples: a network that is there.

STA_IF = 0


class WLAN:
    def __init__(self, _interface):
        self._connected = False

    def active(self, _on):
        pass

    def isconnected(self):
        return self._connected

    def connect(self, _ssid, _password):
        self._connected = True
