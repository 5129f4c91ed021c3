# What the agent says of itself. Runs on the board.


def run():
    import json

    told = {}
    try:
        import ota

        told["version"] = getattr(ota, "__version__", None)
        told["file"] = ota.__file__
        told["status"] = ota.status()
    except Exception as error:
        told["error"] = "%s: %s" % (type(error).__name__, error)
    else:
        try:
            config = ota.load_config()
            told["config"] = {
                "server": config["server"],
                "mqtt": config["mqtt"],
            }
            # An older agent does not say how many boots a trial has; this is what it begins with.
            told["status"].setdefault("boots_most", config["trial_boots"])
        except Exception as error:
            told["config"] = str(error)
    print("@deploy", json.dumps(told))


run()
