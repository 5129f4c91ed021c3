# The field's view of its configuration, demo_config.py.

import logging

is_temp_config = False
try:
    from apps import demo_temp_config as _cfg

    is_temp_config = True
except Exception:
    try:
        from . import demo_config as _cfg
    except Exception:

        class _cfg:
            pass


logging.info("[cfg] loaded config: %s" % getattr(_cfg, "__name__", "fallback"))


def has(key):
    return hasattr(_cfg, key)


def get(key):
    return getattr(_cfg, key, None)


def set(key, value):
    setattr(_cfg, key, value)
    return True


def get_protocol_config():
    return _cfg.get_protocol_config()


def get_cfg_module():
    return _cfg


def is_temp():
    return is_temp_config
