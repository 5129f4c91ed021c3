"""`python -m host_sim`: the simulator's commands, and the campaigns of those who develop it."""

from __future__ import annotations

from host_sim.command import Entry, Lazy

_CAMPAIGNS = "host_sim.campaigns."

DEMO = Entry("host_sim.demo:demo", "the whole story, live", simulator=True)
CONSOLE = Entry(
    "host_sim.console.cli:console", "the simulated platform, or a command to one that runs"
)
#: What people use, also by `insigh-ota`.
NODES = {
    "flash": Entry(
        "host_sim.node.flash:flash_group", "make and read flash images of a node", simulator=True
    ),
    "node": Entry(
        "host_sim.node.node:node", "boot the virtual node from a flash image", simulator=True
    ),
    "board": Entry(
        "host_sim.board.cli:board", "the virtual node on a port, for mpremote", simulator=True
    ),
    "powercut": Entry(
        _CAMPAIGNS + "powercut.cli:powercut",
        "cut the power at every flash operation, judge what comes back",
        simulator=True,
    ),
}


def _campaign(place: str, text: str) -> Entry:
    return Entry(place, text, simulator=True)


simulator = Lazy(
    "host_sim",
    help="The simulator: a platform, nodes, and campaigns against the agent.",
    sections={
        "Look": {"demo": DEMO, "console": CONSOLE},
        "Virtual nodes": NODES,
        "Campaigns and measurements": {
            "badlink": _campaign(
                _CAMPAIGNS + "badlink.cli:badlink",
                "cut and silence the link everywhere, judge what comes of it",
            ),
            "fuzz": _campaign(
                _CAMPAIGNS + "fuzz.cli:fuzz",
                "feed mutated archives and messages to the agent inside MicroPython",
            ),
            "scripts": _campaign(
                _CAMPAIGNS + "scripts.cli:scripts",
                "random faults in a row of wakes, and one rule for the end",
            ),
            "orders": _campaign(
                _CAMPAIGNS + "orders.cli:orders",
                "cancel and replace at any moment, with power cuts, and one rule for it",
            ),
            "lives": _campaign(
                _CAMPAIGNS + "lives.cli:lives",
                "random lives of a node, watched by a model that knows what is right",
            ),
            "wakes": _campaign(
                _CAMPAIGNS + "wakes.cli:wakes",
                "random schedules of wakes that each fetch a part, and one rule for the end",
            ),
            "fleet": _campaign(
                _CAMPAIGNS + "fleet.cli:fleet",
                "many nodes at one Mosquitto and one console, asked at once",
            ),
            "brokers": _campaign(
                _CAMPAIGNS + "brokers.cli:brokers",
                "what a node hears on each broker, and how long it waits for it",
            ),
            "bench": _campaign(
                "host_sim.bench.cli:bench", "measure flash, heap, code, wear and time"
            ),
            "frozen": _campaign(
                "host_sim.bench.built:frozen", "heap of the agent frozen, in ROMFS, on flash"
            ),
            "ram": _campaign("host_sim.esp32.cli:ram", "a model of an ESP32's growing heap"),
        },
    },
)
