# Of the field's web server: POST /api/upload_ota. In the field it waits for a minute after a
# power-on, here for nothing; a package comes from the port of the host that UPLOAD_PORT names.

import logging
import os

import machine
import utils
from utime import sleep_ms


def requestReboot():
    import _thread

    def reboot():
        sleep_ms(2000)
        machine.reset()

    _thread.start_new_thread(reboot, ())


class UploadOTA:
    def post(self, data):
        if not data:
            return {"error": "no data"}, 400
        from apps.demo_console import ota

        if not ota.hasEnoughFreeSpace(len(data)):
            logging.error("Not enough free space for OTA file")
            return {"error": "not enough space"}, 500
        path = "/ota_upload.tar"  # whatever it is
        try:
            with open(path, "wb") as file:
                file.write(data)
        except Exception as e:
            logging.exception(e, "Error writing OTA file")
            return {"error": "error writing file"}, 500
        from apps.demo_console import apply_ota

        if not apply_ota.do_apply(path):
            logging.error("Failed to apply OTA update")
            return {"error": "failed to apply ota"}, 500
        utils.writeToFlagFile("/ota_applied_flag", "done")
        requestReboot()
        return {"success": True}, 200


def start(timeoutMs=120000):
    port = os.getenv("UPLOAD_PORT")
    if not port:
        return
    import socket

    sock = socket.socket()
    sock.connect(socket.getaddrinfo("127.0.0.1", int(port))[0][-1])
    data = sock.read()
    sock.close()
    result = UploadOTA().post(data)
    print("upload_ota:", result)
    if result[1] == 200:
        sleep_ms(10000)  # it serves on until the reboot
