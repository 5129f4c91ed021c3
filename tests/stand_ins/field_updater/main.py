# The field firmware's main loop, as far as an update is concerned: one check, then it sleeps.

import machine
from apps.demo_console import ota
from apps.demo_console.client import Client

print("main runs")
try:
    ota.checkAndApply(Client())
except Exception as error:  # as the field's scenario does: it goes on, and sleeps
    import sys

    sys.print_exception(error)
machine.deepsleep(60000)
