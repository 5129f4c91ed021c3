# For examples/cellular_modem: a modem that is spoken to in AT commands, or rather their effects.

import select
import socket
import ssl


class Modem:
    def __init__(self):
        self._connections = {}
        self._is_on = False
        self._count = 0

    def on(self):
        self._is_on = True

    def off(self):
        self._is_on = False

    def open(self, host, port, tls):
        if not self._is_on:
            raise OSError("AT+QIOPEN: ERROR")
        sock = socket.socket()
        sock.connect(socket.getaddrinfo(host, port)[0][-1])
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        stream = sock
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.verify_mode = ssl.CERT_REQUIRED
            with open("/ca.der", "rb") as file:
                context.load_verify_locations(cadata=file.read())
            stream = context.wrap_socket(sock, server_hostname=host)
        sock.setblocking(False)
        self._count += 1
        self._connections[self._count] = [stream, poller, True]
        print("AT+QIOPEN", self._count, "ssl" if tls else "tcp")
        return self._count

    def send(self, n, data):
        stream, _, is_open = self._connections[n]
        if not is_open:
            raise OSError("AT+QISEND: ERROR")
        while data:
            data = data[stream.write(data) or 0 :]

    def receive(self, n, most):
        connection = self._connections[n]
        data = connection[0].read(most)
        if data == b"":
            connection[2] = False
        return data or b""

    def is_open(self, n):
        return n in self._connections and self._connections[n][2]

    def close(self, n):
        self._connections.pop(n)[0].close()
        print("AT+QICLOSE", n)
