"""The simulated platform: a broker, the package server and everything they were told.

Use it as `with Console(directory) as console:`, tell it devices and packages, `request` an update
and `wait_for_report`.
"""

from host_sim.console.core import Console, Ports
from host_sim.console.faults import Faults
from host_sim.console.journal import Download, Message, PlainRequest, Report
from host_sim.console.registry import Device, Package
from host_sim.console.state import DeviceView, Event

__all__ = [
    "Console",
    "Device",
    "DeviceView",
    "Download",
    "Event",
    "Faults",
    "Message",
    "Package",
    "PlainRequest",
    "Ports",
    "Report",
]
