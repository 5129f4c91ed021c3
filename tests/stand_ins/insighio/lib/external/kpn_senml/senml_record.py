class SenmlRecord:
    def __init__(self, name, value=None, unit=None):
        self.name = name
        self.value = value
        self.unit = unit
