# The field's gpio_handler: pins only.

from machine import Pin


def set_pin_value(pin, value):
    if pin is not None:
        Pin(pin, Pin.OUT).value(value)
