# The few units that the stand-ins name.


class SenmlUnits:
    SENML_UNIT_DEGREES_CELSIUS = "Cel"


class SenmlSecondaryUnits:
    SENML_SEC_UNIT_MILLISECOND = "ms"
    SENML_SEC_UNIT_DECIBEL_MILLIWATT = "dBm"
