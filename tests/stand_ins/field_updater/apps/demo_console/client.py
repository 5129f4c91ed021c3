# The field's transfer client, on the platform of tests/insighio/field.py: a line, an answer.

import os
import socket

TOPIC = "channels/c/messages/d/ota"


def ask(line):
    sock = socket.socket()
    sock.connect(socket.getaddrinfo("127.0.0.1", int(os.getenv("PLATFORM")))[0][-1])
    sock.write(line.encode() + b"\n")
    return sock


def _answer(line):
    sock = ask(line)
    text = sock.read()
    sock.close()
    return text


class Client:
    modem_based = False

    def get_control_message(self):
        message = _answer("get")
        return {"topic": TOPIC.encode(), "message": message} if message else None

    def clear_retained(self, topic):
        print("clear", topic)
        _answer("clear")

    def send_control_packet(self, message, subtopic):
        print("report", message)
        _answer("report " + message)

    def disconnect(self):
        pass
