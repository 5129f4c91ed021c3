# A stand-in of the field's updater, written for these tests: it does in the same order what that
# one does to flash and platform, and has its weaknesses.

import json
import os


def checkAndApply(client):
    if client is None:
        return False
    heard = client.get_control_message()
    if heard is None:
        print("field: nothing waits")
        return
    topic = heard["topic"].decode()
    found = {row["n"]: row.get("v", row.get("vs")) for row in json.loads(heard["message"])}
    if found["e"] != 0:
        return
    print("field: hears", found["i"])
    package = "/" + found["i"] + found["t"]
    if not hasEnoughFreeSpace(found["s"]):
        _report(client, found["i"], 2)
        return
    from .client import ask

    sock = ask("package " + found["i"])
    with open(package, "wb") as file:
        while True:
            piece = sock.read(1024)
            if not piece:
                break
            file.write(piece)
    sock.close()
    from . import apply_ota

    if not apply_ota.do_apply(package):
        _report(client, found["i"], 2)
        client.clear_retained(topic)
        return
    _report(client, found["i"], 1)
    client.clear_retained(topic)
    with open("/ota_applied_flag", "w") as file:
        file.write("done")
    client.disconnect()
    import machine

    machine.reset()


def hasEnoughFreeSpace(size):
    stat = os.statvfs("/")
    return size < stat[0] * stat[3]


def _report(client, file_id, event):
    pack = [{"n": "e", "v": event}, {"n": "i", "vs": file_id}]
    client.send_control_packet(json.dumps(pack), "/ota")
