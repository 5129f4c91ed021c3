# Stands in for the adapter where only the migration is tried: what it owes to arrive.py.

import json


def check(client):
    from . import arrive

    if arrive.settle():
        client.disconnect()
        import machine

        machine.reset()
    heard = client.get_control_message()
    if heard is None:
        print("adapter: nothing waits")
        return
    from ota.request import parse

    request = parse(heard["message"])
    verdict = arrive.verdict(request)
    if not verdict:
        print("adapter: the agent hears", heard["message"])
        return
    # As the agent reports a refusal, but for the order: it keeps a report that a cut delays.
    pack = [
        {"n": "e", "v": 2},
        {"n": "i", "vs": request.file_id},
        {"n": "m", "vs": "refused: " + verdict[1]},
    ]
    client.send_control_packet(arrive.said(json.dumps(pack).encode()).decode(), "/ota")
    client.clear_retained(heard["topic"])
