"""The control channel on an application's own MQTT client, which gets it back as it was."""

import sys
import time

from micropython import const

from .control import Control
from .errors import Transient, name_of
from .link import Link

# How often messages are listened to during a download.
_SERVICE_MS = const(250)
_LONGEST_READ = const(1 << 20)
_REASON = const("can not connect")
_NOT_CONNECTED = const("the application's client is not connected")


class Borrowed(Control):
    """A Control that uses client (connected, shaped as umqtt.simple's) in place of one of ours.

    What is not for the agent goes to the application's callback as ever.
    """

    def __init__(self, config, limits, client, seen):
        super().__init__(config, limits, None, seen)
        self._theirs = client
        self._service_at = time.ticks_ms()

    def service(self):
        """Let the application hear what has come; for the time of a download."""
        now = time.ticks_ms()
        if self.link and time.ticks_diff(now, self._service_at) >= 0:
            self._service_at = time.ticks_add(now, _SERVICE_MS)
            try:
                from .serve import listen

                listen(self, 0)
            except Transient:
                pass  # the report will meet it again

    def close(self):
        """Give the client back."""
        client, self.client = self.client, None
        link, self.link = self.link, None
        if client:
            client.wait_msg = self._wait_msg
            client.set_callback(self._callback)
            if isinstance(client.sock, Link):  # if not, a callback has connected it again
                client.sock = self.socket
            if link:
                try:
                    link.flush()
                except OSError:
                    pass  # the application will meet it as well
                self.socket.setblocking(True)

    def open(self):
        """As Control's."""
        client = self._theirs
        if self.client:
            self.close()
        link = client.sock
        if not link:
            raise Transient(_REASON, _NOT_CONNECTED)
        self._callback, self.socket, self._wait_msg = client.cb, link, client.wait_msg
        parent = _parent(client)
        self.prepare(client, (lambda: parent.wait_msg(client)) if parent else client.wait_msg)
        if not hasattr(link, "readable"):  # that of an adapter is a Link already, in its shape
            # Its messages may be long.
            link = Link(self.limits, _LONGEST_READ)
            try:
                link.wire.adopt(client.sock)
            except OSError:  # it is closed
                raise Transient(_REASON, _NOT_CONNECTED)
            client.sock = link
        self.link = link

    def on_message(self, topic, payload):
        """As Control's; what is not for the agent goes to the application."""
        if topic == self.topic:
            super().on_message(topic, payload)
        else:
            try:
                if self._callback:
                    self._callback(topic, payload)
            except Exception as error:
                # The application's: it must not stand between an install and its report.
                print("ota: the application's callback failed,", name_of(error))
            # Not before: it may have published, and so have heard an acknowledgement.
            self.heard = True

    def ask(self, name, *args):
        """As Control's."""
        parent = _parent(self.client)
        if parent:
            return self.call(getattr(parent, name), self.client, *args)
        return super().ask(name, *args)


def _parent(client):
    """umqtt.simple's class, whose methods end; those of umqtt.robust try for ever."""
    umqtt = sys.modules.get("umqtt.simple")  # if not there, the firmware is for another client
    return umqtt.MQTTClient if umqtt and isinstance(client, umqtt.MQTTClient) else None
