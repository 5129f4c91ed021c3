"""What a node tells of an update on its topic `…/stat`: a pack when it begins, one at its end.

Only loaded where "stat" is true and there is something to do; docs/protocol.md has the records.
Nothing of it may change what becomes of an update. So it writes nothing to flash, what fails here
is told to nobody, and a pack goes out where the connection is not needed any more: a broker that
does not allow the topic may close it.
"""

import gc
import json
import os
import time

from micropython import const

from . import drop

_STATE = const("/.ota/state")
_COUNTED = const("/.ota/attempts")
_MOST = const(200)
# How long the broker may take to show that it has a pack: a close, a reset or a sleep may follow.
_WAIT_MS = const(1000)
_DAY_S = const(86400)
# As an ESP32 counts them, from 1 on; other ports have other numbers, or not all of them.
_CAUSES = const("PWRON_RESET HARD_RESET WDT_RESET DEEPSLEEP_RESET SOFT_RESET")


class Stat:
    """The packs of one contact. agent: the Agent. Only to make one may raise."""

    def __init__(self, agent):
        import machine

        self._agent = agent
        self._packs = []  # not sent yet, as bytes
        self._ended = []  # file ids
        self._free = gc.mem_free()
        self._at = None  # when the attempt has begun, in ticks
        self._attempts = _attempts()
        self._before = _floor()
        # The version that this contact may confirm.
        self._trial = _is_there(_STATE) and _head(1)
        cause = machine.reset_cause()
        self._cause = 0
        for number, name in enumerate(_CAUSES.split(" ")):
            if getattr(machine, name, None) == cause:
                self._cause = number + 1

    def look(self):
        """Look how much of the heap is free."""
        self._free = min(self._free, gc.mem_free())

    def begin(self, request, last):
        """An attempt at request has been counted and begins; last: whether it is the last one."""
        try:
            self._at = time.ticks_ms()
            before, self._attempts = self._attempts, _attempts()
            # An application's connection is needed until the end. Where the broker closes it for
            # this, the attempt ends as with any lost link; the next one goes on without it.
            if self._agent.client and (last or before[0] == request.file_id):
                return
            self.look()
            staged = max(0, int(self._attempts[3]))
            self._add(0, request.file_id, request.size, staged, None, None)
            # What else the broker has sent may not have been read: the close behind this resets
            # such a connection, and what the broker has not read by then may be lost.
            self.send(not self._agent.client)
        except Exception:
            pass

    def end(self, event, file_id):
        """The update to file_id (str) has ended: 1 applied, 2 failed, 3 withdrawn."""
        try:
            self._ended.append(file_id)
            confirmed = after = None
            # Not where a package of the application's is on trial by now.
            if event == 1 and self._trial in (None, file_id):
                confirmed = not _is_there(_STATE)
                after = _floor() if confirmed else _head(9)
            self._add(event, file_id, None, None, confirmed, after)
            if confirmed:
                self._agent.file_id = file_id
        except Exception:
            pass

    def gone(self):
        """End what earlier wakes have begun if nobody counts its attempts any more."""
        try:
            file_id = self._attempts[0]
            if file_id and file_id not in self._ended and not _is_there(_COUNTED):
                self.end(3, file_id)
        except Exception:
            pass

    def send(self, wait=True):
        """Publish what is there, or drop it. wait: until the broker shows that it has it."""
        packs, self._packs = self._packs, []
        control = self._agent.control
        try:
            if not (packs and control and control.link and control.limits.left_ms()):
                return
            topic = control.topic[:-3] + b"stat"
            for pack in packs:
                control.ask("publish", topic, pack, False, 0)
            # The client of an adapter has no connection of ours around its own, and has waited.
            if wait and control.link is not getattr(control, "socket", None):
                control.pings += 1
                control.ask("ping")
                end = time.ticks_add(time.ticks_ms(), _WAIT_MS)
                while control.pings > 0:
                    left_ms = time.ticks_diff(end, time.ticks_ms())
                    if left_ms < 0 or not control.call(control.link.readable, left_ms):
                        break
                    control.call(control.hear)
            control.call(control.link.flush)
        except Exception:
            pass  # there is no connection any more

    def close(self):
        """Publish what is there, and forget this module."""
        self.send()
        try:
            drop("stat")
            if self._trial and not _is_there(_STATE):
                self._agent.file_id = self._trial
        except Exception:
            pass  # no memory, say: what the update came to stands

    def _add(self, event, file_id, size, staged, confirmed, after):
        agent, attempts = self._agent, self._attempts
        count = fetched = passed_s = None
        if file_id and attempts[0] == file_id:
            count, fetched = int(attempts[1]), int(attempts[4])
            # Both by the clock at the attempt, so that nobody has set it in between.
            most_s = _DAY_S * agent.config["max_days"]
            passed_s = max(0, int(attempts[6]) - int(attempts[5]) + most_s)
            if self._at is not None:
                fetched = agent.fetched
                passed_s += time.ticks_diff(time.ticks_ms(), self._at) // 1000
        text = "["
        for name, value in (
            ("e", event),
            ("i", file_id),
            ("s", size),
            ("c", confirmed),
            ("a", count),
            ("g", staged),
            ("b", fetched),
            ("d", passed_s if event else None),
            ("h", self._free),
            ("r", self._cause),
            ("q", after),
            ("o", getattr(agent, "file_id", None)),
            ("p", self._before),
        ):
            if value is None:
                continue
            kind = "v"
            if type(value) is not int:
                kind = "vs" if type(value) is str else "vb"
            record = '{"n":"%s","%s":%s}' % (name, kind, json.dumps(value))
            if len((text + record).encode()) < _MOST:
                text += record + ","
        self._packs.append((text[:-1] + "]").encode())


def _attempts():
    """What attempt.py has counted on flash, as texts; the first is "" where there is nothing."""
    fields = [""]
    if _is_there(_COUNTED):
        from .install.transaction import load, read_mark

        fields = (load("attempts") or "").split(" ")
        mark = read_mark()
        if mark and len(fields) > 4:
            fields[4] = max(int(fields[4]), mark[7])
    return fields + [0] * (7 - len(fields))


def _head(number):
    """A field of the journal's head, of an open transaction; None where it is damaged."""
    from .recovery import read_head

    journal, head = read_head()
    return head[number] if journal else None


def _floor():
    """The sequence number of the last signed version that was confirmed, or None."""
    try:
        with open("/ota.sequence") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _is_there(path):
    try:
        return os.stat(path)
    except OSError as error:
        if error.args[0] != 2:
            raise
