# A SenML pack, as far as the stand-ins use it; the field's is a submodule.

import json

from .senml_record import SenmlRecord


class SenmlPackJson:
    def __init__(self, name=None):
        self.base_name = name
        self.base_time = None
        self._records = []

    def add(self, record):
        self._records.append(record)

    def __iter__(self):
        return iter(self._records)

    def from_json(self, text):
        for entry in json.loads(text):
            value = None
            for key in ("v", "vs", "vb"):
                value = entry.get(key, value)
            self.add(SenmlRecord(entry["n"], value, entry.get("u")))

    def to_json(self):
        pack = []
        for record in self._records:
            value = record.value
            key = "vb" if isinstance(value, bool) else "vs" if isinstance(value, str) else "v"
            entry = {"n": record.name, key: value}
            if record.unit:
                entry["u"] = record.unit
            pack.append(entry)
        if pack and self.base_name:
            pack[0]["bn"] = self.base_name
        if pack and self.base_time:
            pack[0]["bt"] = self.base_time
        return json.dumps(pack)
