"""How a broker lets the node in, and what is said of a connection to it that is lost."""

import gc

from micropython import const

from .errors import Transient, name_of

_REASON = const("can not connect")


def enter(config, link):
    """A client whose socket is link, a Link to a broker that has let it in. Raises Transient."""
    mqtt = config["mqtt"]
    try:
        import umqtt.simple as umqtt

        gc.collect()  # as Agent.approach() does
        user, key = _plain(config["device_id"]), _plain(config["device_key"])
        client = umqtt.MQTTClient(user, mqtt["host"], mqtt["port"], user, key, mqtt["keepalive"])
        sockets = umqtt.socket
        try:
            # umqtt.simple opens its socket itself, without a time limit on every release before
            # 1.25, and knows no verified TLS on some. So it is handed one that is open already.
            umqtt.socket = _Sockets()
            umqtt.socket.socket = link.connect
            client.connect()
        finally:
            umqtt.socket = sockets
        return client
    except (MemoryError, ImportError, NameError, SyntaxError):
        link.wire.close()
        raise
    except Exception as error:
        link.wire.close()
        link.wire.limits.step()
        lose(error)


def _plain(text):
    # umqtt.simple counts characters where MQTT wants bytes. A text that is plain takes no copy.
    data = text.encode()
    return text if len(text) == len(data) else data


class _Sockets:
    """In the place of umqtt.simple's module socket: it opens a connection that is there."""

    def getaddrinfo(self, *_):
        return ((None,),)


def lose(error):
    """Raise the Transient for what has ended a connection to the broker."""
    if isinstance(error, OSError):
        detail = name_of(error)
    elif type(error).__name__ == "MQTTException":
        detail = "refused by the broker, code %s" % error.args[0]
    else:
        # umqtt.simple's protocol checks, where it has any, are asserts and indexes.
        detail = "the broker's answer makes no sense, " + type(error).__name__
    raise Transient(_REASON, detail)
