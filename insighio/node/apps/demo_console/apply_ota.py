"""In the place of the field firmware's own: the web server installs what was uploaded."""


def do_apply(package_file=None):
    """Install an uploaded package through the agent's transaction. True when it was taken."""
    from ota_insighio.upload import do_apply

    return do_apply(package_file)
