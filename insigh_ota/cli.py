"""`insigh-ota`: what the installed script calls. Nothing is imported before Ctrl-C is quiet."""


def main() -> int:
    """Run the command line of this process; returns its exit code."""
    from host_sim import first  # noqa: F401
    from host_sim import ctrl_c  # isort: skip

    ctrl_c.watch()
    from insigh_ota.commands import main as run

    return ctrl_c.run(run)
