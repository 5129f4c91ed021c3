"""The console's page: an ASGI application on a thread of its own, and what the browser loads."""

from host_sim.web.server import WebServer

__all__ = ["WebServer"]
