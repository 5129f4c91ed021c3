"""A cellular modem of the BG600 and BG95 family at a UART of the virtual node.

    with Modem(ca=console.ca_pem, registration_s=310) as modem:
        Node(image, uarts={2: modem.port}).run()

It answers AT commands as the real one does, and does the work behind them: MQTT with a real
broker, HTTP and HTTPS, a store of files that survives resets. Its time is the node's, so that long
waits cost none. `fail` says what is to go wrong.
"""

from host_sim.modem.faults import Fault
from host_sim.modem.modem import Modem

__all__ = ["Fault", "Modem"]
