# What wifi.py and cellular.py both have in the field.

from external.kpn_senml.senml_pack_json import SenmlPackJson
from external.kpn_senml.senml_record import SenmlRecord


def create_message(device_id, measurements):
    message = SenmlPackJson(None if device_id is None else device_id + "-")
    for name, record in measurements.items():
        if not isinstance(record, dict):
            if record is not None:
                message.add(SenmlRecord(name, record))
        elif name == "dt":
            message.base_time = record["value"]
        else:
            message.add(SenmlRecord(name, record["value"], record.get("unit")))
    return message.to_json()
