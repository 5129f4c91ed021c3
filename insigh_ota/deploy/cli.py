"""The commands on boards, as they stand in the command line."""

from __future__ import annotations

from host_sim.command import Entry, Lazy

_COMMANDS = "insigh_ota.deploy.commands:"

ON_BOARDS = {
    "provision": Entry(_COMMANDS + "provision", "write down who a node is"),
    "deploy": Entry(_COMMANDS + "deploy", "the agent, boot.py and /ota.json onto a board"),
    "ca": Entry(_COMMANDS + "ca", "the trust anchors onto a board"),
    "status": Entry(_COMMANDS + "status", "what runs on a board"),
    "undeploy": Entry(_COMMANDS + "undeploy", "take it all off a board again"),
}
FOR_BUILDERS = {
    "romfs": Entry(_COMMANDS + "romfs", "an image of the agent for a firmware's ROMFS"),
    "dist": Entry(_COMMANDS + "dist", "package.json and dist/ for mip, in a checkout"),
}

#: `python -m insigh_ota.deploy`.
boards = Lazy(
    "deploy",
    help="The agent on boards. The Makefile has a target for each command.",
    sections={"Boards": ON_BOARDS, "Firmware builders and mip": FOR_BUILDERS},
)
