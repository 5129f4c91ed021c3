"""`package`: the group of the commands on packages."""

from __future__ import annotations

from host_sim.command import Entry, Lazy

_COMMANDS = "insigh_ota.package.commands:"

package = Lazy(
    "package",
    help="Packages for nodes: build, inspect or verify one; make keys; make the package of a "
    "migration.",
    sections={
        "Commands": {
            "build": Entry(_COMMANDS + "build", "make a package from a folder or from git"),
            "inspect": Entry(_COMMANDS + "inspect", "what is in a package"),
            "verify": Entry(_COMMANDS + "verify", "check signature, files and their order"),
            "keygen": Entry(_COMMANDS + "keygen", "make an RSA-3072 key"),
            "migrate": Entry(
                "insigh_ota.package.migrate:migrate", "from the field's updater to this one"
            ),
        }
    },
)
