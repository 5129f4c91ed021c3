"""The update agent in the place of the insighioNode firmware's own updater.

`check(client)` is what that firmware calls as `checkAndApply(client)`, with the transfer client
that it has connected. insighio/README.md says what else has to be on the node.
"""

import gc
import json
import logging
import os
import sys
import time

import device_info
import ota
from ota.errors import OtaError, name_of

# Texts of e:2 that the platform knows from the field's updater.
_FIELD_TEXTS = ("not enough space", "can not download", "can not apply")
# What is left of a migration: arrive.py. And what its request is answered when it is done.
_ARRIVAL = "/ota_insighio/arrival"
_MIGRATED = "the migration is done already"
# What makes the firmware call this package: a release with its own would remove it.
_SHIMS = ("/apps/demo_console/ota.py", "/apps/demo_console/apply_ota.py")
# Where the web server writes an upload: upload.py.
UPLOADED = "/ota_upload.tar"
# A trial lasts so many days at least, and so many of the node's uploads on top of that.
_TRIAL_DAYS = 14
_TRIAL_UPLOADS = 8
_DAY_S = 86400
# What a boot takes beside connecting and waiting for a position: sensors, upload, update.
_BOOT_S = 600
_DEADLINE_S = 900
_WAITS = (
    "_MAX_ATTACHMENT_ATTEMPT_TIME_SEC",
    "_MAX_CONNECTION_ATTEMPT_TIME_SEC",
    "_MEAS_GPS_TIMEOUT",
)


def check(client):
    """Look for a package; what an earlier wake left open is finished first.

    client: the connected transfer client, or None. Does not return when the node was updated: it
    resets. False without a client, else None. Raises nothing of its own; what is not about
    packages (configuration, commands) goes to the field's updater, and may raise or reset there.
    """
    if client is None:
        logging.debug("OTA: no active transfer client")
        return False
    others = {}
    try:
        others = _run(client)
    except Exception as error:
        logging.error("OTA: %s" % _told(error))
        _count_wake()
    _forget()
    for topic in others:
        _pass_on(client, _text(topic), _text(others[topic]))
    return None


def _told(error):
    """What may be told of it: the text of the configuration's holds no secret."""
    return error if isinstance(error, OtaError) else name_of(error)


def _text(value):
    """The str; the bytes as they are where they are none."""
    try:
        return value.decode()
    except UnicodeError:
        return value


def _run(client):
    """One check. Returns what was heard that is not about packages: {topic: payload}, bytes."""
    _settle(client)
    try:
        os.remove(UPLOADED)  # a power cut has left it
    except OSError:
        pass
    try:
        job = _job(client, configuration())
    except (OtaError, ValueError, TypeError) as error:
        if _is_open():
            raise  # a version is on trial that could not be updated again
        # Commands are heard in any case, from whoever can mend it.
        logging.error("OTA: /ota.json can not be used, %s" % _told(error))
        job = _job(client, configuration(False))
        if job:
            job.closed = True
    if not job:
        logging.info("OTA: not over this protocol")
        if not getattr(client, "is_secondary_transfer_protocol", False):
            _count_wake()
        return {}
    agent = job.agent
    outcome = agent.check()
    logging.info("OTA: %s %s" % (outcome, agent.reason or ""))
    return job.others


def _job(client, config):
    """The Job of this check; None where the client has no channel for it."""
    from .channel import channel_of

    channel = channel_of(client, config, device_info.wdt_reset)
    return channel and Job(client, channel)


def _is_open():
    """Whether a version is on trial."""
    try:
        os.stat("/.ota/state")
        return True
    except OSError:
        return False


def _count_wake():
    """Count this wake against a trial: the node is connected, and the agent has no channel."""
    if not _is_open():
        return
    try:
        from apps.demo_console import cfg

        if cfg.get("protocol") == "coap":
            return  # whoever chose it: no version has a channel there. `trial_days` ends it
        from ota.install.transaction import count_failed_wake

        count_failed_wake()
    except (MemoryError, OSError) as error:
        logging.error("OTA: not counted, " + name_of(error))
    except Exception:
        import machine

        machine.reset()  # then it is boot.py that counts


def _settle(client):
    """Finish a migration that has come over the air. Does not return where that takes a reset."""
    try:
        os.stat(_ARRIVAL)
    except OSError:
        return
    from .arrive import settle

    leaving = _Leaving(client)
    try:
        due = settle()
    except OSError as error:
        # littlefs may be wrong in RAM: on a fresh mount it goes on, and the application may write.
        logging.error("OTA: the migration, " + name_of(error))
        from ota.install.transaction import reset_after_flash_error

        reset_after_flash_error(leaving)
        raise
    if due:
        leaving.reset()


class _Leaving:
    """What reset_after_flash_error() asks of an agent."""

    def __init__(self, client):
        self.born = time.ticks_ms()
        self._client = client

    def reset(self):
        """Leave the network and reset the node."""
        import machine

        try:
            self._client.disconnect()
        except Exception as error:
            logging.error("OTA: not disconnected, " + name_of(error))
        machine.reset()


def _forget():
    """Give the application the memory back."""
    for name in list(sys.modules):
        if name.startswith(__name__ + "."):
            del sys.modules[name]
            globals().pop(name.rsplit(".", 1)[1], None)
    gc.collect()


def has_enough_free_space(size):
    """Whether the web server may store a package of so many bytes, with what is staged of it."""
    from .upload import has_enough_free_space

    return has_enough_free_space(size)


def configuration(ours=True):
    """The agent's configuration: /ota.json where it is there, and who the node is from the cfg.

    ours: False leaves out /ota.json. Returns a dict for ota.Agent. Raises OSError, ValueError.
    """
    from apps.demo_console import cfg

    config = {}
    try:
        if ours:
            with open("/ota.json") as file:
                config = json.load(file)
    except OSError as error:
        if error.errno != 2:
            raise
    if not isinstance(config, dict) or not isinstance(config.get("mqtt", {}), dict):
        raise ValueError("not an object")
    for key, value in _limits(cfg).items():
        config.setdefault(key, value)
    protected = config.setdefault("protected", [])
    if type(protected) is list:  # else the agent says so
        protected += [path for path in _SHIMS if path not in protected]
    field = cfg.get_protocol_config()
    config["device_id"] = field.thing_id
    config["device_key"] = field.thing_token
    config["control_channel"] = field.control_channel_id
    config["server"] = server_of(field.server_ip)
    # The connection is the client's: all that counts of this is how long to listen on it.
    mqtt = {"tls": False, "keepalive": 0}
    if "grace_ms" in config.get("mqtt", ()):
        mqtt["grace_ms"] = config["mqtt"]["grace_ms"]
    config["mqtt"] = mqtt
    return config


def server_of(address):
    """The server as a URL needs it: a bare IPv6 address in brackets."""
    if address.count(":") > 1 and address[0] != "[":
        return "[%s]" % address
    return address


def _limits(cfg):
    """How long a trial may take on this node, by the field's own settings."""
    interval_s = _number(cfg, "_DEEP_SLEEP_PERIOD_SEC")
    awake = cfg.get("_LIGHT_SLEEP_ON")
    if awake:
        interval_s = _number(cfg, "_ALWAYS_ON_PERIOD") or interval_s
    # With a batch the node connects once in so many wakes.
    interval_s *= max(1, _number(cfg, "_BATCH_UPLOAD_MESSAGE_BUFFER"))
    days = _TRIAL_DAYS + _TRIAL_UPLOADS * interval_s // _DAY_S
    deadline_s = _BOOT_S
    for name in _WAITS:
        deadline_s += _number(cfg, name)
    if awake:
        deadline_s += 2 * interval_s  # it waits for its batch without a deep sleep
    limits = {
        "trial_days": min(days, 365),
        "trial_deadline_s": min(max(deadline_s, _DEADLINE_S), _DAY_S),
    }
    period_s = _watchdog_s()
    if period_s:
        # Two waits may follow each other before anything feeds it.
        limits["timeout_s"] = max(1, min(20, period_s // 2 - 1))
    return limits


def _number(cfg, name):
    value = cfg.get(name)
    return int(value) if isinstance(value, (int, float)) else 0


def _watchdog_s():
    """The period of the field's watchdog in s, None where none runs."""
    return getattr(device_info, "wdt", None) and getattr(device_info, "wdt_timeout", None)


class Job:
    """One check: the agent, and what the field's updater does around it."""

    def __init__(self, client, channel):
        self._client = client
        self._channel = channel
        channel.said = as_the_field_says
        self._request = self._file = None
        self.closed = False  # nothing may be installed: nobody knows which keys count
        self._installed = False
        config = channel.config
        self.agent = ota.Agent(
            config,
            client=channel,
            policy=self._policy,
            progress=self._progress,
            # Where the field has none, the agent feeds the trial's.
            watchdog=self if getattr(device_info, "wdt", None) else None,
            open_stream=self._open if client.modem_based else None,
        )
        # Nobody tells of the end where the report has to wait for the confirm.
        self._late = config.get("report") == "confirmed"
        self._tells = config.get("stat")

    @property
    def others(self):
        """What was heard that is not about packages: {topic: payload}, bytes."""
        return self._channel.others

    def feed(self):
        """As machine.WDT's."""
        device_info.wdt_reset()

    def _policy(self, request):
        self._request = request
        if self.closed:
            return "later"
        if request.size % 512 and request.kind == ".tar":  # no other .tar has such a size
            from .arrive import verdict

            return verdict(request) or "go"
        return "go"

    def _open(self, url):
        from .modem_file import ModemFile

        self._file = ModemFile(self._channel, url, self._request)
        return self._file

    def _progress(self, step, value):
        if step == "install":
            # As the field's updater does between the install and its reset.
            import utils

            utils.clearCachedStates()
            utils.writeToFlagFile("/ota_applied_flag", "done")
            self._installed = True
        if step == "failed":
            logging.error("OTA: %s" % value)
        elif step not in ("bytes", "file"):
            logging.debug("OTA: %s %s" % (step, value))
        if self._file and step in ("install", "failed", "report"):
            file, self._file = self._file, None
            file.delete()
        if self._installed and (step in ("report", "later") or self._late):
            # What comes now is the reset.
            self._installed = False
            if step == "report" and self._tells:
                self._channel.ends = True  # it has something to say behind the report
            else:
                self._channel.leave()


def as_the_field_says(payload):
    """A report whose reason is one of the field's texts, without the detail that ours add."""
    try:
        pack = json.loads(payload)
        for entry in pack:
            if entry["n"] == "m":
                if entry["vs"].endswith(_MIGRATED):
                    from .arrive import said

                    return said(payload)
                text = entry["vs"].split(":")[0]
                if text in _FIELD_TEXTS:
                    entry["vs"] = text
                    return json.dumps(pack).encode()
    except (ValueError, KeyError, TypeError):
        pass  # a request that is put back
    return payload


class _Once:
    """The field's client, which has one message to tell of."""

    def __init__(self, client, heard):
        self._client = client
        self._heard = heard

    def get_control_message(self):
        heard, self._heard = self._heard, None
        return heard

    def __getattr__(self, name):
        return getattr(self._client, name)


def _pass_on(client, topic, message):
    """Give the field's own updater a message that is not about a package."""
    from apps.demo_console import field_ota

    field_ota.checkAndApply(_Once(client, {"topic": topic, "message": message}))
