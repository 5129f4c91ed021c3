"""The floors of the heaps: what comes to the same end with what firmware freezes, and no care."""

import json


def check(path="/ota.json", window_bits=0, pins=None):
    """What the platform asks for, if anything: download, write, report, reset. Prints the end.

    window_bits: of the gzip, 0 for plain tar. The package goes into one file, as it unpacks.
    """
    with open(path) as file:
        config = json.load(file)
    heard = []
    client, topic = _connect(config, lambda _, payload: heard.append(payload))
    client.subscribe(topic, 1)
    client.ping()
    client.wait_msg()
    client.disconnect()
    if not heard:
        print("check: idle")
        return
    asked = {entry["n"]: entry.get("vs") for entry in json.loads(heard[0])}
    heard = client = None
    _download(config, asked["i"], window_bits)
    client, topic = _connect(config, None)
    client.publish(topic, b"", True, 1)
    client.publish(topic, b'[{"n":"e","v":1},{"n":"i","vs":"%s"}]' % asked["i"], False, 1)
    client.disconnect()
    print("check: confirmed")
    import machine

    machine.reset()


def check_in_pieces(pieces, whole=0, path="/ota.json", window_bits=0):
    """The same, with memory cut into pieces before."""
    from pieces import cut

    check(path, window_bits, cut(pieces, whole))


def use(path):
    """Prints the heap in use at the start and after an idle check."""
    from heap_user import used

    start = used()
    check(path)
    print("figures:", [start, used()])


def _connect(config, on_message):
    from umqtt.simple import MQTTClient

    mqtt, name = config["mqtt"], config["device_id"]
    client = MQTTClient(name, mqtt["host"], mqtt["port"], name, config["device_key"], 60)
    client.set_callback(on_message)
    client.connect()
    return client, "channels/%s/messages/%s/ota" % (config["control_channel"], name)


def _download(config, file_id, window_bits):
    import socket
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    with open("/ca.der", "rb") as file:
        context.load_verify_locations(cadata=file.read())
    host, port = config["server"].split(":")
    sock = socket.socket()
    sock.connect(socket.getaddrinfo(host, int(port))[0][-1])
    stream = context.wrap_socket(sock, server_hostname=host)
    head = (
        "GET /mf-rproxy/packages/download?fuid=%s&did=%s&dk=%s&cid=%s HTTP/1.0\r\nHost: %s\r\n\r\n"
    )
    ids = (file_id, config["device_id"], config["device_key"], config["control_channel"], host)
    stream.write((head % ids).encode())
    while stream.readline() != b"\r\n":
        pass
    unpack(stream, window_bits)
    stream.close()


def unpack(source, window_bits):
    """What a stream has into one file. window_bits: of its gzip, 0 for plain tar."""
    if window_bits:
        import deflate

        source = deflate.DeflateIO(source, deflate.GZIP, window_bits)
    buffer = bytearray(1024)
    view = memoryview(buffer)
    with open("/all", "wb") as out:
        n = 1
        while n:
            n = source.readinto(buffer)
            out.write(view[:n])
