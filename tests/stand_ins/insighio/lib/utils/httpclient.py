# The field's HTTP client: TLS without verification, HTTP/1.0, and the body to a file whatever the
# status and however short it is.

import socket
import ssl

from device_info import wdt_reset


class Response:
    def __init__(self, stream, status, reason, saveToFile):
        self.status_code = status
        self.reason = reason
        self._stream = stream
        self._file = saveToFile
        if saveToFile is not None:
            with open(saveToFile, "w") as file:
                while True:
                    piece = stream.read(512)
                    if not piece:
                        break
                    wdt_reset()
                    file.write(piece)
            self.close()

    @property
    def content(self):
        if self._file is not None:
            raise SystemError("the content is in " + self._file)
        try:
            return self._stream.read()
        finally:
            self.close()

    def close(self):
        if self._stream:
            self._stream.close()
            self._stream = None


class HttpClient:
    def __init__(self, headers={}):
        self._headers = headers

    def get(self, url, saveToFile=None):
        scheme, _, host, path = url.split("/", 3)
        if scheme not in ("http:", "https:"):
            raise ValueError("Unsupported protocol: " + scheme)
        host, _, port = host.partition(":")
        port = int(port) if port else 443 if scheme == "https:" else 80
        stream = socket.socket()
        try:
            stream.connect(socket.getaddrinfo(host, port)[0][-1])
            if scheme == "https:":
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.verify_mode = ssl.CERT_NONE
                stream = context.wrap_socket(stream, server_hostname=host)
            lines = ["GET /%s HTTP/1.0" % path, "Host: " + host]
            lines += ["%s: %s" % item for item in self._headers.items()]
            stream.write(("\r\n".join(lines) + "\r\n\r\n").encode())
            parts = stream.readline().split(None, 2)
            status = int(parts[1])
            moved = False
            while True:
                line = stream.readline()
                if line in (b"", b"\r\n"):
                    break
                if line.startswith(b"Transfer-Encoding:") and b"chunked" in line:
                    raise ValueError("Unsupported " + line.decode())
                moved = moved or line.startswith(b"Location:")
        except OSError:
            stream.close()
            raise
        if moved and not 200 <= status <= 299:
            stream.close()
            raise NameError("kw")  # it never followed a redirection
        return Response(stream, status, parts[-1].strip(), saveToFile)
